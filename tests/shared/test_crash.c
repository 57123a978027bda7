/* Killed at every instruction: a process is run one instruction at a time, and whenever it has
 * changed the file, a copy of that is taken over as if it had died there. In each copy the
 * checker finds nothing, and each key has what it had before the operation or what it has
 * after it. */
#include "here.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>

#include "holders.h"
#include "segment.h"

#define KEYS_MAX 64u

typedef struct {
    sg_shared_table *t;
    const sg_quota *quotas;
    unsigned count;
    sg_ticks now;
    sg_receipt receipt;
} world;

typedef struct {
    const char *name;
    unsigned count;
    sg_algorithm algorithm[3];
    uint64_t limit;
    void (*before)(world *w);
    void (*act)(world *w);
    uint64_t first, keys; /* the keys that are looked at */
    bool slow; /* walks the whole table: minutes, one instruction at a time */
} scene;

static const uint64_t ones[SG_QUOTAS_MAX] = {1, 1, 1};
static const uint64_t fives[SG_QUOTAS_MAX] = {5, 5, 5};
static const uint64_t nothing[SG_QUOTAS_MAX] = {0};

static void hits(world *w, uint64_t key, uint64_t times, sg_ticks step) {
    for (uint64_t n = 0; n < times; n++) {
        (void)shared_hit(w->t, w->quotas, key, ones, w->now);
        w->now += step;
    }
}

/* ---- what is done */

static void hit_one(world *w) { hits(w, 1, 1, 0); }
static void hit_ten(world *w) { hits(w, 1, 10, SECOND); }
static void hit_five(world *w) { hits(w, 1, 5, SECOND); }
static void hit_250(world *w) { hits(w, 1, 250, SECOND / 100); }
static void hit_256(world *w) { hits(w, 1, 256, SECOND / 100); }
static void three_then(world *w) { hits(w, 1, 3, SECOND); }
static void three_at_once(world *w) { hits(w, 1, 3, 0); }

static void many_keys(world *w) {
    for (uint64_t key = 1; key <= 40; key++)
        hits(w, key, 1, 0);
}

static void three_keys(world *w) {
    for (uint64_t key = 1; key <= 3; key++)
        hits(w, key, 1, 0);
}

static void forty_more(world *w) {
    for (uint64_t key = 41; key <= 80; key++)
        hits(w, key, 1, 0);
}

static void flood(world *w) {
    for (uint64_t key = 1000; key < 61000; key++)
        hits(w, key, 1, 1);
}

static void all_expire(world *w) {
    for (uint64_t key = 1000; key < 1400; key++)
        hits(w, key, 1, 0);
    many_keys(w);
    w->now += DAY;
}

/* The sweeps that come with inserts find what has expired. */
static void eight_inserts(world *w) {
    for (uint64_t key = 200; key < 208; key++)
        hits(w, key, 1, 0);
}

static void with_entered(world *w, void (*act)(world *w)) {
    assert_true(sg_shared_enter(w->t, key_of(1)));
    act(w);
    sg_shared_leave(w->t);
}

static void do_ban(world *w) { (void)sg_limiter_ban(&w->t->table, key_of(1), DAY, w->now); }
static void do_unban(world *w) { sg_limiter_unban(&w->t->table, key_of(1), w->now); }
static void do_reset(world *w) { sg_limiter_reset(&w->t->table, key_of(1)); }
static void do_penalize(world *w) {
    (void)sg_limiter_penalize(&w->t->table, w->quotas, key_of(1), fives, w->now);
}
static void do_reward(world *w) {
    sg_limiter_reward(&w->t->table, w->quotas, key_of(1), fives, w->now);
}
static void do_reserve(world *w) {
    sg_decision decision;
    (void)sg_reserve(&w->t->table, w->quotas, key_of(1), fives, MINUTE, w->now, &decision,
                     &w->receipt);
}
static void do_settle(world *w) {
    (void)sg_settle(&w->t->table, w->quotas, &w->receipt, ones, w->now);
}

static void ban(world *w) { with_entered(w, do_ban); }
static void unban(world *w) { with_entered(w, do_unban); }
static void reset(world *w) { with_entered(w, do_reset); }
static void penalize(world *w) { with_entered(w, do_penalize); }
static void reward(world *w) { with_entered(w, do_reward); }
static void reserve_five(world *w) { with_entered(w, do_reserve); }
static void settle_at_one(world *w) { with_entered(w, do_settle); }

static void banned(world *w) {
    three_then(w);
    ban(w);
}

