/* A thousand times kill -9: processes work on one file, and one after another is killed at some
 * moment and replaced. Nobody hangs, the checker finds nothing, no key admits more than its
 * limit, and a death costs one unit at the most: that which was charged before it was told. */
#include "here.h"

#include <signal.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif
#include <time.h>

#include "holders.h"

#define ROUNDS 1000u
#define EPOCHS 4u /* after each the clock moves on by more than all periods */
#define WORKERS 4u
#define KEYS 50u
#define SLOT_KEYS 20u
#define SLOTS 5u
#define LIMIT 20000u
#define PATIENCE_MS 5000.0 /* for a step that takes microseconds */

enum { ONE, THREE, NOISE, PLACES, LIMITERS };

static const uint64_t ones[SG_QUOTAS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};

/* What all see. Only what its worker knows is in it: nothing of the file. */
typedef struct {
    sg_ticks now;
    uint32_t pause, paused[WORKERS];
    uint64_t steps[WORKERS], inherited[WORKERS], stalled[WORKERS];
    uint64_t admitted[2][KEYS]; /* of ONE and THREE */
    uint32_t held[WORKERS][SLOT_KEYS];
    uint64_t refused, acquired, evicted;
} known;

typedef struct {
    sg_shared shared;
    sg_shared_table t[LIMITERS];
} side;

static place where;
static known *k;
static sg_quota quotas[LIMITERS][3];
static const unsigned counts[LIMITERS] = {1, 3, 2, 0};

static double ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void rest(long us) {
    const struct timespec t = {.tv_nsec = us * 1000};
    nanosleep(&t, NULL);
}

static void open_side(side *s) {
    static const char *const names[LIMITERS] = {"one", "three", "noise", "places"};
    open_file(&s->shared, &where, HERE_SIZE);
    for (unsigned i = 0; i < LIMITERS; i++)
        open_limiter(&s->t[i], &s->shared, names[i], counts[i], quotas[i]);
}

static void add(uint64_t *count, uint64_t more) { __atomic_fetch_add(count, more, __ATOMIC_RELAXED); }

/* ---- a worker */

/* Of the counted limiters: each admission is counted when it is known. */
static void count_one(side *s, unsigned limiter) {
    const uint64_t key = random_below(KEYS);
    sg_shared_table *t = &s->t[limiter];
    sg_receipt receipt;
    sg_decision decision;
    const sg_ticks now = k->now + random_below(1000);
    assert_true(sg_shared_enter(t, key_of(key)));
    switch (random_below(8)) {
    case 0:
        sg_peek(&t->table, quotas[limiter], key_of(key), ones, now, &decision);
        sg_shared_leave(t);
        return;
    case 1: /* reserved, and settled at what was reserved */
        EQUAL(sg_reserve(&t->table, quotas[limiter], key_of(key), ones, MINUTE, now, &decision,
                         &receipt), SG_OK);
        sg_shared_leave(t);
        if (decision.allowed) {
            add(&k->admitted[limiter][key], 1);
            assert_true(sg_shared_enter(t, key_of(key)));
            EQUAL(sg_settle(&t->table, quotas[limiter], &receipt, ones, now), SG_OK);
            sg_shared_leave(t);
        }
        return;
    default:
        EQUAL(sg_hit(&t->table, quotas[limiter], key_of(key), ones, now, &decision), SG_OK);
        sg_shared_leave(t);
        if (decision.allowed)
            add(&k->admitted[limiter][key], 1);
        else
            add(&k->refused, 1);
    }
}

