/* A limiter whose memory fails, and one whose memory is bounded. */
#include "fixture.h"

enum { KEYS = 12, STEPS = 150 };

/* What can be told of every key; not what takes memory and counts for nothing. */
typedef struct {
    uint64_t remaining[KEYS][4];
    sg_decision at_once[KEYS];
    uint64_t evictions, claims;
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
    p->evictions = f->table.body->evictions;
    p->claims = f->table.body->claims;
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
        bool look = f.memory.fail_at != 0 && f.memory.allocations + 16 >= fail_at;
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
    EQUAL(f.table.body->keys, 500);
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
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_bound_in_bytes_holds),
        cmocka_unit_test(a_flood_evicts_no_ban_and_no_reservation),
    };
    return cmocka_run_group_tests_name("memory", tests, seed, NULL);
}
