/* The same rule in shared memory as in private memory, and many processes on one count. */
#include "here.h"

#include <pthread.h>

static const uint64_t ones[SG_QUOTAS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};

static void same(const sg_decision *a, const sg_decision *b) {
    EQUAL(a->allowed, b->allowed);
    EQUAL(a->shadow, b->shadow);
    EQUAL(a->binding, b->binding);
    EQUAL(a->refusals, b->refusals);
    EQUAL(a->verdict.level, b->verdict.level);
    EQUAL(a->verdict.retry, b->verdict.retry);
    EQUAL(a->verdict.reset, b->verdict.reset);
}

/* Every operation, at random, on a table of its own and on a shared one. */
static void decides_as_private_memory_does(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared shared;
    open_file(&shared, &p, HERE_SIZE);
    for (unsigned run = 0; run < 12; run++) {
        sg_quota quotas[SG_QUOTAS_MAX];
        uint8_t algorithms[SG_QUOTAS_MAX];
        const unsigned count = 1 + run % 4;
        for (unsigned i = 0; i < count; i++) {
            algorithms[i] = (uint8_t)random_below(SG_ALGORITHMS);
            if (run < 4)
                algorithms[i] = (uint8_t)run;
            quotas[i] = quota_of(algorithms[i], 5 + random_below(500), 1.0 + (double)random_below(60), 0);
        }
        char name[16];
        (void)snprintf(name, sizeof name, "run %u", run);
        static sg_shared_table t;
        sg_table table;
        open_limiter(&t, &shared, name, count, quotas);
        EQUAL(sg_table_init(&table, &sg_malloc_allocator, count, algorithms, UINT64_MAX, 0), SG_OK);
        sg_receipt mine[64] = {0}, theirs[64] = {0};
        sg_ticks now = 100 * DAY;
        const uint64_t keys = run % 2 ? 40 : 4000;
        for (unsigned step = 0; step < 20000; step++) {
            const sg_fingerprint fp = key_of(random_below(keys));
            uint64_t costs[SG_QUOTAS_MAX];
            sg_decision a = {0}, b = {0};
            for (unsigned i = 0; i < count; i++)
                costs[i] = random_below(4);
            now += random_below(random_below(50) == 0 ? 20 * SECOND : SECOND / 100);
            const unsigned r = (unsigned)random_below(64);
            assert_true(sg_shared_enter(&t, fp));
            switch (random_below(12)) {
            case 0:
                sg_peek(&table, quotas, fp, costs, now, &a);
                sg_peek(&t.table, quotas, fp, costs, now, &b);
                break;
            case 1:
                EQUAL(sg_limiter_penalize(&table, quotas, fp, costs, now), SG_OK);
                EQUAL(sg_limiter_penalize(&t.table, quotas, fp, costs, now), SG_OK);
                break;
            case 2:
                sg_limiter_reward(&table, quotas, fp, costs, now);
                sg_limiter_reward(&t.table, quotas, fp, costs, now);
                break;
            case 3:
                if (random_below(10) > 0)
                    break;
                EQUAL(sg_limiter_ban(&table, fp, SECOND, now), SG_OK);
                EQUAL(sg_limiter_ban(&t.table, fp, SECOND, now), SG_OK);
                break;
            case 4:
                if (random_below(10) > 0)
                    break;
                sg_limiter_reset(&table, fp);
                sg_limiter_reset(&t.table, fp);
                break;
            case 5:
                if (mine[r].open || theirs[r].open)
                    break;
                EQUAL(sg_reserve(&table, quotas, fp, costs, 30 * SECOND, now, &a, &mine[r]), SG_OK);
                EQUAL(sg_reserve(&t.table, quotas, fp, costs, 30 * SECOND, now, &b, &theirs[r]), SG_OK);
                break;
            case 6:
                sg_shared_leave(&t);
                if (!mine[r].open) {
                    assert_true(sg_shared_enter(&t, fp));
                    break;
                }
                assert_true(sg_shared_enter(&t, mine[r].fp));
                EQUAL(sg_settle(&table, quotas, &mine[r], costs, now), SG_OK);
                EQUAL(sg_settle(&t.table, quotas, &theirs[r], costs, now), SG_OK);
                break;
            default:
                EQUAL(sg_hit(&table, quotas, fp, costs, now, &a), SG_OK);
                EQUAL(sg_hit(&t.table, quotas, fp, costs, now, &b), SG_OK);
                break;
            }
            sg_shared_leave(&t);
            same(&a, &b);
        }
        must_be_good(&t);
        sg_shared_sum sum;
        sg_shared_add_up(&t, &sum);
        EQUAL(sum.evictions, 0);
        EQUAL(sum.counts.damages, 0);
        assert_true(sg_shared_clear(&t));
        must_be_good(&t);
        sg_shared_add_up(&t, &sum);
        EQUAL(sum.keys, 0);
        sg_table_free(&table);
    }
    sg_shared_close(&shared);
    place_remove(&p);
}

