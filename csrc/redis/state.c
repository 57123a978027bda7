#include "state.h"

#include <string.h>

uint64_t sg_bytes_take(sg_bytes *bytes, unsigned size) {
    uint64_t number = 0;
    if (bytes->left < size) {
        bytes->bad = true;
        bytes->left = 0;
        return 0;
    }
    for (unsigned i = 0; i < size; i++)
        number |= (uint64_t)bytes->at[i] << (8 * i);
    bytes->at += size;
    bytes->left -= size;
    return number;
}

uint8_t *sg_bytes_put(uint8_t *out, uint64_t number, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        *out++ = (uint8_t)(number >> (8 * i));
    return out;
}

uint8_t *sg_bytes_put_ticks(uint8_t *out, sg_ticks ticks) {
    out = sg_bytes_put(out, ticks / SG_TICKS_PER_US, 7);
    return sg_bytes_put(out, ticks % SG_TICKS_PER_US, 2);
}

static void plan_write(sg_plan *plan) {
    uint8_t *out = plan->bytes;
    out = sg_bytes_put(out, plan->head_length, 1);
    memcpy(out, plan->head, plan->head_length);
    out += plan->head_length;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        out = sg_bytes_put(out, plan->algorithm[i], 1);
        out = sg_bytes_put(out, (q->shadow ? 1u : 0u) | (q->unlimited ? 2u : 0u), 1);
        if (plan->algorithm[i] == SG_GCRA) {
            out = sg_bytes_put_ticks(out, q->capacity);
            out = sg_bytes_put_ticks(out, 2 * q->capacity);
        } else {
            out = sg_bytes_put(out, q->limit, 6);
            out = sg_bytes_put(out, q->period / SG_TICKS_PER_US, 7);
            out = sg_bytes_put(out, plan->keep_us[i], 7);
        }
    }
    plan->length = (size_t)(out - plan->bytes);
}

void sg_plan_init(sg_plan *plan, unsigned count, const uint8_t *algorithms,
                  const sg_quota *quotas, const uint64_t *keep_us) {
    memset(plan, 0, sizeof *plan);
    plan->count = count;
    plan->shape.layout.quotas = (uint8_t)count;
    plan->head[0] = (uint8_t)count;
    plan->head_length = 1 + (count + 3) / 4;
    for (unsigned i = 0; i < count; i++) {
        const unsigned algorithm = algorithms[i];
        plan->algorithm[i] = algorithms[i];
        plan->head[1 + i / 4] |= (uint8_t)(algorithm << (2 * (i % 4)));
        if (quotas[i].unlimited)
            plan->quotas[i].unlimited = true;
        else
            plan->quotas[i] = quotas[i];
        plan->keep_us[i] = sg_max(keep_us[i], plan->quotas[i].period / SG_TICKS_PER_US);
        plan->logs += algorithm == SG_SLIDING_LOG;
        plan->gcras += algorithm == SG_GCRA;
        plan->row_length += algorithm == SG_GCRA ? 9 : 6;
    }
    plan->simple = count == 1 && plan->gcras == 1 && !plan->quotas[0].shadow &&
                   !plan->quotas[0].unlimited;
    plan_write(plan);
}

static size_t row(const sg_plan *plan, const uint64_t *costs, bool change, uint8_t *out) {
    const uint8_t *start = out;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        if (plan->algorithm[i] != SG_GCRA) {
            out = sg_bytes_put(out, q->unlimited ? 0 : costs[i], 6);
            continue;
        }
        const sg_u128 ticks = (sg_u128)costs[i] * q->interval;
        const sg_ticks most = change ? 2 * q->capacity : q->capacity + 1;
        const bool fits = change || costs[i] <= q->burst;
        sg_ticks amount = fits && ticks < most ? (sg_ticks)ticks : most;
        out = sg_bytes_put_ticks(out, q->unlimited ? 0 : amount);
    }
    return (size_t)(out - start);
}

size_t sg_row_of_costs(const sg_plan *plan, const uint64_t *costs, uint8_t *out) {
    return row(plan, costs, false, out);
}

size_t sg_row_of_change(const sg_plan *plan, const uint64_t *costs, uint8_t *out) {
    return row(plan, costs, true, out);
}

