#include "support.h"

#include <stdlib.h>

#include "table.h"

static const uint8_t one_gcra[] = {SG_GCRA};

typedef struct {
    test_memory memory;
    sg_allocator allocator;
    sg_table table;
} fixture;

static void set_up(fixture *f, unsigned count, const uint8_t *algorithms, uint64_t max_keys,
                   uint64_t max_bytes) {
    memset(f, 0, sizeof *f);
    f->allocator = test_allocator(&f->memory);
    EQUAL(sg_table_init(&f->table, &f->allocator, count, algorithms, max_keys, max_bytes), SG_OK);
}

static void tear_down(fixture *f) {
    sg_table_free(&f->table);
    EQUAL(f->memory.pieces, 0);
    EQUAL(f->memory.bytes, 0);
}

/* A cell whose gcra state ends at `tat`. */
static sg_status put(sg_table *table, uint64_t key, sg_ticks now, sg_ticks tat) {
    sg_cell *cell;
    sg_status status = sg_table_insert(table, key_of(key), now, &cell);
    if (status == SG_OK) {
        sg_state state = {{tat, 0, 0}};
        sg_cell_set_state(table, cell, 0, &state);
    }
    return status;
}

static bool has(sg_table *table, uint64_t key, sg_ticks tat) {
    sg_cell *cell = sg_table_find(table, key_of(key));
    return cell != NULL && sg_cell_state(table, cell, 0).gcra.tat == tat;
}

static void count_visits(void *context, sg_table *table, sg_cell *cell) {
    (void)table;
    (void)cell;
    ++*(uint64_t *)context;
}

static void grows_to_200_thousand_keys(void **state) {
    (void)state;
    const uint64_t keys = 200000;
    fixture f;
    set_up(&f, 1, one_gcra, 1000000, 0);
    for (uint64_t i = 0; i < keys; i++) {
        assert_null(sg_table_find(&f.table, key_of(i)));
        EQUAL(put(&f.table, i, 1, DAY + i), SG_OK);
        EQUAL(f.table.body->keys, i + 1);
        if (i >= 100000 && i % 1000 == 0)
            AT_MOST(sg_table_bytes(&f.table), 40 * i);
    }
    for (uint64_t i = 0; i < keys; i++)
        assert_true(has(&f.table, i, DAY + i));
    for (uint64_t i = keys; i < 2 * keys; i++)
        assert_null(sg_table_find(&f.table, key_of(i)));
    uint64_t visits = 0;
    sg_table_each(&f.table, count_visits, &visits);
    EQUAL(visits, keys);
    EQUAL(sg_table_bytes(&f.table), f.memory.bytes);
    for (uint64_t i = 0; i < keys; i += 2)
        sg_table_remove(&f.table, sg_table_find(&f.table, key_of(i)));
    EQUAL(f.table.body->keys, keys / 2);
    for (uint64_t i = 0; i < keys; i++)
        assert_true(has(&f.table, i, DAY + i) == (i % 2 == 1));
    EQUAL(f.table.body->evictions, 0);
    sg_table_clear(&f.table);
    EQUAL(f.table.body->keys, 0);
    EQUAL(f.memory.pieces, 0);
    EQUAL(put(&f.table, 1, 1, DAY), SG_OK);
    tear_down(&f);
}

/* Random inserts and removals, each followed by a look at all keys from time to time. */
static void holds_what_was_put_and_not_removed(void **state) {
    (void)state;
    enum { KEYS = 3000 };
    static bool present[KEYS];
    memset(present, 0, sizeof present);
    fixture f;
    set_up(&f, 1, one_gcra, 1000000, 0);
    for (int n = 0; n < 60000; n++) {
        uint64_t key = random_below(KEYS);
        sg_cell *cell = sg_table_find(&f.table, key_of(key));
        assert_true((cell != NULL) == present[key]);
        if (cell == NULL)
            EQUAL(put(&f.table, key, 1, DAY + key), SG_OK);
        else if (random_below(3) > 0)
            sg_table_remove(&f.table, cell);
        present[key] = sg_table_find(&f.table, key_of(key)) != NULL;
        if (n % 10000 == 0) {
            for (uint64_t i = 0; i < KEYS; i++)
                assert_true(has(&f.table, i, DAY + i) == present[i]);
        }
    }
    tear_down(&f);
}

