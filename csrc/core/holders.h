/* Concurrency across processes: who holds how many slots of a key. A process may die holding
 * some, so its share is kept apart, and is nobody's once it is dead.
 *
 * The cell of a key names a row of shares; it is there as long as one is not zero. */
#ifndef SG_HOLDERS_H
#define SG_HOLDERS_H

#include "fingerprint.h"
#include "sg.h"
#include "table.h"

typedef struct {
    uint64_t owner; /* a process; not 0 */
    uint64_t count;
} sg_share;

typedef struct {
    uint32_t used;
    uint32_t capacity;
    uint64_t unused;
    sg_share shares[];
} sg_holders;

/* Tells whether a process lives; asked only where it matters. */
typedef struct {
    bool (*lives)(void *context, uint64_t owner);
    void *context;
} sg_witness;

/* Takes a slot for `owner` if fewer than `limit` are held by the living; *held is the count
 * afterwards. A status other than SG_OK is no answer: nothing was taken. */
sg_status sg_holders_acquire(sg_table *table, sg_fingerprint fp, uint64_t limit, uint64_t owner,
                             const sg_witness *witness, sg_ticks now, bool *acquired,
                             uint64_t *held);

/* Gives one of `owner`'s back; of none it does nothing. */
void sg_holders_release(sg_table *table, sg_fingerprint fp, uint64_t owner);

uint64_t sg_holders_count(sg_table *table, sg_fingerprint fp, const sg_witness *witness);

/* Forgets the shares of a cell that is removed. */
void sg_holders_free(sg_table *table, const sg_cell *cell);

static inline size_t sg_holders_bytes(uint32_t capacity) {
    return sizeof(sg_holders) + capacity * sizeof(sg_share);
}

/* The row of a cell, or NULL; of a damaged mapping NULL too. */
sg_holders *sg_holders_of(const sg_table *table, const sg_cell *cell);

#endif
