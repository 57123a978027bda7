#include "support.h"

#include <stdlib.h>

#include "limiter.h"

typedef struct {
    test_memory memory;
    sg_allocator allocator;
    sg_table table;
    sg_quota quotas[SG_QUOTAS_MAX];
    unsigned count;
    sg_ticks now;
} fixture;

static void set_up(fixture *f, unsigned count, const sg_quota *quotas, uint64_t max_keys,
                   uint64_t max_bytes) {
    uint8_t algorithms[SG_QUOTAS_MAX];
    memset(f, 0, sizeof *f);
    f->allocator = test_allocator(&f->memory);
    f->count = count;
    f->now = DAY;
    for (unsigned i = 0; i < count; i++) {
        f->quotas[i] = quotas[i];
        algorithms[i] = quotas[i].algorithm;
    }
    EQUAL(sg_table_init(&f->table, &f->allocator, count, algorithms, max_keys, max_bytes), SG_OK);
}

static void tear_down(fixture *f) {
    EQUAL(f->memory.bytes, sg_table_bytes(&f->table));
    sg_table_free(&f->table);
    EQUAL(f->memory.pieces, 0);
}

/* The same cost for every quota. */
static const uint64_t *each(uint64_t cost) {
    static uint64_t costs[SG_QUOTAS_MAX];
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++)
        costs[i] = cost;
    return costs;
}

static sg_decision hit(fixture *f, uint64_t key, const uint64_t *costs) {
    sg_decision decision;
    EQUAL(sg_hit(&f->table, f->quotas, key_of(key), costs, f->now, &decision), SG_OK);
    return decision;
}

static sg_decision peek(fixture *f, uint64_t key, const uint64_t *costs) {
    sg_decision decision;
    sg_peek(&f->table, f->quotas, key_of(key), costs, f->now, &decision);
    return decision;
}

static uint64_t remaining(fixture *f, uint64_t key, unsigned i) {
    uint64_t low = 0, high = 2 * f->quotas[i].burst;
    while (low < high) { /* what would be admitted is all the interface tells of one quota */
        uint64_t costs[SG_QUOTAS_MAX] = {0}, middle = (low + high + 1) / 2;
        costs[i] = middle;
        if ((peek(f, key, costs).refusals >> i) & 1u)
            high = middle - 1;
        else
            low = middle;
    }
    return low;
}

static bool reserve(fixture *f, uint64_t key, uint64_t cost, sg_ticks ttl, sg_receipt *receipt) {
    sg_decision decision;
    EQUAL(sg_reserve(&f->table, f->quotas, key_of(key), each(cost), ttl, f->now, &decision, receipt),
          SG_OK);
    assert_true(receipt->open == decision.allowed);
    return decision.allowed;
}

static void settle(fixture *f, sg_receipt *receipt, uint64_t cost) {
    EQUAL(sg_settle(&f->table, f->quotas, receipt, each(cost), f->now), SG_OK);
    assert_false(receipt->open);
}

/* One quota of each algorithm, 10 a minute. */
static void four(sg_quota quotas[4]) {
    for (unsigned a = 0; a < SG_ALGORITHMS; a++)
        quotas[a] = quota_of((sg_algorithm)a, 10, 60, 0);
}

/* ---- several quotas ---- */

/* What several quotas say together is what each says alone in a table of its own: all admit or
 * none is charged; of those that refuse the longest wait binds, else the smallest share left. */
