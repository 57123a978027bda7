/* Fingerprint to the state of a key: the memory of one limiter.
 *
 * Cells lie densely in small segments, each with a row of one-byte tags in front that is
 * searched sixteen at a time. Segments are addressed by linear hashing (W. Litwin, 1980):
 * when their mean load passes a bound, the next one in turn is split, alone, so growth
 * never stops the world. A segment grows by a few cells at a time, so little is unused.
 *
 * A cell whose state counts for nothing is free: expiry needs no timer. Each insert also
 * sweeps a little, so that memory returns after a flood.
 *
 * Not safe for use by several threads at once; the caller holds a lock (or the GIL). A
 * cell pointer is good until the next call that inserts.
 *
 * The table of a mapping that processes share is one of these a process, over one body in
 * the mapping. Every change of it is announced to the arena, see arena.h. */
#ifndef SG_TABLE_H
#define SG_TABLE_H

#include "arena.h"
#include "decide.h"
#include "fingerprint.h"
#include "quota.h"
#include "sg.h"

#define SG_TABLE_CHUNKS 32u
/* In a mapping, where a page bounds a chunk: that behind has 2**level refs of 8 bytes. */
#define SG_TABLE_LEVEL_MAX 11u

/* What a cell holds: the algorithms of its quotas, or one count of slots. */
typedef struct {
    uint8_t quotas;                     /* how many; 0: a table of slots */
    uint8_t algorithm[SG_QUOTAS_MAX];
    uint8_t offset[SG_QUOTAS_MAX];      /* of each state, in words from words[0] */
    uint8_t words;                      /* of all states */
    bool logs;                          /* whether one is a sliding log */
} sg_layout;

/* Flags in the low byte of a cell's `hi`. */
#define SG_CELL_MARKED 1u /* words[0] names an sg_record */

typedef struct {
    uint64_t lo, hi;
    uint64_t words[];
} sg_cell;

/* What only few keys have: a ban, open reservations. It keeps the cell from eviction,
 * and the word whose place it took. */
typedef struct {
    uint64_t word;         /* the cell's words[0] */
    sg_ticks ban_until;    /* 0: none */
    sg_ticks ban_length;   /* a clock that steps back makes no ban longer than it was */
    sg_ticks pinned_until; /* when the last open reservation lapses */
    sg_ref claims;         /* the open reservations, see claims.h */
    uint32_t open;         /* how many */
    uint32_t capacity;
} sg_record;

/* What there is of a table besides its pieces: no pointer is in it, so that processes can
 * share it. */
typedef struct {
    uint64_t keys;       /* cells in use */
    uint64_t marked;     /* cells with a record */
    /* linear hashing: 2**level + split segments */
    uint32_t level;
    uint32_t split;
    /* chunk c > 0 has the refs of segments 2**(c-1) to 2**c - 1; that of segment 0 is first */
    sg_ref first;
    sg_ref chunks[SG_TABLE_CHUNKS];
    uint64_t sweep;      /* the segment that the next sweep looks at */
    uint64_t inserts;
    uint64_t evictions;  /* of live state */
    uint64_t claims;     /* reservations made; the last one's id */
} sg_table_body;

typedef struct {
    sg_arena arena;
    sg_layout layout;
    sg_quota quotas[SG_QUOTAS_MAX]; /* the numbers by which expiry and eviction go */
    sg_allocator scratch;           /* for copies that live no longer than a call */
    uint64_t max_keys;
    sg_table_body *body; /* `own`, or one in a mapping */
    sg_table_body own;   /* so a table must not be moved */
    bool learned;        /* the quotas reach further than before: others are to be told */
    sg_ref nowhere;      /* stands for the ref of a segment whose chunk is damaged */
} sg_table;

/* algorithms: `count` of them; 0 of them makes a table of slots. Returns SG_OK or
 * SG_NO_MEMORY (then there is nothing to free). max_bytes 0: no bound. */
sg_status sg_table_init(sg_table *table, const sg_allocator *allocator, unsigned count,
                        const uint8_t *algorithms, uint64_t max_keys, uint64_t max_bytes);
void sg_table_free(sg_table *table);

/* Tells the table of numbers in use, by which it expires and evicts: of several for one
 * quota those that reach furthest, so that nothing is dropped that may still count. */
void sg_table_learn(sg_table *table, unsigned i, const sg_quota *quota);

static inline void sg_table_know(sg_table *table, const sg_quota *quotas) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        /* One that is unlimited, or not known yet, has zeros. */
        if (SG_UNLIKELY(quotas[i].period > table->quotas[i].period ||
                        quotas[i].capacity > table->quotas[i].capacity))
            sg_table_learn(table, i, &quotas[i]);
    }
}

void sg_table_clear(sg_table *table);

/* The cell of a fingerprint, or NULL. */
sg_cell *sg_table_find(sg_table *table, sg_fingerprint fp);

/* A new cell of zeros for a fingerprint that is not there. In a full table it takes the
 * place, within the segment it hashes to, of expired state, else of the live state with
 * the smallest used share, of these the nearest to expiry; never of a marked cell. */
