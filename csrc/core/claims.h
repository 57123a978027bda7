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

/* The claims of a record, as it says at this moment: of a damaged mapping two pieces may lie in
 * one place, and a change of one change the other. */
typedef struct {
    char *first;
    size_t size; /* of each */
    uint32_t open;
} sg_claims;

static inline sg_claims sg_claims_of(const sg_table *table, const sg_record *record) {
    const sg_arena *arena = &table->arena;
    sg_claims c = {.size = sg_claim_bytes(table), .open = record->open};
    if (SG_UNLIKELY(sg_arena_is_shared(arena)) && record->claims != 0 &&
        (record->open > record->capacity || record->capacity > SG_ARENA_PAGE))
        sg_arena_damage(arena);
    else
        c.first = sg_arena_find(arena, record->claims, record->capacity * c.size);
    if (c.first == NULL)
        c.open = 0;
    return c;
}

static inline sg_claim *sg_claim_at(const sg_claims *claims, uint32_t i) {
    return (sg_claim *)(void *)(claims->first + i * claims->size);
}

/* Before claims are moved or removed: notes them all, once for whatever a call does to them. */
static inline void sg_claims_touch(const sg_table *table, const sg_record *record) {
    const sg_claims claims = sg_claims_of(table, record);
    sg_touch(&table->arena, record, sizeof *record);
    if (claims.open > 0)
        sg_touch(&table->arena, claims.first, claims.open * claims.size);
}

/* Room for one claim more, where need be by forgetting lapsed ones. Cells move: *cell
 * follows, and the record stays where it is. */
sg_status sg_claims_make_room(sg_table *table, sg_fingerprint fp, sg_record *record, sg_ticks now,
                              sg_cell **cell);

/* The new last claim, zeroed but for its id, which is larger than all before. There is room;
 * NULL where a damaged mapping says otherwise. */
sg_claim *sg_claims_add(sg_table *table, sg_record *record);

/* When the interval of quota i that a claim is about ends. */
sg_ticks sg_claims_end(const sg_table *table, const sg_record *record, uint32_t index,
                       unsigned i);

/* The index of the claim of that id, or -1. */
int64_t sg_claims_find(const sg_table *table, const sg_record *record, uint64_t id);

/* The next two want them touched. */
void sg_claims_remove(sg_table *table, sg_record *record, uint32_t i);

/* Moves the intervals of quota i of all claims from index `first` on towards now. */
void sg_claims_move(sg_table *table, sg_record *record, uint32_t first, unsigned i,
                    sg_ticks given);

#endif