/* Everything else that there is, on keys that come and go. */
static void make_noise(side *s) {
    sg_shared_table *t = &s->t[NOISE];
    const sg_quota *q = quotas[NOISE];
    const sg_fingerprint fp = key_of(1000 + random_below(random_below(2) ? 100 : 20000));
    const sg_ticks now = k->now + random_below(20 * MINUTE);
    sg_receipt receipt;
    sg_decision decision;
    assert_true(sg_shared_enter(t, fp));
    switch (random_below(12)) {
    case 0:
        (void)sg_limiter_ban(&t->table, fp, MINUTE, now);
        break;
    case 1:
        sg_limiter_unban(&t->table, fp, now);
        break;
    case 2:
        sg_limiter_reset(&t->table, fp);
        break;
    case 3:
        (void)sg_limiter_penalize(&t->table, q, fp, ones, now);
        break;
    case 4:
        sg_limiter_reward(&t->table, q, fp, ones, now);
        break;
    case 5:
        (void)sg_reserve(&t->table, q, fp, ones, MINUTE, now, &decision, &receipt);
        if (decision.allowed && random_below(2)) {
            const uint64_t nothing[2] = {0, 0};
            (void)sg_settle(&t->table, q, &receipt, nothing, now);
        }
        break;
    case 6:
        sg_shared_leave(t);
        if (random_below(500) == 0)
            (void)sg_shared_clear(t);
        return;
    default:
        for (unsigned n = (unsigned)random_below(8); n > 0; n--)
            (void)sg_hit(&t->table, q, fp, ones, now, &decision);
    }
    sg_shared_leave(t);
}

static void hold(side *s, unsigned me, sg_owner owner) {
    const sg_witness witness = {.lives = sg_shared_lives, .context = &s->shared};
    sg_shared_table *t = &s->t[PLACES];
    const uint64_t key = random_below(SLOT_KEYS);
    uint64_t held;
    bool acquired;
    if (k->held[me][key] > 0 && random_below(2)) {
        k->held[me][key]--;
        assert_true(sg_shared_enter(t, key_of(key)));
        sg_holders_release(&t->table, key_of(key), owner);
        sg_shared_leave(t);
        return;
    }
    assert_true(sg_shared_enter(t, key_of(key)));
    EQUAL(sg_holders_acquire(&t->table, key_of(key), SLOTS, owner, &witness, k->now, &acquired, &held),
          SG_OK);
    sg_shared_leave(t);
    if (acquired) {
        k->held[me][key]++;
        add(&k->acquired, 1);
    }
}

static void work(unsigned me, uint64_t seed) {
    static side s;
    random_set(seed);
    open_side(&s);
    const sg_owner owner = sg_owner_process();
    for (;;) {
        if (__atomic_load_n(&k->pause, __ATOMIC_ACQUIRE)) {
            __atomic_store_n(&k->paused[me], 1, __ATOMIC_RELEASE);
            rest(50);
            continue;
        }
        const uint64_t what = random_below(10);
        if (what < 5)
            count_one(&s, what < 2 ? ONE : THREE);
        else if (what < 8)
            make_noise(&s);
        else
            hold(&s, me, owner);
        k->inherited[me] = s.shared.locks.inherited;
        k->stalled[me] = s.shared.locks.stalled;
        __atomic_store_n(&k->steps[me], k->steps[me] + 1, __ATOMIC_RELEASE);
    }
}

/* ---- the parent */

typedef struct {
    uint64_t kills, inherited, stalled, steps;
    double longest; /* until all others moved on after a kill */
} figures;

static pid_t start(unsigned me) {
    const uint64_t seed = random_bits();
    k->steps[me] = k->inherited[me] = k->stalled[me] = 0;
    k->paused[me] = 0;
    memset(k->held[me], 0, sizeof k->held[me]);
    (void)fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
#if defined(__linux__)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
        if (getppid() == 1)
            _exit(1);
#endif
        work(me, seed);
    }
    assert_true(pid > 0);
    return pid;
}

static void collect(figures *f, unsigned me) {
    f->inherited += k->inherited[me];
    f->stalled += k->stalled[me];
    f->steps += k->steps[me];
}

