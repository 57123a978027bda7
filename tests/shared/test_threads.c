/* Threads that each have a seat, and share one mapping, so that a sanitizer sees that they write
 * to one place: everything that more than one writes is under a lock, or one atomic word. Runs
 * without a sanitizer too, where it counts what was admitted. */
#include "here.h"

#include <pthread.h>

#include "holders.h"

#define THREADS 4u
#define LIMITERS 5u
#define KEYS 8u
#define LIMIT 3000u

#if defined(__SANITIZE_THREAD__)
#define STEPS 100000u
#else
#define STEPS 200000u
#endif

static const uint64_t ones[SG_QUOTAS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};
static const sg_algorithm algorithms[LIMITERS] = {SG_GCRA, SG_FIXED_WINDOW, SG_SLIDING_WINDOW,
                                                  SG_SLIDING_LOG, SG_GCRA};

static sg_shared opened;
static sg_quota quotas[LIMITERS];
static uint64_t admitted;

static bool lives(void *context, uint64_t owner) {
    (void)context;
    return owner % 4 != 3;
}

typedef struct {
    uint64_t random, admitted;
    unsigned number;
    sg_shared shared;
    sg_shared_table counted, t[LIMITERS], slots;
} side;

static uint64_t below(side *s, uint64_t bound) {
    uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (z ^ (z >> 27)) % bound;
}

static void step(side *s, unsigned n) {
    const sg_witness witness = {.lives = lives};
    const unsigned i = (unsigned)below(s, LIMITERS);
    sg_shared_table *t = &s->t[i];
    const sg_fingerprint fp = key_of(below(s, 2 * KEYS));
    const sg_ticks now = DAY + n * (SECOND / 1000);
    sg_shared_sum sum;
    sg_decision decision;
    sg_receipt receipt;
    sg_quota wider;
    const char *what;
    bool acquired;
    uint64_t held;
    if (n % 2000 == 1000) {
        assert_true(sg_shared_clear(t));
        return;
    }
    if (n % 1000 == 500) {
        EQUAL(sg_shared_check(t, &what), 0);
        return;
    }
    if (n % 100 == 50) { /* numbers that the others are to know */
        wider = quota_of(algorithms[i], LIMIT, 10 + (double)(n / 100 % 1000) / 10, 0);
        sg_table_learn(&t->table, 0, &wider);
    }
    if (n % 50 == 7) {
        static sg_shared_table throwaway[THREADS];
        sg_shared_add_up(t, &sum);
        assert_true(sg_shared_table_at(&throwaway[s->number], &s->shared, i));
        assert_int_not_equal(sg_seats_alive(&s->shared.locks), 0);
        return;
    }
    if (n % 5 == 0) {
        assert_true(sg_shared_enter(&s->slots, fp));
        if (below(s, 2))
            EQUAL(sg_holders_acquire(&s->slots.table, fp, 6, 1 + s->number, &witness, now, &acquired,
                                     &held), SG_OK);
        else
            sg_holders_release(&s->slots.table, fp, 1 + s->number);
        sg_shared_leave(&s->slots);
        return;
    }
    if (n % 3 == 0) {
        s->admitted += shared_hit(&s->counted, &quotas[LIMITERS - 1], below(s, KEYS), ones, DAY).allowed;
        return;
    }
    assert_true(sg_shared_enter(t, fp));
    switch (below(s, 8)) {
    case 0:
        (void)sg_limiter_ban(&t->table, fp, SECOND, now);
        break;
    case 1:
        sg_limiter_reset(&t->table, fp);
        break;
    case 2:
        (void)sg_reserve(&t->table, &quotas[i], fp, ones, SECOND, now, &decision, &receipt);
        if (receipt.open)
            (void)sg_settle(&t->table, &quotas[i], &receipt, ones, now);
        break;
    default:
        (void)sg_hit(&t->table, &quotas[i], fp, ones, now, &decision);
        break;
    }
    sg_shared_leave(t);
}

static void open_side(side *s) {
    static const char *const names[LIMITERS] = {"0", "1", "2", "3", "4"};
    assert_true(sg_shared_map(&s->shared, opened.file.base, opened.file.size));
    s->shared.file = opened.file;
    assert_true(sg_seat_take(&s->shared.locks));
    for (unsigned i = 0; i < LIMITERS; i++)
        open_limiter(&s->t[i], &s->shared, names[i], 1, &quotas[i]);
    open_limiter(&s->counted, &s->shared, "counted", 1, &quotas[LIMITERS - 1]);
    open_limiter(&s->slots, &s->shared, "slots", 0, NULL);
}

static void *run(void *context) {
    side *s = context;
    open_side(s);
    for (unsigned n = 0; n < STEPS; n++)
        step(s, n);
    sg_seat_leave(&s->shared.locks);
    __atomic_fetch_add(&admitted, s->admitted, __ATOMIC_RELAXED);
    return NULL;
}

static void threads_meet_in_one_place(void **state) {
    (void)state;
    place p;
    static side sides[THREADS];
    pthread_t threads[THREADS];
    place_make(&p);
    open_file(&opened, &p, HERE_SIZE);
    for (unsigned i = 0; i < LIMITERS; i++)
        quotas[i] = quota_of(algorithms[i], LIMIT, 3600, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        sides[i].number = i;
        sides[i].random = random_bits();
        EQUAL(pthread_create(&threads[i], NULL, run, &sides[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
    static sg_shared_table t;
    open_limiter(&t, &opened, "counted", 1, &quotas[LIMITERS - 1]);
    for (uint64_t key = 0; key < KEYS; key++) {
        while (shared_hit(&t, &quotas[LIMITERS - 1], key, ones, DAY).allowed)
            admitted++;
    }
    EQUAL(admitted, LIMIT * KEYS);
    must_be_good(&t);
    sg_shared_close(&opened);
    place_remove(&p);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_meet_in_one_place)};
    return cmocka_run_group_tests_name("threads", tests, seed, NULL);
}
