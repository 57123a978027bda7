/* The four algorithms by what they promise: every verdict is tested against what the rule
 * itself says a moment later, and every run against the promise counted over its events. */
#include "support.h"

#include <stdlib.h>

/* Runs start before the first and end before the second, so that the looks ahead of the tests,
 * by periods of ten years, stay inside 64 bits too. */
#define START_MAX (SG_CLOCK_MAX / 8)
#define END_MAX (SG_CLOCK_MAX / 4)

/* One key under one quota. */
typedef struct {
    sg_quota quota;
    sg_state state;
    sg_log *log; /* SG_LOG_MAX entries, for the log */
} key_state;

static void key_init(key_state *k, sg_quota quota) {
    *k = (key_state){.quota = quota};
    if (quota.algorithm == SG_SLIDING_LOG) {
        k->log = malloc(sg_log_bytes(SG_LOG_MAX));
        assert_non_null(k->log);
        sg_log_init(k->log, SG_LOG_MAX);
    }
}

static void key_free(key_state *k) { free(k->log); }

static sg_verdict look(const key_state *k, sg_ticks now, uint64_t cost) {
    sg_state next;
    return sg_decide(&k->quota, &k->state, k->log, now, cost, &next);
}

static sg_verdict hit(key_state *k, sg_ticks now, uint64_t cost) {
    sg_state next;
    sg_verdict v = sg_decide(&k->quota, &k->state, k->log, now, cost, &next);
    if (k->log == NULL) {
        k->state = next;
    } else {
        sg_log_expire(k->log, now, k->quota.period);
        if (v.allowed && cost > 0)
            sg_log_add(k->log, now, k->quota.period, cost);
    }
    return v;
}

static const struct {
    uint64_t limit;
    double seconds;
    uint64_t burst;
} numbers[] = {
    {1, 1, 0},         {5, 1, 20},           {7, 60, 0},        {3, 0.001, 0},
    {1000, 60, 0},     {1, 86400, 0},        {100, 1, 1},       {1048576, 60, 0},
    {10485760, 1, 0},  {1, 86400 * 3660., 0}, {60, 3600, 7},    {1000000000, 1, 0},
    {13, 1. / 7., 0},  {SG_LIMIT_MAX, 86400 * 3660., 0},
};

/* The quotas of `numbers` with one algorithm. */
static sg_quota numbered(sg_algorithm algorithm, size_t i) {
    return quota_of(algorithm, numbers[i].limit, numbers[i].seconds,
                    algorithm == SG_GCRA ? numbers[i].burst : 0);
}

static sg_ticks random_step(const sg_quota *q) {
    uint64_t kind = random_below(8);
    if (kind == 0)
        return 0;
    if (kind == 1)
        return random_below(3 * q->period);
    return random_skewed(q->period / (kind < 5 ? q->limit : 1) + 2);
}

/* What a verdict says of later moments is what the rule says then. */
static void check_verdict(const key_state *before, const key_state *after, sg_ticks now,
                          uint64_t cost, sg_verdict v) {
    const sg_quota *q = &after->quota;
    if (v.allowed) {
        EQUAL(v.retry, 0);
    } else if (v.retry == SG_NEVER) {
        assert_true(cost > q->burst);
    } else {
        assert_true(cost <= q->burst && v.retry > 0);
        assert_true(look(after, now + v.retry, cost).allowed);
        assert_false(look(after, now + v.retry - 1, cost).allowed);
        /* A refusal has charged nothing. */
        EQUAL(look(before, now, cost).level, look(after, now, cost).level);
        EQUAL(look(before, now, cost).retry, look(after, now, cost).retry);
    }
    uint64_t remaining = sg_remaining(q, &v);
    AT_MOST(remaining, q->burst);
    if (remaining > 0)
        assert_true(look(after, now, remaining).allowed);
    assert_false(look(after, now, remaining + 1).allowed);
    assert_true(look(after, now, 0).allowed);
    if (v.allowed || v.level <= q->capacity) {
        /* Whole again, and not a tick before. */
        assert_true(sg_expired(q, &after->state, after->log, now + v.reset));
        assert_true(look(after, now + v.reset, q->burst).allowed);
        if (v.reset > 0)
            assert_false(sg_expired(q, &after->state, after->log, now + v.reset - 1));
    }
}

static void copy(key_state *to, const key_state *from) {
    sg_log *log = to->log;
    *to = *from;
    to->log = log;
    if (log != NULL)
        memcpy(log, from->log, sg_log_bytes(SG_LOG_MAX));
}