/* Each of the others goes on. */
static void all_move(const pid_t *pids, figures *f) {
    uint64_t before[WORKERS];
    const double from = ms();
    for (unsigned i = 0; i < WORKERS; i++)
        before[i] = __atomic_load_n(&k->steps[i], __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < WORKERS; i++) {
        while (__atomic_load_n(&k->steps[i], __ATOMIC_ACQUIRE) == before[i]) {
            int status;
            if (waitpid(pids[i], &status, WNOHANG) != 0)
                fail_msg("worker %u ended by itself", i);
            if (ms() - from > PATIENCE_MS)
                fail_msg("worker %u hangs", i);
            rest(20);
        }
    }
    f->longest = ms() - from > f->longest ? ms() - from : f->longest;
}

static void pause_all(bool on) {
    const double from = ms();
    memset(k->paused, 0, sizeof k->paused);
    __atomic_store_n(&k->pause, on, __ATOMIC_RELEASE);
    for (unsigned i = 0; on && i < WORKERS; i++) {
        while (!__atomic_load_n(&k->paused[i], __ATOMIC_ACQUIRE)) {
            if (ms() - from > PATIENCE_MS)
                fail_msg("worker %u does not come to rest", i);
            rest(50);
        }
    }
}

/* Units of a key that are charged, as the file has it; of several quotas the same of each. */
static uint64_t charged(side *s, unsigned limiter, uint64_t key) {
    const uint64_t nothing[3] = {0, 0, 0};
    sg_decision decision;
    sg_shared_table *t = &s->t[limiter];
    assert_true(sg_shared_enter(t, key_of(key)));
    sg_peek(&t->table, quotas[limiter], key_of(key), nothing, k->now + 1000, &decision);
    sg_shared_leave(t);
    const sg_quota *q = quotas[limiter];
    const uint64_t units = (decision.level[0] + q->interval - 1) / q->interval;
    for (unsigned i = 1; i < counts[limiter]; i++)
        EQUAL(decision.level[i], units); /* all or none of them */
    return units;
}

/* All are at rest: what is charged is what was told, and one for each death at the most. */
static uint64_t compare(side *s, uint64_t deaths) {
    uint64_t lost = 0;
    for (unsigned limiter = ONE; limiter <= THREE; limiter++) {
        for (uint64_t key = 0; key < KEYS; key++) {
            const uint64_t units = charged(s, limiter, key), told = k->admitted[limiter][key];
            AT_MOST(units, LIMIT);
            AT_MOST(told, units);
            lost += units - told;
        }
    }
    AT_MOST(lost, deaths);
    const sg_witness witness = {.lives = sg_shared_lives, .context = &s->shared};
    for (uint64_t key = 0; key < SLOT_KEYS; key++) {
        uint64_t held = 0;
        for (unsigned i = 0; i < WORKERS; i++)
            held += k->held[i][key];
        assert_true(sg_shared_enter(&s->t[PLACES], key_of(key)));
        const uint64_t count = sg_holders_count(&s->t[PLACES].table, key_of(key), &witness);
        sg_shared_leave(&s->t[PLACES]);
        AT_MOST(count, SLOTS);
        EQUAL(count, held);
    }
    for (unsigned i = 0; i < LIMITERS; i++)
        must_be_good(&s->t[i]);
    return lost;
}

/* Uses up what is left of each key, and then waits until it is new. */
static void exhaust(side *s, uint64_t deaths) {
    uint64_t lost = 0;
    for (unsigned limiter = ONE; limiter <= THREE; limiter++) {
        for (uint64_t key = 0; key < KEYS; key++) {
            while (shared_hit(&s->t[limiter], quotas[limiter], key, ones, k->now + 1000).allowed)
                k->admitted[limiter][key]++;
            AT_MOST(k->admitted[limiter][key], LIMIT);
            lost += LIMIT - k->admitted[limiter][key];
        }
    }
    AT_MOST(lost, deaths);
    k->now += 3 * 3600 * SECOND;
    for (unsigned limiter = ONE; limiter <= THREE; limiter++) {
        for (uint64_t key = 0; key < KEYS; key++) {
            assert_true(shared_hit(&s->t[limiter], quotas[limiter], key, ones, k->now).allowed);
            k->admitted[limiter][key] = 1;
        }
    }
    for (uint64_t key = 1000; key < 21000; key += 7)
        assert_true(shared_hit(&s->t[NOISE], quotas[NOISE], key, ones, k->now + DAY).allowed);
    for (unsigned i = 0; i < LIMITERS; i++)
        must_be_good(&s->t[i]);
}

