/* The inside of a table: segments of cells and where they are. What table.c, segment.c and
 * evict.c share; nothing else includes it. */
#ifndef SG_SEGMENT_H
#define SG_SEGMENT_H

#include "table.h"

/* A segment grows and shrinks by this many cells. */
#define SG_SEGMENT_STEP 4u
/* Mean cells a segment at which the next one is split. */
#define SG_SEGMENT_LOAD 16u

typedef struct {
    uint32_t used;
    uint32_t capacity; /* a multiple of SG_SEGMENT_STEP */
    uint8_t tags[];    /* capacity of them, then the cells, aligned to 8 */
} sg_segment;

static inline size_t sg_cell_bytes(const sg_table *table) {
    return sizeof(sg_cell) + table->layout.words * sizeof(uint64_t);
}

static inline size_t sg_tags_bytes(uint32_t capacity) { return ((size_t)capacity + 7) / 8 * 8; }

static inline size_t sg_segment_bytes(const sg_table *table, uint32_t capacity) {
    return sizeof(sg_segment) + sg_tags_bytes(capacity) + capacity * sg_cell_bytes(table);
}

static inline sg_cell *sg_cell_at(const sg_table *table, sg_segment *s, uint32_t i) {
    return (sg_cell *)(void *)(s->tags + sg_tags_bytes(s->capacity) + i * sg_cell_bytes(table));
}

static inline uint8_t sg_tag_of(uint64_t lo) { return (uint8_t)(lo >> 56); }

static inline bool sg_is_cell_of(const sg_cell *cell, sg_fingerprint fp) {
    return cell->lo == fp.lo && (cell->hi & ~UINT64_C(0xff)) == fp.hi;
}

static inline uint32_t sg_rounded(uint32_t cells) {
    return (cells + SG_SEGMENT_STEP - 1) / SG_SEGMENT_STEP * SG_SEGMENT_STEP;
}

/* ---- linear hashing ---- */

static inline uint64_t sg_segments(const sg_table *table) {
    return (UINT64_C(1) << table->body->level) + table->body->split;
}

static inline uint64_t sg_place_of(const sg_table *table, uint64_t lo) {
    uint64_t mask = (UINT64_C(1) << table->body->level) - 1;
    uint64_t i = lo & mask;
    return i < table->body->split ? (lo & (mask * 2 + 1)) : i;
}

static inline unsigned sg_chunk_of(uint64_t place) {
    return place == 0 ? 0 : 64u - (unsigned)__builtin_clzll(place);
}

static inline size_t sg_chunk_bytes(unsigned chunk) {
    return (chunk == 0 ? 1 : (size_t)1 << (chunk - 1)) * sizeof(sg_ref);
}

static inline sg_ref *sg_ref_at(sg_table *table, uint64_t place) {
    const unsigned chunk = sg_chunk_of(place);
    if (chunk == 0)
        return &table->body->first;
    sg_ref *refs = sg_arena_find(&table->arena, table->body->chunks[chunk], sg_chunk_bytes(chunk));
    if (SG_UNLIKELY(sg_arena_is_shared(&table->arena) && refs == NULL)) {
        sg_arena_damage(&table->arena);
        table->nowhere = 0;
        return &table->nowhere;
    }
    return &refs[place - (UINT64_C(1) << (chunk - 1))];
}

/* The segment of a ref found in a mapping; NULL of 0, and of what can be none. */
sg_segment *sg_segment_check(const sg_table *table, sg_ref ref);

static inline sg_segment *sg_segment_of(const sg_table *table, sg_ref ref) {
    return SG_LIKELY(!sg_arena_is_shared(&table->arena)) ? sg_arena_at(&table->arena, ref)
                                                         : sg_segment_check(table, ref);
}

/* After something was changed: whether it is still one. Of a damaged mapping two pieces may lie
 * in one place. */
static inline bool sg_segment_holds(const sg_table *table, const sg_segment *s) {
    return SG_LIKELY(!sg_arena_is_shared(&table->arena)) ||
           sg_segment_check(table, (sg_ref)((uintptr_t)s - table->arena.base)) != NULL;
}

static inline sg_segment *sg_segment_at(sg_table *table, uint64_t place) {
    return sg_segment_of(table, *sg_ref_at(table, place));
}

/* ---- segment.c ---- */

/* What must stay whatever happens: bans, open reservations, held slots. */
bool sg_cell_stays(const sg_table *table, const sg_cell *cell, sg_ticks now);

/* Removes cell i; the last cell takes its place. */
void sg_remove_at(sg_table *table, sg_segment *s, uint32_t i);

/* Moves a segment (or none) to one of another capacity. False: no memory, as it was. */
bool sg_resize(sg_table *table, sg_ref *ref, uint32_t capacity);

/* Gives back what a segment has had no use for; fails silently, being only thrift. */
void sg_shrink(sg_table *table, uint64_t place);

/* Removes the expired cells of a segment, but not that of `kept`; returns how many. */
uint32_t sg_sweep_segment(sg_table *table, sg_segment *s, const sg_fingerprint *kept,
                          sg_ticks now);

/* Sweeps the segment whose turn it is. */
void sg_sweep_next(sg_table *table, const sg_fingerprint *kept, sg_ticks now);

/* ---- evict.c ---- */

/* Evicts from one segment: expired cells, else the lightest that may go. `kept` stays, and
 * so does, where `wanted` is not 0, what has no log of so many bytes to give: in a mapping,
 * many small pieces make no large one. */
bool sg_evict_from(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t wanted,
                   sg_ticks now);

/* Evicts one or more cells, from the given place or the next one that has any. */
bool sg_evict(sg_table *table, uint64_t place, const sg_fingerprint *kept, size_t wanted,
              sg_ticks now);

#endif