sg_status sg_table_insert(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **out);

/* Evicts until `size` more bytes fit the table's bound, but never the cell of `fp` itself.
 * SG_FULL if nothing more may be evicted. Cells move. */
sg_status sg_table_make_room(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now);

/* Memory for the cell of `fp`, where the bound is in the way by eviction of others. Cells
 * move: *cell follows. */
sg_status sg_table_alloc(sg_table *table, sg_fingerprint fp, size_t size, sg_ticks now,
                         sg_cell **cell, sg_ref *out);

/* Forgets a cell, its logs and its record. */
void sg_table_remove(sg_table *table, sg_cell *cell);

/* The record or the log of a ref found in memory; NULL of 0, and of what can be none. */
sg_record *sg_record_check(const sg_table *table, sg_ref ref);
sg_log *sg_log_check(const sg_table *table, sg_ref ref);

static inline sg_record *sg_record_at(const sg_table *table, sg_ref ref) {
    return SG_LIKELY(!sg_arena_is_shared(&table->arena)) ? sg_arena_at(&table->arena, ref)
                                                         : sg_record_check(table, ref);
}

static inline sg_log *sg_log_ref(const sg_table *table, sg_ref ref) {
    return SG_LIKELY(!sg_arena_is_shared(&table->arena)) ? sg_arena_at(&table->arena, ref)
                                                         : sg_log_check(table, ref);
}

/* The cell's record, or NULL. */
static inline sg_record *sg_cell_record(const sg_table *table, const sg_cell *cell) {
    return SG_UNLIKELY(cell->hi & SG_CELL_MARKED) ? sg_record_at(table, cell->words[0]) : NULL;
}

/* The state of quota i, wherever its words are: copied out, copied back. In line, because
 * every decision over several quotas does it for each. */
static inline sg_state sg_cell_state(const sg_table *table, const sg_cell *cell, unsigned i) {
    const unsigned offset = table->layout.offset[i];
    const uint64_t *words = cell->words + offset;
    sg_state state = {{words[0], 0, 0}};
    switch (table->layout.algorithm[i]) {
    case SG_SLIDING_WINDOW:
        state.words[2] = words[2];
        /* fall through */
    case SG_FIXED_WINDOW:
        state.words[1] = words[1];
        break;
    default:
        break;
    }
    if (offset == 0 && SG_UNLIKELY(cell->hi & SG_CELL_MARKED)) {
        const sg_record *record = sg_cell_record(table, cell);
        state.words[0] = SG_LIKELY(record != NULL) ? record->word : 0;
    }
    return state;
}

static inline void sg_cell_set_state(sg_table *table, sg_cell *cell, unsigned i,
                                     const sg_state *state) {
    const unsigned offset = table->layout.offset[i];
    uint64_t *words = cell->words + offset;
    uint64_t *first = words;
    if (offset == 0 && SG_UNLIKELY(cell->hi & SG_CELL_MARKED)) {
        sg_record *record = sg_cell_record(table, cell);
        if (SG_LIKELY(record != NULL))
            first = &record->word;
    }
    sg_touch(&table->arena, words, sg_state_words(table->layout.algorithm[i]) * sizeof *words);
    if (SG_UNLIKELY(first != words))
        sg_touch(&table->arena, first, sizeof *first);
    *first = state->words[0];
    switch (table->layout.algorithm[i]) {
    case SG_SLIDING_WINDOW:
        words[2] = state->words[2];
        /* fall through */
    case SG_FIXED_WINDOW:
        words[1] = state->words[1];
        break;
    default:
        break;
    }
}

/* The log of quota i, whose state this is; NULL where it keeps none. */
static inline sg_log *sg_state_log(const sg_table *table, unsigned i, const sg_state *state) {
    return table->layout.algorithm[i] == SG_SLIDING_LOG
               ? sg_log_ref(table, state->log.log) : NULL;
}

/* The cell's record, made where there is none. */
sg_status sg_cell_mark(sg_table *table, sg_cell *cell, sg_record **out);

/* Drops the record where neither ban nor reservation is left in it. */
void sg_cell_tidy(sg_table *table, sg_cell *cell, sg_ticks now);

/* Whether nothing in the cell counts at `now`. */
bool sg_cell_expired(const sg_table *table, const sg_cell *cell, sg_ticks now);

/* Calls `visit` with each cell; `visit` may change states but neither insert nor remove. */
void sg_table_each(sg_table *table, void (*visit)(void *context, sg_table *, sg_cell *),
                   void *context);

/* Makes the body of a mapping that has no table in it yet an empty one. */
void sg_table_body_init(sg_table_body *body);

/* Whether a body is one: where not, nothing may be done with it but sg_table_body_init. */
static inline bool sg_table_body_is_good(const sg_table_body *body) {
    return body->level < SG_TABLE_LEVEL_MAX ? body->split < UINT32_C(1) << body->level
                                            : body->level == SG_TABLE_LEVEL_MAX && body->split == 0;
}

/* Bytes that the table takes from its allocator. */
uint64_t sg_table_bytes(const sg_table *table);

#endif