static void reserved(world *w) {
    sg_receipt first;
    hits(w, 1, 2, 0);
    reserve_five(w);
    first = w->receipt;
    for (unsigned n = 0; n < 5; n++)
        reserve_five(w);
    w->receipt = first;
}

static void clear(world *w) { assert_true(sg_shared_clear(w->t)); }

static bool lives(void *context, uint64_t owner) {
    (void)context;
    return owner != 7;
}

static const sg_witness witness = {.lives = lives};

static void acquire_as(world *w, uint64_t owner, uint64_t times) {
    for (uint64_t n = 0; n < times; n++) {
        bool acquired;
        uint64_t held;
        assert_true(sg_shared_enter(w->t, key_of(1)));
        EQUAL(sg_holders_acquire(&w->t->table, key_of(1), 9, owner, &witness, w->now, &acquired, &held),
              SG_OK);
        sg_shared_leave(w->t);
    }
}

static void release_as(world *w, uint64_t owner) {
    assert_true(sg_shared_enter(w->t, key_of(1)));
    sg_holders_release(&w->t->table, key_of(1), owner);
    sg_shared_leave(w->t);
}

static void acquire_one(world *w) { acquire_as(w, 1, 1); }
static void three_hold(world *w) {
    for (uint64_t owner = 1; owner <= 3; owner++)
        acquire_as(w, owner, 1);
}
static void a_fourth_holds(world *w) { acquire_as(w, 4, 1); }
static void dead_ones_hold(world *w) {
    acquire_as(w, 7, 8);
    acquire_as(w, 1, 1);
}
static void the_last_goes(world *w) { release_as(w, 1); }

#define G SG_GCRA
#define F SG_FIXED_WINDOW
#define S SG_SLIDING_WINDOW
#define L SG_SLIDING_LOG

static const scene scenes[] = {
    {"a new key", 1, {G}, 100, NULL, hit_one, 1, 1, false},
    {"a known key", 1, {G}, 100, three_then, hit_one, 1, 1, false},
    {"three quotas", 3, {G, F, S}, 100, three_then, hit_one, 1, 1, false},
    {"three quotas, a new key", 3, {G, F, L}, 100, NULL, hit_one, 1, 1, false},
    {"forty keys", 1, {G}, 100, NULL, many_keys, 1, 40, false},
    {"forty keys more", 2, {S, G}, 100, many_keys, forty_more, 1, 80, false},
    {"a log", 1, {L}, 100, NULL, hit_ten, 1, 1, false},
    {"a log, at one time", 1, {L}, 100, three_at_once, hit_one, 1, 1, false},
    {"a log that grows", 1, {L}, 1000, hit_250, hit_ten, 1, 1, false},
    {"a log that merges", 1, {L}, 1000, hit_256, hit_ten, 1, 1, false},
    {"two logs", 3, {L, L, G}, 1000, hit_250, hit_ten, 1, 1, false},
    {"a ban", 1, {G}, 100, three_then, ban, 1, 1, false},
    {"a ban of a key never seen", 2, {G, L}, 100, NULL, ban, 1, 1, false},
    {"the end of a ban", 1, {L}, 100, banned, unban, 1, 1, false},
    {"reset", 3, {G, L, S}, 100, banned, reset, 1, 1, false},
    {"penalize", 3, {G, L, F}, 100, three_then, penalize, 1, 1, false},
    {"reward", 3, {G, L, S}, 100, reserved, reward, 1, 1, false},
    {"a reservation", 3, {G, L, F}, 100, three_then, reserve_five, 1, 1, false},
    {"a reservation more", 3, {G, L, F}, 100, reserved, reserve_five, 1, 1, false},
    {"settled", 3, {G, L, F}, 100, reserved, settle_at_one, 1, 1, false},
    {"settled, of one quota", 1, {G}, 100, reserved, settle_at_one, 1, 1, false},
    {"clear", 2, {L, G}, 100, many_keys, clear, 1, 40, false},
    {"sweeps", 1, {L}, 100, all_expire, eight_inserts, 1, 40, false},
    {"a full file", 1, {G}, 100, flood, three_keys, 1, 3, false},
    {"a full file of logs", 1, {L}, 100, flood, hit_five, 1, 1, true},
    {"a ban in a full file", 1, {G}, 100, flood, ban, 1, 1, false},
    {"a slot", 0, {G}, 0, NULL, acquire_one, 1, 1, false},
    {"a fourth holder", 0, {G}, 0, three_hold, a_fourth_holds, 1, 1, false},
    {"in place of the dead", 0, {G}, 0, dead_ones_hold, acquire_one, 1, 1, false},
    {"the last one goes", 0, {G}, 0, acquire_one, the_last_goes, 1, 1, false},
};