static void all_admit_or_none_is_charged(void **state) {
    (void)state;
    for (int run = 0; run < 60; run++) {
        fixture together, alone[SG_QUOTAS_MAX];
        sg_quota quotas[SG_QUOTAS_MAX];
        unsigned count = 1 + (unsigned)random_below(SG_QUOTAS_MAX);
        for (unsigned i = 0; i < count; i++) {
            quotas[i] = quota_of((sg_algorithm)random_below(SG_ALGORITHMS), 1 + random_below(30),
                                 (double)(1 + random_below(20)), 0);
            quotas[i].shadow = random_below(4) == 0;
            quotas[i].unlimited = random_below(8) == 0;
            set_up(&alone[i], 1, &quotas[i], 1000, 0);
        }
        set_up(&together, count, quotas, 1000, 0);
        for (int n = 0; n < 400; n++) {
            uint64_t key = random_below(5), costs[SG_QUOTAS_MAX] = {0};
            sg_decision says[SG_QUOTAS_MAX];
            bool allowed = true, shadow = false;
            sg_ticks longest = 0;
            uint8_t refusals = 0;
            for (unsigned i = 0; i < count; i++) {
                costs[i] = random_below(12);
                alone[i].now = together.now;
                says[i] = peek(&alone[i], key, &costs[i]);
                bool admits = says[i].refusals == 0;
                refusals |= (uint8_t)(admits ? 0 : 1u << i);
                if (quotas[i].shadow) {
                    shadow |= !admits;
                } else if (!admits) {
                    allowed = false;
                    longest = sg_max(longest, says[i].verdict.retry);
                }
            }
            sg_decision peeked = peek(&together, key, costs);
            sg_decision d = hit(&together, key, costs);
            assert_true(d.allowed == allowed && d.shadow == shadow);
            EQUAL(d.refusals, refusals);
            EQUAL(d.verdict.retry, allowed ? 0 : longest);
            assert_true(peeked.allowed == d.allowed && peeked.binding == d.binding);
            EQUAL(peeked.verdict.retry, d.verdict.retry);
            EQUAL(peeked.verdict.level, d.verdict.level);
            if (d.binding == SG_NONE) {
                for (unsigned i = 0; i < count; i++)
                    assert_true(quotas[i].shadow || quotas[i].unlimited);
            } else {
                assert_true(d.binding < count && !quotas[d.binding].shadow);
                const sg_quota *b = &quotas[d.binding];
                for (unsigned i = 0; allowed && i < count; i++) {
                    if (!quotas[i].shadow && !quotas[i].unlimited)
                        assert_true((sg_u128)d.verdict.level * quotas[i].capacity >=
                                    (sg_u128)says[i].verdict.level * b->capacity);
                }
            }
            for (unsigned i = 0; allowed && i < count; i++) {
                if (!((refusals >> i) & 1u))
                    assert_true(hit(&alone[i], key, &costs[i]).refusals == 0);
            }
            together.now += random_below(3) ? random_below(SECOND) : 0;
        }
        tear_down(&together);
        for (unsigned i = 0; i < count; i++)
            tear_down(&alone[i]);
    }
}

static void a_cost_above_the_burst_is_never_admitted(void **state) {
    (void)state;
    sg_quota quotas[4];
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t costs[SG_QUOTAS_MAX] = {1, 1, 1, 1};
        costs[i] = 11;
        sg_decision d = hit(&f, 1, costs);
        assert_false(d.allowed);
        EQUAL(d.binding, i);
        EQUAL(d.verdict.retry, SG_NEVER);
    }
    EQUAL(f.table.keys, 0); /* a refusal of an unknown key takes no memory */
    tear_down(&f);
}

static void other_numbers_go_on_with_the_state(void **state) {
    (void)state;
    sg_quota quotas[4];
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(hit(&f, 1, each(10)).allowed);
    for (unsigned a = 0; a < 4; a++)
        f.quotas[a] = quota_of((sg_algorithm)a, 15, 60, 0);
    for (unsigned a = 1; a < 4; a++)
        EQUAL(remaining(&f, 1, a), 5);
    /* gcra keeps the time at which it is whole again: 60 s, of 15 more than 15/60 s each. */
    EQUAL(remaining(&f, 1, 0), 0);
    f.now += 30 * SECOND;
    EQUAL(remaining(&f, 1, 0), 7);
    tear_down(&f);
}

/* ---- bans ---- */

static void a_ban_holds_back_all_events(void **state) {
    (void)state;
    sg_quota quotas[4];
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(hit(&f, 1, each(4)).allowed);
    EQUAL(sg_limiter_ban(&f.table, key_of(1), MINUTE, f.now), SG_OK);
    EQUAL(sg_limiter_ban(&f.table, key_of(2), MINUTE, f.now), SG_OK); /* never seen */
    for (uint64_t key = 1; key <= 2; key++) {
        sg_decision d = hit(&f, key, each(0));
        assert_false(d.allowed);
        EQUAL(d.binding, SG_BANNED);
        EQUAL(d.verdict.retry, MINUTE);
    }
    f.now += 59 * SECOND;
    EQUAL(hit(&f, 1, each(1)).verdict.retry, SECOND);
    f.now += SECOND - 1;
    assert_false(hit(&f, 1, each(1)).allowed);
    f.now += 1;
    assert_true(hit(&f, 1, each(1)).allowed);
    EQUAL(f.table.marked, 1);
    assert_true(hit(&f, 2, each(1)).allowed);
    EQUAL(f.table.marked, 0);

    EQUAL(sg_limiter_ban(&f.table, key_of(3), DAY, f.now), SG_OK);
    EQUAL(sg_limiter_ban(&f.table, key_of(3), SECOND, f.now), SG_OK); /* replaces */
    EQUAL(peek(&f, 3, each(1)).verdict.retry, SECOND);
    sg_limiter_unban(&f.table, key_of(3), f.now);
    sg_limiter_unban(&f.table, key_of(4), f.now);
    assert_true(hit(&f, 3, each(1)).allowed);
    /* A clock that steps back makes no ban longer than it was. */
    EQUAL(sg_limiter_ban(&f.table, key_of(5), MINUTE, f.now), SG_OK);
    f.now -= DAY / 2;
    AT_MOST(hit(&f, 5, each(1)).verdict.retry, MINUTE);
    f.now += MINUTE;
    assert_true(hit(&f, 5, each(1)).allowed);
    tear_down(&f);
}

