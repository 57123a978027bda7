#include "table.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* A segment grows and shrinks by this many cells. */
#define STEP 8u
/* Mean cells a segment at which the next one is split. */
#define LOAD 48u
/* One insert in so many sweeps a segment. */
#define SWEEP_EVERY 8u

typedef struct {
    uint32_t used;
    uint32_t capacity; /* a multiple of STEP */
    uint64_t unused;   /* keeps the tags aligned to 16 */
    uint8_t tags[];    /* capacity of them, then the cells */
} segment;

static inline size_t cell_bytes(const sg_table *table) {
    return sizeof(sg_cell) + table->layout.words * sizeof(uint64_t);
}

static inline size_t segment_bytes(const sg_table *table, uint32_t capacity) {
    return sizeof(segment) + capacity * (1 + cell_bytes(table));
}

static inline sg_cell *cell_at(const sg_table *table, segment *s, uint32_t i) {
    return (sg_cell *)(void *)(s->tags + s->capacity + i * cell_bytes(table));
}

static inline uint8_t tag_of(uint64_t lo) { return (uint8_t)(lo >> 56); }

static inline bool is_cell_of(const sg_cell *cell, sg_fingerprint fp) {
    return cell->lo == fp.lo && (cell->hi & ~UINT64_C(0xff)) == fp.hi;
}

/* ---- linear hashing ---- */

static inline uint64_t segments(const sg_table *table) {
    return (UINT64_C(1) << table->level) + table->split;
}

static inline uint64_t place_of(const sg_table *table, uint64_t lo) {
    uint64_t mask = (UINT64_C(1) << table->level) - 1;
    uint64_t i = lo & mask;
    return i < table->split ? (lo & (mask * 2 + 1)) : i;
}

static inline unsigned chunk_of(uint64_t place) {
    return place == 0 ? 0 : 64u - (unsigned)__builtin_clzll(place);
}

static inline size_t chunk_bytes(unsigned chunk) {
    return (chunk == 0 ? 1 : (size_t)1 << (chunk - 1)) * sizeof(sg_ref);
}

static inline sg_ref *ref_at(sg_table *table, uint64_t place) {
    unsigned chunk = chunk_of(place);
    return &table->chunks[chunk][chunk == 0 ? 0 : place - (UINT64_C(1) << (chunk - 1))];
}

static inline segment *segment_at(sg_table *table, uint64_t place) {
    return sg_arena_at(&table->arena, *ref_at(table, place));
}

/* ---- cells ---- */

static sg_cell *find_in(const sg_table *table, segment *s, sg_fingerprint fp) {
    const uint8_t tag = tag_of(fp.lo);
#ifdef __SSE2__
    const __m128i wanted = _mm_set1_epi8((char)tag);
    for (uint32_t base = 0; base < s->used; base += 16) {
        /* The load may reach past the tags into the cells, whose bytes the mask drops. */
        __m128i tags = _mm_loadu_si128((const __m128i *)(const void *)(s->tags + base));
        unsigned hits = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, wanted));
        uint32_t left = s->used - base;
        if (left < 16)
            hits &= (1u << left) - 1u;
        for (; hits != 0; hits &= hits - 1) {
            sg_cell *cell = cell_at(table, s, base + (uint32_t)__builtin_ctz(hits));
            if (SG_LIKELY(is_cell_of(cell, fp)))
                return cell;
        }
    }
#else
    for (uint32_t i = 0; i < s->used; i++) {
        if (s->tags[i] == tag && is_cell_of(cell_at(table, s, i), fp))
            return cell_at(table, s, i);
    }
#endif
    return NULL;
}

sg_cell *sg_table_find(sg_table *table, sg_fingerprint fp) {
    segment *s = segment_at(table, place_of(table, fp.lo));
    return s == NULL ? NULL : find_in(table, s, fp);
}

sg_record *sg_cell_record(const sg_table *table, const sg_cell *cell) {
    return (cell->hi & SG_CELL_MARKED) ? sg_arena_at(&table->arena, cell->words[0]) : NULL;
}

sg_state sg_cell_state(const sg_table *table, const sg_cell *cell, unsigned i) {
    sg_state state = {{0, 0, 0}};
    unsigned offset = table->layout.offset[i];
    memcpy(state.words, cell->words + offset,
           sg_state_words(table->layout.algorithm[i]) * sizeof(uint64_t));
    if (offset == 0 && (cell->hi & SG_CELL_MARKED))
        state.words[0] = sg_cell_record(table, cell)->word;
    return state;
}