/* A damaged word that leads into another shard's page is not followed: whose lock is not held is
 * neither read nor written. Both logs are good ones, of one size. */
static void no_shard_uses_the_page_of_another(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared shared;
    static sg_shared_table t;
    open_file(&shared, &p, HERE_SIZE);
    const sg_quota log = quota_of(SG_SLIDING_LOG, 100, 3600, 0);
    open_limiter(&t, &shared, "log", 1, &log);
    uint64_t other = 2;
    while (sg_shared_shard_of(&t, key_of(other)) == sg_shared_shard_of(&t, key_of(1)))
        other++;
    for (unsigned n = 0; n < 3; n++) {
        assert_true(shared_hit(&t, &log, 1, ones, DAY + n).allowed);
        assert_true(shared_hit(&t, &log, other, ones, DAY + n).allowed);
    }
    assert_true(sg_shared_enter(&t, key_of(other)));
    const sg_state theirs = sg_cell_state(&t.table, sg_table_find(&t.table, key_of(other)), 0);
    sg_shared_leave(&t);
    assert_true(sg_shared_enter(&t, key_of(1)));
    sg_cell_set_state(&t.table, sg_table_find(&t.table, key_of(1)), 0, &theirs);
    sg_shared_leave(&t);
    sg_shared_sum sum;
    sg_shared_add_up(&t, &sum);
    EQUAL(sum.counts.damages, 0);
    assert_true(shared_hit(&t, &log, 1, ones, DAY + 3).allowed);
    sg_shared_add_up(&t, &sum);
    EQUAL(sum.counts.damages, 1);
    /* What the one had is forgotten; the other has what it had. */
    EQUAL(shared_hit(&t, &log, 1, ones, DAY + 4).level[0], 1);
    EQUAL(shared_hit(&t, &log, other, ones, DAY + 4).level[0], 4);
    must_be_good(&t);
    sg_shared_close(&shared);
    place_remove(&p);
}

/* A flood of keys: the file is a fixed bound, no limiter takes what another one has, and one
 * that comes late still finds room. */
static void a_flood_forgets_its_own_keys_alone(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared shared;
    static sg_shared_table quiet, flooded, late;
    open_file(&shared, &p, HERE_SIZE);
    const sg_quota quota = quota_of(SG_GCRA, 10, 3600, 0);
    const sg_quota log = quota_of(SG_SLIDING_LOG, 100, 3600, 0);
    open_limiter(&quiet, &shared, "quiet", 1, &quota);
    open_limiter(&flooded, &shared, "flooded", 1, &log);
    for (uint64_t key = 0; key < 1000; key++)
        assert_true(shared_hit(&quiet, &quota, key, ones, DAY).allowed);
    for (uint64_t key = 0; key < 60000; key++)
        assert_true(shared_hit(&flooded, &log, 5000 + key, ones, DAY + key).allowed);
    sg_shared_sum sum;
    sg_shared_add_up(&flooded, &sum);
    assert_true(sum.evictions > 1000);
    AT_MOST(sum.bytes, HERE_SIZE);
    must_be_good(&flooded);
    /* Heavy keys grow their logs by taking from the light ones. */
    uint64_t refused = 0;
    for (unsigned n = 0; n < 100; n++) {
        for (uint64_t key = 0; key < 50; key++)
            assert_true(shared_hit(&flooded, &log, key, ones, DAY + 60000 + n).allowed);
    }
    for (uint64_t key = 0; key < 50; key++)
        refused += !shared_hit(&flooded, &log, key, ones, DAY + 60100).allowed;
    printf("%llu of 50 heavy keys were never forgotten\n", (unsigned long long)refused);
    assert_true(refused >= 30);
    must_be_good(&flooded);
    /* Bans still find room, in a table of logs and in one without. */
    open_limiter(&late, &shared, "late", 1, &quota);
    for (uint64_t key = 0; key < 60000; key++)
        assert_true(shared_hit(&late, &quota, key, ones, 2 * DAY).allowed);
    for (uint64_t key = 0; key < 500; key++) {
        assert_true(sg_shared_enter(&late, key_of(key)));
        EQUAL(sg_limiter_ban(&late.table, key_of(key), DAY, 2 * DAY), SG_OK);
        sg_shared_leave(&late);
        assert_true(sg_shared_enter(&flooded, key_of(key)));
        EQUAL(sg_limiter_ban(&flooded.table, key_of(key), DAY, 2 * DAY), SG_OK);
        sg_shared_leave(&flooded);
    }
    for (uint64_t key = 0; key < 500; key++) {
        EQUAL(shared_hit(&late, &quota, key, ones, 2 * DAY).binding, SG_BANNED);
        EQUAL(shared_hit(&flooded, &log, key, ones, 2 * DAY).binding, SG_BANNED);
    }
    sg_shared_add_up(&late, &sum);
    assert_true(sum.keys > 2000);
    sg_shared_add_up(&quiet, &sum);
    EQUAL(sum.keys, 1000);
    EQUAL(sum.evictions, 0);
    must_be_good(&quiet);
    must_be_good(&flooded);
    must_be_good(&late);
    /* Emptied, a limiter leaves its pages to the others. */
    const uint32_t before = shared.root->pages_free;
    assert_true(sg_shared_clear(&flooded));
    must_be_good(&flooded);
    assert_true(shared.root->pages_free > before + 20);
    sg_shared_close(&shared);
    place_remove(&p);
}

