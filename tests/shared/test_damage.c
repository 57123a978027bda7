/* Random bytes in the file: whatever they are, no operation crashes, hangs or leaves the mapping.
 * A file that was in use is damaged in memory, between pages that nobody may touch, and taken
 * over as any process would take it. What it then admits is anybody's guess. After a clear it
 * is as good as new. */
#include "here.h"

#include <signal.h>
#include <time.h>

#include "holders.h"
#include "segment.h"

/* FILES=n: so many; FIRST=n: from that one on, with the same SLUICEGATE_SEED. */
#define FILES 100000u
#define OPERATIONS 30u
#define LIMITERS 6u
#define KEYS 64u
#define GUARD (UINT64_C(1) << 20)
#define SECONDS_MAX 5u /* for one file */

typedef struct {
    const char *name;
    unsigned count;
    sg_algorithm algorithm[4];
    uint64_t limit;
    uint64_t keys;
} shape;

static const shape shapes[LIMITERS] = {
    {"gcra", 1, {SG_GCRA}, 40, 400},
    {"log", 1, {SG_SLIDING_LOG}, 1000, KEYS},
    {"three", 3, {SG_GCRA, SG_FIXED_WINDOW, SG_SLIDING_LOG}, 30, 200},
    {"windows", 2, {SG_SLIDING_WINDOW, SG_FIXED_WINDOW}, 20, 300},
    {"slots", 0, {SG_GCRA}, 9, KEYS},
    {"logs", 3, {SG_SLIDING_LOG, SG_SLIDING_LOG, SG_SLIDING_WINDOW}, 300, KEYS},
};

static sg_quota quotas[LIMITERS][SG_QUOTAS_MAX];
static unsigned char *good, *damaged; /* the file as it was, and the one that is damaged */
static uint64_t size;
static uint64_t used_to; /* behind this offset the file is all zeros */
static sg_map where;
static sg_receipt receipts[LIMITERS][32];
static sg_owner me;
static volatile unsigned file_now;
static volatile const char *doing = "";

static bool lives(void *context, uint64_t owner) {
    (void)context;
    return owner % 8 != 7;
}

static const sg_witness witness = {.lives = lives};

/* ---- operations */

static uint64_t wait_for;

static void operate(sg_shared_table *t, const shape *s, const sg_quota *q, sg_receipt *open,
                    sg_ticks now) {
    const sg_fingerprint fp = key_of(random_below(s->keys + s->keys / 4));
    uint64_t costs[3 * SG_QUOTAS_MAX];
    sg_decision decision;
    bool acquired;
    for (unsigned i = 0; i < COUNT(costs); i++)
        costs[i] = random_below(8) == 0 ? random_skewed(SG_COST_MAX) : random_below(4);
    sg_receipt *receipt = &open[random_below(32)];
    const unsigned what = (unsigned)random_below(16);
    if (!sg_shared_enter(t, what == 9 ? receipt->fp : fp))
        return;
    if (s->count == 0) {
        uint64_t held;
        const uint64_t owner = 1 + random_below(20);
        if (what < 8)
            (void)sg_holders_acquire(&t->table, fp, s->limit, owner, &witness, now, &acquired, &held);
        else if (what < 12)
            sg_holders_release(&t->table, fp, owner);
        else
            (void)sg_holders_count(&t->table, fp, &witness);
        sg_shared_leave(t);
        return;
    }
    switch (what) {
    case 0:
        sg_peek(&t->table, q, fp, costs, now, &decision);
        break;
    case 1:
        (void)sg_limiter_penalize(&t->table, q, fp, costs, now);
        break;
    case 2:
        sg_limiter_reward(&t->table, q, fp, costs, now);
        break;
    case 3:
        (void)sg_limiter_ban(&t->table, fp, SECOND * random_below(100), now);
        break;
    case 4:
        sg_limiter_reset(&t->table, fp);
        break;
    case 5:
        sg_limiter_unban(&t->table, fp, now);
        break;
    case 6:
        (void)sg_project(&t->table, q, fp, costs, 3, now, &wait_for);
        break;
    case 7:
    case 8:
        if (!receipt->open)
            (void)sg_reserve(&t->table, q, fp, costs, MINUTE, now, &decision, receipt);
        break;
    case 9:
        (void)sg_settle(&t->table, q, receipt, costs, now);
        break;
    default:
        (void)sg_hit(&t->table, q, fp, costs, now, &decision);
        break;
    }
    sg_topk_count(t->shard->hot.entries, SG_SHARED_TOPK, &t->shard->hot.halved,
                  &t->shard->hot.random, fp, "a name", 6, now);
    sg_shared_leave(t);
}

