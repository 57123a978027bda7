/* The sliding log: when each unit of a key was used.
 *
 * Up to SG_LOG_MAX entries keep exact times; events of one time share one, so that each time
 * has one place at which what was charged then is given back. An event that finds the log full
 * joins the last entry if both lie in the same span of period/255 (spans are fixed on the clock);
 * else the entries of each span are merged first. A merged entry has the time of its last
 * event, so it can only count longer than its events, by less than a span. 256 entries
 * always suffice: a period touches at most 256 spans.
 *
 * The span of a time is floor(time * 255 / period), in exact integers. Merging resumes
 * where it ended (`merged`), so its cost is paid once an entry: O(1) amortised.
 */
#ifndef SG_LOG_H
#define SG_LOG_H

#include "sg.h"

#define SG_LOG_MAX 256u
#define SG_LOG_MIN 4u /* entries of the smallest log; sizes double */

typedef struct {
    sg_ticks at;
    uint64_t count;
} sg_log_entry;

typedef struct {
    uint64_t total;     /* sum of the counts of the entries */
    uint16_t head;      /* index of the oldest entry */
    uint16_t length;    /* entries */
    uint16_t capacity;  /* a power of two, SG_LOG_MIN to SG_LOG_MAX */
    uint16_t merged;    /* the first `merged` entries, from the oldest, share no span */
    sg_log_entry entries[];
} sg_log;

static inline size_t sg_log_bytes(unsigned capacity) {
    return sizeof(sg_log) + capacity * sizeof(sg_log_entry);
}

/* Where entry i is, from the oldest. In a damaged mapping two logs may lie in one place, and
 * what was checked changes: no index is ever beyond the largest log. */
static inline unsigned sg_log_index(const sg_log *log, unsigned i) {
    return (log->head + i) & (log->capacity - 1u) & (SG_LOG_MAX - 1u);
}

static inline const sg_log_entry *sg_log_at(const sg_log *log, unsigned i) {
    return &log->entries[sg_log_index(log, i)];
}

/* Makes an empty log of memory of sg_log_bytes(capacity). */
void sg_log_init(sg_log *log, unsigned capacity);

/* Copies the entries of `from` to the empty `to`, whose capacity holds them. */
void sg_log_copy(sg_log *to, const sg_log *from);

/* Drops entries a period old and cuts times ahead of now to now, as one entry. */
void sg_log_expire(sg_log *log, sg_ticks now, sg_ticks period);

/* Whether sg_log_add needs a larger log first (capacity below SG_LOG_MAX and full).
 * Call after sg_log_expire. */
static inline bool sg_log_must_grow(const sg_log *log) {
    return log->length == log->capacity && log->capacity < SG_LOG_MAX;
}

/* Adds `count` units at `now`. The log is expired and need not grow. Where it is not full, no
 * entry is written to but the last and the one behind it. */
void sg_log_add(sg_log *log, sg_ticks now, sg_ticks period, uint64_t count);

/* Takes up to `units` from the newest entries; returns how many. */
uint64_t sg_log_take_newest(sg_log *log, uint64_t units);

/* Takes up to `units` from the entry that counts an event of time `at`, if one of that
 * time must still be counted at `now`; returns how many. */
uint64_t sg_log_take_at(sg_log *log, sg_ticks now, sg_ticks period, sg_ticks at, uint64_t units);

#endif
