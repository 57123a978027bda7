#include "request.h"

#include <string.h>

#include "view.h"

#define NOT_CHARGED UINT64_MAX

/* As late as a clock can be: the longest period lies behind it, the longest reach ahead. */
static sg_server_time time_of(uint64_t now_us) {
    return (sg_server_time){.now_us = now_us, .now = SG_CLOCK_MAX};
}

static sg_seen look(const sg_plan *plan, const uint64_t *costs, const char *bytes, size_t length,
                    uint64_t now_us, sg_sight *sight, sg_view *v) {
    const sg_server_time time = time_of(now_us);
    const sg_seen seen = sg_sight_read(plan, bytes, length, time, costs, sight);
    if (seen == SG_SEEN_ERROR)
        return seen;
    memcpy(v->state, sight->state, sizeof v->state[0] * plan->count);
    memcpy(v->log, sight->log, sizeof v->log[0] * plan->count);
    v->ban = sg_min(sg_ahead(sight->ban_until, time.now), sight->ban_length);
    return seen;
}

sg_seen sg_answer_hit(const sg_plan *plan, const uint64_t *costs, const char *bytes, size_t length,
                      uint64_t now_us, sg_decision *out) {
    sg_sight sight;
    sg_view v;
    const sg_seen seen = look(plan, costs, bytes, length, now_us, &sight, &v);
    if (seen != SG_SEEN_ERROR)
        sg_judge(&plan->shape, plan->quotas, &v, costs, SG_CLOCK_MAX, out);
    return seen;
}

sg_seen sg_answer_peek(const sg_plan *plan, const uint64_t *costs, const char *bytes,
                       size_t length, uint64_t now_us, sg_decision *out) {
    static const uint64_t nothing[SG_QUOTAS_MAX];
    sg_sight sight;
    sg_view v;
    sg_decision as_it_stands;
    const sg_seen seen = look(plan, costs, bytes, length, now_us, &sight, &v);
    if (seen == SG_SEEN_ERROR)
        return seen;
    sg_judge(&plan->shape, plan->quotas, &v, costs, SG_CLOCK_MAX, out);
    if (!out->allowed)
        return seen;
    /* As sg_peek has it: nothing is charged, so what remains is what there is. */
    sg_judge(&plan->shape, plan->quotas, &v, nothing, SG_CLOCK_MAX, &as_it_stands);
    out->binding = as_it_stands.binding;
    out->verdict = as_it_stands.verdict;
    return seen;
}

sg_seen sg_answer_reserve(const sg_plan *plan, const uint64_t *costs, uint64_t ttl_us,
                          uint64_t claim, const char *bytes, size_t length, uint64_t now_us,
                          sg_decision *out, sg_ticket *ticket) {
    sg_sight sight;
    sg_view v;
    memset(ticket, 0, sizeof *ticket);
    const sg_seen seen = look(plan, costs, bytes, length, now_us, &sight, &v);
    if (seen == SG_SEEN_ERROR)
        return seen;
    sg_judge(&plan->shape, plan->quotas, &v, costs, SG_CLOCK_MAX, out);
    if (!out->allowed)
        return seen;
    ticket->claim = claim;
    ticket->lapses_us = now_us + ttl_us;
    ticket->open = true;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        const bool refused = (out->refusals >> i) & 1u;
        ticket->cost[i] = q->unlimited || refused ? NOT_CHARGED : costs[i];
        if (ticket->cost[i] == NOT_CHARGED)
            continue;
        ticket->interval[i] = q->interval;
        if (plan->algorithm[i] == SG_SLIDING_LOG)
            ticket->mark_us[i] = now_us;
        else if (plan->algorithm[i] != SG_GCRA) /* a window's end is whole microseconds ahead */
            ticket->mark_us[i] =
                now_us + (sg_mark(q, &v.next[i]) - SG_CLOCK_MAX) / SG_TICKS_PER_US;
    }
    return seen;
}

size_t sg_reserve_argument(uint64_t ttl_us, uint64_t claim, uint8_t *out) {
    return (size_t)(sg_bytes_put(sg_bytes_put(out, ttl_us, 7), claim, 7) - out);
}

size_t sg_ban_argument(uint64_t length_us, uint8_t *out) {
    return (size_t)(sg_bytes_put(out, length_us, 7) - out);
}

size_t sg_settle_argument(const sg_plan *plan, const sg_ticket *ticket, const uint64_t *costs,
                          uint8_t *out) {
    const uint8_t *start = out;
    out = sg_bytes_put(out, ticket->claim, 7);
    out = sg_bytes_put(out, ticket->lapses_us, 7);
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        const uint64_t reserved = ticket->cost[i];
        const bool more = reserved != NOT_CHARGED && costs[i] > reserved;
        const bool less = reserved != NOT_CHARGED && costs[i] < reserved;
        const uint64_t units = more ? costs[i] - reserved : less ? reserved - costs[i] : 0;
        out = sg_bytes_put(out, q->unlimited || units == 0 ? 0u : more ? 1u : 2u, 1);
        if (plan->algorithm[i] != SG_GCRA) {
            out = sg_bytes_put(out, ticket->mark_us[i], 7);
            out = sg_bytes_put(out, units, 6);
            continue;
        }
        /* The smaller interval: numbers that changed meanwhile must not make it more. */
        const sg_ticks each = more ? q->interval : sg_min(q->interval, ticket->interval[i]);
        const sg_u128 ticks = (sg_u128)units * each;
        const sg_ticks most = 2 * q->capacity;
        out = sg_bytes_put_ticks(out, ticks < most ? (sg_ticks)ticks : most);
    }
    return (size_t)(out - start);
}
