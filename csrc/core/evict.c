#include "segment.h"

/* Segments that are searched for a log of some size. */
#define SEARCHED 8u
/* Pages that are looked at before one is emptied: each look walks the whole table. */
#define CANDIDATES 3u

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
            const uint32_t before = s->used;
            sg_remove_at(table, s, i);
            sg_commit(&table->arena);
            expired = true;
            if (SG_UNLIKELY(!sg_segment_holds(table, s) || s->used >= before))
                return true;
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
        sg_count(&table->body->evictions, 1);
        sg_commit(&table->arena);
    }
    return found;
}

bool sg_evict(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t wanted,
              sg_ticks now) {
    const uint64_t segments = sg_segments(table);
    uint64_t count = segments;
    if (table->body->marked >= table->body->keys) {
        /* Each cell looks as if it had to stay: do not search them all for one that no
         * longer does, at every event of a flood. The sweep comes by. */
        sg_sweep_next(table, kept, now);
        count = 1;
    }
    if (wanted > 0)
        count = sg_min(count, SEARCHED);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = place + i < segments ? place + i : place + i - segments;
        if (sg_evict_from(table, at, kept, wanted, now)) {
            if (at != place)
                sg_shrink(table, at);
            return true;
        }
    }
    return false;
}

/* ---- in a mapping, where pieces are cut from pages, and of two small ones no large one is made */

/* The first log of the cell, or 0. */
static sg_ref log_of(const sg_table *table, const sg_cell *cell) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_state state = sg_cell_state(table, cell, i);
        if (table->layout.algorithm[i] == SG_SLIDING_LOG && state.log.log != 0)
            return state.log.log;
    }
    return 0;
}

static uint64_t page_of(const sg_table *table, sg_ref ref) {
    return (ref - table->arena.start) / SG_ARENA_PAGE;
}

/* Whether a log of the cell lies in that page. */
static bool lies_in(const sg_table *table, const sg_cell *cell, uint64_t page) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_state state = sg_cell_state(table, cell, i);
        if (table->layout.algorithm[i] == SG_SLIDING_LOG && state.log.log != 0 &&
            page_of(table, state.log.log) == page)
            return true;
    }
    return false;
}

/* The largest share of the keys that have a log in the page; 2 where one of them must stay. */
static double heaviest_in(sg_table *table, uint64_t page, const sg_fingerprint *kept,
                          sg_ticks now) {
    double most = 0;
    for (uint64_t at = 0; at < sg_segments(table); at++) {
        sg_segment *s = sg_segment_at(table, at);
        for (uint32_t i = 0; s != NULL && i < s->used; i++) {
            const sg_cell *cell = sg_cell_at(table, s, i);
            if (!lies_in(table, cell, page))
                continue;
            if (sg_is_cell_of(cell, *kept) || sg_cell_stays(table, cell, now))
                return 2;
            const double share = weigh(table, cell, now).share;
            most = share > most ? share : most;
        }
    }
    return most;
}

/* Of the pages of a few light keys behind `place`, the one whose heaviest key is lightest;
 * UINT64_MAX where there is none. */
static uint64_t find_page(sg_table *table, uint64_t place, const sg_fingerprint *kept,
                          sg_ticks now) {
    const uint64_t count = sg_segments(table);
    uint64_t best = UINT64_MAX;
    double least = 2;
    unsigned candidates = 0;
    for (uint64_t n = 0; n < sg_min(count, SEARCHED) && candidates < CANDIDATES; n++) {
        sg_segment *s = sg_segment_at(table, (place + n) % count);
        sg_ref log = 0;
        double lightest = 2;
        for (uint32_t i = 0; s != NULL && i < s->used; i++) {
            const sg_cell *cell = sg_cell_at(table, s, i);
            if (log_of(table, cell) == 0 || sg_is_cell_of(cell, *kept) ||
                sg_cell_stays(table, cell, now))
                continue;
            const double share = weigh(table, cell, now).share;
            if (share < lightest) {
                lightest = share;
                log = log_of(table, cell);
            }
        }
        if (log == 0)
            continue;
        candidates++;
        const double share = heaviest_in(table, page_of(table, log), kept, now);
        if (share < least) {
            least = share;
            best = page_of(table, log);
        }
    }
    return best;
}

/* Evicts all keys that have a log in one page, which then serves logs of any size. As many
 * bytes are taken from the light keys as the heavy ones get. */
static bool evict_page(sg_table *table, uint64_t place, const sg_fingerprint *kept,
                       sg_ticks now) {
    const uint64_t page = find_page(table, place, kept, now);
    bool any = false;
    for (uint64_t at = 0; page != UINT64_MAX && at < sg_segments(table); at++) {
        sg_segment *s = sg_segment_at(table, at);
        for (uint32_t i = 0; s != NULL && i < s->used;) {
            const sg_cell *cell = sg_cell_at(table, s, i);
            if (!lies_in(table, cell, page) || sg_is_cell_of(cell, *kept) ||
                sg_cell_stays(table, cell, now)) {
                i++;
                continue;
            }
            if (!sg_cell_expired(table, cell, now))
                sg_count(&table->body->evictions, 1);
            const uint32_t before = s->used;
            sg_remove_at(table, s, i);
            sg_commit(&table->arena);
            any = true;
            if (SG_UNLIKELY(!sg_segment_holds(table, s) || s->used >= before))
                return any;
        }
    }
    return any;
}

/* A log that gives as much goes first, then a page of logs. What the cells of one segment
 * leave together is enough for most else, and for more nobody is forgotten in vain. */
static bool evict_for(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t size,
                      sg_ticks now) {
    if (table->layout.logs)
        return sg_evict(table, place, kept, size, now) || evict_page(table, place, kept, now);
    return size <= sg_segment_bytes(table, SG_SEGMENT_LOAD) && sg_evict(table, place, kept, 0, now);
}

/* Beyond that what is freed does not come together. */
#define ATTEMPTS 64u

sg_status sg_table_make_room(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now) {
    const uint64_t place = sg_place_of(table, fp.lo);
    const bool shared = sg_arena_is_shared(&table->arena);
    for (unsigned n = 0; !sg_arena_has_room(&table->arena, size); n += shared) {
        if (n == ATTEMPTS || !(shared ? evict_for(table, place, &fp, size, now)
                                      : sg_evict(table, place, &fp, 0, now)))
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
    if (SG_UNLIKELY(*cell == NULL))
        return SG_NO_MEMORY; /* of a damaged mapping */
    *out = sg_arena_alloc(&table->arena, size);
    return *out != 0 ? SG_OK : SG_NO_MEMORY;
}