/* ---- what a key has */

typedef struct {
    uint64_t level[3];
    uint64_t ban;
} standing;

static standing standing_of(world *w, uint64_t key, sg_ticks now) {
    standing s = {{0}, 0};
    assert_true(sg_shared_enter(w->t, key_of(key)));
    if (w->count == 0) {
        s.level[0] = sg_holders_count(&w->t->table, key_of(key), &witness);
    } else {
        sg_decision decision;
        memset(&decision, 0, sizeof decision);
        sg_peek(&w->t->table, w->quotas, key_of(key), nothing, now, &decision);
        memcpy(s.level, decision.level, w->count * sizeof *s.level);
        s.ban = decision.binding == SG_BANNED;
    }
    sg_shared_leave(w->t);
    return s;
}

static bool same(const standing *a, const standing *b) { return memcmp(a, b, sizeof *a) == 0; }

/* ---- the copies */

/* What of the file may change: the child's seat, but for its notes, the shards, and as far as
 * pages were ever used. */
typedef struct {
    unsigned char *from;
    size_t size;
} part;

typedef struct {
    sg_shared *original;
    part parts[4];
    const scene *scene;
    const sg_quota *quotas;
    standing *before, *after;
    sg_ticks now;
    unsigned char *copy;
    sg_owner dead;
    uint64_t deaths;
} observer;

/* Takes the copy over, as if its maker had been killed. */
static void die_here(observer *o, uint32_t seat) {
    static sg_shared_table t;
    sg_shared shared = *o->original;
    for (size_t i = 0; i < COUNT(o->parts); i++)
        memcpy(o->copy + (o->parts[i].from - o->original->file.base), o->parts[i].from,
               o->parts[i].size);
    const sg_undo *undo = &o->original->locks.seats[seat].undo;
    memcpy(o->copy + (undo->notes - o->original->file.base), undo->notes, undo->length);
    shared.file.base = o->copy;
    assert_true(sg_shared_map(&shared, o->copy, shared.file.size));
    shared.locks.seats[seat].process = shared.locks.seats[seat].thread = o->dead;
    assert_true(sg_shared_table_at(&t, &shared, 0));
    for (unsigned i = 0; i < o->scene->count; i++)
        sg_table_learn(&t.table, i, &o->quotas[i]);
    must_be_good(&t);
    world w = {.t = &t, .quotas = o->quotas, .count = o->scene->count};
    for (uint64_t i = 0; i < o->scene->keys; i++) {
        const standing now = standing_of(&w, o->scene->first + i, o->now);
        bool known = same(&now, &o->before[i]) || same(&now, &o->after[i]);
        /* Of ten hits some were made: between what was and what will be. */
        if (!known && (o->scene->act == hit_ten || o->scene->act == hit_five)) {
            known = true;
            for (unsigned q = 0; q < o->scene->count; q++)
                known = known && now.level[q] >= o->before[i].level[q] &&
                        now.level[q] <= o->after[i].level[q];
        }
        if (!known)
            fail_msg("%s: key %llu has %llu, %llu, %llu (%llu), which it never had", o->scene->name,
                     (unsigned long long)(o->scene->first + i), (unsigned long long)now.level[0],
                     (unsigned long long)now.level[1], (unsigned long long)now.level[2],
                     (unsigned long long)now.ban);
    }
    if (o->deaths++ % 16 == 0)
        must_be_good(&t);
}

static sg_owner owner_that_died(void) {
    int ends[2];
    sg_owner owner = 0;
    EQUAL(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        owner = sg_owner_process();
        _exit(write(ends[1], &owner, sizeof owner) == (ssize_t)sizeof owner ? 0 : 1);
    }
    must_end_well(pid);
    EQUAL(read(ends[0], &owner, sizeof owner), sizeof owner);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return owner;
}

/* The child does it one instruction at a time; whenever it changed something, it dies in a
 * copy. */
