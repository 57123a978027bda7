#include "support.h"

#include <math.h>

#define US_PER_SECOND UINT64_C(1000000)

static sg_quota_error check(sg_algorithm algorithm, uint64_t limit, uint64_t us, uint64_t burst) {
    sg_quota quota;
    memset(&quota, 0x77, sizeof quota);
    const sg_quota before = quota;
    sg_quota_error error = sg_quota_init(&quota, algorithm, limit, us, burst, false);
    if (error != SG_QUOTA_OK)
        assert_memory_equal(&quota, &before, sizeof quota);
    return error;
}

static void refuses_what_is_no_quota(void **state) {
    (void)state;
    const uint64_t s = US_PER_SECOND;
    EQUAL(check(SG_GCRA, 0, s, 0), SG_QUOTA_BAD_LIMIT);
    EQUAL(check(SG_GCRA, SG_LIMIT_MAX + 1, 4000 * s, 0), SG_QUOTA_BAD_LIMIT);
    EQUAL(check(SG_GCRA, UINT64_MAX, s, 0), SG_QUOTA_BAD_LIMIT);
    EQUAL(check(SG_GCRA, 1, 0, 0), SG_QUOTA_BAD_PERIOD);
    EQUAL(check(SG_GCRA, 1, 999, 0), SG_QUOTA_BAD_PERIOD);
    EQUAL(check(SG_GCRA, 1, SG_PERIOD_MAX_US + 1, 0), SG_QUOTA_BAD_PERIOD);
    EQUAL(check(SG_GCRA, 1, UINT64_MAX, 0), SG_QUOTA_BAD_PERIOD);
    EQUAL(check(SG_GCRA, 1, s, SG_LIMIT_MAX + 1), SG_QUOTA_BAD_BURST);
    EQUAL(check(SG_GCRA, SG_RATE_MAX + 1, s, 0), SG_QUOTA_BAD_RATE);
    EQUAL(check(SG_GCRA, SG_RATE_MAX / 1000 + 1, 1000, 0), SG_QUOTA_BAD_RATE);
    EQUAL(check(SG_GCRA, 1, SG_PERIOD_MAX_US, 2), SG_QUOTA_BAD_FILL);
    EQUAL(check(SG_GCRA, 1, s, SG_LIMIT_MAX), SG_QUOTA_BAD_FILL);
    EQUAL(check(SG_FIXED_WINDOW, 5, s, 6), SG_QUOTA_BURST_UNUSED);
    EQUAL(check(SG_SLIDING_WINDOW, 5, s, 4), SG_QUOTA_BURST_UNUSED);
    EQUAL(check(SG_SLIDING_LOG, 5, s, 4), SG_QUOTA_BURST_UNUSED);
    EQUAL(check(SG_ALGORITHMS, 5, s, 0), SG_QUOTA_BAD_ALGORITHM);
}

static void takes_what_is_at_the_edge(void **state) {
    (void)state;
    for (unsigned a = 0; a < SG_ALGORITHMS; a++) {
        EQUAL(check((sg_algorithm)a, 1, SG_PERIOD_MIN_US, 0), SG_QUOTA_OK);
        EQUAL(check((sg_algorithm)a, 1, SG_PERIOD_MAX_US, 0), SG_QUOTA_OK);
        EQUAL(check((sg_algorithm)a, SG_RATE_MAX, US_PER_SECOND, 0), SG_QUOTA_OK);
        EQUAL(check((sg_algorithm)a, SG_LIMIT_MAX, SG_PERIOD_MAX_US, 0), SG_QUOTA_OK);
        EQUAL(check((sg_algorithm)a, 5, US_PER_SECOND, 5), SG_QUOTA_OK);
    }
}

/* The interval never admits more than the quota, and less by at most 0.1 % up to 10 million
 * units a second. */
static void keeps_the_rate(void **state) {
    (void)state;
    for (int i = 0; i < 200000; i++) {
        uint64_t us = SG_PERIOD_MIN_US + random_skewed(SG_PERIOD_MAX_US - SG_PERIOD_MIN_US + 1);
        uint64_t most = us * 10 < SG_LIMIT_MAX ? us * 10 : SG_LIMIT_MAX;
        uint64_t limit = 1 + random_skewed(most);
        sg_quota q;
        EQUAL(sg_quota_init(&q, SG_GCRA, limit, us, 0, false), SG_QUOTA_OK);
        EQUAL(q.period, us * SG_TICKS_PER_US);
        sg_u128 whole = (sg_u128)q.interval * limit;
        assert_true(whole >= q.period);
        assert_true((whole - q.period) * 1000 <= q.period);
        EQUAL(q.capacity, q.interval * q.burst);
        assert_true(q.capacity <= SG_CAPACITY_MAX);
    }
}

static void turns_seconds_into_microseconds(void **state) {
    (void)state;
    const struct {
        double seconds;
        uint64_t us;
    } good[] = {
        {0.001, 1000}, {0.1, 100000},        {0.3, 300000},      {1, 1000000},
        {60, 60000000}, {1e-3 + 1e-7, 1001}, {1.0000001, 1000001}, {86400.000001, 86400000001},
        {0.7, 700000}, {1.1, 1100000},       {3660.0 * 86400, SG_PERIOD_MAX_US},
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        uint64_t us = 0;
        assert_true(sg_period_us(good[i].seconds, &us));
        EQUAL(us, good[i].us);
    }
    const double bad[] = {0.0,       -0.0,   -1.0,   0.00099,  1e-300,   3660.0 * 86400 + 1,
                          1e18,      1e300,  NAN,    INFINITY, -INFINITY, -1e300};
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint64_t us = 77;
        assert_false(sg_period_us(bad[i], &us));
        EQUAL(us, 77);
    }
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_quota),
        cmocka_unit_test(takes_what_is_at_the_edge),
        cmocka_unit_test(keeps_the_rate),
        cmocka_unit_test(turns_seconds_into_microseconds),
    };
    return cmocka_run_group_tests_name("quota", tests, seed, NULL);
}
