#include "purse.h"

#include <stdlib.h>
#include <string.h>

#define PLACES 16384u
#define PROBES 8u /* places in which a key may stand */

typedef struct {
    sg_fingerprint fp;
    int64_t until_ns; /* when what is left lapses */
    int64_t dry_ns;   /* until then no draw is tried */
    int64_t seen_ns;  /* when the levels were those */
    uint64_t left[SG_QUOTAS_MAX];  /* units drawn and not spent */
    uint64_t level[SG_QUOTAS_MAX]; /* of the server, with all that was drawn */
} entry;

struct sg_purse {
    entry places[PLACES];
};

sg_purse *sg_purse_new(void) { return calloc(1, sizeof(sg_purse)); }

void sg_purse_free(sg_purse *purse) { free(purse); }

static uint64_t units_a_second(const sg_quota *q) {
    return (SG_TICKS_PER_SECOND + q->interval - 1) / q->interval;
}

sg_ticks sg_lease_lowered(const sg_quota *q) {
    const uint64_t units = units_a_second(q);
    return q->algorithm != SG_GCRA || q->unlimited || q->burst <= units ? 0 : units * q->interval;
}

void sg_lease_lower(sg_quota *quotas, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        sg_quota *q = &quotas[i];
        const sg_ticks lowered = sg_lease_lowered(q);
        if (lowered > 0) {
            q->burst -= units_a_second(q);
            q->capacity -= lowered;
        }
    }
}

/* Whether the place tells of its key at `now_ns`; else it is free. */
static bool lives(const entry *e, int64_t now_ns) {
    return e->until_ns > now_ns || e->dry_ns > now_ns;
}

static entry *find(sg_purse *purse, sg_fingerprint fp, int64_t now_ns) {
    for (unsigned i = 0; i < PROBES; i++) {
        entry *e = &purse->places[(fp.lo + i) % PLACES];
        if (e->fp.lo == fp.lo && e->fp.hi == fp.hi && lives(e, now_ns))
            return e;
    }
    return NULL;
}

/* The key's own place, or a free one; NULL: none. */
static entry *place_for(sg_purse *purse, sg_fingerprint fp, int64_t now_ns) {
    entry *e = find(purse, fp, now_ns);
    for (unsigned i = 0; i < PROBES && e == NULL; i++) {
        entry *other = &purse->places[(fp.lo + i) % PLACES];
        if (!lives(other, now_ns))
            e = other;
    }
    return e;
}

bool sg_purse_room(sg_purse *purse, sg_fingerprint fp, int64_t now_ns) {
    return place_for(purse, fp, now_ns) != NULL;
}

void sg_purse_forget(sg_purse *purse, sg_fingerprint fp) {
    entry *e = find(purse, fp, INT64_MIN);
    if (e != NULL)
        e->until_ns = e->dry_ns = INT64_MIN;
}

/* What of a quota is used, with what is drawn and not spent left out. */
static uint64_t level_now(const sg_quota *q, const entry *e, unsigned i, int64_t now_ns) {
    if (q->algorithm != SG_GCRA)
        return sg_ahead(e->level[i], e->left[i]);
    const uint64_t passed = (uint64_t)(now_ns - e->seen_ns) * SG_TICKS_PER_NS;
    return sg_ahead(sg_ahead(e->level[i], passed), e->left[i] * q->interval);
}

sg_purse_state sg_purse_take(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan,
                             const uint64_t *costs, int64_t now_ns, sg_decision *out) {
    entry *e = find(purse, fp, now_ns);
    if (e == NULL)
        return SG_PURSE_NONE;
    for (unsigned i = 0; i < plan->count; i++) {
        if (!plan->quotas[i].unlimited && (e->until_ns <= now_ns || costs[i] > e->left[i]))
            return e->dry_ns > now_ns ? SG_PURSE_DRY : SG_PURSE_NONE;
    }
    memset(out, 0, sizeof *out);
    out->allowed = out->verdict.allowed = true;
    out->binding = SG_NONE;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        if (q->unlimited)
            continue;
        e->left[i] -= costs[i];
        out->level[i] = level_now(q, e, i, now_ns);
        const bool fuller = out->binding == SG_NONE ||
                            (sg_u128)out->level[i] * plan->quotas[out->binding].capacity >
                                (sg_u128)out->verdict.level * q->capacity;
        if (fuller) {
            out->binding = (uint8_t)i;
            out->verdict.level = out->level[i];
            /* A window is whole again when it ends, which is not before the draw lapses. */
            out->verdict.reset = q->algorithm == SG_GCRA
                                     ? out->level[i]
                                     : (sg_ticks)(e->until_ns - now_ns) * SG_TICKS_PER_NS;
        }
    }
    return SG_PURSE_TAKEN;
}

/* Microseconds until the first of the windows ends that were drawn from. */
static uint64_t window_us(const sg_plan *plan, const uint64_t *costs, const char *bytes,
                          size_t length, uint64_t server_us) {
    uint64_t least = UINT64_MAX;
    sg_sight sight;
    const sg_server_time time = {.now_us = server_us, .now = SG_CLOCK_MAX};
    if (sg_sight_read(plan, bytes, length, time, costs, &sight) == SG_SEEN_ERROR)
        return 0;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        if (q->algorithm == SG_GCRA || q->unlimited)
            continue;
        const sg_ticks end = sight.state[i].window.end;
        const sg_ticks left = end > SG_CLOCK_MAX && sight.state[i].window.count > 0
                                  ? sg_min(end - SG_CLOCK_MAX, q->period) : q->period;
        least = sg_min(least, left / SG_TICKS_PER_US);
    }
    return least;
}

bool sg_purse_put(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan, const uint64_t *drawn,
                  const sg_decision *decision, const char *bytes, size_t length,
                  uint64_t server_us, int64_t asked_ns, int64_t now_ns) {
    const uint64_t window = window_us(plan, drawn, bytes, length, server_us);
    int64_t until_ns = asked_ns + SG_LEASE_NS;
    /* The reply has been under way for at most as long as the question and it together. */
    if (window < (uint64_t)SG_LEASE_NS / 1000)
        until_ns = (int64_t)sg_min((uint64_t)until_ns,
                                   (uint64_t)asked_ns + window * 1000);
    entry *e = place_for(purse, fp, now_ns);
    if (e == NULL || until_ns <= now_ns)
        return false;
    /* What was left of an earlier draw lapses now: it was too little for the event at hand. */
    for (unsigned i = 0; i < plan->count; i++) {
        e->left[i] = drawn[i];
        e->level[i] = decision->level[i];
    }
    e->until_ns = until_ns;
    e->seen_ns = now_ns;
    e->fp = fp;
    e->dry_ns = 0;
    return true;
}

void sg_purse_dry(sg_purse *purse, sg_fingerprint fp, int64_t now_ns, int64_t until_ns) {
    entry *e = place_for(purse, fp, now_ns);
    if (e == NULL)
        return;
    if (find(purse, fp, now_ns) != e) {
        memset(e, 0, sizeof *e);
        e->fp = fp;
    }
    e->dry_ns = until_ns;
}