#define PROCESSES 4u
#define THREADS 8u
#define LIMIT 20000u

typedef struct {
    const place *where;
    const char *name;
    const sg_quota *quotas;
    unsigned count;
    uint64_t keys, admitted, tries;
} work;

static void *run_work(void *context) {
    work *w = context;
    sg_shared shared;
    sg_shared_table *t = malloc(sizeof *t);
    assert_non_null(t);
    open_file(&shared, w->where, (uint64_t)64 << 20); /* with seats for them all */
    open_limiter(t, &shared, w->name, w->count, w->quotas);
    for (uint64_t n = 0; n < w->tries; n++)
        w->admitted += shared_hit(t, w->quotas, n % w->keys, ones, DAY + n % 1000).allowed;
    sg_shared_close(&shared);
    free(t);
    return NULL;
}

/* Threads of several processes on one key and on a thousand: what is admitted is the limit. */
static void many_processes_admit_one_limit(void **state) {
    (void)state;
    place p;
    place_make(&p);
    for (unsigned algorithm = 0; algorithm < 2 * SG_ALGORITHMS + 1; algorithm++) {
        const bool several = algorithm == 2 * SG_ALGORITHMS;
        const uint64_t keys = algorithm % 2 ? 1000 : 1;
        sg_quota quotas[2];
        quotas[0] = quota_of(algorithm / 2 % SG_ALGORITHMS, LIMIT / keys, 36000, 0);
        quotas[1] = quota_of(SG_FIXED_WINDOW, LIMIT / 2, 36000, 0);
        char name[16];
        (void)snprintf(name, sizeof name, "limit %u", algorithm);
        uint64_t *admitted = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(admitted != MAP_FAILED);
        pid_t pids[PROCESSES];
        for (unsigned i = 0; i < PROCESSES; i++) {
            pids[i] = fork();
            if (pids[i] > 0)
                continue;
            work works[THREADS];
            pthread_t threads[THREADS];
            for (unsigned k = 0; k < THREADS; k++) {
                works[k] = (work){.where = &p, .name = name, .quotas = quotas, .count = several ? 2u : 1u,
                                  .keys = keys, .tries = 2 * LIMIT / (PROCESSES * THREADS) / 1000 * 1000 + 2000};
                EQUAL(pthread_create(&threads[k], NULL, run_work, &works[k]), 0);
            }
            for (unsigned k = 0; k < THREADS; k++) {
                EQUAL(pthread_join(threads[k], NULL), 0);
                __atomic_fetch_add(admitted, works[k].admitted, __ATOMIC_RELAXED);
            }
            _exit(0);
        }
        for (unsigned i = 0; i < PROCESSES; i++)
            must_end_well(pids[i]);
        EQUAL(*admitted, several ? LIMIT / 2 : LIMIT);
        EQUAL(munmap(admitted, 4096), 0);
        sg_shared shared;
        static sg_shared_table t;
        open_file(&shared, &p, 0);
        EQUAL(sg_seats_alive(&shared.locks), 1);
        open_limiter(&t, &shared, name, several ? 2 : 1, quotas);
        must_be_good(&t);
        sg_shared_close(&shared);
    }
    place_remove(&p);
}