static void expires_without_a_timer(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, 1000000, 0);
    const sg_quota quota = quota_of(SG_GCRA, 1, 1, 0);
    sg_table_know(&f.table, &quota);
    for (uint64_t i = 0; i < 100000; i++)
        EQUAL(put(&f.table, i, 1, SECOND), SG_OK);
    uint64_t flooded = sg_table_bytes(&f.table);
    /* Later, new keys come in turn, each for a short time; of the flood nothing stays. */
    for (uint64_t i = 0; i < 40000; i++)
        EQUAL(put(&f.table, 1000000 + i, 2 * SECOND + i, 2 * SECOND + i + 1000), SG_OK);
    AT_MOST(f.table.body->keys, 20000);
    AT_MOST(sg_table_bytes(&f.table), flooded / 3);
    EQUAL(f.table.body->evictions, 0);
    tear_down(&f);
}

static void stays_within_its_bound(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, 1000, 0);
    const sg_quota quota = quota_of(SG_GCRA, 1, 1, 0);
    sg_table_know(&f.table, &quota);
    for (uint64_t i = 0; i < 100000; i++) {
        EQUAL(put(&f.table, i, 1, 2 + random_below(SECOND)), SG_OK);
        AT_MOST(f.table.body->keys, 1000);
    }
    EQUAL(f.table.body->keys, 1000);
    EQUAL(f.table.body->evictions, 99000);
    tear_down(&f);
}

static void stays_within_its_bound_in_bytes(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, 1000000, 64 * 1024);
    const sg_quota quota = quota_of(SG_GCRA, 1, 1, 0);
    sg_table_know(&f.table, &quota);
    for (uint64_t i = 0; i < 50000; i++) {
        EQUAL(put(&f.table, i, 1, 2 + random_below(SECOND)), SG_OK);
        AT_MOST(sg_table_bytes(&f.table), 64 * 1024);
    }
    assert_true(f.table.body->keys > 64 * 1024 / 48);
    tear_down(&f);
}

/* ---- the rule of eviction, in a table of one segment ---- */

enum { FEW = 16 };

typedef struct {
    double share;
    sg_ticks expiry;
} weight;

static weight weight_of(sg_table *table, const sg_quota *quotas, uint64_t key, sg_ticks now) {
    weight w = {0, 0};
    const sg_cell *cell = sg_table_find(table, key_of(key));
    assert_non_null(cell);
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        sg_state s = sg_cell_state(table, cell, i), next;
        sg_verdict v = sg_decide(&quotas[i], &s, NULL, now, 0, &next);
        double share = (double)v.level / (double)quotas[i].capacity;
        w.share = share > w.share ? share : w.share;
        w.expiry = sg_max(w.expiry, v.reset);
    }
    return w;
}

static bool lighter(weight a, weight b) {
    return a.share < b.share || (a.share == b.share && a.expiry < b.expiry);
}

static void evicts_the_lightest_then_the_nearest_to_expiry(void **state) {
    (void)state;
    static const uint8_t algorithms[] = {SG_GCRA, SG_FIXED_WINDOW};
    const sg_quota quotas[] = {quota_of(SG_GCRA, 10, 1, 0), quota_of(SG_FIXED_WINDOW, 5, 60, 0)};
    for (int run = 0; run < 200; run++) {
        fixture f;
        set_up(&f, 2, algorithms, FEW, 0);
        sg_table_know(&f.table, quotas);
        sg_ticks now = MINUTE;
        uint64_t keys[FEW], next_key = 0;
        for (size_t n = 0; n < 4 * FEW; n++) {
            size_t lightest = 0;
            weight weights[FEW];
            bool full = n >= FEW;
            for (size_t i = 0; full && i < FEW; i++) {
                weights[i] = weight_of(&f.table, quotas, keys[i], now);
                lightest = lighter(weights[i], weights[lightest]) ? i : lightest;
            }
            sg_cell *cell;
            uint64_t key = next_key++;
            EQUAL(sg_table_insert(&f.table, key_of(key), now, &cell), SG_OK);
            /* Few shares and few ends, so that ties are frequent. */
            sg_state gcra = {{now + random_below(4) * quotas[0].interval, 0, 0}};
            sg_state window = {{now + (1 + random_below(4)) * SECOND, 1 + random_below(5), 0}};
            sg_cell_set_state(&f.table, cell, 0, &gcra);
            sg_cell_set_state(&f.table, cell, 1, &window);
            size_t gone = full ? FEW : n, missing = 0;
            for (size_t i = 0; full && i < FEW; i++) {
                if (sg_table_find(&f.table, key_of(keys[i])) == NULL) {
                    gone = i;
                    missing++;
                }
            }
            if (full) {
                EQUAL(missing, 1);
                assert_false(lighter(weights[lightest], weights[gone]));
                EQUAL(f.table.body->evictions, n - FEW + 1);
            }
            keys[gone] = key;
        }
        tear_down(&f);
    }
}

