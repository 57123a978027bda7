#include "claims.h"

#include <string.h>

#define FIRST_CAPACITY 4u

static void forget_lapsed(sg_table *table, sg_record *record, sg_ticks now) {
    const size_t size = sg_claim_bytes(table);
    uint32_t kept = 0;
    sg_claims_touch(table, record);
    for (uint32_t i = 0; i < record->open; i++) {
        const sg_claim *claim = sg_claim_at(table, record, i);
        if (claim->lapses > now)
            memmove(sg_claim_at(table, record, kept++), claim, size);
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
    if (record->open > 0)
        memcpy(sg_arena_at(&table->arena, ref), sg_claim_at(table, record, 0), record->open * size);
    sg_arena_free(&table->arena, record->claims, record->capacity * size);
    sg_touch(&table->arena, record, sizeof *record);
    record->claims = ref;
    record->capacity = capacity;
    return SG_OK;
}

sg_claim *sg_claims_add(sg_table *table, sg_record *record) {
    sg_touch(&table->arena, record, sizeof *record);
    sg_claim *claim = sg_claim_at(table, record, record->open++);
    memset(claim, 0, sg_claim_bytes(table));
    claim->id = ++table->body->claims;
    return claim;
}

int64_t sg_claims_find(const sg_table *table, const sg_record *record, uint64_t id) {
    uint32_t low = 0, high = record->open;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (sg_claim_at(table, record, middle)->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < record->open && sg_claim_at(table, record, low)->id == id ? (int64_t)low : -1;
}

void sg_claims_remove(sg_table *table, sg_record *record, uint32_t i) {
    const uint32_t after = --record->open - i;
    if (after > 0)
        memmove(sg_claim_at(table, record, i), sg_claim_at(table, record, i + 1),
                after * sg_claim_bytes(table));
}

void sg_claims_move(sg_table *table, sg_record *record, uint32_t first, unsigned i,
                    sg_ticks given) {
    for (uint32_t k = first; given > 0 && k < record->open; k++) {
        sg_claim *claim = sg_claim_at(table, record, k);
        claim->end[i] = sg_ahead(claim->end[i], given);
    }
}