static uint64_t sink;

static void read_topk(sg_shared_table *t) {
    sg_topk_entry entries[SG_SHARED_TOPK];
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (!sg_shared_enter_shard(t, i))
            continue;
        const size_t n = sg_topk_gather(t->shard->hot.entries, SG_SHARED_TOPK, entries, 0,
                                        1 + random_below(SG_SHARED_TOPK));
        sg_shared_leave(t);
        for (size_t k = 0; k < n; k++) {
            AT_MOST(entries[k].name_length, SG_TOPK_NAME);
            for (unsigned c = 0; c < entries[k].name_length; c++)
                sink += (unsigned char)entries[k].name[c] + entries[k].cut;
        }
    }
}

/* ---- a file that was in use */

static const sg_ticks begun = 100 * DAY;

static void fill(sg_shared *shared) {
    static sg_shared_table t;
    for (unsigned i = 0; i < LIMITERS; i++) {
        const shape *s = &shapes[i];
        for (unsigned k = 0; k < s->count; k++)
            quotas[i][k] = quota_of(s->algorithm[k], s->limit, 3600, 0);
        open_limiter(&t, shared, s->name, s->count, quotas[i]);
        for (unsigned n = 0; n < 6000; n++)
            operate(&t, s, quotas[i], receipts[i], begun + n * (SECOND / 50));
        must_be_good(&t);
    }
}

