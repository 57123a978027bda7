#include "decide.h"

/* Ticks from now until weight * (until - t) / period has fallen to `room`, for a weight
 * that falls to 0 at `until`. */
static sg_ticks fall_to(uint64_t weight, uint64_t room, sg_ticks until, sg_ticks now,
                        sg_ticks period) {
    sg_ticks left = weight <= room ? period : sg_muldiv(room, period, weight);
    return sg_ahead(until, now) > left ? until - now - left : 0;
}

static void window_roll(const sg_quota *q, sg_state *state, sg_ticks now) {
    if (now >= state->window.end)
        state->window.count = 0;
    if (state->window.count == 0)
        state->window.end = now + q->period;
    state->window.end = sg_min(state->window.end, now + q->period);
}

sg_verdict sg_decide_fixed_window(const sg_quota *q, const sg_state *state, sg_ticks now,
                                  uint64_t cost, sg_state *next) {
    *next = *state;
    window_roll(q, next, now);
    uint64_t after = next->window.count + cost;
    bool allowed = after <= q->limit || cost == 0;
    if (allowed)
        next->window.count = after;
    sg_ticks left = next->window.end - now;
    return (sg_verdict){
        .allowed = allowed,
        .level = next->window.count,
        .retry = allowed ? 0 : cost > q->limit ? SG_NEVER : left,
        .reset = next->window.count > 0 ? left : 0,
    };
}

static void sliding_roll(const sg_quota *q, sg_state *state, sg_ticks now) {
    if (now >= state->sliding.end) {
        if (now - state->sliding.end < q->period) {
            state->sliding.previous = state->sliding.current;
            state->sliding.end += q->period;
        } else {
            state->sliding.previous = 0;
        }
        state->sliding.current = 0;
    }
    if (state->sliding.current == 0 && state->sliding.previous == 0)
        state->sliding.end = now + q->period;
    state->sliding.end = sg_min(state->sliding.end, now + q->period);
}

/* What is left of the previous window's count, rounded up. */
static uint64_t sliding_level(const sg_quota *q, const sg_state *state, sg_ticks now) {
    return state->sliding.current +
           sg_muldiv_up(state->sliding.previous, state->sliding.end - now, q->period);
}

static sg_ticks sliding_retry(const sg_quota *q, const sg_state *state, sg_ticks now,
                              uint64_t cost) {
    const sg_ticks end = state->sliding.end;
    if (cost > q->limit)
        return SG_NEVER;
    uint64_t wanted = state->sliding.current + cost;
    if (wanted <= q->limit)
        return fall_to(state->sliding.previous, q->limit - wanted, end, now, q->period);
    /* Not in this window: in the next one the current count is what fades. */
    sg_ticks in_next = fall_to(state->sliding.current, q->limit - cost, end + q->period, now,
                               q->period);
    return sg_max(in_next, end - now);
}

sg_verdict sg_decide_sliding_window(const sg_quota *q, const sg_state *state, sg_ticks now,
                                    uint64_t cost, sg_state *next) {
    *next = *state;
    sliding_roll(q, next, now);
    uint64_t level = sliding_level(q, next, now);
    bool allowed = level + cost <= q->limit || cost == 0;
    if (allowed) {
        next->sliding.current += cost;
        level += cost;
    }
    sg_ticks left = next->sliding.end - now;
    return (sg_verdict){
        .allowed = allowed,
        .level = level,
        .retry = allowed ? 0 : sliding_retry(q, next, now, cost),
        .reset = next->sliding.current > 0    ? left + q->period
                 : next->sliding.previous > 0 ? left
                                              : 0,
    };
}

sg_verdict sg_decide_sliding_log(const sg_quota *q, const sg_log *log, sg_ticks now,
                                 uint64_t cost) {
    uint64_t used = log == NULL ? 0 : log->total;
    unsigned i = 0, length = log == NULL ? 0 : log->length;
    /* Entries that this quota no longer counts; those ahead of now count as of now. */
    for (; i < length && sg_ahead(now, sg_log_at(log, i)->at) >= q->period; i++)
        used -= sg_log_at(log, i)->count;
    sg_verdict v = {.allowed = used + cost <= q->limit || cost == 0, .level = used};
    sg_ticks newest = length == 0 ? 0 : sg_min(sg_log_at(log, length - 1)->at, now);
    if (v.allowed) {
        v.level = used + cost;
        v.reset = cost > 0 ? q->period : used > 0 ? newest + q->period - now : 0;
        return v;
    }
    v.reset = used > 0 ? newest + q->period - now : 0;
    if (cost > q->limit) {
        v.retry = SG_NEVER;
        return v;
    }
    /* Until the last of those goes that are too many. In a damaged log times may go back, and
     * counts be less than the total; still it is some time, or who waits for it never ends. */
    uint64_t excess = used + cost - q->limit;
    sg_ticks last = 0;
    for (v.retry = q->period; i < length; i++) {
        const sg_log_entry *e = sg_log_at(log, i);
        last = sg_max(last, sg_min(e->at, now));
        v.retry = last + q->period - now;
        if (e->count >= excess)
            break;
        excess -= e->count;
    }
    return v;
}