static void expired_state_goes_before_live_state(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, FEW, 0);
    const sg_quota quota = quota_of(SG_GCRA, 1, 1, 0);
    sg_table_know(&f.table, &quota);
    for (uint64_t i = 0; i < FEW; i++) /* one is past, the others nearly so */
        EQUAL(put(&f.table, i, 1, SECOND + (i == 11 ? 0 : 1)), SG_OK);
    EQUAL(put(&f.table, 100, SECOND, 5 * SECOND), SG_OK);
    for (uint64_t i = 0; i < FEW; i++)
        assert_true((sg_table_find(&f.table, key_of(i)) == NULL) == (i == 11));
    EQUAL(f.table.body->evictions, 0);
    tear_down(&f);
}

/* ---- marks ---- */

static void a_mark_keeps_the_state_and_the_cell(void **state) {
    (void)state;
    static const uint8_t algorithms[] = {SG_SLIDING_WINDOW, SG_FIXED_WINDOW};
    fixture f;
    set_up(&f, 2, algorithms, FEW, 0);
    const sg_quota quotas[] = {quota_of(SG_SLIDING_WINDOW, 10, 1, 0),
                               quota_of(SG_FIXED_WINDOW, 5, 1, 0)};
    sg_table_know(&f.table, quotas);
    sg_cell *cell;
    EQUAL(sg_table_insert(&f.table, key_of(1), 1, &cell), SG_OK);
    const sg_state first = {{11, 12, 13}}, second = {{21, 22, 0}};
    sg_cell_set_state(&f.table, cell, 0, &first);
    sg_cell_set_state(&f.table, cell, 1, &second);
    sg_record *record, *again;
    assert_null(sg_cell_record(&f.table, cell));
    EQUAL(sg_cell_mark(&f.table, cell, &record), SG_OK);
    EQUAL(sg_cell_mark(&f.table, cell, &again), SG_OK);
    assert_ptr_equal(record, again);
    EQUAL(f.table.body->marked, 1);
    sg_state got = sg_cell_state(&f.table, cell, 0);
    assert_memory_equal(&got, &first, sizeof got);
    const sg_state other = {{31, 32, 33}};
    sg_cell_set_state(&f.table, cell, 0, &other);
    got = sg_cell_state(&f.table, cell, 0);
    assert_memory_equal(&got, &other, sizeof got);
    got = sg_cell_state(&f.table, cell, 1);
    assert_memory_equal(&got, &second, sizeof got);
    sg_record *found = sg_cell_record(&f.table, sg_table_find(&f.table, key_of(1)));
    assert_ptr_equal(found, record);

    record->ban_until = DAY;
    record->ban_length = DAY;
    sg_cell_tidy(&f.table, cell, SECOND);
    assert_non_null(sg_cell_record(&f.table, cell));
    assert_false(sg_cell_expired(&f.table, cell, SECOND));
    for (uint64_t i = 100; i < 100 + 10 * FEW; i++) /* all others are lighter or expired */
        EQUAL(put(&f.table, i, 1, 1), SG_OK);
    cell = sg_table_find(&f.table, key_of(1));
    assert_non_null(cell);
    sg_cell_tidy(&f.table, cell, DAY);
    assert_null(sg_cell_record(&f.table, cell));
    EQUAL(f.table.body->marked, 0);
    got = sg_cell_state(&f.table, cell, 0);
    assert_memory_equal(&got, &other, sizeof got);
    tear_down(&f);
}

