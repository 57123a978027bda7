#include "claims.h"

#include <string.h>

#define FIRST_CAPACITY 4u

static void forget_lapsed(sg_table *table, sg_record *record, sg_ticks now) {
    uint32_t kept = 0;
    sg_claims_touch(table, record);
    const sg_claims claims = sg_claims_of(table, record);
    for (uint32_t i = 0; i < claims.open; i++) {
        const sg_claim *claim = sg_claim_at(&claims, i);
        if (claim->lapses > now)
            memmove(sg_claim_at(&claims, kept++), claim, claims.size);
    }
    record->open = kept;
}

sg_status sg_claims_make_room(sg_table *table, sg_fingerprint fp, sg_record *record, sg_ticks now,
                              sg_cell **cell) {
    if (record->open < record->capacity)
        return SG_OK;
    forget_lapsed(table, record, now);
    if (record->open < record->capacity)
        return SG_OK;
    const size_t size = sg_claim_bytes(table);
    const uint32_t capacity = record->capacity == 0 ? FIRST_CAPACITY : record->capacity * 2;
    sg_ref ref;
    sg_status status = sg_table_alloc(table, fp, capacity * size, now, cell, &ref);
    if (status != SG_OK)
        return status;
    const sg_claims claims = sg_claims_of(table, record);
    const uint32_t open = (uint32_t)sg_min(claims.open, capacity / 2);
    if (open > 0)
        memmove(sg_arena_at(&table->arena, ref), claims.first, open * size);
    sg_arena_free(&table->arena, record->claims, record->capacity * size);
    sg_touch(&table->arena, record, sizeof *record);
    record->claims = ref;
    record->capacity = capacity;
    return SG_OK;
}

sg_claim *sg_claims_add(sg_table *table, sg_record *record) {
    const sg_claims claims = sg_claims_of(table, record);
    if (SG_UNLIKELY(claims.first == NULL || claims.open >= record->capacity))
        return NULL;
    sg_touch(&table->arena, record, sizeof *record);
    record->open++;
    sg_claim *claim = sg_claim_at(&claims, claims.open);
    memset(claim, 0, claims.size);
    claim->id = ++table->body->claims;
    return claim;
}

sg_ticks sg_claims_end(const sg_table *table, const sg_record *record, uint32_t index,
                       unsigned i) {
    const sg_claims claims = sg_claims_of(table, record);
    return SG_LIKELY(index < claims.open) ? sg_claim_at(&claims, index)->end[i] : 0;
}

int64_t sg_claims_find(const sg_table *table, const sg_record *record, uint64_t id) {
    const sg_claims claims = sg_claims_of(table, record);
    uint32_t low = 0, high = claims.open;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (sg_claim_at(&claims, middle)->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < claims.open && sg_claim_at(&claims, low)->id == id ? (int64_t)low : -1;
}

void sg_claims_remove(sg_table *table, sg_record *record, uint32_t i) {
    const sg_claims claims = sg_claims_of(table, record);
    if (SG_UNLIKELY(i >= claims.open))
        return; /* of a damaged mapping */
    record->open = claims.open - 1;
    const uint32_t after = claims.open - 1 - i;
    if (after > 0)
        memmove(sg_claim_at(&claims, i), sg_claim_at(&claims, i + 1), after * claims.size);
}

void sg_claims_move(sg_table *table, sg_record *record, uint32_t first, unsigned i,
                    sg_ticks given) {
    const sg_claims claims = sg_claims_of(table, record);
    for (uint32_t k = first; given > 0 && k < claims.open; k++) {
        sg_claim *claim = sg_claim_at(&claims, k);
        claim->end[i] = sg_ahead(claim->end[i], given);
    }
}
