/* Reservations, and what they may give back. */
#include "fixture.h"

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
    EQUAL(f.table.body->marked, 0);
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

/* While no time passes, whatever was reserved comes back whole, in any order, with other
 * charges between. */
static void a_refund_at_once_is_whole_in_any_order(void **state) {
    (void)state;
    enum { MANY = 30 };
    for (int run = 0; run < 400; run++) {
        const sg_quota quota = quota_of((sg_algorithm)(run % SG_ALGORITHMS), 100, 60, 0);
        sg_receipt open[MANY];
        uint64_t costs[MANY], left = 100, one = 1;
        unsigned opened = 0;
        fixture f;
        set_up(&f, 1, &quota, 1000, 0);
        for (int n = 0; n < 200; n++) {
            uint64_t kind = random_below(8);
            if (kind == 0 && left > 0) {
                assert_true(hit(&f, 1, &one).allowed);
                left--;
            } else if (kind < 4 && opened < MANY) {
                uint64_t cost = 1 + random_below(6);
                if (reserve(&f, 1, cost, DAY, &open[opened])) {
                    costs[opened++] = cost;
                    left -= cost;
                }
            } else if (opened > 0) {
                unsigned i = (unsigned)random_below(opened);
                uint64_t kept = random_below(costs[i] + 1);
                settle(&f, &open[i], kept);
                left += costs[i] - kept;
                open[i] = open[--opened];
                costs[i] = costs[opened];
            }
            EQUAL(remaining(&f, 1, 0), left);
        }
        tear_down(&f);
    }
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reservation_settles_once),
        cmocka_unit_test(a_lapsed_reservation_gives_nothing_back),
        cmocka_unit_test(refunds_make_no_unit),
        cmocka_unit_test(a_refund_at_once_is_whole_in_any_order),
    };
    return cmocka_run_group_tests_name("reserve", tests, seed, NULL);
}