void sg_cell_set_state(sg_table *table, sg_cell *cell, unsigned i, const sg_state *state) {
    unsigned offset = table->layout.offset[i], from = 0;
    if (offset == 0 && (cell->hi & SG_CELL_MARKED)) {
        sg_cell_record(table, cell)->word = state->words[0];
        from = 1;
    }
    for (unsigned w = from; w < sg_state_words(table->layout.algorithm[i]); w++)
        cell->words[offset + w] = state->words[w];
}

sg_status sg_cell_mark(sg_table *table, sg_cell *cell, sg_record **out) {
    *out = sg_cell_record(table, cell);
    if (*out != NULL)
        return SG_OK;
    sg_ref ref = sg_arena_alloc(&table->arena, sizeof(sg_record));
    if (ref == 0)
        return sg_arena_has_room(&table->arena, sizeof(sg_record)) ? SG_NO_MEMORY : SG_FULL;
    sg_record *record = sg_arena_at(&table->arena, ref);
    record->word = cell->words[0];
    cell->words[0] = ref;
    cell->hi |= SG_CELL_MARKED;
    table->marked++;
    *out = record;
    return SG_OK;
}

static void unmark(sg_table *table, sg_cell *cell, sg_record *record) {
    uint64_t word = record->word;
    sg_arena_free(&table->arena, cell->words[0], sizeof *record);
    cell->words[0] = word;
    cell->hi &= ~(uint64_t)SG_CELL_MARKED;
    table->marked--;
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

/* What must stay whatever happens: bans, open reservations, held slots. */
static bool stays(const sg_table *table, const sg_cell *cell, sg_ticks now) {
    if (table->layout.quotas == 0)
        return cell->words[0] > 0;
    sg_record *record = sg_cell_record(table, cell);
    return record != NULL && record_counts(record, now);
}

bool sg_cell_expired(const sg_table *table, const sg_cell *cell, sg_ticks now) {
    if (stays(table, cell, now))
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
    if (!table->layout.logs)
        return;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        sg_state state = sg_cell_state(table, cell, i);
        const sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_arena_free(&table->arena, state.log.log, sg_log_bytes(log->capacity));
    }
}

/* The last cell takes the place of the one that goes. */
static void remove_at(sg_table *table, segment *s, uint32_t i) {
    release(table, cell_at(table, s, i));
    uint32_t last = --s->used;
    if (i != last) {
        s->tags[i] = s->tags[last];
        memcpy(cell_at(table, s, i), cell_at(table, s, last), cell_bytes(table));
    }
    table->keys--;
}

void sg_table_remove(sg_table *table, sg_cell *cell) {
    segment *s = segment_at(table, place_of(table, cell->lo));
    size_t bytes = (size_t)((uint8_t *)cell - (uint8_t *)cell_at(table, s, 0));
    remove_at(table, s, (uint32_t)(bytes / cell_bytes(table)));
}

/* ---- segments ---- */

/* Moves a segment (or none) to one of another capacity. False: no memory, as it was. */
static bool resize(sg_table *table, sg_ref *ref, uint32_t capacity) {
    segment *old = sg_arena_at(&table->arena, *ref);
    if (capacity == 0) {
        if (old != NULL)
            sg_arena_free(&table->arena, *ref, segment_bytes(table, old->capacity));
        *ref = 0;
        return true;
    }
    sg_ref new_ref = sg_arena_alloc(&table->arena, segment_bytes(table, capacity));
    if (new_ref == 0)
        return false;
    segment *s = sg_arena_at(&table->arena, new_ref);
    s->capacity = capacity;
    if (old != NULL) {
        s->used = old->used;
        memcpy(s->tags, old->tags, old->used);
        memcpy(cell_at(table, s, 0), cell_at(table, old, 0), old->used * cell_bytes(table));
        sg_arena_free(&table->arena, *ref, segment_bytes(table, old->capacity));
    }
    *ref = new_ref;
    return true;
}

static inline uint32_t rounded(uint32_t cells) { return (cells + STEP - 1) / STEP * STEP; }

