#include "segment.h"

typedef struct {
    double share;    /* the largest used share among its quotas */
    sg_ticks expiry; /* ticks until all of it counts for nothing */
} weight;

static weight weigh(const sg_table *table, const sg_cell *cell, sg_ticks now) {
    weight w = {0, 0};
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_quota *q = &table->quotas[i];
        if (q->unlimited)
            continue;
        sg_state state = sg_cell_state(table, cell, i), next;
        sg_verdict v = sg_decide(q, &state, sg_state_log(table, i, &state), now, 0, &next);
        double share = (double)v.level / (double)q->capacity;
        if (share > w.share)
            w.share = share;
        w.expiry = sg_max(w.expiry, v.reset);
    }
    return w;
}

/* Whether the cell has a log of at least so many bytes. */
static bool gives(const sg_table *table, const sg_cell *cell, size_t wanted) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_state state = sg_cell_state(table, cell, i);
        const sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL && sg_log_bytes(log->capacity) >= wanted)
            return true;
    }
    return false;
}

bool sg_evict_from(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t wanted,
                   sg_ticks now) {
    sg_segment *s = sg_segment_at(table, place);
    if (s == NULL)
        return false;
    bool found = false, expired = false;
    uint32_t victim = 0;
    weight least = {0, 0};
    for (uint32_t i = 0; i < s->used;) {
        sg_cell *cell = sg_cell_at(table, s, i);
        if ((kept != NULL && sg_is_cell_of(cell, *kept)) || sg_cell_stays(table, cell, now)) {
            i++;
        } else if (sg_cell_expired(table, cell, now)) {
            sg_remove_at(table, s, i);
            sg_commit(&table->arena);
            expired = true;
        } else if (wanted > 0 && !gives(table, cell, wanted)) {
            i++;
        } else {
            weight w = weigh(table, cell, now);
            if (!found || w.share < least.share ||
                (w.share == least.share && w.expiry < least.expiry)) {
                found = true;
                least = w;
                victim = i;
            }
            i++;
        }
    }
    if (expired)
        return true;
    if (found) {
        sg_remove_at(table, s, victim);
        table->body->evictions++;
        sg_commit(&table->arena);
    }
    return found;
}

bool sg_evict(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t wanted,
              sg_ticks now) {
    uint64_t count = sg_segments(table);
    if (table->body->marked >= table->body->keys) {
        /* Each cell looks as if it had to stay: do not search them all for one that no
         * longer does, at every event of a flood. The sweep comes by. */
        sg_sweep_next(table, kept, now);
        count = 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = place + i < count ? place + i : place + i - count;
        if (sg_evict_from(table, at, kept, wanted, now)) {
            if (at != place)
                sg_shrink(table, at);
            return true;
        }
    }
    return false;
}

/* In a mapping pieces have sizes that do not add up: of two small ones no large one is made.
 * A log that gives as much goes first. What the cells of one segment leave together is enough
 * for most else, and for what is larger nobody else is forgotten in vain. */
static bool evict_for(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now) {
    const uint64_t place = sg_place_of(table, fp.lo);
    if (!sg_arena_is_shared(&table->arena))
        return sg_evict(table, place, &fp, 0, now);
    if (table->layout.logs && sg_evict(table, place, &fp, size, now))
        return true;
    return size <= sg_segment_bytes(table, SG_SEGMENT_LOAD) && sg_evict(table, place, &fp, 0, now);
}

sg_status sg_table_make_room(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now) {
    while (!sg_arena_has_room(&table->arena, size)) {
        if (!evict_for(table, fp, size, now))
            return SG_FULL;
    }
    return SG_OK;
}

sg_status sg_table_alloc(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now,
                         sg_cell **cell, sg_ref *out) {
    *out = sg_arena_alloc(&table->arena, size);
    if (*out != 0)
        return SG_OK;
    if (sg_arena_has_room(&table->arena, size))
        return SG_NO_MEMORY;
    sg_status status = sg_table_make_room(table, fp, size, now);
    *cell = sg_table_find(table, fp);
    if (status != SG_OK)
        return status;
    *out = sg_arena_alloc(&table->arena, size);
    return *out != 0 ? SG_OK : SG_NO_MEMORY;
}