static void a_ban_keeps_the_charges_under_it(void **state) {
    (void)state;
    sg_quota quotas[4];
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(hit(&f, 1, each(7)).allowed);
    EQUAL(sg_limiter_ban(&f.table, key_of(1), MINUTE, f.now), SG_OK);
    sg_limiter_unban(&f.table, key_of(1), f.now);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 3);
    tear_down(&f);
}

/* ---- penalties and rewards ---- */

static void penalties_and_rewards(void **state) {
    (void)state;
    sg_quota quotas[4];
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    EQUAL(sg_limiter_penalize(&f.table, f.quotas, key_of(1), each(4), f.now), SG_OK);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 6);
    EQUAL(sg_limiter_penalize(&f.table, f.quotas, key_of(1), each(SG_COST_MAX), f.now), SG_OK);
    sg_decision d = hit(&f, 1, each(1));
    assert_false(d.allowed);
    sg_limiter_reward(&f.table, f.quotas, key_of(1), each(10), f.now); /* the burst past it */
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 0);
    sg_limiter_reward(&f.table, f.quotas, key_of(1), each(3), f.now);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 3);
    sg_limiter_reward(&f.table, f.quotas, key_of(1), each(SG_COST_MAX), f.now);
    sg_limiter_reward(&f.table, f.quotas, key_of(77), each(5), f.now);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 10);
    tear_down(&f);
}

static void a_reset_forgets_the_key(void **state) {
    (void)state;
    sg_quota quotas[4];
    sg_receipt receipt;
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(reserve(&f, 1, 5, MINUTE, &receipt));
    EQUAL(sg_limiter_ban(&f.table, key_of(1), MINUTE, f.now), SG_OK);
    sg_limiter_reset(&f.table, key_of(1));
    sg_limiter_reset(&f.table, key_of(1));
    EQUAL(f.table.keys, 0);
    EQUAL(f.table.marked, 0);
    sg_receipt other;
    assert_true(reserve(&f, 1, 5, MINUTE, &other));
    settle(&f, &receipt, 0); /* of before the reset: gives nothing */
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 5);
    settle(&f, &other, 0);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 10);
    tear_down(&f);
}

/* ---- reservations ---- */

static void a_reservation_settles_once(void **state) {
    (void)state;
    sg_quota quotas[4];
    sg_receipt a, b, c, refused;
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(reserve(&f, 1, 4, MINUTE, &a));
    assert_true(reserve(&f, 1, 4, MINUTE, &b));
    assert_false(reserve(&f, 1, 4, MINUTE, &refused));
    settle(&f, &a, 1);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 5);
    settle(&f, &a, 0);
    settle(&f, &refused, 0);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 5);
    settle(&f, &b, 9); /* 5 more than reserved */
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 0);
    EQUAL(f.table.marked, 0);
    assert_true(reserve(&f, 2, 9, MINUTE, &c));
    settle(&f, &c, 30); /* past the limit, by a burst at most */
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 2, i), 0);
    sg_limiter_reward(&f.table, f.quotas, key_of(2), each(11), f.now);
    for (unsigned i = 0; i < 4; i++)
        EQUAL(remaining(&f, 2, i), 1);
    tear_down(&f);
}

