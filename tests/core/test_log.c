/* The log against a plain list of every event. */
#include "support.h"

#include <stdlib.h>

#define EVENTS 4000

typedef struct {
    sg_ticks at;
    uint64_t count;
} event;

/* Units that count at `now` when each event counts for `length` ticks. */
static uint64_t counted(const event *events, size_t n, sg_ticks now, sg_ticks length) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += now - events[i].at < length ? events[i].count : 0;
    return sum;
}

static sg_log *new_log(unsigned capacity) {
    sg_log *log = malloc(sg_log_bytes(capacity));
    assert_non_null(log);
    sg_log_init(log, capacity);
    return log;
}

/* As the limiter does it: a log grows by doubling. */
static void add(sg_log **log, sg_ticks now, sg_ticks period, uint64_t count) {
    sg_log_expire(*log, now, period);
    if (sg_log_must_grow(*log)) {
        sg_log *larger = new_log((*log)->capacity * 2u);
        sg_log_copy(larger, *log);
        free(*log);
        *log = larger;
    }
    sg_log_add(*log, now, period, count);
}

static void check_shape(const sg_log *log) {
    uint64_t sum = 0;
    AT_MOST(log->length, log->capacity);
    AT_MOST(log->capacity, SG_LOG_MAX);
    AT_MOST(log->merged, log->length);
    for (unsigned i = 0; i < log->length; i++) {
        sum += sg_log_at(log, i)->count;
        if (i > 0)
            assert_true(sg_log_at(log, i)->at > sg_log_at(log, i - 1)->at);
    }
    EQUAL(log->total, sum);
}

static const sg_ticks periods[] = {
    SG_PERIOD_MIN_US * SG_TICKS_PER_US, SECOND, MINUTE, 7 * MINUTE + 1, DAY,
    SG_PERIOD_MAX_US * SG_TICKS_PER_US,
};

static void is_exact_up_to_256_entries(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(periods); p++) {
        for (int run = 0; run < 10; run++) {
            sg_ticks now = random_skewed(SG_CLOCK_MAX / 2);
            event events[EVENTS];
            sg_log *log = new_log(SG_LOG_MIN);
            size_t n = 0;
            for (; n < 2000 && now < SG_CLOCK_MAX / 2; n++) {
                events[n] = (event){now, 1 + random_skewed(1000)};
                add(&log, now, periods[p], events[n].count);
                check_shape(log);
                EQUAL(log->total, counted(events, n + 1, now, periods[p]));
                /* At most 256 in a period. */
                now += periods[p] / 255 + random_below(periods[p] / 200);
            }
            free(log);
        }
    }
}

static void beyond_that_counts_longer_by_at_most_a_span(void **state) {
    (void)state;
    uint64_t largest = 0;
    for (size_t p = 0; p < COUNT(periods); p++) {
        for (int run = 0; run < 6; run++) {
            const sg_ticks period = periods[p], span = period / 255 + 1;
            sg_ticks now = random_skewed(SG_CLOCK_MAX / 4);
            static event events[EVENTS];
            sg_log *log = new_log(SG_LOG_MIN);
            size_t n = 0;
            for (; n < EVENTS && now < SG_CLOCK_MAX / 2; n++) {
                events[n] = (event){now, 1 + random_skewed(1000)};
                add(&log, now, period, events[n].count);
                if (n % 16 == 0 || n < 600) {
                    check_shape(log);
                    uint64_t exact = counted(events, n + 1, now, period);
                    assert_true(log->total >= exact);
                    AT_MOST(log->total, counted(events, n + 1, now, period + span));
                    if (log->total > exact)
                        largest++;
                }
                uint64_t kind = random_below(50);
                now += kind == 0 ? random_below(period) : random_below(period / (kind < 25 ? 5000 : 900));
            }
            free(log);
        }
    }
    assert_true(largest > 0); /* or this has tested nothing */
}

/* Evenly spaced events at the turn of every span, and bursts in one tick. */
static void holds_its_shape_in_awkward_rows(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(periods); p++) {
        for (unsigned parts = 250; parts <= 260; parts++) {
            sg_log *log = new_log(SG_LOG_MIN);
            const sg_ticks start = 3 * periods[p] % (SG_CLOCK_MAX / 4);
            for (unsigned i = 0; i < 1200; i++) {
                sg_ticks now = start + sg_muldiv(i, periods[p], parts) + (i % 3 == 0);
                if (now > SG_CLOCK_MAX)
                    break;
                add(&log, now, periods[p], 1);
                if (i % 7 == 0)
                    add(&log, now, periods[p], 5);
                check_shape(log);
            }
            free(log);
        }
        sg_log *log = new_log(SG_LOG_MIN);
        for (unsigned i = 0; i < 1000; i++)
            add(&log, 5, periods[p], 1);
        EQUAL(log->total, 1000);
        check_shape(log);
        sg_log_expire(log, 4 + periods[p], periods[p]);
        EQUAL(log->total, 1000);
        sg_log_expire(log, 5 + periods[p], periods[p]);
        EQUAL(log->total, 0);
        EQUAL(log->length, 0);
        free(log);
    }
}