uint64_t sg_remaining(const sg_quota *q, const sg_verdict *v) {
    uint64_t room = sg_ahead(q->capacity, v->level);
    return q->algorithm == SG_GCRA ? room / q->interval : room;
}

void sg_penalize(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t cost) {
    uint64_t room;
    switch (q->algorithm) {
    case SG_GCRA: {
        sg_ticks level = sg_gcra_level(q, state, now);
        sg_u128 after = level + (sg_u128)cost * q->interval;
        sg_ticks most = 2 * q->capacity;
        state->gcra.tat = now + (after < most ? (sg_ticks)after : most);
        break;
    }
    case SG_FIXED_WINDOW:
        window_roll(q, state, now);
        room = sg_ahead(2 * q->limit, state->window.count);
        state->window.count += sg_min(cost, room);
        break;
    case SG_SLIDING_WINDOW:
        sliding_roll(q, state, now);
        room = sg_ahead(2 * q->limit, sliding_level(q, state, now));
        state->sliding.current += sg_min(cost, room);
        break;
    default:
        break;
    }
}

uint64_t sg_reward(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t cost) {
    uint64_t given = 0;
    switch (q->algorithm) {
    case SG_GCRA: {
        sg_ticks level = sg_gcra_level(q, state, now);
        sg_u128 wanted = (sg_u128)cost * q->interval;
        given = wanted < level ? (sg_ticks)wanted : level;
        state->gcra.tat = now + level - given;
        break;
    }
    case SG_FIXED_WINDOW:
        window_roll(q, state, now);
        given = sg_min(state->window.count, cost);
        state->window.count -= given;
        break;
    case SG_SLIDING_WINDOW: {
        sliding_roll(q, state, now);
        uint64_t of_current = sg_min(cost, state->sliding.current);
        uint64_t of_previous = sg_min(cost - of_current, state->sliding.previous);
        state->sliding.current -= of_current;
        state->sliding.previous -= of_previous;
        given = of_current + of_previous;
        break;
    }
    default:
        break;
    }
    return given;
}

uint64_t sg_mark(const sg_quota *q, const sg_state *state) {
    return q->algorithm == SG_GCRA           ? state->gcra.tat
           : q->algorithm == SG_FIXED_WINDOW ? state->window.end
                                             : state->sliding.end;
}

uint64_t sg_refund(const sg_quota *q, sg_state *state, sg_ticks now, uint64_t mark,
                   uint64_t amount) {
    uint64_t given = 0;
    switch (q->algorithm) {
    case SG_GCRA: {
        /* Of the charge's own interval, which ends at the mark, what lies ahead of now. */
        sg_ticks level = sg_gcra_level(q, state, now);
        given = sg_min(amount, sg_min(sg_ahead(mark, now), level));
        state->gcra.tat = now + level - given;
        break;
    }
    case SG_FIXED_WINDOW:
        window_roll(q, state, now);
        if (state->window.end == mark)
            given = sg_min(amount, state->window.count);
        state->window.count -= given;
        break;
    case SG_SLIDING_WINDOW: {
        sliding_roll(q, state, now);
        uint64_t *count = state->sliding.end == mark               ? &state->sliding.current
                          : state->sliding.end == mark + q->period ? &state->sliding.previous
                                                                   : NULL;
        if (count != NULL) {
            given = sg_min(amount, *count);
            *count -= given;
        }
        break;
    }
    default:
        break;
    }
    return given;
}

bool sg_expired(const sg_quota *q, const sg_state *state, const sg_log *log, sg_ticks now) {
    switch (q->algorithm) {
    case SG_GCRA:
        return state->gcra.tat <= now;
    case SG_FIXED_WINDOW:
        return state->window.count == 0 || state->window.end <= now;
    case SG_SLIDING_WINDOW:
        return (state->sliding.current == 0 || state->sliding.end + q->period <= now) &&
               (state->sliding.previous == 0 || state->sliding.end <= now);
    default:
        return log == NULL || log->total == 0 ||
               sg_ahead(now, sg_log_at(log, log->length - 1u)->at) >= q->period;
    }
}
