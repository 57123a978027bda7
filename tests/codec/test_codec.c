/* Words of commands, and replies of a server that is not to be trusted. */
#include <stdlib.h>

#include "command.h"
#include "name.h"
#include "request.h"
#include "slot.h"
#include "support.h"

static sg_plan plan_of(unsigned count, const sg_algorithm *algorithms) {
    sg_plan plan;
    sg_quota quotas[SG_QUOTAS_MAX];
    uint8_t kinds[SG_QUOTAS_MAX];
    const uint64_t keep[SG_QUOTAS_MAX] = {0};
    for (unsigned i = 0; i < count; i++) {
        kinds[i] = (uint8_t)algorithms[i];
        quotas[i] = quota_of(algorithms[i], 100, 60, 0);
    }
    sg_plan_init(&plan, count, kinds, quotas, keep);
    return plan;
}

static void names(void **state) {
    (void)state;
    char head[64], name[256], full[64 + SG_NAME_ROOM];
    const sg_secret secret = sg_name_secret("sg", 2);
    const size_t used = sg_name_head("sg", 2, "chat", 4, head);
    AT_MOST(used, sg_name_head_room(2, 4));
    size_t length = sg_name_write(head, used, &secret, "user:42", 7, name);
    assert_memory_equal(name, "sg:{chat:user:42}", length);
    length = sg_name_ring(name, length, 7);
    assert_memory_equal(name, "sg:{chat:user:42}:log7", length);
    /* The longest: every byte escaped. */
    char subject[SG_SUBJECT_MAX + 1];
    memset(subject, 0xff, sizeof subject);
    EQUAL(sg_name_write(head, used, &secret, subject, SG_SUBJECT_MAX, full), used + SG_NAME_ROOM);
    EQUAL(sg_name_write(head, used, &secret, subject, SG_SUBJECT_MAX + 1, full), used + 34);
    subject[0] = '#';
    EQUAL(sg_name_write(head, used, &secret, subject, SG_SUBJECT_MAX, full), used + SG_NAME_ROOM);
    EQUAL(sg_name_write(head, used, &secret, NULL, 0, full), used + 1);
}

static void slots(void **state) {
    (void)state;
    EQUAL(sg_slot_of("123456789", 9), 0x31c3);
    EQUAL(sg_slot_of("{a}x", 4), sg_slot_of("a", 1));
    EQUAL(sg_slot_of("a{}b", 4), sg_slot_of("a{}b", 4));
    EQUAL(sg_slot_of(NULL, 0), 0);
    EQUAL(sg_slot_of("{", 1), sg_slot_of("{", 1));
}

static void batches_send_a_key_once(void **state) {
    (void)state;
    const sg_algorithm log = SG_SLIDING_LOG;
    sg_plan plan = plan_of(1, &log);
    sg_batch *batch = calloc(1, sizeof *batch);
    sg_command command = {0};
    const char **argv;
    const size_t *lengths;
    int argc;
    char name[16];
    sg_batch_begin(batch, &plan, SG_HIT);
    for (unsigned i = 0; i < SG_BATCH_MAX; i++) {
        const uint64_t cost = 1;
        const int length = snprintf(name, sizeof name, "k%u", i % 100);
        assert_true(sg_batch_add(batch, name, (size_t)length, &cost));
    }
    const uint64_t cost = 1;
    assert_false(sg_batch_add(batch, "more", 4, &cost));
    sg_batch_command(batch, 0, 0, &command);
    assert_true(sg_command_words(&command, &argc, &argv, &lengths));
    EQUAL(argc, 3 + 200 + 4);
    assert_memory_equal(argv[0], "EVALSHA", lengths[0]);
    assert_memory_equal(argv[1], sg_scripts[SG_SCRIPT_DECIDE].sha1, lengths[1]);
    assert_memory_equal(argv[2], "200", lengths[2]);
    assert_memory_equal(argv[3 + 99], "k99", lengths[3 + 99]);
    assert_memory_equal(argv[3 + 199], "k99:log0", lengths[3 + 199]);
    EQUAL(lengths[204], 6);                /* one row for all */
    EQUAL(lengths[205], 2 * SG_BATCH_MAX); /* and the places of the keys */
    /* Used again, with costs that differ, and each key once. */
    sg_batch_begin(batch, &plan, SG_PEEK);
    for (uint64_t i = 0; i < 3; i++) {
        name[0] = (char)('a' + i);
        assert_true(sg_batch_add(batch, name, 1, &i));
    }
    sg_batch_command(batch, 0, 0, &command);
    assert_true(sg_command_words(&command, &argc, &argv, &lengths));
    EQUAL(argc, 3 + 6 + 4);
    EQUAL(lengths[10], 3 * 6);
    EQUAL(lengths[11], 0);
    sg_batch_free(batch);
    free(batch);
    sg_command_free(&command);
}