static void a_lapsed_reservation_gives_nothing_back(void **state) {
    (void)state;
    sg_quota quotas[4];
    sg_receipt a, b;
    fixture f;
    four(quotas);
    set_up(&f, 4, quotas, 1000, 0);
    assert_true(reserve(&f, 1, 5, SECOND, &a));
    assert_true(reserve(&f, 1, 5, MINUTE, &b)); /* its record outlives the other's time */
    f.now += SECOND;
    settle(&f, &a, 0);
    for (unsigned i = 1; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 0);
    settle(&f, &b, 0);
    for (unsigned i = 1; i < 4; i++)
        EQUAL(remaining(&f, 1, i), 5);
    tear_down(&f);
}

/* Two keys live the same life, but one also makes reservations and gives them back, in any
 * order and part by part: it must never have more than the other. gcra and the log, for which
 * an event more changes nothing but what it counts. */
static void refunds_make_no_unit(void **state) {
    (void)state;
    enum { WITH = 1, WITHOUT = 2 };
    for (int run = 0; run < 2000; run++) {
        sg_algorithm algorithm = run % 2 ? SG_GCRA : SG_SLIDING_LOG;
        const sg_quota quota = quota_of(algorithm, 1 + random_below(20), 10, 0);
        sg_receipt open[6];
        unsigned opened = 0;
        fixture f;
        set_up(&f, 1, &quota, 1000, 0);
        for (int n = 0; n < 60; n++) {
            uint64_t cost = 1 + random_below(quota.burst), kind = random_below(5);
            if (kind < 2 && opened < COUNT(open)) {
                opened += reserve(&f, WITH, cost, DAY, &open[opened]);
            } else if (kind < 4 && opened > 0) {
                unsigned i = (unsigned)random_below(opened);
                settle(&f, &open[i], 0);
                open[i] = open[--opened];
            } else if (hit(&f, WITH, &cost).allowed) {
                assert_true(hit(&f, WITHOUT, &cost).allowed);
            }
            AT_MOST(remaining(&f, WITH, 0), remaining(&f, WITHOUT, 0));
            if (random_below(2))
                f.now += random_skewed(quota.period / 4);
        }
        tear_down(&f);
    }
}

/* At once, whatever was reserved and given back comes back whole, in any order. */
static void a_refund_at_once_is_whole_in_the_order_of_making(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_ALGORITHMS; a++) {
        const sg_quota quota = quota_of((sg_algorithm)a, 12, 60, 0);
        for (int backwards = 0; backwards < 2; backwards++) {
            sg_receipt receipts[3];
            fixture f;
            set_up(&f, 1, &quota, 1000, 0);
            for (unsigned i = 0; i < 3; i++)
                assert_true(reserve(&f, 1, 4, MINUTE, &receipts[i]));
            EQUAL(remaining(&f, 1, 0), 0);
            for (unsigned i = 0; i < 3; i++) {
                settle(&f, &receipts[backwards ? 2 - i : i], 0);
                EQUAL(remaining(&f, 1, 0), 4 * (i + 1));
            }
            tear_down(&f);
        }
    }
}

/* ---- projections ---- */

/* The time that is foretold for a row of events is the time it takes. */
static void a_projection_comes_true(void **state) {
    (void)state;
    for (int run = 0; run < 400; run++) {
        sg_quota quotas[3];
        uint64_t rows[8][3];
        const size_t events = 1 + random_below(8);
        fixture f;
        for (unsigned i = 0; i < 3; i++)
            quotas[i] = quota_of((sg_algorithm)random_below(SG_ALGORITHMS), 5 + random_below(10),
                                 (double)(1 + random_below(5)), 0);
        set_up(&f, 3, quotas, 1000, 0);
        for (int n = 0; n < 6; n++) {
            uint64_t costs[SG_QUOTAS_MAX] = {random_below(4), random_below(4), random_below(4)};
            hit(&f, 1, costs);
            f.now += random_below(SECOND);
        }
        if (random_below(4) == 0)
            EQUAL(sg_limiter_ban(&f.table, key_of(1), random_below(5 * SECOND), f.now), SG_OK);
        for (size_t e = 0; e < events; e++) {
            for (unsigned i = 0; i < 3; i++)
                rows[e][i] = random_below(6);
        }
        sg_ticks start = f.now, wait = 0;
        uint64_t pieces = f.memory.pieces;
        EQUAL(sg_project(&f.table, f.quotas, key_of(1), rows[0], events, f.now, &wait), SG_OK);
        EQUAL(f.memory.pieces, pieces);
        for (size_t e = 0; e < events; e++) {
            sg_decision d;
            for (int tries = 0; !(d = hit(&f, 1, rows[e])).allowed; tries++) {
                AT_MOST(tries, 20);
                f.now += d.verdict.retry;
            }
        }
        EQUAL(f.now - start, wait);
        const uint64_t never[] = {1, 1000, 1};
        EQUAL(sg_project(&f.table, f.quotas, key_of(1), never, 1, f.now, &wait), SG_OK);
        EQUAL(wait, SG_NEVER);
        tear_down(&f);
    }
}

