#include "topk.h"

#include <string.h>

#define TABLE_BYTES (SG_TOPK_BUCKETS * sizeof(sg_topk_entry))
#define WAYS 4u /* buckets that a key may have: so many keys at least are counted exactly */
#define HALF_LIFE (60 * SG_TICKS_PER_SECOND)

void sg_topk_init(sg_topk *topk, uint64_t seed) {
    *topk = (sg_topk){.random = seed | 1};
}

void sg_topk_free(sg_topk *topk, sg_arena *arena) {
    sg_arena_free(arena, (sg_ref)(uintptr_t)topk->entries, TABLE_BYTES);
    topk->entries = NULL;
}

/* xorshift64* (S. Vigna, "An experimental exploration of Marsaglia's xorshift generators,
 * scrambled", 2016). */
static uint64_t next_random(uint64_t *random) {
    uint64_t x = *random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *random = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* True with probability 1.08 ** -count, the decay that the paper uses. */
static bool wears(uint64_t *random, uint64_t count) {
    /* Drawn first: the chance falls below most draws within a few steps. */
    const double drawn = (double)(next_random(random) >> 11) * 0x1p-53;
    double chance = 1.0;
    count = sg_min(count, 1000); /* the chance of which is below any that can be drawn */
    while (count > 0 && chance > drawn) {
        chance *= 1 / 1.08;
        count--;
    }
    return chance > drawn;
}

static void halve(sg_topk_entry *entries, unsigned buckets) {
    for (unsigned i = 0; i < buckets; i++) {
        sg_topk_entry *e = &entries[i];
        e->count /= 2;
        if (e->count == 0)
            e->fingerprint = 0; /* a free bucket counts nothing: the lightest of its set */
    }
}

static void take(sg_topk_entry *e, uint64_t id, const char *name, size_t length) {
    size_t kept = sg_min(length, SG_TOPK_NAME);
    e->fingerprint = id;
    e->count = 1;
    e->name_length = (uint8_t)kept;
    e->cut = length > kept;
    if (kept > 0)
        memcpy(e->name, name, kept);
}

void sg_topk_count(sg_topk_entry *entries, unsigned buckets, sg_ticks *halved, uint64_t *random,
                   sg_fingerprint fp, const char *name, size_t length, sg_ticks now) {
    if (SG_UNLIKELY(sg_ahead(now, *halved) >= HALF_LIFE)) {
        halve(entries, buckets);
        *halved = now;
    }
    const uint64_t id = fp.lo | 1;
    sg_topk_entry *set = &entries[(fp.hi >> 32) % (buckets / WAYS) * WAYS];
    sg_topk_entry *lightest = set;
    /* Buckets of a set fill from the left; only halving leaves a gap, and the key may then
     * stand behind it. */
    for (unsigned way = 0; way < WAYS; way++) {
        if (set[way].fingerprint == id) {
            set[way].count++;
            return;
        }
        if (set[way].count < lightest->count)
            lightest = &set[way];
    }
    if (lightest->fingerprint == 0 || (wears(random, lightest->count) && --lightest->count == 0))
        take(lightest, id, name, length);
}

void sg_topk_add(sg_topk *topk, sg_arena *arena, sg_fingerprint fp, const char *name,
                 size_t length, sg_ticks now) {
    if (SG_UNLIKELY(topk->entries == NULL)) {
        if (topk->failed)
            return;
        topk->entries = sg_arena_at(arena, sg_arena_alloc(arena, TABLE_BYTES));
        topk->halved = now;
        if (topk->entries == NULL) {
            topk->failed = true;
            return;
        }
    }
    sg_topk_count(topk->entries, SG_TOPK_BUCKETS, &topk->halved, &topk->random, fp, name, length,
                  now);
}

size_t sg_topk_gather(const sg_topk_entry *entries, unsigned buckets, sg_topk_entry *out,
                      size_t found, size_t most) {
    for (unsigned i = 0; most > 0 && i < buckets; i++) {
        const sg_topk_entry *e = &entries[i];
        if (e->fingerprint == 0)
            continue;
        size_t at = found;
        while (at > 0 && out[at - 1].count < e->count)
            at--;
        if (at == most)
            continue;
        size_t kept = found < most ? found : most - 1;
        memmove(&out[at + 1], &out[at], (kept - at) * sizeof *out);
        out[at] = *e;
        out[at].name_length = (uint8_t)sg_min(e->name_length, SG_TOPK_NAME); /* in a mapping */
        found = kept + 1;
    }
    return found;
}

size_t sg_topk_list(const sg_topk *topk, sg_topk_entry *out, size_t most) {
    return topk->entries == NULL ? 0 : sg_topk_gather(topk->entries, SG_TOPK_BUCKETS, out, 0, most);
}