static void costs_that_never_fit_stay_in_range(void **state) {
    (void)state;
    const sg_algorithm gcra = SG_GCRA;
    sg_plan plan = plan_of(1, &gcra);
    uint8_t row[SG_ROW_BYTES];
    uint64_t cost = SG_COST_MAX;
    const sg_ticks capacity = plan.quotas[0].capacity;
    for (int change = 0; change < 2; change++) {
        EQUAL(change ? sg_row_of_change(&plan, &cost, row) : sg_row_of_costs(&plan, &cost, row), 9);
        sg_bytes b = {.at = row, .left = 9};
        const uint64_t us = sg_bytes_take(&b, 7);
        EQUAL(us * SG_TICKS_PER_US + sg_bytes_take(&b, 2), change ? 2 * capacity : capacity + 1);
    }
}

/* Whatever a server says, and however short: no fault, and a verdict within bounds. */
static void any_reply_is_read(void **state) {
    (void)state;
    test_memory memory = {0};
    const sg_allocator allocator = test_allocator(&memory);
    const uint64_t now_us = UINT64_C(1800000000000000);
    for (unsigned round = 0; round < 60000; round++) {
        sg_algorithm algorithms[SG_QUOTAS_MAX];
        uint64_t costs[SG_QUOTAS_MAX];
        const unsigned count = 1 + (unsigned)random_below(random_below(4) == 0 ? 8 : 2);
        for (unsigned i = 0; i < count; i++) {
            algorithms[i] = (sg_algorithm)random_below(SG_ALGORITHMS);
            costs[i] = random_skewed(SG_COST_MAX + 1);
        }
        const sg_plan plan = plan_of(count, algorithms);
        /* In memory of just that size, so that a sanitizer sees each byte too far. */
        const size_t length = random_below(3) == 0 ? 9 : random_below(260);
        char *bytes = malloc(length + 1), *ring = malloc(3328);
        for (size_t i = 0; i < length; i++)
            bytes[i] = (char)random_skewed(256);
        for (size_t i = 0; i < 3328; i++)
            ring[i] = (char)random_bits();
        if (length >= plan.head_length && random_below(4) > 0)
            memcpy(bytes, plan.head, plan.head_length);
        char *exact = realloc(bytes, length == 0 ? 1 : length);
        assert_non_null(exact);
        sg_decision decision;
        sg_ticket ticket;
        sg_answer_peek(&plan, costs, exact, length, now_us, &decision);
        if (sg_answer_reserve(&plan, costs, 1000, 1, exact, length, now_us, &decision, &ticket) !=
            SG_SEEN_ERROR) {
            uint8_t argument[SG_SETTLE_BYTES];
            assert_true(ticket.open == decision.allowed);
            AT_MOST(sg_settle_argument(&plan, &ticket, costs, argument), SG_SETTLE_BYTES);
        }
        sg_text values[SG_QUOTAS_MAX + 1];
        values[0] = (sg_text){.bytes = exact, .length = length};
        for (unsigned i = 1; i <= plan.logs; i++)
            values[i] = (sg_text){.bytes = i % 2 ? ring : NULL, .length = random_below(3329)};
        sg_seen seen;
        sg_ticks wait;
        EQUAL(sg_answer_project(&plan, &allocator, values, now_us, costs, 1, &seen, &wait), SG_OK);
        free(exact);
        free(ring);
    }
    EQUAL(memory.pieces, 0);
}

static void memory_that_fails_tells_so(void **state) {
    (void)state;
    const sg_algorithm both[] = {SG_SLIDING_LOG, SG_GCRA};
    const sg_plan plan = plan_of(2, both);
    const uint64_t costs[2] = {1, 1};
    uint8_t value[64] = {0};
    memcpy(value, plan.head, plan.head_length);
    const size_t length = plan.head_length + 4 + 12 + 9;
    const sg_text values[2] = {{.bytes = (char *)value, .length = length}, {0}};
    for (unsigned fail = 1;; fail++) {
        test_memory memory = {.fail_at = fail, .for_good = true};
        const sg_allocator allocator = test_allocator(&memory);
        sg_seen seen;
        sg_ticks wait;
        const sg_status status =
            sg_answer_project(&plan, &allocator, values, 1800000000000000, costs, 1, &seen, &wait);
        EQUAL(memory.pieces, 0);
        if (memory.failures == 0) {
            EQUAL(status, SG_OK);
            EQUAL(wait, 0);
            break;
        }
        EQUAL(status, SG_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(slots),
        cmocka_unit_test(batches_send_a_key_once),
        cmocka_unit_test(costs_that_never_fit_stay_in_range),
        cmocka_unit_test(any_reply_is_read),
        cmocka_unit_test(memory_that_fails_tells_so),
    };
    random_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