/* ---- memory that fails, and bounds ---- */

enum { KEYS = 12, STEPS = 150 };

/* What can be told of every key; not what takes memory and counts for nothing. */
typedef struct {
    uint64_t remaining[KEYS][4];
    sg_decision at_once[KEYS];
    uint64_t evictions, generation;
} picture;

static void take_picture(fixture *f, picture *p) {
    memset(p, 0, sizeof *p);
    for (uint64_t key = 0; key < KEYS; key++) {
        sg_decision d = peek(f, key, each(1));
        p->at_once[key].allowed = d.allowed;
        p->at_once[key].binding = d.binding;
        p->at_once[key].refusals = d.refusals;
        p->at_once[key].verdict.level = d.verdict.level;
        p->at_once[key].verdict.retry = d.verdict.retry;
        p->at_once[key].verdict.reset = d.verdict.reset;
        for (unsigned i = 0; i < f->count; i++)
            p->remaining[key][i] = remaining(f, key, i);
    }
    p->evictions = f->table.evictions;
    p->generation = f->table.generation;
}

static sg_receipt receipts[8];

/* One random operation; the same for the same seed of random numbers. */
static sg_status step(fixture *f) {
    sg_decision d;
    sg_ticks wait;
    sg_fingerprint fp = key_of(random_below(KEYS));
    const uint64_t *costs = each(random_below(4));
    sg_receipt *receipt = &receipts[random_below(COUNT(receipts))];
    switch (random_below(8)) {
    case 0: return sg_limiter_ban(&f->table, fp, random_below(SECOND), f->now);
    case 1: return sg_limiter_penalize(&f->table, f->quotas, fp, costs, f->now);
    case 2:
        if (receipt->open)
            return sg_settle(&f->table, f->quotas, receipt, costs, f->now);
        return sg_reserve(&f->table, f->quotas, fp, costs, SECOND, f->now, &d, receipt);
    case 3: return sg_project(&f->table, f->quotas, fp, costs, 1, f->now, &wait);
    default: return sg_hit(&f->table, f->quotas, fp, costs, f->now, &d);
    }
}

static uint64_t rewind_to; /* the state of the random numbers, for a repetition */

static void run_with_failure(const sg_quota *quotas, uint64_t fail_at, bool for_good,
                             uint64_t *failures) {
    fixture f;
    random_set(rewind_to);
    memset(receipts, 0, sizeof receipts);
    set_up(&f, 4, quotas, 1000, 0);
    f.memory.fail_at = fail_at;
    f.memory.for_good = for_good;
    for (int n = 0; n < STEPS; n++) {
        picture before, after;
        sg_receipt receipts_before[COUNT(receipts)];
        uint64_t failed = f.memory.failures;
        uint64_t bytes = f.memory.bytes, state = random_get();
        bool look = f.memory.fail_at != 0 && f.memory.allocations + 4 >= fail_at;
        if (look) /* pictures are dear: only where it may matter */
            take_picture(&f, &before);
        memcpy(receipts_before, receipts, sizeof receipts);
        sg_status status = step(&f);
        if (status != SG_OK) {
            EQUAL(status, SG_NO_MEMORY);
            assert_true(f.memory.failures > failed);
            assert_true(look);
            take_picture(&f, &after);
            assert_memory_equal(&before, &after, sizeof before);
            for (size_t i = 0; i < COUNT(receipts); i++)
                assert_true(receipts_before[i].open == receipts[i].open);
            /* A log may have grown; no more than that. */
            AT_MOST(f.memory.bytes, bytes + 4 * sg_log_bytes(SG_LOG_MAX));
            /* With memory again it is done as if nothing had been. */
            f.memory.fail_at = 0;
            random_set(state);
            EQUAL(step(&f), SG_OK);
        }
        f.now += random_below(SECOND / 4);
    }
    *failures += f.memory.failures;
    tear_down(&f);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    const sg_quota quotas[4] = {
        quota_of(SG_SLIDING_LOG, 40, 60, 0), quota_of(SG_GCRA, 20, 10, 0),
        quota_of(SG_SLIDING_LOG, 60, 60, 0), quota_of(SG_FIXED_WINDOW, 90, 20, 0)};
    rewind_to = random_get();
    uint64_t failures = 0;
    for (uint64_t fail_at = 1;; fail_at++) {
        uint64_t before = failures;
        run_with_failure(quotas, fail_at, false, &failures);
        if (failures == before)
            break;
        run_with_failure(quotas, fail_at, true, &failures);
    }
    printf("failures provoked: %llu\n", (unsigned long long)failures);
    assert_true(failures > 100);
}

