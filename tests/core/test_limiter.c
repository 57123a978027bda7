#include "fixture.h"

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
            sg_decision stands = peek(&together, key, each(0));
            sg_decision peeked = peek(&together, key, costs);
            sg_decision d = hit(&together, key, costs);
            assert_true(d.allowed == allowed && d.shadow == shadow);
            EQUAL(d.refusals, refusals);
            EQUAL(d.verdict.retry, allowed ? 0 : longest);
            assert_true(peeked.allowed == d.allowed && peeked.refusals == d.refusals);
            EQUAL(peeked.verdict.retry, d.verdict.retry);
            /* a peek at what would be admitted tells what there is */
            EQUAL(peeked.binding, peeked.allowed ? stands.binding : d.binding);
            EQUAL(peeked.verdict.level, peeked.allowed ? stands.verdict.level : d.verdict.level);
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
    EQUAL(f.table.body->keys, 0); /* a refusal of an unknown key takes no memory */
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
    EQUAL(f.table.body->marked, 1);
    assert_true(hit(&f, 2, each(1)).allowed);
    EQUAL(f.table.body->marked, 0);

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
    EQUAL(f.table.body->keys, 0);
    EQUAL(f.table.body->marked, 0);
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
    };
    return cmocka_run_group_tests_name("limiter", tests, seed, NULL);
}