static void verdicts_hold(sg_algorithm algorithm) {
    for (size_t i = 0; i < COUNT(numbers); i++) {
        for (int run = 0; run < 20; run++) {
            key_state k, before;
            key_init(&k, numbered(algorithm, i));
            key_init(&before, k.quota);
            sg_ticks now = random_skewed(START_MAX);
            EQUAL(look(&k, now, k.quota.burst).allowed, true); /* a new key has its burst */
            for (int event = 0; event < 200 && now < END_MAX; event++) {
                uint64_t cost = random_below(4) ? random_skewed(k.quota.burst + 2)
                                                : 1 + random_below(3);
                copy(&before, &k);
                sg_verdict v = hit(&k, now, cost);
                check_verdict(&before, &k, now, cost, v);
                now = sg_min(now + random_step(&k.quota), END_MAX);
            }
            key_free(&k);
            key_free(&before);
        }
    }
}

static void gcra_verdicts_hold(void **state) { (void)state; verdicts_hold(SG_GCRA); }
static void fixed_window_verdicts_hold(void **state) { (void)state; verdicts_hold(SG_FIXED_WINDOW); }
static void sliding_window_verdicts_hold(void **state) { (void)state; verdicts_hold(SG_SLIDING_WINDOW); }
static void sliding_log_verdicts_hold(void **state) { (void)state; verdicts_hold(SG_SLIDING_LOG); }

/* ---- promises, counted over what was admitted ---- */

#define EVENTS 3000

typedef struct {
    sg_ticks at;
    uint64_t cost;
} event;

/* A flood: most events come as soon as they may, or a little before or after. */
static size_t flood(key_state *k, event *admitted) {
    size_t n = 0;
    sg_ticks now = random_skewed(START_MAX);
    for (int i = 0; i < EVENTS && now < END_MAX; i++) {
        uint64_t cost = random_below(3) ? 1 : 1 + random_skewed(k->quota.burst);
        sg_verdict v = hit(k, now, cost);
        if (v.allowed)
            admitted[n++] = (event){now, cost};
        sg_ticks retry = v.retry == SG_NEVER ? k->quota.period : v.retry;
        switch (random_below(4)) {
        case 0: now += retry; break;
        case 1: now += retry > 0 ? retry - 1 : 0; break;
        case 2: now = sg_min(now + random_step(&k->quota), END_MAX); break;
        default: break;
        }
    }
    return n;
}

static void gcra_admits_at_most_burst_and_rate(void **state) {
    (void)state;
    static event admitted[EVENTS];
    for (size_t i = 0; i < COUNT(numbers); i++) {
        key_state k;
        key_init(&k, numbered(SG_GCRA, i));
        size_t n = flood(&k, admitted);
        for (size_t first = 0; first < n; first++) {
            uint64_t sum = 0;
            for (size_t last = first; last < n; last++) {
                sum += admitted[last].cost;
                sg_u128 x = admitted[last].at - admitted[first].at;
                /* sum <= burst + limit * x / period, in whole numbers */
                assert_true((sg_u128)(sg_ahead(sum, k.quota.burst)) * k.quota.period <=
                            x * k.quota.limit);
            }
        }
    }
}

static void fixed_window_admits_at_most_its_limit(void **state) {
    (void)state;
    static event admitted[EVENTS];
    for (size_t i = 0; i < COUNT(numbers); i++) {
        key_state k;
        key_init(&k, numbered(SG_FIXED_WINDOW, i));
        size_t n = flood(&k, admitted);
        sg_ticks start = 0;
        uint64_t sum = 0;
        for (size_t e = 0; e < n; e++) {
            if (e == 0 || admitted[e].at - start >= k.quota.period) {
                start = admitted[e].at; /* a window starts at the first event */
                sum = 0;
            }
            sum += admitted[e].cost;
            AT_MOST(sum, k.quota.limit);
        }
    }
}

static void sliding_window_keeps_its_weighted_count(void **state) {
    (void)state;
    static event admitted[EVENTS];
    for (size_t i = 0; i < COUNT(numbers); i++) {
        key_state k;
        key_init(&k, numbered(SG_SLIDING_WINDOW, i));
        size_t n = flood(&k, admitted);
        const sg_ticks period = k.quota.period;
        sg_ticks end = 0;
        uint64_t current = 0, previous = 0;
        for (size_t e = 0; e < n; e++) {
            sg_ticks at = admitted[e].at;
            if (end == 0 || at >= end + period) { /* nothing of before counts any more */
                end = at + period;
                previous = current = 0;
            } else if (at >= end) {
                end += period;
                previous = current;
                current = 0;
            }
            current += admitted[e].cost;
            AT_MOST(current, k.quota.limit);
            assert_true((sg_u128)previous * (end - at) <=
                        (sg_u128)(k.quota.limit - current) * period);
        }
    }
}