/* A bound in bytes, reached by logs, bans and keys at once: it is never passed, and nothing
 * but SG_FULL comes of it. The sanitizers see to it that no cell is used where it was. */
static void a_bound_in_bytes_holds(void **state) {
    (void)state;
    const sg_quota quotas[2] = {quota_of(SG_SLIDING_LOG, 500, 60, 0),
                                quota_of(SG_GCRA, 100, 10, 0)};
    for (int run = 0; run < 30; run++) {
        const uint64_t max_bytes = 8192 + random_below(65536);
        uint64_t admitted = 0;
        fixture f;
        set_up(&f, 2, quotas, 1000, max_bytes);
        for (int n = 0; n < 6000; n++) {
            sg_decision d = {0};
            sg_receipt receipt;
            sg_fingerprint fp = key_of(random_skewed(2000));
            sg_status status;
            switch (random_below(20)) {
            case 0: status = sg_limiter_ban(&f.table, fp, random_below(MINUTE), f.now); break;
            case 1: status = sg_limiter_penalize(&f.table, f.quotas, fp, each(2), f.now); break;
            case 2:
                status = sg_reserve(&f.table, f.quotas, fp, each(1), MINUTE, f.now, &d, &receipt);
                break;
            case 3: sg_limiter_reset(&f.table, fp); status = SG_OK; break;
            default: status = sg_hit(&f.table, f.quotas, fp, each(1), f.now, &d); break;
            }
            assert_true(status == SG_OK || status == SG_FULL);
            admitted += d.allowed;
            AT_MOST(sg_table_bytes(&f.table), max_bytes);
            EQUAL(sg_table_bytes(&f.table), f.memory.bytes);
            f.now += random_below(SECOND / 50);
        }
        assert_true(admitted > 1000);
        tear_down(&f);
    }
}

/* A flood at the bound forgets no ban and no open reservation. */
static void a_flood_evicts_no_ban_and_no_reservation(void **state) {
    (void)state;
    const sg_quota quota = quota_of(SG_GCRA, 10, 60, 0);
    sg_receipt open[20];
    fixture f;
    set_up(&f, 1, &quota, 500, 0);
    for (uint64_t key = 0; key < 20; key++) {
        EQUAL(sg_limiter_ban(&f.table, key_of(key), MINUTE, f.now), SG_OK);
        assert_true(reserve(&f, 100 + key, 1, MINUTE, &open[key]));
    }
    for (uint64_t key = 1000; key < 50000; key++)
        hit(&f, key, each(1 + key % 10));
    EQUAL(f.table.keys, 500);
    for (uint64_t key = 0; key < 20; key++) {
        EQUAL(peek(&f, key, each(1)).binding, SG_BANNED);
        EQUAL(remaining(&f, 100 + key, 0), 9);
        settle(&f, &open[key], 0);
        EQUAL(remaining(&f, 100 + key, 0), 10);
    }
    tear_down(&f);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_admit_or_none_is_charged),
        cmocka_unit_test(a_cost_above_the_burst_is_never_admitted),
        cmocka_unit_test(other_numbers_go_on_with_the_state),
        cmocka_unit_test(a_ban_holds_back_all_events),
        cmocka_unit_test(a_ban_keeps_the_charges_under_it),
        cmocka_unit_test(penalties_and_rewards),
        cmocka_unit_test(a_reset_forgets_the_key),
        cmocka_unit_test(a_reservation_settles_once),
        cmocka_unit_test(a_lapsed_reservation_gives_nothing_back),
        cmocka_unit_test(refunds_make_no_unit),
        cmocka_unit_test(a_refund_at_once_is_whole_in_the_order_of_making),
        cmocka_unit_test(a_projection_comes_true),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_bound_in_bytes_holds),
        cmocka_unit_test(a_flood_evicts_no_ban_and_no_reservation),
    };
    return cmocka_run_group_tests_name("limiter", tests, seed, NULL);
}