sg_ticks sg_ticks_at(sg_server_time time, uint64_t us, uint32_t frac) {
    if (us < time.now_us) {
        const uint64_t behind = time.now_us - us;
        return behind > time.now / SG_TICKS_PER_US ? 0 : time.now - behind * SG_TICKS_PER_US + frac;
    }
    const uint64_t ahead = us - time.now_us;
    if (ahead >= (UINT64_MAX - time.now) / SG_TICKS_PER_US - 1)
        return UINT64_MAX; /* far past any reach */
    return time.now + ahead * SG_TICKS_PER_US + frac;
}

/* What the core's judgement sees of a log: what is used, when its last entry was made, and when the
 * entry was whose end makes room for this cost. */
static sg_log *short_log(sg_short_log *memory, const sg_quota *q, uint64_t cost, uint64_t used,
                         sg_ticks newest, sg_ticks freed, bool is_freed) {
    sg_log *log = (sg_log *)(void *)memory->words;
    uint64_t first = 0;
    if (used == 0)
        return NULL;
    sg_log_init(log, 4);
    log->total = used;
    if (is_freed && cost <= q->limit && used + cost > q->limit) {
        first = sg_min(used + cost - q->limit, used);
        log->entries[log->length++] = (sg_log_entry){.at = freed, .count = first};
    }
    if (used > first)
        log->entries[log->length++] = (sg_log_entry){.at = newest, .count = used - first};
    return log;
}

static void read_states(const sg_plan *plan, sg_bytes *b, sg_server_time time,
                        const uint64_t *costs, sg_sight *sight) {
    for (unsigned i = 0; i < plan->count; i++) {
        const uint64_t first = sg_bytes_take(b, plan->algorithm[i] == SG_SLIDING_LOG ? 6 : 7);
        sg_state *state = &sight->state[i];
        switch (plan->algorithm[i]) {
        case SG_GCRA:
            state->gcra.tat = sg_ticks_at(time, first, (uint32_t)sg_bytes_take(b, 2));
            break;
        case SG_FIXED_WINDOW:
            state->window.end = sg_ticks_at(time, first, 0);
            state->window.count = sg_bytes_take(b, 6);
            break;
        case SG_SLIDING_WINDOW:
            state->sliding.end = sg_ticks_at(time, first, 0);
            state->sliding.current = sg_bytes_take(b, 6);
            state->sliding.previous = sg_bytes_take(b, 6);
            break;
        default: {
            const uint64_t newest = sg_bytes_take(b, 7), freed = sg_bytes_take(b, 7);
            sight->log[i] = short_log(&sight->logs[i], &plan->quotas[i], costs[i], first,
                                      sg_ticks_at(time, newest, 0), sg_ticks_at(time, freed, 0),
                                      freed > 0);
            break;
        }
        }
    }
}

sg_seen sg_sight_read(const sg_plan *plan, const char *bytes, size_t length, sg_server_time time,
                      const uint64_t *costs, sg_sight *sight) {
    sg_bytes b = {.at = (const uint8_t *)bytes, .left = length};
    for (unsigned i = 0; i < plan->count; i++) {
        sight->state[i] = (sg_state){{0, 0, 0}};
        sight->log[i] = NULL;
    }
    sight->ban_until = sight->ban_length = 0;
    if (bytes == NULL)
        return plan->logs > 0 ? SG_SEEN_ERROR : SG_SEEN;
    if (length == 1 && bytes[0] == '!')
        return SG_SEEN_ERROR;
    if (length == 9 && plan->count == 1 && plan->gcras == 1) {
        const uint64_t us = sg_bytes_take(&b, 7);
        sight->state[0].gcra.tat = sg_ticks_at(time, us, (uint32_t)sg_bytes_take(&b, 2) & 0x3fffu);
        return SG_SEEN;
    }
    if (length < plan->head_length || memcmp(bytes, plan->head, plan->head_length) != 0)
        return plan->logs > 0 ? SG_SEEN_ERROR : SG_SEEN_OTHER;
    b.at += plan->head_length;
    b.left -= plan->head_length;
    const bool other = sg_bytes_take(&b, 4) == 1 && plan->logs > 0;
    read_states(plan, &b, time, costs, sight);
    if (b.left > 0) {
        sight->ban_until = sg_ticks_at(time, sg_bytes_take(&b, 7), 0);
        const uint64_t most = UINT64_MAX / SG_TICKS_PER_US;
        sight->ban_length = sg_min(sg_bytes_take(&b, 7), most) * SG_TICKS_PER_US;
    }
    return b.bad ? SG_SEEN_ERROR : other ? SG_SEEN_OTHER : SG_SEEN;
}