static void marked_cells_alone_fill_the_bound(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, 200, 0);
    const sg_quota quota = quota_of(SG_GCRA, 1, 1, 0);
    sg_table_know(&f.table, &quota);
    for (uint64_t i = 0; i < 200; i++) {
        sg_record *record;
        EQUAL(put(&f.table, i, 1, 2), SG_OK);
        EQUAL(sg_cell_mark(&f.table, sg_table_find(&f.table, key_of(i)), &record), SG_OK);
        record->ban_until = record->ban_length = DAY;
    }
    for (uint64_t i = 1000; i < 3000; i++)
        EQUAL(put(&f.table, i, SECOND, DAY), SG_FULL);
    EQUAL(f.table.body->keys, 200);
    EQUAL(f.table.body->evictions, 0);
    for (uint64_t i = 0; i < 200; i++)
        assert_non_null(sg_table_find(&f.table, key_of(i)));
    /* When the bans are over there is room again, wherever a key hashes to. */
    for (uint64_t i = 1000; i < 1100; i++)
        EQUAL(put(&f.table, i, 2 * DAY, 3 * DAY), SG_OK);
    tear_down(&f);
}

/* ---- memory that fails ---- */

static void an_insert_without_memory_changes_nothing(void **state) {
    (void)state;
    fixture f;
    uint64_t refused = 0;
    set_up(&f, 1, one_gcra, 1000000, 0);
    for (uint64_t i = 0; i < 3000; i++) {
        f.memory.fail_at = f.memory.allocations + 1;
        f.memory.for_good = true;
        uint64_t keys = f.table.body->keys;
        sg_status status = put(&f.table, i, 1, DAY + i);
        if (status != SG_OK) {
            EQUAL(status, SG_NO_MEMORY);
            EQUAL(f.table.body->keys, keys);
            assert_null(sg_table_find(&f.table, key_of(i)));
            refused++;
            f.memory.fail_at = 0;
            EQUAL(put(&f.table, i, 1, DAY + i), SG_OK);
        }
        if (i % 100 == 0) {
            for (uint64_t j = 0; j <= i; j++)
                assert_true(has(&f.table, j, DAY + j));
        }
    }
    assert_true(refused > 100);
    EQUAL(f.memory.bytes, sg_table_bytes(&f.table));
    tear_down(&f);
}

static void a_mark_without_memory_changes_nothing(void **state) {
    (void)state;
    fixture f;
    set_up(&f, 1, one_gcra, 1000, 0);
    EQUAL(put(&f.table, 1, 1, DAY), SG_OK);
    f.memory.fail_at = f.memory.allocations + 1;
    sg_record *record;
    sg_cell *cell = sg_table_find(&f.table, key_of(1));
    EQUAL(sg_cell_mark(&f.table, cell, &record), SG_NO_MEMORY);
    assert_null(sg_cell_record(&f.table, cell));
    EQUAL(f.table.body->marked, 0);
    assert_true(has(&f.table, 1, DAY));
    tear_down(&f);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_to_200_thousand_keys),
        cmocka_unit_test(holds_what_was_put_and_not_removed),
        cmocka_unit_test(expires_without_a_timer),
        cmocka_unit_test(stays_within_its_bound),
        cmocka_unit_test(stays_within_its_bound_in_bytes),
        cmocka_unit_test(evicts_the_lightest_then_the_nearest_to_expiry),
        cmocka_unit_test(expired_state_goes_before_live_state),
        cmocka_unit_test(a_mark_keeps_the_state_and_the_cell),
        cmocka_unit_test(marked_cells_alone_fill_the_bound),
        cmocka_unit_test(an_insert_without_memory_changes_nothing),
        cmocka_unit_test(a_mark_without_memory_changes_nothing),
    };
    return cmocka_run_group_tests_name("table", tests, seed, NULL);
}
