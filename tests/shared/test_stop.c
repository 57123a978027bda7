/* A process that is stopped while it holds a lock delays another once, by 20 ms; one that only
 * waits for a processor never makes anybody give up, and never makes time go back. */
#include "here.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

#include "moment.h"

static const uint64_t ones[SG_QUOTAS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};

static double ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void *all_see(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

typedef struct {
    place where;
    sg_shared shared;
    sg_shared_table t;
    sg_quota quota;
} world;

static void world_make(world *w) {
    place_make(&w->where);
    open_file(&w->shared, &w->where, HERE_SIZE);
    w->quota = quota_of(SG_GCRA, UINT64_C(10000000000), 3600, 0);
    open_limiter(&w->t, &w->shared, "stop", 1, &w->quota);
}

static void world_remove(world *w) {
    sg_shared_close(&w->shared);
    place_remove(&w->where);
}

static uint64_t shard_of(const world *w, uint64_t key) { return key_of(key).lo >> 40 & w->t.mask; }

/* A child that stops in the middle of a change of key 1. */
static pid_t stopped_holder(world *w) {
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(20);
        sg_decision decision;
        if (!sg_shared_enter(&w->t, key_of(1)))
            _exit(1);
        sg_touch(&w->t.table.arena, &w->t.shard->body.keys, sizeof(uint64_t));
        w->t.shard->body.keys += 7;
        (void)raise(SIGSTOP);
        w->t.shard->body.keys -= 7;
        (void)sg_hit(&w->t.table, &w->quota, key_of(1), ones, DAY, &decision);
        sg_shared_leave(&w->t);
        _exit(0);
    }
    EQUAL(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void waits_once(world *w) {
    double from = ms();
    assert_false(sg_shared_enter(&w->t, key_of(1)));
    const double first = ms() - from;
    from = ms();
    for (unsigned n = 0; n < 1000; n++)
        assert_false(sg_shared_enter(&w->t, key_of(1)));
    const double rest = ms() - from;
    printf("the first waits %.1f ms, the next 1000 together %.1f ms\n", first, rest);
    assert_true(first >= 15 && first <= 200);
    assert_true(rest <= 100);
    /* Nor is anybody kept from the other shards. */
    from = ms();
    unsigned others = 0;
    for (uint64_t key = 2; others < 200; key++) {
        if (shard_of(w, key) == shard_of(w, 1))
            continue;
        others++;
        assert_true(shared_hit(&w->t, &w->quota, key, ones, DAY).allowed);
    }
    const double elsewhere = ms() - from;
    printf("200 in other shards: %.2f ms\n", elsewhere);
    assert_true(elsewhere <= 50);
}

static void a_stopped_holder_delays_once(void **state) {
    (void)state;
    static world w;
    world_make(&w);
    const pid_t pid = stopped_holder(&w);
    waits_once(&w);
    EQUAL(kill(pid, SIGCONT), 0);
    must_end_well(pid);
    EQUAL(w.shared.locks.inherited, 0);
    EQUAL(shared_hit(&w.t, &w.quota, 1, ones, DAY).level[0] / w.quota.interval, 2);
    must_be_good(&w.t);
    world_remove(&w);
}

static void a_killed_one_is_inherited(void **state) {
    (void)state;
    static world w;
    world_make(&w);
    for (unsigned n = 0; n < 20; n++) {
        const pid_t pid = stopped_holder(&w);
        if (n == 0)
            waits_once(&w);
        else
            assert_false(sg_shared_enter(&w.t, key_of(1)));
        EQUAL(kill(pid, SIGKILL), 0);
        int status;
        EQUAL(waitpid(pid, &status, 0), pid);
        const struct timespec t = {.tv_nsec = 1500000};
        nanosleep(&t, NULL); /* who found it stalled looks again after a millisecond */
        EQUAL(shared_hit(&w.t, &w.quota, 1, ones, DAY).level[0] / w.quota.interval, n + 1);
        must_be_good(&w.t); /* the seven keys that there are not are gone again */
        EQUAL(w.shared.locks.inherited, n + 1);
    }
    world_remove(&w);
}

/* Killed, and not yet waited for by its parent: a zombie holds nothing. */
static void a_zombie_is_dead(void **state) {
    (void)state;
    static world w;
    world_make(&w);
    const pid_t pid = stopped_holder(&w);
    EQUAL(kill(pid, SIGKILL), 0);
    const double from = ms();
    /* It may take its time to die; the first to come may find it stopped still. */
    while (!sg_shared_enter(&w.t, key_of(1)))
        assert_true(ms() - from < 2000);
    sg_shared_leave(&w.t);
    must_be_good(&w.t);
    EQUAL(w.shared.locks.inherited, 1);
    int status;
    EQUAL(waitpid(pid, &status, 0), pid);
    world_remove(&w);
}

/* ---- time */

static sg_ticks read_clock(void *context) {
    const uint64_t *behind = context; /* ticks by which this processor's counter is */
    return (sg_ticks)sg_moment_ns() * SG_TICKS_PER_NS - *behind;
}

/* Who waits for a lock for longer than counters differ has read the clock long before whom it
 * waited for: time goes on in the shard all the same, and not back. */
static void a_wait_does_not_turn_time_back(void **state) {
    (void)state;
    static world w;
    world_make(&w);
    uint64_t behind[] = {0, 100 * SG_TICKS_PER_NS};
    uint32_t *holds = all_see(sizeof *holds);
    const pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(20);
        if (!sg_shared_enter(&w.t, key_of(1)))
            _exit(1);
        __atomic_store_n(holds, 1, __ATOMIC_RELEASE);
        const double from = ms();
        while (ms() - from < 1300) /* it works, so it is waited for */
            ;
        (void)sg_shared_moment(&w.t, read_clock(&behind[0]), read_clock, &behind[0]);
        sg_shared_leave(&w.t);
        _exit(0);
    }
    while (!__atomic_load_n(holds, __ATOMIC_ACQUIRE))
        ;
    const sg_ticks before = read_clock(&behind[0]);
    assert_true(sg_shared_enter(&w.t, key_of(1)));
    const sg_ticks latest = w.t.shard->latest;
    assert_true(latest - before > SECOND);
    assert_true(sg_shared_moment(&w.t, before, read_clock, &behind[0]) >= latest);
    /* A counter that is behind tells what was last told, and nothing is stored that is before. */
    const sg_ticks last = read_clock(&behind[0]);
    EQUAL(sg_shared_moment(&w.t, last, read_clock, &behind[0]), last);
    w.t.shard->latest = last + SECOND / 2;
    EQUAL(sg_shared_moment(&w.t, last, read_clock, &behind[1]), last + SECOND / 2);
    EQUAL(w.t.shard->latest, last + SECOND / 2);
    /* What cannot be is not believed: the file was damaged. */
    w.t.shard->latest = last + DAY;
    assert_true(sg_shared_moment(&w.t, last, read_clock, &behind[0]) < last + MINUTE);
    assert_true(w.t.shard->latest < last + MINUTE);
    sg_shared_leave(&w.t);
    must_end_well(pid);
    EQUAL(munmap(holds, sizeof *holds), 0);
    world_remove(&w);
}

/* ---- load */

#define BUSY 8u
#define HAMMERS 4u
#define LOW 2u
#define LOAD_MS 7000

typedef struct {
    uint64_t hits[HAMMERS + LOW], refused[HAMMERS + LOW], longest_us[HAMMERS + LOW];
    uint64_t inherited;
    uint32_t go, stop;
} load;

static void be_busy(const load *l) {
    uint64_t n = 0;
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED))
        n = n * 3 + 1;
    _exit(n == 1);
}

