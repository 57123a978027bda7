/* The open reservations of a key, in the order in which they were made.
 *
 * A gcra charge is an interval of time to come, which ends at the tat that it left. Giving
 * one back moves all later ones towards now by as much; a refund must find its own where it
 * then lies, or it gives what has long been used again. */
#ifndef SG_CLAIMS_H
#define SG_CLAIMS_H

#include "table.h"

typedef struct {
    uint64_t id;
    sg_ticks lapses;
    sg_ticks end[]; /* of its interval, a quota; 0 where that is not gcra */
} sg_claim;

static inline size_t sg_claim_bytes(const sg_table *table) {
    return sizeof(sg_claim) + table->layout.quotas * sizeof(sg_ticks);
}

static inline sg_claim *sg_claim_at(const sg_table *table, const sg_record *record, uint32_t i) {
    char *claims = sg_arena_at(&table->arena, record->claims);
    return (sg_claim *)(void *)(claims + i * sg_claim_bytes(table));
}

/* Before claims are moved or removed: notes them all, once for whatever a call does to them. */
static inline void sg_claims_touch(const sg_table *table, const sg_record *record) {
    sg_touch(&table->arena, record, sizeof *record);
    if (record->open > 0)
        sg_touch(&table->arena, sg_claim_at(table, record, 0),
                 record->open * sg_claim_bytes(table));
}

/* Room for one claim more, where need be by forgetting lapsed ones. Cells move: *cell
 * follows, and the record stays where it is. */
sg_status sg_claims_make_room(sg_table *table, sg_fingerprint fp, sg_record *record, sg_ticks now,
                              sg_cell **cell);

/* The new last claim, zeroed but for its id, which is larger than all before. There is room. */
sg_claim *sg_claims_add(sg_table *table, sg_record *record);

/* The index of the claim of that id, or -1. */
int64_t sg_claims_find(const sg_table *table, const sg_record *record, uint64_t id);

/* The next two want them touched. */
void sg_claims_remove(sg_table *table, sg_record *record, uint32_t i);

/* Moves the intervals of quota i of all claims from index `first` on towards now. */
void sg_claims_move(sg_table *table, sg_record *record, uint32_t first, unsigned i,
                    sg_ticks given);

#endif