/* Gives back what a segment has had no use for; fails silently, being only thrift. */
static void shrink(sg_table *table, uint64_t place) {
    sg_ref *ref = ref_at(table, place);
    segment *s = sg_arena_at(&table->arena, *ref);
    if (s != NULL && s->capacity - s->used >= 2 * STEP)
        resize(table, ref, rounded(s->used));
}

static uint32_t sweep_segment(sg_table *table, segment *s, sg_ticks now) {
    uint32_t before = s->used;
    for (uint32_t i = 0; i < s->used;) {
        if (sg_cell_expired(table, cell_at(table, s, i), now))
            remove_at(table, s, i);
        else
            i++;
    }
    return before - s->used;
}

/* Splits the next segment in turn. Where there is no memory it does not: segments then
 * grow longer than they should, and nothing else happens. */
static void split_next(sg_table *table) {
    if (table->level + 1 >= SG_TABLE_CHUNKS)
        return;
    uint64_t from = table->split, to = (UINT64_C(1) << table->level) + table->split;
    unsigned chunk = chunk_of(to);
    if (table->chunks[chunk] == NULL) {
        sg_ref memory = sg_arena_alloc(&table->arena, chunk_bytes(chunk));
        if (memory == 0)
            return;
        table->chunks[chunk] = sg_arena_at(&table->arena, memory);
    }
    segment *s = segment_at(table, from);
    const uint64_t bit = UINT64_C(1) << table->level;
    uint32_t moving = 0;
    for (uint32_t i = 0; s != NULL && i < s->used; i++)
        moving += (cell_at(table, s, i)->lo & bit) != 0;
    sg_ref *to_ref = ref_at(table, to);
    if (moving > 0) {
        if (!resize(table, to_ref, rounded(moving)))
            return;
        segment *t = sg_arena_at(&table->arena, *to_ref);
        uint32_t kept = 0;
        for (uint32_t i = 0; i < s->used; i++) {
            sg_cell *cell = cell_at(table, s, i);
            bool moves = (cell->lo & bit) != 0;
            segment *target = moves ? t : s;
            uint32_t at = moves ? t->used++ : kept++;
            target->tags[at] = s->tags[i];
            memmove(cell_at(table, target, at), cell, cell_bytes(table));
        }
        s->used = kept;
        shrink(table, from);
    }
    table->split++;
    if (table->split == bit) {
        table->level++;
        table->split = 0;
    }
}

static void sweep_next(sg_table *table, sg_ticks now) {
    if (table->sweep >= segments(table))
        table->sweep = 0;
    segment *s = segment_at(table, table->sweep);
    if (s != NULL) {
        sweep_segment(table, s, now);
        shrink(table, table->sweep);
    }
    table->sweep++;
}

/* ---- making room ---- */

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