/* Those of low priority hold the lock while they work: so they are descheduled with it. */
static void hammer(world *w, load *l, unsigned i) {
    const bool low = i >= HAMMERS;
    if (low && setpriority(PRIO_PROCESS, 0, i == HAMMERS ? 19 : 10) != 0)
        _exit(1);
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
        sg_decision decision;
        const double from = ms();
        if (!sg_shared_enter(&w->t, key_of(1))) {
            l->refused[i]++;
            continue;
        }
        const uint64_t us = (uint64_t)((ms() - from) * 1000);
        l->longest_us[i] = sg_max(l->longest_us[i], us);
        (void)sg_hit(&w->t.table, &w->quota, key_of(1), ones, DAY, &decision);
        if (low) {
            for (volatile unsigned n = 0; n < 100000; n = n + 1)
                ;
        }
        sg_shared_leave(&w->t);
        l->hits[i]++;
    }
    __atomic_fetch_add(&l->inherited, w->shared.locks.inherited, __ATOMIC_RELAXED);
    _exit(0);
}

static void who_is_descheduled_is_waited_for(void **state) {
    (void)state;
    static world w;
    world_make(&w);
    load *l = all_see(sizeof *l);
    pid_t pids[BUSY + HAMMERS + LOW];
    cpu_set_t all, two;
    EQUAL(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&two);
    for (size_t cpu = 0, n = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &two);
            n++;
        }
    }
    for (unsigned i = 0; i < COUNT(pids); i++) {
        pids[i] = fork();
        if (pids[i] != 0)
            continue;
        (void)alarm(LOAD_MS / 1000 + 30); /* a test that fails leaves nobody behind */
        (void)sched_setaffinity(0, sizeof two, &two);
        if (i < BUSY)
            be_busy(l);
        hammer(&w, l, i - BUSY);
    }
    const struct timespec t = {.tv_sec = LOAD_MS / 1000};
    nanosleep(&t, NULL);
    __atomic_store_n(&l->stop, 1, __ATOMIC_RELAXED);
    uint64_t hits = 0, refused = 0, longest = 0, low = 0;
    for (unsigned i = 0; i < COUNT(pids); i++)
        must_end_well(pids[i]);
    for (unsigned i = 0; i < HAMMERS + LOW; i++) {
        hits += l->hits[i];
        low += i >= HAMMERS ? l->hits[i] : 0;
        refused += l->refused[i];
        longest = sg_max(longest, l->longest_us[i]);
    }
    printf("under load: %llu times entered, %llu of low priority, the longest wait %llu ms, %llu given up\n",
           (unsigned long long)hits, (unsigned long long)low, (unsigned long long)longest / 1000,
           (unsigned long long)refused);
    EQUAL(refused, 0);
    EQUAL(l->inherited, 0);
    assert_true(low > 0);
    /* Descheduled it was: for much longer than a stopped one is waited for. */
    assert_true(longest > 20000);
    EQUAL(shared_hit(&w.t, &w.quota, 1, ones, DAY).level[0] / w.quota.interval, hits + 1);
    must_be_good(&w.t);
    EQUAL(munmap(l, sizeof *l), 0);
    world_remove(&w);
}

int main(void) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_holder_delays_once),
        cmocka_unit_test(a_killed_one_is_inherited),
        cmocka_unit_test(a_zombie_is_dead),
        cmocka_unit_test(a_wait_does_not_turn_time_back),
        cmocka_unit_test(who_is_descheduled_is_waited_for),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