static void a_thousand_kills(void **state) {
    (void)state;
    static side s;
    figures f = {0, 0, 0, 0, 0};
    pid_t pids[WORKERS];
    uint64_t lost = 0, lost_before = 0, deaths = 0;
    const double from = ms();
    place_make(&where);
    k = mmap(NULL, sizeof *k, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true((void *)k != MAP_FAILED);
    k->now = 100 * DAY;
    quotas[ONE][0] = quota_of(SG_GCRA, LIMIT, 3600, 0);
    quotas[THREE][0] = quota_of(SG_GCRA, LIMIT, 3600, 0);
    quotas[THREE][1] = quota_of(SG_FIXED_WINDOW, LIMIT, 3600, 0);
    quotas[THREE][2] = quota_of(SG_SLIDING_LOG, LIMIT, 3600, 0);
    quotas[NOISE][0] = quota_of(SG_SLIDING_LOG, 50, 600, 0);
    quotas[NOISE][1] = quota_of(SG_SLIDING_WINDOW, 50, 600, 0);
    open_side(&s);
    for (unsigned i = 0; i < WORKERS; i++)
        pids[i] = start(i);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        int status;
        rest((long)random_below(3000));
        const unsigned victim = (unsigned)random_below(WORKERS);
        EQUAL(kill(pids[victim], SIGKILL), 0);
        EQUAL(waitpid(pids[victim], &status, 0), pids[victim]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        collect(&f, victim);
        f.kills++;
        deaths++;
        pids[victim] = start(victim);
        all_move(pids, &f);
        if (round % 10 != 0)
            continue;
        pause_all(true);
        /* Whom the witness has seen alive counts as alive for 10 ms more. */
        rest(11000);
        lost = compare(&s, deaths);
        if (round % (ROUNDS / EPOCHS) == 0) {
            exhaust(&s, deaths);
            lost_before += lost;
            deaths = lost = 0;
        }
        pause_all(false);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int status;
        EQUAL(kill(pids[i], SIGKILL), 0);
        EQUAL(waitpid(pids[i], &status, 0), pids[i]);
        collect(&f, i);
        memset(k->held[i], 0, sizeof k->held[i]);
    }
    rest(11000);
    (void)compare(&s, WORKERS); /* the parent takes over what they held; no slot is held */
    f.inherited += s.shared.locks.inherited;
    EQUAL(sg_seats_alive(&s.shared.locks), 1);
    sg_shared_sum sum;
    uint64_t damages = 0, evictions = 0;
    for (unsigned i = 0; i < LIMITERS; i++) {
        sg_shared_add_up(&s.t[i], &sum);
        damages += sum.counts.damages;
        evictions += sum.evictions;
    }
    printf("%llu kills in %.1f s, %llu operations, %llu slots taken, %llu refusals, %llu evictions; "
           "%llu locks taken over, %llu units charged and never told, longest standstill %.0f ms\n",
           (unsigned long long)f.kills, (ms() - from) / 1000, (unsigned long long)f.steps,
           (unsigned long long)k->acquired, (unsigned long long)k->refused,
           (unsigned long long)evictions, (unsigned long long)f.inherited,
           (unsigned long long)lost_before, f.longest);
    EQUAL(damages, 0);
    EQUAL(f.stalled, 0);
    assert_true(f.inherited > 0);
    sg_shared_close(&s.shared);
    EQUAL(munmap(k, sizeof *k), 0);
    place_remove(&where);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_thousand_kills)};
    return cmocka_run_group_tests_name("kill", tests, seed, NULL);
}