/* What a process leaves that dies in the middle of something. */
static void die_in_the_middle(const place *p) {
    static sg_shared shared;
    static sg_shared_table t;
    const pid_t pid = fork();
    if (pid == 0) {
        open_file(&shared, p, 0);
        open_limiter(&t, &shared, "three", 3, quotas[2]);
        if (!sg_shared_enter(&t, key_of(3)))
            _exit(1);
        sg_touch(&t.table.arena, &t.shard->body, sizeof t.shard->body);
        sg_touch(&t.table.arena, t.shard->hot.entries, sizeof t.shard->hot.entries);
        (void)kill(getpid(), SIGKILL);
    }
    int status;
    EQUAL(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* Memory for a file, with pages before and behind it that nobody may touch. */
static unsigned char *guarded(void) {
    unsigned char *at = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    EQUAL(mprotect(at + GUARD, size, PROT_READ | PROT_WRITE), 0);
    return at + GUARD;
}

static int set_up(void **state) {
    (void)state;
    static sg_shared shared;
    place p;
    random_seed();
    place_make(&p);
    open_file(&shared, &p, HERE_SIZE);
    me = sg_owner_process();
    fill(&shared);
    size = shared.file.size;
    where = shared.locks.map;
    good = guarded();
    damaged = guarded();
    die_in_the_middle(&p);
    sg_seat_leave(&shared.locks);
    memcpy(good, shared.file.base, size);
    sg_shared_close(&shared);
    for (used_to = size; used_to > 0 && good[used_to - 1] == 0;)
        used_to--;
    place_remove(&p);
    return 0;
}

/* ---- damage */

typedef struct {
    uint64_t at, size;
} run;

static run piece_of(uint64_t at, uint64_t bytes) { return (run){at, bytes}; }

static run random_entry(void) {
    return piece_of(SG_FILE_HEADER + offsetof(sg_root, entries) +
                        random_below(LIMITERS + 1) * sizeof(sg_entry),
                    offsetof(sg_entry, text));
}

static uint64_t pages_seen[512], pages_count;

static void find_pages(void) {
    if (pages_count > 0)
        return;
    for (uint64_t i = 0; i < where.pages; i++) {
        uint32_t owner;
        memcpy(&owner, good + where.owners_at + i * sizeof owner, sizeof owner);
        if (owner != 0)
            pages_seen[pages_count++] = i;
    }
}

static run random_page(bool of_a_row) {
    for (;;) {
        const uint64_t i = pages_seen[random_below(pages_count)];
        uint32_t owner;
        memcpy(&owner, good + where.owners_at + i * sizeof owner, sizeof owner);
        if ((owner >= SG_ROW_OWNER(0)) == of_a_row)
            return piece_of(where.pages_at + i * SG_PAGE, SG_PAGE);
    }
}

/* Where something lies that a process reads. Lock words are left to a test of their own: whom
 * they name may be waited for. */
static run random_structure(void) {
    run r;
    switch (random_below(12)) {
    case 0: /* not the division of the file, of which all is refused */
        return piece_of(SG_FILE_HEADER + offsetof(sg_root, page_hint), 12);
    case 1:
        return random_entry();
    case 2: /* a seat, and its notes */
        return piece_of(where.seats_at + random_below(3) * sizeof(sg_seat), 64 + 2048);
    case 3:
        return piece_of(where.owners_at, where.pages * sizeof(uint32_t));
    case 4:
        r = random_page(true); /* how its table is divided */
        r.at += random_below(SG_PAGE / SG_SHARD_BYTES) * SG_SHARD_BYTES + offsetof(sg_shard, body);
        r.size = offsetof(sg_table_body, chunks) + 4 * sizeof(sg_ref);
        return r;
    case 5: /* a shard, behind its lock */
        r = random_page(true);
        r.at += random_below(SG_PAGE / SG_SHARD_BYTES) * SG_SHARD_BYTES + sizeof(sg_lock);
        r.size = offsetof(sg_shard, hot) - sizeof(sg_lock);
        return r;
    case 6: /* its hottest keys */
        r = random_page(true);
        r.at += random_below(SG_PAGE / SG_SHARD_BYTES) * SG_SHARD_BYTES + offsetof(sg_shard, hot);
        r.size = 2 * sizeof(sg_shared_topk);
        return r;
    case 7: /* the head of a page */
        r = random_page(false);
        r.size = sizeof(sg_page);
        return r;
    case 8: /* the first pieces of a page, a small part of them */
        r = random_page(false);
        r.at += sizeof(sg_page) + 16 * random_below(20);
        r.size = 16 + 16 * random_below(20);
        return r;
    default:
        r = random_page(false);
        return r;
    }
}

static unsigned char odd_byte(void) {
    static const unsigned char odd[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe};
    return random_below(3) == 0 ? odd[random_below(sizeof odd)] : (unsigned char)random_bits();
}

/* A word of the file put in another place: refs, counts and links of one for those of another. */
static void mix_up(void) {
    const run a = random_structure(), b = random_structure();
    const uint64_t bytes = random_below(2) ? 8 : 4;
    if (a.size < 16 || b.size < 16)
        return;
    memmove(damaged + a.at + random_below((a.size - 8) / 4) * 4,
            damaged + b.at + random_below((b.size - 8) / 4) * 4, bytes);
}

/* A ref to where something lies. */
static void point_somewhere(void) {
    const run a = random_structure(), b = random_page(random_below(8) == 0);
    const uint64_t ref = b.at + random_below(b.size / 16) * 16;
    if (a.size >= 16)
        memcpy(damaged + a.at + random_below((a.size - 8) / 8) * 8, &ref, sizeof ref);
}

static void damage(void) {
    run r;
    uint64_t n;
    unsigned char byte;
    switch (random_below(8)) {
    case 0:
    case 1: /* some bytes, here and there */
        for (n = 1 + random_below(64); n > 0; n--) {
            r = random_structure();
            damaged[r.at + random_below(r.size)] = odd_byte();
        }
        break;
    case 2: /* some bits */
        for (n = 1 + random_below(64); n > 0; n--) {
            r = random_structure();
            r.at += random_below(r.size);
            damaged[r.at] = (unsigned char)(damaged[r.at] ^ 1u << random_below(8));
        }
        break;
    case 3: /* a run of random bytes, or of one */
        r = random_structure();
        n = 1 + random_skewed(r.size);
        r.at += random_below(r.size - n + 1);
        byte = odd_byte();
        for (const bool same = random_below(2); n > 0; n--)
            damaged[r.at++] = same ? byte : (unsigned char)random_bits();
        break;
    case 4: /* all of one thing */
        for (uint64_t times = 1 + random_below(3); times > 0; times--) {
            r = random_structure();
            byte = odd_byte();
            if (random_below(2))
                memset(damaged + r.at, byte, r.size);
            else
                for (n = 0; n < r.size; n++)
                    damaged[r.at + n] = (unsigned char)random_bits();
        }
        break;
    case 5:
        for (n = 1 + random_below(16); n > 0; n--)
            mix_up();
        break;
    case 6:
        for (n = 1 + random_below(16); n > 0; n--)
            point_somewhere();
        break;
    default: /* words with small numbers in them, or the largest */
        for (n = 1 + random_below(32); n > 0; n--) {
            r = random_structure();
            const uint64_t word = random_below(4) == 0   ? UINT64_MAX - random_below(4)
                                  : random_below(2) == 0 ? random_below(64)
                                                         : random_skewed(UINT64_MAX);
            if (r.size >= 16)
                memcpy(damaged + r.at + random_below((r.size - 8) / 8) * 8, &word,
                       random_below(2) ? 8 : random_below(2) ? 4 : 2);
        }
        break;
    }
}

/* A name without a start time, which a process has that finds no /proc, is believed: number 1
 * always lives. So is whoever is named. Of the dead here such names are not made. */
static void keep_dead(void) {
    for (uint32_t i = 0; i < where.seats; i++) {
        sg_seat *seat = (sg_seat *)(damaged + where.seats_at + i * sizeof(sg_seat));
        if (seat->thread < UINT64_C(1) << 22)
            seat->thread |= UINT64_C(1) << 40;
    }
}

/* ---- one file */

static void restore(void) {
    /* What the one before wrote: of a seat only its head and a few notes. */
    const uint64_t notes = 8192;
    memcpy(damaged, good, where.seats_at);
    for (uint32_t i = 0; i < where.seats; i++)
        memcpy(damaged + where.seats_at + i * sizeof(sg_seat),
               good + where.seats_at + i * sizeof(sg_seat), notes);
    memcpy(damaged + where.owners_at, good + where.owners_at, used_to - where.owners_at);
}

/* Most files have nobody who died in them: to see that one did takes a millisecond. */
static void bury_the_dead(void) {
    for (uint32_t i = 0; i < where.seats; i++) {
        sg_seat *seat = (sg_seat *)(damaged + where.seats_at + i * sizeof(sg_seat));
        if (seat->holding != 0)
            ((sg_lock *)(damaged + seat->holding))->word = 0;
    }
}

static void attach(sg_shared *shared) {
    memset(shared, 0, sizeof *shared);
    assert_true(sg_shared_map(shared, damaged, size));
    shared->file.base = damaged;
    shared->file.size = size;
}

static void read_all(sg_shared_table *t) {
    sg_shared_sum sum;
    const char *what = "";
    doing = "read";
    sg_shared_add_up(t, &sum);
    sink += sum.keys + sum.counts.damages;
    sink += sg_shared_check(t, &what);
    read_topk(t);
}

typedef struct {
    uint64_t refused, faulty, emptied, seats;
} figures;

static void use(figures *f) {
    static sg_shared shared;
    static sg_shared_table tables[LIMITERS];
    const char *what = "";
    attach(&shared);
    doing = "take a seat";
    if (!sg_seat_take(&shared.locks)) {
        f->seats++;
        return;
    }
    const sg_ticks now = begun + 120 * SECOND + random_below(2) * DAY;
    bool open[LIMITERS];
    for (unsigned i = 0; i < LIMITERS; i++) {
        uint8_t algorithms[SG_QUOTAS_MAX];
        for (unsigned k = 0; k < shapes[i].count; k++)
            algorithms[k] = (uint8_t)shapes[i].algorithm[k];
        doing = "open a limiter";
        open[i] = sg_shared_table_open(&tables[i], &shared, shapes[i].name, strlen(shapes[i].name),
                                       "", 0, shapes[i].count, algorithms) == SG_SHARED_OK;
        f->refused += !open[i];
        if (open[i] && random_below(4) == 0)
            read_all(&tables[i]);
    }
    sg_receipt copies[LIMITERS][32];
    memcpy(copies, receipts, sizeof copies);
    for (unsigned n = 0; n < OPERATIONS; n++) {
        const unsigned i = (unsigned)random_below(LIMITERS);
        doing = "operate";
        if (open[i])
            operate(&tables[i], &shapes[i], quotas[i], copies[i], now + n * (SECOND / 10));
    }
    bool faulty = false;
    for (unsigned i = 0; i < LIMITERS; i++) {
        doing = "check";
        if (open[i] && sg_shared_check(&tables[i], &what) > 0)
            faulty = true;
        if (open[i] && random_below(4) == 0)
            read_all(&tables[i]);
    }
    f->faulty += faulty;
    for (unsigned i = 0; i < LIMITERS; i++) {
        doing = "clear";
        if (open[i])
            assert_true(sg_shared_clear(&tables[i]));
    }
    for (unsigned i = 0; i < LIMITERS; i++) {
        sg_shared_sum sum;
        doing = "look after a clear";
        if (!open[i])
            continue;
        const uint64_t faults = sg_shared_check(&tables[i], &what);
        if (faults > 0)
            fail_msg("file %u, %s: after a clear %llu faults, the first: %s", file_now,
                     shapes[i].name, (unsigned long long)faults, what);
        sg_shared_add_up(&tables[i], &sum);
        EQUAL(sum.keys, 0);
        f->emptied += sum.counts.damages > 0 && sum.counts.damages < 1000;
        operate(&tables[i], &shapes[i], quotas[i], copies[i], now + DAY);
    }
    sg_seat_leave(&shared.locks);
}

static void say_where(int signal_number) {
    char text[160];
    const int length =
        snprintf(text, sizeof text, "signal %d in file %u, at: %s (repeat with SLUICEGATE_SEED, FIRST)\n",
                 signal_number, file_now, (const char *)doing);
    (void)!write(2, text, (size_t)length);
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

static unsigned number_of(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    return text != NULL ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#if SANITIZED
#define FILES_HERE (FILES / 20)
#else
#define FILES_HERE FILES
#endif

static void random_bytes_neither_crash_nor_hang(void **state) {
    (void)state;
    const unsigned first = number_of("FIRST", 0), files = number_of("FILES", FILES_HERE);
    const uint64_t seed = random_get();
    const double from = seconds();
    figures f = {0, 0, 0, 0};
    double longest = 0;
    find_pages();
    (void)signal(SIGALRM, say_where);
#if !SANITIZED
    (void)signal(SIGSEGV, say_where);
    (void)signal(SIGBUS, say_where);
    (void)signal(SIGFPE, say_where);
#endif
    memcpy(damaged, good, size);
    /* The file as it is has no fault: what is found below is what was done to it. */
    restore();
    use(&f);
    EQUAL(f.faulty + f.refused + f.emptied, 0);
    for (unsigned n = first; n < first + files; n++) {
        file_now = n;
        random_set(seed + n * UINT64_C(0xd1342543de82ef95));
        const double began = seconds();
        restore();
        if (n % 8 != 0)
            bury_the_dead();
        damage();
        keep_dead();
        (void)alarm(SECONDS_MAX);
        use(&f);
        const double took = seconds() - began;
        longest = took > longest ? took : longest;
    }
    (void)alarm(0);
    printf("%u damaged files: %llu with faults that the checker found, %llu limiters refused, "
           "%llu limiters with shards that were emptied, %llu without a seat; "
           "%.1f s, the longest %.0f ms\n",
           files, (unsigned long long)f.faulty, (unsigned long long)f.refused,
           (unsigned long long)f.emptied, (unsigned long long)f.seats, seconds() - from,
           longest * 1000);
    assert_true(f.faulty > files / 4);
    assert_true(longest < 2);
}

/* Lock words that name anybody: the living who has no lock, the dead, seats that there are
 * not. None of them is waited for. */
static void damaged_lock_words_hold_nobody_up(void **state) {
    (void)state;
    static sg_shared shared, other;
    static sg_shared_table t;
    const unsigned files = FILES_HERE / 100;
    double longest = 0;
    random_set(7);
    for (unsigned n = 0; n < files; n++) {
        restore();
        attach(&shared);
        attach(&other);
        assert_true(sg_seat_take(&other.locks)); /* it lives, and has nothing */
        assert_true(sg_seat_take(&shared.locks));
        const sg_entry *entry = &shared.root->entries[random_below(LIMITERS)];
        const uint64_t names[] = {other.locks.mine + 1u, random_below(0x1000), shared.locks.mine + 1u,
                                  1 + random_below(16)};
        for (uint32_t i = 0; i < where.shards; i++) {
            sg_shard *shard = (sg_shard *)(damaged + entry->shards + i * SG_SHARD_BYTES);
            shard->lock.word = random_bits() << 24 | names[random_below(4)] |
                               names[random_below(4)] << 12;
        }
        if (random_below(2))
            shared.root->lock.word = random_bits() << 12 | names[random_below(4)];
        (void)alarm(SECONDS_MAX);
        const double began = seconds();
        const uint32_t at = (uint32_t)(entry - shared.root->entries);
        assert_true(sg_shared_table_at(&t, &shared, at));
        for (uint32_t i = 0; i < where.shards; i++) {
            assert_true(sg_shared_enter_shard(&t, i));
            sg_shared_leave(&t);
        }
        assert_true(sg_shared_clear(&t));
        must_be_good(&t);
        const double took = seconds() - began;
        longest = took > longest ? took : longest;
        sg_seat_leave(&shared.locks);
        sg_seat_leave(&other.locks);
    }
    (void)alarm(0);
    printf("%u files with damaged lock words: the longest took %.0f ms\n", files, longest * 1000);
    assert_true(longest < 2);
}

/* The same through the door: a file on the disk, damaged anywhere, its root and header too. */
static void damaged_files_are_opened_or_refused(void **state) {
    (void)state;
    const unsigned files = 100 + FILES_HERE / 250;
    unsigned opened = 0, refused = 0;
    place p;
    place_make(&p);
    for (unsigned n = 0; n < files; n++) {
        static sg_shared shared;
        static sg_shared_table t;
        sg_file_error error;
        int system_error;
        random_set(1000 + n);
        restore();
        damage();
        keep_dead();
        if (random_below(2))
            damaged[random_below(2) ? random_below(sizeof(sg_file_header))
                                    : SG_FILE_HEADER + random_below(64)] = odd_byte();
        FILE *file = fopen(p.path, "wb");
        assert_non_null(file);
        EQUAL(fwrite(damaged, 1, size, file), size);
        EQUAL(fclose(file), 0);
        EQUAL(chmod(p.path, 0600), 0);
        (void)alarm(SECONDS_MAX);
        const sg_shared_error result =
            sg_shared_open(&shared, p.path, 0, random_below(2), &error, &system_error);
        if (result == SG_SHARED_OK) {
            opened++;
            for (uint32_t i = 0; i < SG_ENTRIES; i++) {
                if (!sg_shared_table_at(&t, &shared, i))
                    continue;
                read_all(&t);
                assert_true(sg_shared_clear(&t));
                must_be_good(&t);
            }
            sg_shared_close(&shared);
        } else {
            refused++;
            if (result == SG_SHARED_FILE)
                sink += strlen(sg_file_why(error));
        }
        EQUAL(unlink(p.path), 0);
    }
    (void)alarm(0);
    printf("%u files: %u opened, %u refused\n", files, opened, refused);
    assert_true(opened > 0 && refused > 0);
    place_remove(&p);
}

int main(void) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_bytes_neither_crash_nor_hang),
        cmocka_unit_test(damaged_lock_words_hold_nobody_up),
        cmocka_unit_test(damaged_files_are_opened_or_refused),
    };
    return cmocka_run_group_tests_name("damage", tests, set_up, NULL);
}
