/* Leased quota: whatever is drawn and spent when, by however many processes, no more is spent than
 * the quota promises. The server is the core itself, on whole microseconds. */
#include <stdlib.h>

#include "limiter.h"
#include "memory.h"
#include "purse.h"
#include "support.h"

#define START_US UINT64_C(1800000000000000)
#define PROCESSES 3
#define EVENTS 4000

typedef struct {
    sg_quota whole, lowered;
    sg_plan plan;
    sg_state state; /* of the one key, on the server */
    uint64_t now_us;
    sg_purse *purse[PROCESSES];
    uint64_t lease;
} world;

static const sg_fingerprint key = {.lo = 4711, .hi = 256};

/* The server's clock and those of the processes go together; 0 is never a time. */
static sg_ticks ticks(const world *w) { return (w->now_us - START_US + 1) * SG_TICKS_PER_US; }
static int64_t ns(const world *w) { return (int64_t)(w->now_us - START_US + 1) * 1000; }

static void make(world *w, sg_quota quota, uint64_t lease) {
    const uint8_t algorithm = quota.algorithm;
    const uint64_t keep = 0;
    memset(w, 0, sizeof *w);
    w->whole = w->lowered = quota;
    sg_lease_lower(&w->lowered, 1);
    sg_plan_init(&w->plan, 1, &algorithm, &w->lowered, &keep);
    w->now_us = START_US;
    w->lease = lease;
    for (unsigned i = 0; i < PROCESSES; i++) {
        w->purse[i] = sg_purse_new();
        assert_non_null(w->purse[i]);
    }
}

static void end(world *w) {
    for (unsigned i = 0; i < PROCESSES; i++)
        sg_purse_free(w->purse[i]);
}

/* The key's value as the server has it; its length, 0 for none. */
static size_t value_of(const world *w, char *bytes) {
    uint8_t *start = (uint8_t *)bytes, *out = start;
    if (w->state.words[0] == 0)
        return 0;
    const sg_ticks at = w->state.words[0];
    const uint64_t us = START_US - 1 + at / SG_TICKS_PER_US;
    if (w->whole.algorithm == SG_GCRA)
        return (size_t)(sg_bytes_put(sg_bytes_put(out, us, 7), at % SG_TICKS_PER_US, 2) - start);
    memcpy(out, w->plan.head, w->plan.head_length);
    out = sg_bytes_put(out + w->plan.head_length, 0, 4);
    return (size_t)(sg_bytes_put(sg_bytes_put(out, us, 7), w->state.window.count, 6) - start);
}

/* A check by the server. */
static bool ask(world *w, uint64_t cost, sg_decision *out, char *bytes, size_t *length) {
    sg_state next;
    *length = value_of(w, bytes);
    const sg_verdict verdict = sg_decide(&w->lowered, &w->state, NULL, ticks(w), cost, &next);
    w->state = next;
    assert_int_equal(sg_answer_hit(&w->plan, &cost, *length == 0 ? NULL : bytes, *length,
                                   w->now_us, out), SG_SEEN);
    assert_int_equal(out->allowed, verdict.allowed);
    return verdict.allowed;
}

/* One event in one process, with a round trip of up to 20 ms on either way. Units spent. */
static uint64_t event(world *w, unsigned process, uint64_t cost) {
    sg_purse *purse = w->purse[process];
    sg_decision decision;
    char bytes[64];
    size_t length;
    uint64_t draw;
    const sg_purse_state state = sg_purse_take(purse, key, &w->plan, &cost, ns(w), &decision);
    if (state == SG_PURSE_TAKEN)
        return cost;
    if (state == SG_PURSE_DRY)
        return ask(w, cost, &decision, bytes, &length) ? cost : 0;
    const int64_t asked_ns = ns(w);
    sg_purse_lack(purse, key, &w->plan, &cost, w->lease, asked_ns, &draw);
    assert_true(draw >= cost && draw >= w->lease);
    w->now_us += random_below(20000);
    const bool drawn = ask(w, draw, &decision, bytes, &length);
    const uint64_t server_us = w->now_us;
    w->now_us += random_below(20000);
    if (!drawn) {
        sg_purse_dry(purse, key, ns(w), ns(w) + (int64_t)random_below(SG_LEASE_NS));
        return ask(w, cost, &decision, bytes, &length) ? cost : 0;
    }
    (void)sg_purse_put(purse, key, &w->plan, &draw, &decision, length == 0 ? NULL : bytes, length,
                       server_us, asked_ns, ns(w));
    return sg_purse_take(purse, key, &w->plan, &cost, ns(w), &decision) == SG_PURSE_TAKEN ? cost
                                                                                           : 0;
}

/* gcra: at most burst + limit * x / period in any x seconds. */
static void never_above_the_promise_of_gcra(void **state) {
    (void)state;
    random_seed();
    for (unsigned trace = 0; trace < 20; trace++) {
        static uint64_t at_us[EVENTS], spent[EVENTS];
        const uint64_t limit = 1 + random_below(200), a_second = limit; /* a second's period */
        const sg_quota quota = quota_of(SG_GCRA, limit, 1.0,
                                        a_second + 1 + random_below(300));
        world w;
        make(&w, quota, 1 + random_below(quota.burst - a_second));
        uint64_t total = 0;
        for (unsigned i = 0; i < EVENTS; i++) {
            w.now_us += random_below(4) ? random_below(3000) : random_skewed(400000);
            spent[i] = event(&w, (unsigned)random_below(PROCESSES), 1 + random_skewed(w.lease));
            at_us[i] = w.now_us;
            total += spent[i];
        }
        assert_true(total > 0);
        for (unsigned first = 0; first < EVENTS; first += 7) {
            uint64_t sum = 0;
            for (unsigned last = first; last < EVENTS; last++) {
                sum += spent[last];
                const uint64_t us = at_us[last] - at_us[first];
                assert_true(sum <= quota.burst + (limit * us + 999999) / 1000000);
            }
        }
        end(&w);
    }
}

