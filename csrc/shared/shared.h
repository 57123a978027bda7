/* The tables of limiters in a file that processes share: opening the file, finding a limiter
 * in it, and entering the shard of a key.
 *
 * Between sg_shared_enter and sg_shared_leave, `table` of a sg_shared_table is a table like
 * any other, of the keys of one shard; every function of the core may be called with it. No
 * other shard may be entered meanwhile, and nothing may be waited for. */
#ifndef SG_SHARED_H
#define SG_SHARED_H

#include "file.h"
#include "heap.h"
#include "lock.h"

/* Processes that died while they held slots are asked for once in so long. */
#define SG_SHARED_LIVES 16u

typedef struct {
    sg_file file;
    sg_locks locks;
    sg_root *root; /* its division is in locks.map */
    struct {
        sg_owner owner;
        int64_t looked_ns;
        bool lives;
    } lives[SG_SHARED_LIVES];
} sg_shared;

typedef enum {
    SG_SHARED_OK = 0,
    SG_SHARED_FILE,     /* see the file's error */
    SG_SHARED_NO_SEAT,  /* as many processes have it open as it has seats */
    SG_SHARED_NO_ENTRY, /* it knows as many limiters as it can */
    SG_SHARED_NO_PAGES, /* no room for another limiter */
    SG_SHARED_NAME,     /* the limiter's name is empty or longer than SG_NAME_BYTES */
    SG_SHARED_STALLED,  /* a process that is stopped has a lock */
} sg_shared_error;

/* keep: what an earlier run left stays; else the first process, when no other has the file
 * open, starts with it empty. */
sg_shared_error sg_shared_open(sg_shared *shared, const char *path, uint64_t size, bool keep,
                               sg_file_error *file_error, int *system_error);
void sg_shared_close(sg_shared *shared);

/* The part of it that looks at a mapping of `size` bytes, without taking a seat. False: it is
 * not laid out as its size says. */
bool sg_shared_map(sg_shared *shared, void *base, uint64_t size);

static inline const sg_file_header *sg_shared_header(const sg_shared *shared) {
    return (const sg_file_header *)(const void *)shared->file.base;
}

typedef struct {
    sg_shared *shared;
    sg_entry *entry;
    sg_table table;
    sg_heap_view heap;
    sg_shard *shard; /* entered; NULL: none */
    uint64_t row;    /* offset of the first shard */
    uint64_t mask;   /* shards - 1 */
    uint64_t version; /* of the known numbers that the table has */
    bool damaged;    /* what the shard holds cannot be */
    bool other_shape; /* another limiter of the same name has other algorithms */
} sg_shared_table;

/* Finds the limiter of that name and of those algorithms (none: a table of slots), and makes
 * it where there is none. `text` is what its quotas are, for people. The table must stay
 * where it is. */
sg_shared_error sg_shared_table_open(sg_shared_table *t, sg_shared *shared, const char *name,
                                     size_t name_length, const char *text, size_t text_length,
                                     unsigned count, const uint8_t *algorithms);

/* The limiter number i, if there is one. */
bool sg_shared_table_at(sg_shared_table *t, sg_shared *shared, uint32_t i);

/* Takes the lock of a key's shard. False: not to be had, because the process that has it is
 * stopped. */
bool sg_shared_enter(sg_shared_table *t, sg_fingerprint fp);
bool sg_shared_enter_shard(sg_shared_table *t, uint32_t i);

static inline uint32_t sg_shared_shard_of(const sg_shared_table *t, sg_fingerprint fp) {
    return (uint32_t)(fp.lo >> 40 & t->mask);
}

/* The clock that all processes go by, read now. */
typedef sg_ticks sg_shared_clock(void *context);

/* When what is done in the entered shard is done: at `now`, which was read before the lock was had,
 * but never before what was done there last. */
sg_ticks sg_shared_moment(sg_shared_table *t, sg_ticks now, sg_shared_clock *clock, void *context);

void sg_shared_leave(sg_shared_table *t);

/* Forgets every key. False: some shard was not to be had. */
bool sg_shared_clear(sg_shared_table *t);

/* What all processes counted, with keys, evictions and bytes. May be read without a lock. */
typedef struct {
    sg_counts counts;
    uint64_t keys, evictions, bytes;
} sg_shared_sum;
void sg_shared_add_up(const sg_shared_table *t, sg_shared_sum *sum);

/* What the users of a limiter count besides decisions, over all processes. */
static inline void sg_shared_tally(const sg_shared_table *t, unsigned i, uint64_t more) {
    __atomic_fetch_add(&t->entry->tallies[i], more, __ATOMIC_RELAXED);
}

static inline uint64_t sg_shared_tallied(const sg_shared_table *t, unsigned i) {
    return __atomic_load_n(&t->entry->tallies[i], __ATOMIC_RELAXED);
}

/* Whether a process that holds slots lives; for sg_witness, the context is the sg_shared. */
bool sg_shared_lives(void *context, uint64_t owner);

/* Walks the whole table and tells how many things in it cannot be: 0 of a good one. `what`
 * gets the first one. Takes the locks one after another. For tests, and after damage. */
uint64_t sg_shared_check(sg_shared_table *t, const char **what);

#endif