/* A forked child has a seat of its own. */
static void a_child_goes_on_by_itself(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared shared;
    static sg_shared_table t;
    const sg_quota quota = quota_of(SG_GCRA, 1000, 3600, 0);
    open_file(&shared, &p, HERE_SIZE);
    open_limiter(&t, &shared, "forked", 1, &quota);
    const uint32_t seat = shared.locks.mine;
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned n = 0; n < 300; n++)
            (void)shared_hit(&t, &quota, 1, ones, DAY);
        _exit(shared.locks.mine != seat && sg_seats_alive(&shared.locks) == 2 ? 0 : 1);
    }
    for (unsigned n = 0; n < 300; n++)
        (void)shared_hit(&t, &quota, 1, ones, DAY);
    must_end_well(pid);
    /* One that never decides anything closes what it has inherited, and not its parent's seat. */
    pid = fork();
    if (pid == 0) {
        sg_shared_close(&shared);
        _exit(0);
    }
    must_end_well(pid);
    EQUAL(shared.locks.mine, seat);
    EQUAL(sg_seats_alive(&shared.locks), 1);
    for (unsigned n = 0; n < 400; n++)
        assert_true(shared_hit(&t, &quota, 1, ones, DAY).allowed);
    assert_false(shared_hit(&t, &quota, 1, ones, DAY).allowed);
    sg_shared_close(&shared);
    place_remove(&p);
}

/* A clock that steps back (that of a machine that was suspended, say) gives nothing back, and
 * keeps nobody out for longer than the quota could. */
static void a_clock_that_steps_back_changes_nothing(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared shared;
    static sg_shared_table t;
    open_file(&shared, &p, HERE_SIZE);
    for (unsigned algorithm = 0; algorithm < SG_ALGORITHMS; algorithm++) {
        const sg_quota quota = quota_of(algorithm, 10, 60, 0);
        char name[16];
        (void)snprintf(name, sizeof name, "clock %u", algorithm);
        open_limiter(&t, &shared, name, 1, &quota);
        for (unsigned n = 0; n < 10; n++)
            assert_true(shared_hit(&t, &quota, 1, ones, 2 * DAY).allowed);
        const sg_decision back = shared_hit(&t, &quota, 1, ones, DAY);
        assert_false(back.allowed);
        AT_MOST(back.verdict.retry, 2 * 60 * SECOND);
        assert_true(shared_hit(&t, &quota, 1, ones, DAY + back.verdict.retry).allowed);
        must_be_good(&t);
    }
    sg_shared_close(&shared);
    place_remove(&p);
}

/* Numbers that reach further are known everywhere before they count. */
static void all_know_the_longest_period(void **state) {
    (void)state;
    place p;
    place_make(&p);
    sg_shared a, b;
    static sg_shared_table ta, tb;
    const sg_quota brief = quota_of(SG_FIXED_WINDOW, 10, 1, 0), wide = quota_of(SG_FIXED_WINDOW, 10, 3600, 0);
    open_file(&a, &p, HERE_SIZE);
    open_file(&b, &p, HERE_SIZE);
    open_limiter(&ta, &a, "known", 1, &brief);
    open_limiter(&tb, &b, "known", 1, &brief);
    (void)shared_hit(&tb, &brief, 1, ones, DAY);
    sg_table_learn(&ta.table, 0, &wide);
    (void)shared_hit(&ta, &wide, 2, ones, DAY);
    (void)shared_hit(&tb, &brief, 3, ones, DAY);
    EQUAL(tb.table.quotas[0].period, wide.period);
    sg_shared_close(&a);
    sg_shared_close(&b);
    place_remove(&p);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decides_as_private_memory_does),
        cmocka_unit_test(no_shard_uses_the_page_of_another),
        cmocka_unit_test(a_flood_forgets_its_own_keys_alone),
        cmocka_unit_test(many_processes_admit_one_limit),
        cmocka_unit_test(a_child_goes_on_by_itself),
        cmocka_unit_test(a_clock_that_steps_back_changes_nothing),
        cmocka_unit_test(all_know_the_longest_period),
    };
    return cmocka_run_group_tests_name("shared", tests, seed, NULL);
}
