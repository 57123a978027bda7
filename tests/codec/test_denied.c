/* Refusals that are remembered: never longer or for less than what was refused. */
#include <stdlib.h>

#include "denied.h"
#include "memory.h"
#include "support.h"

#define NOW_US UINT64_C(1800000000000000)
#define NS_PER_S INT64_C(1000000000)

static sg_plan plan_of(double seconds) {
    sg_plan plan;
    const sg_quota quota = quota_of(SG_GCRA, 60, seconds, 0);
    const uint8_t algorithm = SG_GCRA;
    const uint64_t keep = 0;
    sg_plan_init(&plan, 1, &algorithm, &quota, &keep);
    return plan;
}

/* State that is full until so many seconds ahead. */
static void full_for(uint64_t seconds, char *bytes) {
    uint8_t *out = (uint8_t *)bytes;
    sg_bytes_put(sg_bytes_put(out, NOW_US + seconds * 1000000, 7), 0, 2);
}

typedef struct {
    sg_denied *denied;
    sg_plan plan;
    char bytes[9];
} fixture;

static void put(fixture *f, sg_fingerprint fp, uint64_t cost, int64_t length_ns) {
    sg_denied_put(f->denied, fp, &f->plan, &cost, f->bytes, sizeof f->bytes, NOW_US, 0, length_ns);
}

static bool get(const fixture *f, sg_fingerprint fp, uint64_t cost, int64_t now_ns) {
    sg_decision decision;
    const bool known = sg_denied_get(f->denied, fp, &f->plan, &cost, now_ns, &decision);
    if (known)
        assert_false(decision.allowed);
    return known;
}

static int set_up(void **state) {
    static fixture f;
    f.denied = sg_denied_new();
    f.plan = plan_of(60);
    full_for(120, f.bytes); /* refused for 61 s more: one a second, 60 at once */
    *state = &f;
    return f.denied == NULL;
}

static int tear_down(void **state) {
    sg_denied_free(((fixture *)*state)->denied);
    return 0;
}

static void a_refusal_is_known_until_it_ends(void **state) {
    fixture *f = *state;
    const sg_fingerprint fp = key_of(1);
    assert_false(get(f, fp, 1, 0));
    put(f, fp, 1, 10 * NS_PER_S);
    assert_true(get(f, fp, 1, 0));
    assert_true(get(f, fp, 1, 10 * NS_PER_S - 1));
    assert_false(get(f, fp, 1, 10 * NS_PER_S));
    assert_false(get(f, fp, 1, -1)); /* a clock that ran back */
    put(f, fp, 1, 1000 * NS_PER_S);  /* however long it is to be kept, the rule goes on */
    assert_true(get(f, fp, 1, 60 * NS_PER_S));
    assert_false(get(f, fp, 1, 61 * NS_PER_S));
}

static void smaller_costs_and_others_are_asked(void **state) {
    fixture *f = *state;
    const sg_fingerprint fp = key_of(1);
    sg_fingerprint other = fp;
    put(f, fp, 5, 10 * NS_PER_S);
    assert_true(get(f, fp, 5, 0));
    assert_true(get(f, fp, 6, 0));
    assert_false(get(f, fp, 4, 0));
    other.hi++; /* in the same place */
    assert_false(get(f, other, 5, 0));
    put(f, other, 5, 10 * NS_PER_S);
    assert_false(get(f, fp, 5, 0)); /* the later one is kept */
    f->plan = plan_of(30);
    assert_false(get(f, other, 5, 0)); /* refused by other numbers */
}

static void what_was_given_back_is_forgotten(void **state) {
    fixture *f = *state;
    const sg_fingerprint fp = key_of(1);
    sg_fingerprint other = fp;
    other.hi++;
    put(f, fp, 1, 10 * NS_PER_S);
    sg_denied_forget(f->denied, other);
    assert_true(get(f, fp, 1, 0));
    sg_denied_forget(f->denied, fp);
    assert_false(get(f, fp, 1, 0));
}

static void what_is_too_long_is_not_kept(void **state) {
    fixture *f = *state;
    const uint64_t cost = 1;
    char *bytes = calloc(1, SG_DENIED_BYTES + 1);
    sg_denied_put(f->denied, key_of(1), &f->plan, &cost, bytes, SG_DENIED_BYTES + 1, NOW_US, 0,
                  NS_PER_S);
    sg_denied_put(f->denied, key_of(2), &f->plan, &cost, NULL, 0, NOW_US, 0, NS_PER_S);
    assert_false(get(f, key_of(1), 1, 0));
    assert_false(get(f, key_of(2), 1, 0));
    free(bytes);
}

static void without_memory_there_is_none(void **state) {
    (void)state;
    memory_fail_at(1);
    assert_null(sg_denied_new());
    memory_fail_at(0);
    sg_denied_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_refusal_is_known_until_it_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(smaller_costs_and_others_are_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_given_back_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_too_long_is_not_kept, set_up, tear_down),
        cmocka_unit_test(without_memory_there_is_none),
    };
    return cmocka_run_group_tests_name("denied", tests, NULL, NULL);
}