/* fixed-window: at most the limit in each of the server's windows. */
static void never_above_the_limit_of_a_window(void **state) {
    (void)state;
    random_seed();
    for (unsigned trace = 0; trace < 20; trace++) {
        const uint64_t limit = 20 + random_below(300);
        const double period = (double)(50 + random_below(3000)) / 1000;
        const sg_quota quota = quota_of(SG_FIXED_WINDOW, limit, period, 0);
        world w;
        make(&w, quota, 1 + random_below(limit));
        sg_ticks window = 0;
        uint64_t in_window = 0, total = 0;
        for (unsigned i = 0; i < EVENTS; i++) {
            w.now_us += random_below(4) ? random_below(3000) : random_skewed(400000);
            const uint64_t units = event(&w, (unsigned)random_below(PROCESSES),
                                         1 + random_skewed(w.lease));
            if (w.state.window.end != window) {
                window = w.state.window.end;
                in_window = 0;
            }
            /* What is spent after the window has ended on the server is of no window there. */
            assert_true(units == 0 || ticks(&w) < window || w.state.window.count == 0);
            in_window += units;
            total += units;
            assert_true(in_window <= limit);
        }
        assert_true(total > 0);
        end(&w);
    }
}

static void a_draw_lapses_after_a_second(void **state) {
    world w;
    sg_decision decision;
    const uint64_t one = 1;
    (void)state;
    make(&w, quota_of(SG_GCRA, 60, 60.0, 100), 10);
    EQUAL(event(&w, 0, 1), 1);
    while (ns(&w) < SG_LEASE_NS - 40000000)
        w.now_us += 1000;
    EQUAL(sg_purse_take(w.purse[0], key, &w.plan, &one, ns(&w), &decision), SG_PURSE_TAKEN);
    w.now_us += 1000000;
    EQUAL(sg_purse_take(w.purse[0], key, &w.plan, &one, ns(&w), &decision), SG_PURSE_NONE);
    end(&w);
}

static void what_is_left_of_a_draw_ends_when_that_does(void **state) {
    world w;
    sg_decision decision;
    const uint64_t one = 1;
    (void)state;
    make(&w, quota_of(SG_GCRA, 60, 60.0, 100), 10);
    EQUAL(event(&w, 0, 6), 6);
    w.now_us = START_US + 900000;
    EQUAL(event(&w, 0, 6), 6); /* of 4 that were left, and 10 more */
    EQUAL(sg_purse_take(w.purse[0], key, &w.plan, &one, ns(&w), &decision), SG_PURSE_TAKEN);
    w.now_us = START_US + 1100000;
    EQUAL(sg_purse_take(w.purse[0], key, &w.plan, &one, ns(&w), &decision), SG_PURSE_NONE);
    end(&w);
}

static void what_is_forgotten_is_not_spent(void **state) {
    world w;
    sg_decision decision;
    const uint64_t one = 1;
    (void)state;
    make(&w, quota_of(SG_GCRA, 60, 60.0, 100), 10);
    EQUAL(event(&w, 0, 1), 1);
    sg_purse_forget(w.purse[0], key);
    EQUAL(sg_purse_take(w.purse[0], key, &w.plan, &one, ns(&w), &decision), SG_PURSE_NONE);
    end(&w);
}

/* Keys that find no place are not leased, and none loses its own for them. */
static void a_full_purse_keeps_what_it_has(void **state) {
    world w;
    sg_decision decision = {.allowed = true};
    const uint64_t ten = 10, one = 1;
    unsigned kept = 0, refused = 0;
    (void)state;
    make(&w, quota_of(SG_GCRA, 60, 60.0, 100), 10);
    for (uint64_t i = 0; i < 40000; i++) {
        const sg_fingerprint fp = key_of(i);
        const bool room = sg_purse_room(w.purse[0], fp, ns(&w));
        const bool put = sg_purse_put(w.purse[0], fp, &w.plan, &ten, &decision, NULL, 0, w.now_us,
                                      ns(&w), ns(&w));
        assert_int_equal(room, put);
        refused += !put;
    }
    for (uint64_t i = 0; i < 40000; i++)
        kept += sg_purse_take(w.purse[0], key_of(i), &w.plan, &one, ns(&w), &decision) ==
                SG_PURSE_TAKEN;
    EQUAL(kept + refused, 40000);
    assert_true(kept > 10000);
    end(&w);
}

static void what_cannot_be_lowered_stays(void **state) {
    (void)state;
    sg_quota quotas[2] = {quota_of(SG_GCRA, 5, 1.0, 5), quota_of(SG_FIXED_WINDOW, 5, 1.0, 0)};
    sg_lease_lower(quotas, 2);
    EQUAL(quotas[0].burst, 5);
    EQUAL(quotas[1].capacity, 5);
    sg_quota roomy = quota_of(SG_GCRA, 5, 1.0, 20);
    EQUAL(sg_lease_lowered(&roomy), 5 * roomy.interval);
    sg_lease_lower(&roomy, 1);
    EQUAL(roomy.burst, 15);
    EQUAL(roomy.capacity, 15 * roomy.interval);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_above_the_promise_of_gcra),
        cmocka_unit_test(never_above_the_limit_of_a_window),
        cmocka_unit_test(a_draw_lapses_after_a_second),
        cmocka_unit_test(what_is_left_of_a_draw_ends_when_that_does),
        cmocka_unit_test(what_is_forgotten_is_not_spent),
        cmocka_unit_test(a_full_purse_keeps_what_it_has),
        cmocka_unit_test(what_cannot_be_lowered_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