static void step_through(observer *o, world *w) {
    uint32_t *seat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(seat != MAP_FAILED);
    const pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(3);
        if (!sg_shared_enter(w->t, key_of(o->scene->first)))
            _exit(4); /* takes a seat */
        sg_shared_leave(w->t);
        *seat = w->t->shared->locks.mine;
        (void)raise(SIGSTOP);
        o->scene->act(w);
        (void)raise(SIGSTOP);
        _exit(0);
    }
    int status;
    EQUAL(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
        printf("SKIPPED: no process may be traced here (%s)\n", strerror(errno));
        skip();
    }
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    sg_shared *shared = o->original;
    uint32_t pages = 48;
    for (uint32_t i = 0; i < shared->root->pages; i++) {
        const uint32_t owner = sg_page_owner(&shared->locks.map, i);
        if (owner != 0 && owner < 0x80000000u)
            pages = i + 48;
    }
    pages = (uint32_t)sg_min(pages, shared->root->pages);
    const part parts[4] = {
        {(unsigned char *)&shared->locks.seats[*seat], offsetof(sg_seat, undo) + 8},
        {shared->file.base + w->t->row, (size_t)shared->root->shards * SG_SHARD_BYTES},
        {shared->file.base + shared->root->owners_at, pages * sizeof(uint32_t)},
        {shared->file.base + shared->root->pages_at, (size_t)pages * SG_PAGE},
    };
    memcpy(o->parts, parts, sizeof parts);
    memcpy(o->copy, shared->file.base, shared->file.size);
    unsigned char *was[COUNT(parts)];
    for (size_t i = 0; i < COUNT(parts); i++) {
        was[i] = malloc(parts[i].size);
        assert_non_null(was[i]);
        memcpy(was[i], parts[i].from, parts[i].size);
    }
    for (;;) {
        EQUAL(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        EQUAL(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        EQUAL(WSTOPSIG(status), SIGTRAP);
        bool changed = false;
        for (size_t i = 0; i < COUNT(parts); i++) {
            if (memcmp(was[i], parts[i].from, parts[i].size) == 0)
                continue;
            memcpy(was[i], parts[i].from, parts[i].size);
            changed = true;
        }
        if (changed)
            die_here(o, *seat);
    }
    EQUAL(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    must_end_well(pid);
    for (size_t i = 0; i < COUNT(parts); i++)
        free(was[i]);
    EQUAL(munmap(seat, 4096), 0);
}

/* The file as it would be if nobody died, thrown away again. */
static void look_ahead(observer *o, world *w) {
    sg_shared *shared = o->original;
    unsigned char *saved = malloc(shared->file.size);
    assert_non_null(saved);
    memcpy(saved, shared->file.base, shared->file.size);
    world ahead = *w;
    o->scene->act(&ahead);
    o->now = ahead.now;
    for (uint64_t i = 0; i < o->scene->keys; i++)
        o->after[i] = standing_of(w, o->scene->first + i, o->now);
    must_be_good(w->t);
    memcpy(shared->file.base, saved, shared->file.size);
    for (uint64_t i = 0; i < o->scene->keys; i++)
        o->before[i] = standing_of(w, o->scene->first + i, o->now);
    memcpy(shared->file.base, saved, shared->file.size);
    free(saved);
}

static void run(const scene *scene, sg_owner dead) {
    place p;
    static sg_shared shared;
    static sg_shared_table t;
    standing before[KEYS_MAX * 2], after[KEYS_MAX * 2];
    sg_quota quotas[3];
    place_make(&p);
    open_file(&shared, &p, HERE_SIZE);
    for (unsigned i = 0; i < scene->count; i++)
        quotas[i] = quota_of(scene->algorithm[i], scene->limit, 3600, 0);
    open_limiter(&t, &shared, scene->name, scene->count, quotas);
    world w = {.t = &t, .quotas = quotas, .count = scene->count, .now = 100 * DAY};
    if (scene->before != NULL)
        scene->before(&w);
    observer o = {.original = &shared, .scene = scene, .quotas = quotas, .before = before,
                  .after = after, .dead = dead};
    o.copy = mmap(NULL, shared.file.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(o.copy != MAP_FAILED);
    look_ahead(&o, &w);
    step_through(&o, &w);
    printf("%s: %llu deaths\n", scene->name, (unsigned long long)o.deaths);
    assert_true(o.deaths > 2);
    must_be_good(&t);
    EQUAL(munmap(o.copy, shared.file.size), 0);
    sg_shared_close(&shared);
    place_remove(&p);
}

static void death_at_any_instruction_leaves_all_or_nothing(void **state) {
    (void)state;
    const sg_owner dead = owner_that_died();
    /* SCENE=name: that one alone; SCENE=all: the slow ones too. */
    const char *only = getenv("SCENE");
    for (size_t i = 0; i < COUNT(scenes); i++) {
        if (only == NULL && scenes[i].slow)
            printf("%s: left out, SCENE=all runs it\n", scenes[i].name);
        else if (only == NULL || strcmp(only, "all") == 0 || strcmp(only, scenes[i].name) == 0)
            run(&scenes[i], dead);
    }
}

int main(void) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_at_any_instruction_leaves_all_or_nothing),
    };
    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