/* Evicts from one segment: expired cells, else the lightest that may go. `kept` stays. */
static bool evict_from(sg_table *table, uint64_t place, const sg_fingerprint *kept,
                       sg_ticks now) {
    segment *s = segment_at(table, place);
    if (s == NULL)
        return false;
    bool found = false, expired = false;
    uint32_t victim = 0;
    weight least = {0, 0};
    for (uint32_t i = 0; i < s->used;) {
        sg_cell *cell = cell_at(table, s, i);
        if ((kept != NULL && is_cell_of(cell, *kept)) || stays(table, cell, now)) {
            i++;
        } else if (sg_cell_expired(table, cell, now)) {
            remove_at(table, s, i);
            expired = true;
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
        remove_at(table, s, victim);
        table->evictions++;
    }
    return found;
}

/* Evicts one or more cells, from the given place or the next one that has any. */
static bool evict(sg_table *table, uint64_t place, const sg_fingerprint *kept, sg_ticks now) {
    uint64_t count = segments(table);
    if (table->marked >= table->keys) {
        /* Each cell looks as if it had to stay: do not search them all for one that no
         * longer does, at every event of a flood. The sweep comes by. */
        sweep_next(table, now);
        count = 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = place + i < count ? place + i : place + i - count;
        if (evict_from(table, at, kept, now)) {
            if (at != place)
                shrink(table, at);
            return true;
        }
    }
    return false;
}

sg_status sg_table_make_room(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now) {
    while (!sg_arena_has_room(&table->arena, size)) {
        if (!evict(table, place_of(table, fp.lo), &fp, now))
            return SG_FULL;
    }
    return SG_OK;
}

static sg_status make_cell_room(sg_table *table, uint64_t place, sg_fingerprint fp,
                                sg_ticks now) {
    if (table->keys >= table->max_keys && !evict(table, place, NULL, now))
        return SG_FULL;
    sg_ref *ref = ref_at(table, place);
    segment *s = sg_arena_at(&table->arena, *ref);
    if (s != NULL && s->used == s->capacity)
        sweep_segment(table, s, now);
    uint32_t capacity = s == NULL ? 0 : s->capacity;
    if (s != NULL && s->used < capacity)
        return SG_OK;
    size_t size = segment_bytes(table, capacity + STEP);
    if (resize(table, ref, capacity + STEP))
        return SG_OK;
    if (sg_arena_has_room(&table->arena, size))
        return SG_NO_MEMORY;
    /* The bound in bytes is reached: the key takes a place here, or memory from elsewhere. */
    if (evict_from(table, place, NULL, now))
        return SG_OK;
    if (sg_table_make_room(table, fp, size, now) != SG_OK)
        return SG_FULL;
    ref = ref_at(table, place);
    return resize(table, ref, capacity + STEP) ? SG_OK : SG_NO_MEMORY;
}

sg_status sg_table_insert(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **out) {
    if (++table->inserts % SWEEP_EVERY == 0)
        sweep_next(table, now);
    if (table->keys >= LOAD * segments(table))
        split_next(table);
    uint64_t place = place_of(table, fp.lo);
    sg_status status = make_cell_room(table, place, fp, now);
    if (status != SG_OK)
        return status;
    segment *s = segment_at(table, place);
    uint32_t i = s->used++;
    sg_cell *cell = cell_at(table, s, i);
    memset(cell, 0, cell_bytes(table));
    cell->lo = fp.lo;
    cell->hi = fp.hi;
    s->tags[i] = tag_of(fp.lo);
    table->keys++;
    *out = cell;
    return SG_OK;
}

/* ---- the whole table ---- */

sg_status sg_table_init(sg_table *table, const sg_allocator *allocator, unsigned count,
                        const uint8_t *algorithms, uint64_t max_keys, uint64_t max_bytes) {
    memset(table, 0, sizeof *table);
    sg_arena_init(&table->arena, allocator, max_bytes);
    table->layout.quotas = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        table->layout.algorithm[i] = algorithms[i];
        table->layout.offset[i] = table->layout.words;
        table->layout.words = (uint8_t)(table->layout.words + sg_state_words(algorithms[i]));
        table->layout.logs |= algorithms[i] == SG_SLIDING_LOG;
        table->quotas[i].algorithm = algorithms[i];
        table->quotas[i].unlimited = true;
    }
    if (count == 0)
        table->layout.words = 1;
    table->max_keys = max_keys;
    table->chunks[0] = &table->first;
    return SG_OK;
}

void sg_table_clear(sg_table *table) {
    for (uint64_t place = 0; place < segments(table); place++) {
        segment *s = segment_at(table, place);
        while (s != NULL && s->used > 0)
            remove_at(table, s, s->used - 1);
        resize(table, ref_at(table, place), 0);
    }
    for (unsigned chunk = 1; chunk < SG_TABLE_CHUNKS; chunk++) {
        sg_arena_free(&table->arena, (sg_ref)(uintptr_t)table->chunks[chunk], chunk_bytes(chunk));
        table->chunks[chunk] = NULL;
    }
    table->level = table->split = 0;
    table->sweep = table->marked = 0;
}

void sg_table_free(sg_table *table) { sg_table_clear(table); }

void sg_table_know(sg_table *table, const sg_quota *quotas) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (!quotas[i].unlimited &&
            (table->quotas[i].unlimited || quotas[i].period > table->quotas[i].period))
            table->quotas[i] = quotas[i];
    }
}

void sg_table_each(sg_table *table, void (*visit)(void *context, sg_table *, sg_cell *),
                   void *context) {
    for (uint64_t place = 0; place < segments(table); place++) {
        segment *s = segment_at(table, place);
        for (uint32_t i = 0; s != NULL && i < s->used; i++)
            visit(context, table, cell_at(table, s, i));
    }
}

uint64_t sg_table_bytes(const sg_table *table) { return table->arena.bytes; }
