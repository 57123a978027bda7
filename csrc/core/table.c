#include "segment.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What a segment of that load takes, about. */
#define REACH 512u
/* One insert in so many sweeps a segment. */
#define SWEEP_EVERY 3u

static sg_cell *find_in(const sg_table *table, sg_segment *s, sg_fingerprint fp) {
    const uint8_t tag = sg_tag_of(fp.lo);
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
            sg_cell *cell = sg_cell_at(table, s, base + (uint32_t)__builtin_ctz(hits));
            if (SG_LIKELY(sg_is_cell_of(cell, fp)))
                return cell;
        }
    }
#else
    for (uint32_t i = 0; i < s->used; i++) {
        if (s->tags[i] == tag && sg_is_cell_of(sg_cell_at(table, s, i), fp))
            return sg_cell_at(table, s, i);
    }
#endif
    return NULL;
}

sg_cell *sg_table_find(sg_table *table, sg_fingerprint fp) {
    sg_segment *s = sg_segment_at(table, sg_place_of(table, fp.lo));
    if (s == NULL)
        return NULL;
    /* Which line of memory has the cell is known only once the tags have come. All are asked
     * for at once, so that a cold key waits for memory once and not twice. */
    for (size_t at = 64; at < REACH; at += 64)
        __builtin_prefetch((const uint8_t *)s + at, 1, 3);
    return find_in(table, s, fp);
}

void sg_table_remove(sg_table *table, sg_cell *cell) {
    if (SG_UNLIKELY(cell == NULL))
        return; /* of a damaged mapping */
    sg_segment *s = sg_segment_at(table, sg_place_of(table, cell->lo));
    if (SG_UNLIKELY(s == NULL))
        return;
    const uintptr_t bytes = (uintptr_t)cell - (uintptr_t)sg_cell_at(table, s, 0);
    const uintptr_t i = bytes / sg_cell_bytes(table);
    if (SG_LIKELY(i < s->used))
        sg_remove_at(table, s, (uint32_t)i);
    else
        sg_arena_damage(&table->arena);
}

/* Splits the next segment in turn. Where there is no memory it does not: segments then
 * grow longer than they should, and nothing else happens. */
static void split_next(sg_table *table) {
    sg_table_body *body = table->body;
    if (body->level + 1 >= SG_TABLE_CHUNKS)
        return;
    uint64_t from = body->split, to = (UINT64_C(1) << body->level) + body->split;
    unsigned chunk = sg_chunk_of(to);
    if (body->chunks[chunk] == 0) {
        sg_ref memory = sg_arena_alloc(&table->arena, sg_chunk_bytes(chunk));
        if (memory == 0)
            return;
        sg_touch(&table->arena, &body->chunks[chunk], sizeof(sg_ref));
        body->chunks[chunk] = memory;
    }
    sg_segment *s = sg_segment_at(table, from);
    const uint64_t bit = UINT64_C(1) << body->level;
    uint32_t moving = 0;
    for (uint32_t i = 0; s != NULL && i < s->used; i++)
        moving += (sg_cell_at(table, s, i)->lo & bit) != 0;
    sg_ref *to_ref = sg_ref_at(table, to);
    if (SG_UNLIKELY(*to_ref != 0)) {
        sg_arena_damage(&table->arena); /* nobody was there yet */
        return;
    }
    if (moving > 0) {
        if (!sg_resize(table, to_ref, sg_rounded(moving)))
            return;
        sg_segment *t = sg_segment_of(table, *to_ref);
        uint32_t kept = 0;
        if (SG_UNLIKELY(t == NULL || !sg_segment_holds(table, s)))
            return; /* of a damaged mapping, as in the loop */
        sg_touch(&table->arena, s, sg_segment_bytes(table, s->capacity));
        for (uint32_t i = 0; i < s->used; i++) {
            sg_cell *cell = sg_cell_at(table, s, i);
            bool moves = (cell->lo & bit) != 0;
            if (SG_UNLIKELY(sg_arena_is_shared(&table->arena) &&
                            (!sg_segment_holds(table, s) || !sg_segment_holds(table, t) ||
                             (moves && t->used >= t->capacity))))
                return;
            sg_segment *target = moves ? t : s;
            uint32_t at = moves ? t->used++ : kept++;
            target->tags[at] = s->tags[i];
            memmove(sg_cell_at(table, target, at), cell, sg_cell_bytes(table));
        }
        s->used = kept;
    }
    sg_touch(&table->arena, &body->level, sizeof body->level + sizeof body->split);
    body->split++;
    if (body->split == bit) {
        body->level++;
        body->split = 0;
    }
    sg_commit(&table->arena);
    if (moving > 0)
        sg_shrink(table, from);
}