static void sliding_log_admits_at_most_its_limit_in_any_period(void **state) {
    (void)state;
    static event admitted[EVENTS];
    for (size_t i = 0; i < COUNT(numbers); i++) {
        key_state k;
        key_init(&k, numbered(SG_SLIDING_LOG, i));
        size_t n = flood(&k, admitted), first = 0;
        uint64_t sum = 0;
        for (size_t e = 0; e < n; e++) {
            sum += admitted[e].cost;
            while (admitted[e].at - admitted[first].at >= k.quota.period)
                sum -= admitted[first++].cost;
            AT_MOST(sum, k.quota.limit);
        }
        key_free(&k);
    }
}

/* Who asks again as soon as allowed gets the rate of the quota, less 0.1 %. */
static void none_starves(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_ALGORITHMS; a++) {
        for (size_t i = 0; i < COUNT(numbers); i++) {
            key_state k;
            key_init(&k, numbered((sg_algorithm)a, i));
            const sg_quota *q = &k.quota;
            uint64_t cost = q->burst > 64 ? q->burst / 64 : 1, sum = 0;
            sg_ticks now = 0;
            for (int n = 0; n < 2000; n++) {
                if (now > SG_CLOCK_MAX)
                    break;
                sg_verdict v = hit(&k, now, cost);
                if (v.allowed)
                    sum += cost;
                else
                    now += v.retry;
            }
            /* Windows grant at their start: what the time grants is counted in whole costs. */
            sg_u128 granted = (sg_u128)q->limit * now / q->period;
            sg_u128 most = a == SG_GCRA ? granted : granted * 63 / 64;
            sg_u128 got = sum + cost;
            if (a == SG_SLIDING_LOG)
                most = most * 255 / 256; /* grouped entries wait up to period/255 */
            if (a == SG_SLIDING_WINDOW)
                most = most / 2; /* weighted: a full window before leaves less of this one */
            assert_true(got * 1000 >= most * 999);
            key_free(&k);
        }
    }
}

/* ---- clocks that step ---- */

static void a_clock_that_steps_back_neither_refills_nor_locks_out(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_ALGORITHMS; a++) {
        for (size_t i = 0; i < COUNT(numbers); i++) {
            key_state k;
            key_init(&k, numbered((sg_algorithm)a, i));
            const sg_quota *q = &k.quota;
            sg_ticks now = SG_CLOCK_MAX / 2;
            hit(&k, now, q->burst);
            assert_false(look(&k, now, 1).allowed);
            sg_ticks back = random_below(now);
            sg_verdict v = hit(&k, back, 1);
            assert_false(v.allowed);
            /* gcra may be a burst past its limit by a penalty; a window waits for its end. */
            sg_ticks reach = a == SG_GCRA ? 2 * q->capacity : 2 * q->period;
            AT_MOST(v.retry, reach);
            AT_MOST(v.reset, reach);
            assert_true(look(&k, back + reach, q->burst).allowed);
            key_free(&k);
        }
    }
}

/* Any state of any bits is taken without a fault, and holds back for no longer than it can. */
static void any_state_is_cut_to_what_the_quota_reaches(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_SLIDING_LOG; a++) {
        for (int run = 0; run < 20000; run++) {
            const sg_quota q = numbered((sg_algorithm)a, random_below(COUNT(numbers)));
            sg_ticks now = random_skewed(SG_CLOCK_MAX);
            sg_state s = {{random_skewed(UINT64_MAX), random_skewed(2 * SG_LIMIT_MAX),
                           random_skewed(2 * SG_LIMIT_MAX)}};
            if (a != SG_GCRA && s.words[0] > 2 * SG_CLOCK_MAX)
                s.words[0] = 2 * SG_CLOCK_MAX;
            sg_state next;
            sg_verdict v = sg_decide(&q, &s, NULL, now, random_skewed(SG_COST_MAX + 1), &next);
            AT_MOST(v.reset, a == SG_GCRA ? 2 * q.capacity : 2 * q.period);
            sg_penalize(&q, &next, now, random_skewed(SG_COST_MAX + 1));
            sg_reward(&q, &next, now, random_skewed(SG_COST_MAX + 1));
            sg_refund(&q, &next, now, sg_mark(&q, &s), random_skewed(SG_COST_MAX + 1));
        }
    }
}

/* ---- penalties, rewards, refunds ---- */

