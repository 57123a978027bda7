/* The rule: one pure function an algorithm, (quota, state, now, cost) to a verdict and
 * the new state. Nothing else decides.
 *
 * Every function takes a state that may lie in the future of `now` (a clock that
 * stepped back) and cuts it to what its quota can reach: for gcra two times the
 * capacity ahead (one burst of use and one of penalty), for a window one period, for
 * the log `now`. A state of zeros is that of a key never seen. */
#ifndef SG_DECIDE_H
#define SG_DECIDE_H

#include "log.h"
#include "quota.h"
#include "sg.h"

/* The state of one quota for one key. Which member holds is the quota's algorithm. */
typedef union {
    uint64_t words[3];
    struct {
        sg_ticks tat; /* theoretical arrival time: when the bucket is whole again */
    } gcra;
    struct {
        sg_ticks end; /* when the window ends */
        uint64_t count;
    } window;
    struct {
        sg_ticks end; /* when the current window ends */
        uint64_t current, previous;
    } sliding;
    struct {
        uint64_t log; /* what the arena calls the sg_log; 0 for none */
    } log;
} sg_state;

/* `level` and `capacity` are in one unit (ticks for gcra, units for the others); their
 * ratio is the used share. level may exceed capacity, after a penalty. */
typedef struct {
    bool allowed;
    uint64_t level;    /* what is used: after the event if allowed, as it stands if not */
    sg_ticks retry;    /* until the same event would be admitted; 0 if allowed; SG_NEVER */
    sg_ticks reset;    /* until the state is whole again */
} sg_verdict;

/* gcra (below) and the windows write the new state to *next when the event is allowed, and the state as
 * it stands (cut and rolled on) when it is not. The log of a key (NULL: no entries) is not
 * changed here; sg_log_add charges. A cost of 0 is always allowed. */
sg_verdict sg_decide_fixed_window(const sg_quota *q, const sg_state *state, sg_ticks now,
                                  uint64_t cost, sg_state *next);
sg_verdict sg_decide_sliding_window(const sg_quota *q, const sg_state *state, sg_ticks now,
                                    uint64_t cost, sg_state *next);
sg_verdict sg_decide_sliding_log(const sg_quota *q, const sg_log *log, sg_ticks now,
                                 uint64_t cost);

/* gcra is the virtual scheduling algorithm of ATM's traffic control (ITU-T I.371): a token
 * bucket kept as the one time at which it is full again. It stands here, and not in
 * decide.c, to be inlined: it is the usual algorithm, and a call costs as much as it does. */

static inline sg_ticks sg_gcra_level(const sg_quota *q, const sg_state *state, sg_ticks now) {
    return sg_min(sg_ahead(state->gcra.tat, now), 2 * q->capacity);
}

static inline sg_verdict sg_decide_gcra(const sg_quota *q, const sg_state *state, sg_ticks now,
                                        uint64_t cost, sg_state *next) {
    sg_ticks level = sg_gcra_level(q, state, now);
    /* What is not charged is cut, and else left alone: a time that is past stays past,
     * wherever the clock goes. */
    sg_ticks standing = sg_min(state->gcra.tat, now + level);
    if (SG_UNLIKELY(cost > q->burst)) {
        next->gcra.tat = standing;
        return (sg_verdict){.level = level, .retry = SG_NEVER, .reset = level};
    }
    sg_ticks after = level + cost * q->interval;
    if (SG_LIKELY(after <= q->capacity || cost == 0)) {
        next->gcra.tat = SG_LIKELY(cost > 0) ? now + after : standing;
        return (sg_verdict){.allowed = true, .level = after, .reset = after};
    }
    next->gcra.tat = standing;
    return (sg_verdict){.level = level, .retry = after - q->capacity, .reset = level};
}

/* By the quota's algorithm. `next` of the log is the state as it is. */
static inline sg_verdict sg_decide(const sg_quota *q, const sg_state *state, const sg_log *log,
                                   sg_ticks now, uint64_t cost, sg_state *next) {
    switch (q->algorithm) {
    case SG_GCRA:
        return sg_decide_gcra(q, state, now, cost, next);
    case SG_FIXED_WINDOW:
        return sg_decide_fixed_window(q, state, now, cost, next);
    case SG_SLIDING_WINDOW:
        return sg_decide_sliding_window(q, state, now, cost, next);
    default:
        next->log = state->log;
        return sg_decide_sliding_log(q, log, now, cost);
    }
}

/* Whole units that remain of a verdict: what would be admitted at once now. */
uint64_t sg_remaining(const sg_quota *q, const sg_verdict *v);

/* Charges `cost` even past the limit, by at most one burst: the level ends at no more
 * than twice the capacity. Not for the log. */
void sg_penalize(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t cost);

/* Gives `cost` back, at most to full. Returns what was given: ticks for gcra, units for the
 * windows. Not for the log. */
uint64_t sg_reward(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t cost);

/* Gives back `amount` (ticks for gcra, units for the windows) of a charge whose mark this is
 * (see sg_mark), but only what of it is still counted. Returns what was given. Not for the
 * log. */
uint64_t sg_refund(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t mark,
                   uint64_t amount);

/* What a refund needs to find its charge again, of a state just charged at `now`:
 * gcra, the end of its interval; windows, the window's end. (Of the log, the time.) */
uint64_t sg_mark(const sg_quota *q, const sg_state *state);

/* Whether the state counts for nothing at `now`; a log of NULL is no entries. */
bool sg_expired(const sg_quota *q, const sg_state *state, const sg_log *log, sg_ticks now);

#endif
