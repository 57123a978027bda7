#include "segment.h"

#include "claims.h"
#include "holders.h"

#include <string.h>

sg_status sg_cell_mark(sg_table *table, sg_cell *cell, sg_record **out) {
    *out = sg_cell_record(table, cell);
    if (*out != NULL)
        return SG_OK;
    sg_ref ref = sg_arena_alloc(&table->arena, sizeof(sg_record));
    if (ref == 0)
        return sg_arena_has_room(&table->arena, sizeof(sg_record)) ? SG_NO_MEMORY : SG_FULL;
    sg_record *record = sg_arena_at(&table->arena, ref);
    record->word = cell->words[0];
    sg_touch(&table->arena, &table->body->marked, sizeof table->body->marked);
    sg_touch(&table->arena, &cell->hi, 2 * sizeof(uint64_t));
    cell->words[0] = ref;
    cell->hi |= SG_CELL_MARKED;
    table->body->marked++;
    *out = record;
    return SG_OK;
}

static void unmark(sg_table *table, sg_cell *cell, sg_record *record) {
    uint64_t word = record->word;
    sg_arena_free(&table->arena, record->claims, record->capacity * sg_claim_bytes(table));
    sg_arena_free(&table->arena, cell->words[0], sizeof(sg_record));
    sg_touch(&table->arena, &table->body->marked, sizeof table->body->marked);
    sg_touch(&table->arena, &cell->hi, 2 * sizeof(uint64_t));
    cell->words[0] = word;
    cell->hi &= ~(uint64_t)SG_CELL_MARKED;
    table->body->marked--;
}

static bool record_counts(sg_record *record, sg_ticks now) {
    record->ban_until = sg_min(record->ban_until, now + record->ban_length);
    return record->ban_until > now || (record->open > 0 && record->pinned_until > now);
}

void sg_cell_tidy(sg_table *table, sg_cell *cell, sg_ticks now) {
    sg_record *record = sg_cell_record(table, cell);
    if (record != NULL && !record_counts(record, now))
        unmark(table, cell, record);
}

bool sg_cell_stays(const sg_table *table, const sg_cell *cell, sg_ticks now) {
    if (table->layout.quotas == 0)
        return cell->words[0] > 0;
    sg_record *record = sg_cell_record(table, cell);
    return record != NULL && record_counts(record, now);
}

bool sg_cell_expired(const sg_table *table, const sg_cell *cell, sg_ticks now) {
    if (sg_cell_stays(table, cell, now))
        return false;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        sg_state state = sg_cell_state(table, cell, i);
        if (!sg_expired(&table->quotas[i], &state, sg_state_log(table, i, &state), now))
            return false;
    }
    return true;
}

static void release(sg_table *table, sg_cell *cell) {
    sg_record *record = sg_cell_record(table, cell);
    if (record != NULL)
        unmark(table, cell, record);
    if (table->layout.quotas == 0 && sg_arena_is_shared(&table->arena))
        sg_holders_free(table, cell);
    if (!table->layout.logs)
        return;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        sg_state state = sg_cell_state(table, cell, i);
        const sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_arena_free(&table->arena, state.log.log, sg_log_bytes(log->capacity));
    }
}

void sg_remove_at(sg_table *table, sg_segment *s, uint32_t i) {
    release(table, sg_cell_at(table, s, i));
    if (SG_UNLIKELY(!sg_segment_holds(table, s) || i >= s->used))
        return;
    sg_touch(&table->arena, &table->body->keys, sizeof table->body->keys);
    sg_touch(&table->arena, &s->used, sizeof s->used);
    uint32_t last = --s->used;
    if (i != last) {
        sg_touch(&table->arena, &s->tags[i], 1);
        sg_touch(&table->arena, sg_cell_at(table, s, i), sg_cell_bytes(table));
        s->tags[i] = s->tags[last];
        memcpy(sg_cell_at(table, s, i), sg_cell_at(table, s, last), sg_cell_bytes(table));
    }
    sg_count(&table->body->keys, UINT64_MAX); /* one less */
}

bool sg_resize(sg_table *table, sg_ref *ref, uint32_t capacity) {
    sg_segment *old = sg_segment_of(table, *ref);
    if (capacity == 0) {
        if (old != NULL)
            sg_arena_free(&table->arena, *ref, sg_segment_bytes(table, old->capacity));
        sg_touch(&table->arena, ref, sizeof *ref);
        *ref = 0;
        return true;
    }
    sg_ref new_ref = sg_arena_alloc(&table->arena, sg_segment_bytes(table, capacity));
    if (new_ref == 0)
        return false;
    sg_segment *s = sg_arena_at(&table->arena, new_ref);
    s->capacity = capacity;
    /* Of a damaged mapping the new piece may be the old one. */
    if (old != NULL && SG_LIKELY(sg_segment_holds(table, old))) {
        const uint32_t used = (uint32_t)sg_min(old->used, capacity);
        const uint32_t old_capacity = old->capacity;
        s->used = used;
        memmove(s->tags, old->tags, used);
        if (SG_LIKELY(sg_segment_holds(table, old)))
            memmove(sg_cell_at(table, s, 0), sg_cell_at(table, old, 0),
                    used * sg_cell_bytes(table));
        sg_arena_free(&table->arena, *ref, sg_segment_bytes(table, old_capacity));
    }
    sg_touch(&table->arena, ref, sizeof *ref);
    *ref = new_ref;
    return true;
}

void sg_shrink(sg_table *table, uint64_t place) {
    sg_ref *ref = sg_ref_at(table, place);
    sg_segment *s = sg_segment_of(table, *ref);
    if (s != NULL && (s->used == 0 || s->capacity - s->used >= 2 * SG_SEGMENT_STEP))
        sg_resize(table, ref, sg_rounded(s->used));
    sg_commit(&table->arena);
}

uint32_t sg_sweep_segment(sg_table *table, sg_segment *s, const sg_fingerprint *kept,
                          sg_ticks now) {
    uint32_t before = s->used;
    for (uint32_t i = 0; i < s->used;) {
        const sg_cell *cell = sg_cell_at(table, s, i);
        if ((kept == NULL || !sg_is_cell_of(cell, *kept)) && sg_cell_expired(table, cell, now)) {
            sg_remove_at(table, s, i);
            sg_commit(&table->arena); /* what counts for nothing may go by itself */
            if (SG_UNLIKELY(!sg_segment_holds(table, s) || s->used >= before))
                return 0;
        } else {
            i++;
        }
    }
    return before - s->used;
}

void sg_sweep_next(sg_table *table, const sg_fingerprint *kept, sg_ticks now) {
    sg_table_body *body = table->body;
    if (body->sweep >= sg_segments(table))
        body->sweep = 0;
    sg_segment *s = sg_segment_at(table, body->sweep);
    if (s != NULL) {
        sg_sweep_segment(table, s, kept, now);
        sg_shrink(table, body->sweep);
    }
    body->sweep++;
}
