#include "fixture.h"

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
        else if (random_below(3) == 0) /* a clock that steps back, by far more than any period */
            f.now -= random_below(600 * SECOND);
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

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_projection_comes_true),
    };
    return cmocka_run_group_tests_name("project", tests, seed, NULL);
}