static void a_penalty_takes_at_most_one_burst_more(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_SLIDING_LOG; a++) {
        for (size_t i = 0; i < COUNT(numbers); i++) {
            key_state k;
            key_init(&k, numbered((sg_algorithm)a, i));
            const sg_quota *q = &k.quota;
            sg_ticks now = 1000;
            hit(&k, now, q->burst);
            sg_penalize(q, &k.state, now, 1);
            sg_verdict v = look(&k, now, 0);
            EQUAL(v.level, a == SG_GCRA ? q->capacity + q->interval : q->capacity + 1);
            for (int n = 0; n < 3; n++)
                sg_penalize(q, &k.state, now, SG_COST_MAX);
            EQUAL(look(&k, now, 0).level, 2 * q->capacity);
            v = look(&k, now, 1);
            assert_false(v.allowed);
            assert_true(look(&k, now + v.retry, 1).allowed);
            assert_false(look(&k, now + v.retry - 1, 1).allowed);
        }
    }
}

static void a_reward_gives_back_at_most_to_full(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_SLIDING_LOG; a++) {
        for (size_t i = 0; i < COUNT(numbers); i++) {
            key_state k;
            key_init(&k, numbered((sg_algorithm)a, i));
            const sg_quota *q = &k.quota;
            sg_ticks now = 1000;
            hit(&k, now, q->burst);
            sg_reward(q, &k.state, now, 1);
            assert_true(look(&k, now, 1).allowed);
            assert_false(look(&k, now, 2).allowed);
            sg_reward(q, &k.state, now, SG_COST_MAX);
            assert_true(look(&k, now, q->burst).allowed);
            assert_false(look(&k, now, q->burst + 1).allowed);
            EQUAL(look(&k, now, 0).level, 0);
        }
    }
}

/* Reservations of one key that may be given back. */
typedef struct {
    uint64_t mark, cost;
} charge;

/* What was charged in the window that ends at `end`, less what was given back. */
static uint64_t charged_until(const charge *charges, size_t n, uint64_t end) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += charges[i].mark == end ? charges[i].cost : 0;
    return sum;
}

/* A window's count is at every moment that of its charges less what was given back of them. */
static void refunds_of_windows_keep_the_books(void **state) {
    (void)state;
    for (int run = 0; run < 6000; run++) {
        key_state k;
        sg_algorithm algorithm = run % 2 ? SG_FIXED_WINDOW : SG_SLIDING_WINDOW;
        key_init(&k, numbered(algorithm, random_below(COUNT(numbers))));
        sg_ticks now = 1 + random_skewed(START_MAX);
        charge charges[60];
        size_t n = 0;
        while (n < COUNT(charges) && now < END_MAX) {
            now = sg_min(now + random_step(&k.quota), END_MAX);
            if (random_below(3) == 0 && n > 0) {
                charge *c = &charges[random_below(n)];
                uint64_t units = c->cost > 0 ? random_below(c->cost + 1) : 0;
                uint64_t given = sg_refund(&k.quota, &k.state, now, c->mark, units);
                assert_true(given == units || given == 0);
                c->cost -= units;
            } else {
                uint64_t cost = 1 + random_skewed(k.quota.limit);
                if (hit(&k, now, cost).allowed)
                    charges[n++] = (charge){sg_mark(&k.quota, &k.state), cost};
                else
                    charges[n++] = (charge){0, 0};
            }
            hit(&k, now, 0); /* rolls the window on */
            if (algorithm == SG_FIXED_WINDOW) {
                EQUAL(k.state.window.count, charged_until(charges, n, k.state.window.end));
                continue;
            }
            uint64_t end = k.state.sliding.end;
            EQUAL(k.state.sliding.current, charged_until(charges, n, end));
            EQUAL(k.state.sliding.previous, charged_until(charges, n, end - k.quota.period));
        }
    }
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcra_verdicts_hold),
        cmocka_unit_test(fixed_window_verdicts_hold),
        cmocka_unit_test(sliding_window_verdicts_hold),
        cmocka_unit_test(sliding_log_verdicts_hold),
        cmocka_unit_test(gcra_admits_at_most_burst_and_rate),
        cmocka_unit_test(fixed_window_admits_at_most_its_limit),
        cmocka_unit_test(sliding_window_keeps_its_weighted_count),
        cmocka_unit_test(sliding_log_admits_at_most_its_limit_in_any_period),
        cmocka_unit_test(none_starves),
        cmocka_unit_test(a_clock_that_steps_back_neither_refills_nor_locks_out),
        cmocka_unit_test(any_state_is_cut_to_what_the_quota_reaches),
        cmocka_unit_test(a_penalty_takes_at_most_one_burst_more),
        cmocka_unit_test(a_reward_gives_back_at_most_to_full),
        cmocka_unit_test(refunds_of_windows_keep_the_books),
    };
    return cmocka_run_group_tests_name("decide", tests, seed, NULL);
}
