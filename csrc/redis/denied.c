#include "denied.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    sg_fingerprint fp;
    int64_t made_ns, until_ns; /* 0: free */
    uint64_t server_us;
    uint64_t costs[SG_QUOTAS_MAX];
    uint16_t length;
    uint8_t plan_length;
    char bytes[SG_DENIED_BYTES];
    uint8_t plan[SG_PLAN_BYTES]; /* the numbers by which it was refused */
} entry;

struct sg_denied {
    entry places[SG_DENIED_PLACES];
};

_Static_assert(SG_PLAN_BYTES <= UINT8_MAX, "plan_length holds it");

sg_denied *sg_denied_new(void) { return calloc(1, sizeof(sg_denied)); }

void sg_denied_free(sg_denied *denied) { free(denied); }

static unsigned place_of(sg_fingerprint fp) { return (unsigned)(fp.lo % SG_DENIED_PLACES); }

static bool same(sg_fingerprint a, sg_fingerprint b) { return a.lo == b.lo && a.hi == b.hi; }

void sg_denied_put(sg_denied *denied, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, const char *bytes, size_t length, uint64_t server_us,
                   int64_t now_ns, int64_t until_ns) {
    entry *e = &denied->places[place_of(fp)];
    if (length > SG_DENIED_BYTES || bytes == NULL)
        return;
    e->fp = fp;
    e->made_ns = now_ns;
    e->until_ns = until_ns;
    e->server_us = server_us;
    e->length = (uint16_t)length;
    memset(e->costs, 0, sizeof e->costs);
    memcpy(e->costs, costs, plan->count * sizeof *costs);
    memcpy(e->bytes, bytes, length);
    e->plan_length = (uint8_t)plan->length;
    memcpy(e->plan, plan->bytes, plan->length);
}

bool sg_denied_get(const sg_denied *denied, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, int64_t now_ns, sg_decision *out) {
    const entry *e = &denied->places[place_of(fp)];
    if (!same(e->fp, fp) || now_ns >= e->until_ns || now_ns < e->made_ns ||
        e->plan_length != plan->length || memcmp(e->plan, plan->bytes, plan->length) != 0)
        return false;
    for (unsigned i = 0; i < plan->count; i++) {
        if (costs[i] < e->costs[i])
            return false;
    }
    const uint64_t passed_us = (uint64_t)(now_ns - e->made_ns) / 1000;
    return sg_answer_hit(plan, costs, e->bytes, e->length, e->server_us + passed_us, out) !=
               SG_SEEN_ERROR && !out->allowed;
}

void sg_denied_forget(sg_denied *denied, sg_fingerprint fp) {
    entry *e = &denied->places[place_of(fp)];
    if (same(e->fp, fp))
        e->until_ns = 0;
}
