#include "support.h"

#include "slots.h"

typedef struct {
    test_memory memory;
    sg_allocator allocator;
    sg_table table;
} fixture;

static void set_up(fixture *f, uint64_t max_keys) {
    memset(f, 0, sizeof *f);
    f->allocator = test_allocator(&f->memory);
    EQUAL(sg_table_init(&f->table, &f->allocator, 0, NULL, max_keys, 0), SG_OK);
}

static void tear_down(fixture *f) {
    sg_table_free(&f->table);
    EQUAL(f->memory.pieces, 0);
}

static bool acquire(fixture *f, uint64_t key, uint64_t limit) {
    bool acquired;
    uint64_t held, before = sg_slots_count(&f->table, key_of(key));
    EQUAL(sg_slots_acquire(&f->table, key_of(key), limit, 1, &acquired, &held), SG_OK);
    EQUAL(held, before + acquired);
    EQUAL(sg_slots_count(&f->table, key_of(key)), held);
    return acquired;
}

static void holds_at_most_the_limit(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 100);
    EQUAL(sg_slots_count(&f.table, key_of(1)), 0);
    for (int n = 0; n < 3; n++)
        assert_true(acquire(&f, 1, 3));
    assert_false(acquire(&f, 1, 3));
    assert_true(acquire(&f, 2, 3)); /* another key's are its own */
    sg_slots_release(&f.table, key_of(1));
    assert_true(acquire(&f, 1, 3));
    assert_false(acquire(&f, 1, 3));
    assert_true(acquire(&f, 1, 4)); /* the limit may change */
    assert_false(acquire(&f, 1, 0));
    tear_down(&f);
}

static void a_release_too_many_is_harmless(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 100);
    sg_slots_release(&f.table, key_of(1));
    assert_true(acquire(&f, 1, 1));
    sg_slots_release(&f.table, key_of(1));
    sg_slots_release(&f.table, key_of(1));
    EQUAL(sg_slots_count(&f.table, key_of(1)), 0);
    EQUAL(f.table.body->keys, 0); /* who holds nothing takes no memory */
    assert_true(acquire(&f, 1, 1));
    assert_false(acquire(&f, 1, 1));
    tear_down(&f);
}

/* Held slots are never evicted: a full table takes no new key, and gives a clear answer. */
static void held_slots_fill_the_bound(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 200);
    for (uint64_t key = 0; key < 200; key++)
        assert_true(acquire(&f, key, 1));
    for (uint64_t key = 200; key < 400; key++) {
        bool acquired = true;
        uint64_t held;
        EQUAL(sg_slots_acquire(&f.table, key_of(key), 1, DAY, &acquired, &held), SG_FULL);
        EQUAL(sg_slots_count(&f.table, key_of(key)), 0);
    }
    EQUAL(f.table.body->evictions, 0);
    for (uint64_t key = 0; key < 200; key++)
        EQUAL(sg_slots_count(&f.table, key_of(key)), 1);
    sg_slots_release(&f.table, key_of(7));
    assert_true(acquire(&f, 300, 1));
    tear_down(&f);
}

static void counts_like_a_row_of_numbers(void **state) {
    (void)state;
    enum { KEYS = 500, LIMIT = 4 };
    uint64_t counts[KEYS] = {0};
    fixture f;
    set_up(&f, 1000);
    for (int n = 0; n < 100000; n++) {
        uint64_t key = random_below(KEYS);
        if (random_below(2)) {
            assert_true(acquire(&f, key, LIMIT) == (counts[key] < LIMIT));
            counts[key] += counts[key] < LIMIT;
        } else {
            sg_slots_release(&f.table, key_of(key));
            counts[key] -= counts[key] > 0;
        }
        EQUAL(sg_slots_count(&f.table, key_of(key)), counts[key]);
    }
    uint64_t held = 0;
    for (int key = 0; key < KEYS; key++)
        held += counts[key] > 0;
    EQUAL(f.table.body->keys, held);
    tear_down(&f);
}

static void without_memory_nothing_is_taken(void **state) {
    (void)state;
    fixture f;
    uint64_t refused = 0;
    set_up(&f, 1000);
    for (uint64_t key = 0; key < 300; key++) {
        bool acquired = true;
        uint64_t held;
        f.memory.fail_at = f.memory.allocations + 1;
        f.memory.for_good = true;
        sg_status status = sg_slots_acquire(&f.table, key_of(key), 2, 1, &acquired, &held);
        f.memory.fail_at = 0;
        if (status == SG_OK)
            continue;
        EQUAL(status, SG_NO_MEMORY);
        EQUAL(sg_slots_count(&f.table, key_of(key)), 0);
        refused++;
        assert_true(acquire(&f, key, 2));
    }
    assert_true(refused > 10);
    tear_down(&f);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_at_most_the_limit),
        cmocka_unit_test(a_release_too_many_is_harmless),
        cmocka_unit_test(held_slots_fill_the_bound),
        cmocka_unit_test(counts_like_a_row_of_numbers),
        cmocka_unit_test(without_memory_nothing_is_taken),
    };
    return cmocka_run_group_tests_name("slots", tests, seed, NULL);
}
