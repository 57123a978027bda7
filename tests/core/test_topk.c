#include "support.h"

#include "topk.h"

typedef struct {
    test_memory memory;
    sg_allocator allocator;
    sg_arena arena;
    sg_topk topk;
} fixture;

static void set_up(fixture *f) {
    memset(f, 0, sizeof *f);
    f->allocator = test_allocator(&f->memory);
    sg_arena_init(&f->arena, &f->allocator, 0);
    sg_topk_init(&f->topk, random_bits());
}

static void tear_down(fixture *f) {
    sg_topk_free(&f->topk, &f->arena);
    EQUAL(f->memory.pieces, 0);
}

static void add(fixture *f, uint64_t key, sg_ticks now) {
    char name[32];
    int length = snprintf(name, sizeof name, "key:%llu", (unsigned long long)key);
    sg_topk_add(&f->topk, &f->arena, key_of(key), name, (size_t)length, now);
}

static void lists_the_heaviest_first(void **state) {
    (void)state;
    fixture f;
    sg_topk_entry list[10];
    set_up(&f);
    EQUAL(sg_topk_list(&f.topk, list, 10), 0);
    EQUAL(f.memory.pieces, 0); /* an idle one takes no memory */
    /* Ten heavy keys in a stream of fifty thousand light ones. */
    for (uint64_t n = 0; n < 50000; n++) {
        add(&f, 1000 + n, 1);
        for (uint64_t heavy = 0; heavy < 10; heavy++) {
            if (n % (heavy + 2) == 0)
                add(&f, heavy, 1);
        }
    }
    EQUAL(f.memory.pieces, 1);
    AT_MOST(f.memory.bytes, 16384);
    size_t found = sg_topk_list(&f.topk, list, 10), known = 0;
    EQUAL(found, 10);
    for (size_t i = 0; i < found; i++) {
        if (i > 0)
            assert_true(list[i - 1].count >= list[i].count);
        for (uint64_t heavy = 0; heavy < 10; heavy++) {
            char name[32];
            int length = snprintf(name, sizeof name, "key:%llu", (unsigned long long)heavy);
            if (list[i].name_length == length && memcmp(list[i].name, name, (size_t)length) == 0) {
                known++;
                AT_MOST(list[i].count, 50000 / (heavy + 2) + 1); /* never above the truth */
            }
        }
    }
    /* One is lost where five of the ten have the same four buckets: some 2 in 10,000 times. */
    assert_true(known >= 9);
    EQUAL(sg_topk_list(&f.topk, list, 3), 3);
    EQUAL(sg_topk_list(&f.topk, list, 0), 0);
    tear_down(&f);
}

static void keeps_64_bytes_of_a_name(void **state) {
    (void)state;
    fixture f;
    sg_topk_entry entry;
    char name[100];
    set_up(&f);
    memset(name, 'x', sizeof name);
    sg_topk_add(&f.topk, &f.arena, key_of(1), name, 64, 1);
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 1);
    EQUAL(entry.name_length, 64);
    assert_false(entry.cut);
    tear_down(&f);
    set_up(&f);
    sg_topk_add(&f.topk, &f.arena, key_of(1), name, 65, 1);
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 1);
    EQUAL(entry.name_length, 64);
    assert_true(entry.cut);
    tear_down(&f);
    set_up(&f);
    sg_topk_add(&f.topk, &f.arena, key_of(1), NULL, 0, 1);
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 1);
    EQUAL(entry.name_length, 0);
    tear_down(&f);
}

static void counts_four_keys_exactly(void **state) {
    (void)state;
    fixture f;
    sg_topk_entry list[8];
    set_up(&f);
    /* All of one place, in turn, so that each would wear the others down. */
    for (uint64_t n = 1; n <= 100; n++) {
        for (uint64_t key = 1; key <= 4; key++) {
            if (n <= 25 * key)
                sg_topk_add(&f.topk, &f.arena, (sg_fingerprint){.lo = 2 * key, .hi = 0}, "k", 1, 1);
        }
    }
    EQUAL(sg_topk_list(&f.topk, list, 8), 4);
    for (uint64_t i = 0; i < 4; i++)
        EQUAL(list[i].count, 100 - 25 * i);
    tear_down(&f);
}

static void forgets_by_halves(void **state) {
    (void)state;
    fixture f;
    sg_topk_entry entry;
    set_up(&f);
    for (int n = 0; n < 1000; n++)
        add(&f, 1, 1);
    add(&f, 1, 1 + MINUTE);
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 1);
    EQUAL(entry.count, 501);
    add(&f, 1, 1); /* a clock that steps back is no reason to halve, or to fail */
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 1);
    EQUAL(entry.count, 502);
    tear_down(&f);
}

static void without_memory_it_counts_nothing(void **state) {
    (void)state;
    fixture f;
    sg_topk_entry entry;
    set_up(&f);
    f.memory.fail_at = 1;
    for (int n = 0; n < 10; n++)
        add(&f, 1, 1);
    EQUAL(sg_topk_list(&f.topk, &entry, 1), 0);
    tear_down(&f);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_the_heaviest_first),
        cmocka_unit_test(keeps_64_bytes_of_a_name),
        cmocka_unit_test(counts_four_keys_exactly),
        cmocka_unit_test(forgets_by_halves),
        cmocka_unit_test(without_memory_it_counts_nothing),
    };
    return cmocka_run_group_tests_name("topk", tests, seed, NULL);
}
