#include "purse.h"

#include <stdlib.h>
#include <string.h>

#define PLACES 16384u
#define PROBES 8u /* places in which a key may stand */

typedef struct {
    sg_fingerprint fp;
    int64_t dry_ns;  /* until then no draw is tried */
    int64_t seen_ns; /* when the levels were those */
    int64_t until_ns[SG_QUOTAS_MAX]; /* when what is left of each quota lapses */
    uint64_t left[SG_QUOTAS_MAX];    /* units drawn and not spent */
    uint64_t level[SG_QUOTAS_MAX];   /* of the server, with all that was drawn */
    sg_ticks reset[SG_QUOTAS_MAX];   /* of a window: until it ends, as it was then */
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
    if (q->algorithm != SG_GCRA || q->unlimited)
        return 0;
    const uint64_t units = units_a_second(q);
    return q->burst <= units ? 0 : units * q->interval;
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
    int64_t last_ns = e->dry_ns;
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++)
        last_ns = e->until_ns[i] > last_ns ? e->until_ns[i] : last_ns;
    return last_ns > now_ns;
}

/* Units of quota i that can be spent at `now_ns`. */
static uint64_t units(const entry *e, unsigned i, int64_t now_ns) {
    return e->until_ns[i] > now_ns ? e->left[i] : 0;
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
    entry *e = find(purse, fp, -1);
    if (e != NULL)
        memset(e, 0, sizeof *e);
}

/* What of a quota is used, with what is drawn and not spent left out. */
static uint64_t level_now(const sg_quota *q, const entry *e, unsigned i, int64_t now_ns) {
    const uint64_t left = units(e, i, now_ns);
    if (q->algorithm != SG_GCRA)
        return sg_ahead(e->level[i], left);
    const uint64_t passed = (uint64_t)(now_ns - e->seen_ns) * SG_TICKS_PER_NS;
    return sg_ahead(sg_ahead(e->level[i], passed), left * q->interval);
}

sg_purse_state sg_purse_take(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan,
                             const uint64_t *costs, int64_t now_ns, sg_decision *out) {
    entry *e = find(purse, fp, now_ns);
    if (e == NULL)
        return SG_PURSE_NONE;
    for (unsigned i = 0; i < plan->count; i++) {
        if (!plan->quotas[i].unlimited && costs[i] > units(e, i, now_ns))
            return e->dry_ns > now_ns ? SG_PURSE_DRY : SG_PURSE_NONE;
    }
    memset(out, 0, sizeof *out);
    out->allowed = out->verdict.allowed = true;
    out->binding = SG_NONE;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        if (q->unlimited)
            continue;
        e->left[i] -= costs[i]; /* of a cost of 0 there may be nothing */
        out->level[i] = level_now(q, e, i, now_ns);
        const bool fuller = out->binding == SG_NONE ||
                            (sg_u128)out->level[i] * plan->quotas[out->binding].capacity >
                                (sg_u128)out->verdict.level * q->capacity;
        if (fuller) {
            out->binding = (uint8_t)i;
            out->verdict.level = out->level[i];
            out->verdict.reset = q->algorithm == SG_GCRA
                                     ? out->level[i]
                                     : sg_ahead(e->reset[i], (uint64_t)(now_ns - e->seen_ns) *
                                                                 SG_TICKS_PER_NS);
        }
    }
    return SG_PURSE_TAKEN;
}

void sg_purse_lack(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, uint64_t lease, int64_t now_ns, uint64_t *draw) {
    const entry *e = find(purse, fp, now_ns);
    for (unsigned i = 0; i < plan->count; i++) {
        const uint64_t have = e == NULL ? 0 : units(e, i, now_ns);
        draw[i] = have >= costs[i] ? 0 : sg_max(costs[i], lease);
    }
}

/* Ticks until the window of quota i ends that was drawn from. */
static sg_ticks window_left(const sg_quota *q, const sg_state *before) {
    const sg_ticks end = before->window.end;
    return end > SG_CLOCK_MAX && before->window.count > 0 ? sg_min(end - SG_CLOCK_MAX, q->period)
                                                          : q->period;
}

bool sg_purse_put(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan, const uint64_t *drawn,
                  const sg_decision *decision, const char *bytes, size_t length,
                  uint64_t server_us, int64_t asked_ns, int64_t now_ns) {
    const sg_server_time time = {.now_us = server_us, .now = SG_CLOCK_MAX};
    sg_sight sight;
    entry *e = place_for(purse, fp, now_ns);
    if (e == NULL ||
        sg_sight_read(plan, bytes, length, time, drawn, &sight) == SG_SEEN_ERROR)
        return false;
    if (find(purse, fp, now_ns) != e)
        memset(e, 0, sizeof *e);
    e->fp = fp;
    e->dry_ns = 0;
    e->seen_ns = now_ns;
    for (unsigned i = 0; i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        int64_t until_ns = asked_ns + SG_LEASE_NS;
        e->level[i] = decision->level[i];
        if (q->algorithm != SG_GCRA && !q->unlimited) {
            e->reset[i] = window_left(q, &sight.state[i]);
            /* counted from the question, and so not after the window */
            const int64_t ends_ns = asked_ns + (int64_t)(e->reset[i] / SG_TICKS_PER_NS);
            until_ns = ends_ns < until_ns ? ends_ns : until_ns;
        }
        if (drawn[i] == 0)
            continue;
        const uint64_t left = units(e, i, now_ns);
        /* What is left of an earlier draw keeps its end, and the new units have it too: so no more
         * than a draw lapses at once, and nothing is spent late. */
        if (left == 0 || until_ns < e->until_ns[i])
            e->until_ns[i] = until_ns;
        e->left[i] = left + drawn[i];
    }
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