/* A free cell at the end of the segment. */
static sg_status make_cell_room(sg_table *table, uint64_t place, sg_fingerprint fp,
                                sg_ticks now) {
    if (table->body->keys >= table->max_keys && sg_evict_from(table, place, NULL, 0, now))
        return SG_OK;
    sg_segment *s = sg_segment_at(table, place);
    if (s != NULL && s->used == s->capacity)
        sg_sweep_segment(table, s, NULL, now);
    uint32_t capacity = s == NULL ? 0 : s->capacity;
    if (s == NULL || s->used == capacity) {
        size_t size = sg_segment_bytes(table, capacity + SG_SEGMENT_STEP);
        sg_ref *ref = sg_ref_at(table, place);
        if (!sg_resize(table, ref, capacity + SG_SEGMENT_STEP)) {
            if (sg_arena_has_room(&table->arena, size))
                return SG_NO_MEMORY;
            /* The bound in bytes: the key takes a place here, or memory from elsewhere. */
            if (sg_evict_from(table, place, NULL, 0, now))
                return SG_OK;
            if (sg_table_make_room(table, fp, size, now) != SG_OK)
                return SG_FULL;
            if (!sg_resize(table, ref, capacity + SG_SEGMENT_STEP))
                return SG_NO_MEMORY;
        }
    }
    if (table->body->keys >= table->max_keys && !sg_evict(table, place, NULL, 0, now))
        return SG_FULL;
    /* That may have swept this segment too, and made it smaller. */
    s = sg_segment_at(table, place);
    if (s != NULL && s->used < s->capacity)
        return SG_OK;
    capacity = s == NULL ? 0 : s->capacity;
    return sg_resize(table, sg_ref_at(table, place), capacity + SG_SEGMENT_STEP) ? SG_OK
                                                                                 : SG_NO_MEMORY;
}

sg_status sg_table_insert(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **out) {
    if (++table->body->inserts % SWEEP_EVERY == 0)
        sg_sweep_next(table, NULL, now);
    if (table->body->keys >= SG_SEGMENT_LOAD * sg_segments(table) && table->body->keys < table->max_keys)
        split_next(table);
    uint64_t place = sg_place_of(table, fp.lo);
    sg_status status = make_cell_room(table, place, fp, now);
    if (status != SG_OK)
        return status;
    sg_segment *s = sg_segment_at(table, place);
    if (SG_UNLIKELY(s == NULL))
        return SG_NO_MEMORY; /* of a damaged mapping */
    sg_touch(&table->arena, &table->body->keys, sizeof table->body->keys);
    sg_touch(&table->arena, &s->used, sizeof s->used);
    uint32_t i = s->used++;
    sg_cell *cell = sg_cell_at(table, s, i);
    memset(cell, 0, sg_cell_bytes(table));
    cell->lo = fp.lo;
    cell->hi = fp.hi;
    s->tags[i] = sg_tag_of(fp.lo);
    sg_count(&table->body->keys, 1);
    *out = cell;
    return SG_OK;
}

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
    table->scratch = *allocator;
    table->body = &table->own;
    return SG_OK;
}

void sg_table_body_init(sg_table_body *body) { memset(body, 0, sizeof *body); }

void sg_table_clear(sg_table *table) {
    sg_table_body *body = table->body;
    for (uint64_t place = 0; place < sg_segments(table); place++) {
        sg_segment *s = sg_segment_at(table, place);
        while (s != NULL && s->used > 0) {
            const uint32_t before = s->used;
            sg_remove_at(table, s, before - 1);
            sg_commit(&table->arena);
            if (SG_UNLIKELY(!sg_segment_holds(table, s) || s->used >= before))
                break;
        }
        sg_resize(table, sg_ref_at(table, place), 0);
        sg_commit(&table->arena);
    }
    /* Without segments, where a key belongs is free to change. */
    sg_touch(&table->arena, &body->level, sizeof body->level + sizeof body->split);
    sg_touch(&table->arena, body->chunks, sizeof body->chunks);
    for (unsigned chunk = 1; chunk < SG_TABLE_CHUNKS; chunk++) {
        sg_arena_free(&table->arena, body->chunks[chunk], sg_chunk_bytes(chunk));
        body->chunks[chunk] = 0;
    }
    body->level = body->split = 0;
    sg_touch(&table->arena, &body->marked, sizeof body->marked);
    body->sweep = body->marked = 0;
    sg_commit(&table->arena);
}

void sg_table_free(sg_table *table) { sg_table_clear(table); }

void sg_table_learn(sg_table *table, unsigned i, const sg_quota *quota) {
    const sg_quota *known = &table->quotas[i];
    if (!quota->unlimited &&
        (known->unlimited || (quota->algorithm == SG_GCRA ? quota->capacity > known->capacity
                                                          : quota->period > known->period))) {
        table->quotas[i] = *quota;
        table->learned = true;
    }
}

void sg_table_each(sg_table *table, void (*visit)(void *context, sg_table *, sg_cell *),
                   void *context) {
    for (uint64_t place = 0; place < sg_segments(table); place++) {
        sg_segment *s = sg_segment_at(table, place);
        for (uint32_t i = 0; s != NULL && i < s->used; i++)
            visit(context, table, sg_cell_at(table, s, i));
    }
}

uint64_t sg_table_bytes(const sg_table *table) { return table->arena.bytes; }