static void times_ahead_are_cut_to_now(void **state) {
    (void)state;
    for (int run = 0; run < 300; run++) {
        sg_log *log = new_log(SG_LOG_MIN);
        sg_ticks now = MINUTE;
        uint64_t sum = 0;
        for (unsigned i = 0; i < 400; i++) {
            add(&log, now, MINUTE, 1 + i % 3);
            check_shape(log);
            if (random_below(20) == 0)
                now -= random_below(now / 2 + 1);
            now += random_below(SECOND / 100);
        }
        sum = log->total;
        sg_ticks back = now - random_below(now / 2);
        sg_log_expire(log, back, MINUTE);
        check_shape(log);
        EQUAL(log->total, sum);
        AT_MOST(sg_log_at(log, log->length - 1u)->at, back);
        sg_log_expire(log, back + MINUTE, MINUTE);
        EQUAL(log->total, 0);
        free(log);
    }
}

static void gives_back_the_newest(void **state) {
    (void)state;
    sg_log *log = new_log(SG_LOG_MIN);
    EQUAL(sg_log_take_newest(log, 5), 0);
    add(&log, 10, SECOND, 3);
    add(&log, 20, SECOND, 4);
    add(&log, 30, SECOND, 5);
    EQUAL(sg_log_take_newest(log, 6), 6);
    EQUAL(log->total, 6);
    EQUAL(log->length, 2);
    EQUAL(sg_log_at(log, 1)->count, 3);
    EQUAL(sg_log_take_newest(log, 100), 6);
    EQUAL(log->length, 0);
    check_shape(log);
    free(log);
}

static void gives_back_what_is_of_one_time(void **state) {
    (void)state;
    sg_log *log = new_log(SG_LOG_MIN);
    add(&log, 10, SECOND, 3);
    add(&log, 20, SECOND, 4);
    add(&log, 30, SECOND, 5);
    EQUAL(sg_log_take_at(log, 40, SECOND, 20, 1), 1);
    EQUAL(sg_log_at(log, 1)->count, 3);
    EQUAL(sg_log_take_at(log, 40, SECOND, 20, 9), 3);
    EQUAL(log->total, 8);
    check_shape(log);
    EQUAL(sg_log_take_at(log, 10 + SECOND, SECOND, 10, 9), 0); /* no longer counted */
    EQUAL(sg_log_take_at(log, 9 + SECOND, SECOND, 10, 9), 3);
    EQUAL(log->total, 5);
    free(log);
}

/* Events of a few times, as processes that wait for one lock have them and checks of one script,
 * each given back once, in any order: nothing is left of them at any moment, full log or not. */
static void what_is_given_back_once_leaves_nothing(void **state) {
    (void)state;
    for (int run = 0; run < 300; run++) {
        const unsigned once_in = 1 + (unsigned)random_below(4);
        event open[EVENTS];
        sg_log *log = new_log(SG_LOG_MIN);
        sg_ticks now = DAY;
        uint64_t held = 0;
        size_t n = 0;
        for (unsigned i = 0; i < 1000; i++) {
            if (random_below(once_in) == 0)
                now += 1 + random_below(1000);
            open[n] = (event){now, 1 + random_below(5)};
            held += open[n].count;
            add(&log, now, DAY, open[n++].count);
            if (run % 2 == 0 && random_below(2) == 0) {
                const size_t which = random_below(n);
                const event one = open[which];
                EQUAL(sg_log_take_at(log, now, DAY, one.at, one.count), one.count);
                held -= one.count;
                open[which] = open[--n];
            }
            check_shape(log);
            EQUAL(log->total, held);
        }
        while (n > 0) {
            const size_t which = random_below(n);
            const event one = open[which];
            EQUAL(sg_log_take_at(log, now, DAY, one.at, one.count), one.count);
            open[which] = open[--n];
        }
        EQUAL(log->total, 0);
        EQUAL(log->length, 0);
        free(log);
    }
}

/* A log of capacity c takes up to c entries and then must grow. */
static void grows_when_it_is_full(void **state) {
    (void)state;
    sg_log *log = new_log(SG_LOG_MIN);
    for (unsigned i = 0; i < SG_LOG_MIN; i++) {
        assert_false(sg_log_must_grow(log));
        sg_log_add(log, 10 + i, SECOND, 1);
    }
    assert_true(sg_log_must_grow(log));
    sg_log *larger = new_log(2 * SG_LOG_MIN);
    sg_log_copy(larger, log);
    assert_false(sg_log_must_grow(larger));
    EQUAL(larger->total, SG_LOG_MIN);
    for (unsigned i = 0; i < SG_LOG_MIN; i++)
        assert_memory_equal(sg_log_at(larger, i), sg_log_at(log, i), sizeof(sg_log_entry));
    free(larger);
    free(log);
}

static int seed(void **state) {
    (void)state;
    random_seed();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_exact_up_to_256_entries),
        cmocka_unit_test(beyond_that_counts_longer_by_at_most_a_span),
        cmocka_unit_test(holds_its_shape_in_awkward_rows),
        cmocka_unit_test(times_ahead_are_cut_to_now),
        cmocka_unit_test(gives_back_the_newest),
        cmocka_unit_test(gives_back_what_is_of_one_time),
        cmocka_unit_test(what_is_given_back_once_leaves_nothing),
        cmocka_unit_test(grows_when_it_is_full),
    };
    return cmocka_run_group_tests_name("log", tests, seed, NULL);
}
