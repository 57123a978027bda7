/* CLOCK_MONOTONIC, for less than a call of clock_gettime.
 *
 * Where the kernel itself keeps time by an invariant time stamp counter, the time between
 * two readings of the clock is told by the counter: at most a millisecond of it, at a rate
 * measured against the clock itself, so what is told is off by nanoseconds at most and
 * errors do not add up. Elsewhere each call reads the clock. */
#ifndef SGPY_MONOTONIC_H
#define SGPY_MONOTONIC_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__)
#include <x86intrin.h>
#define SGPY_HAS_COUNTER 1
#else
#define SGPY_HAS_COUNTER 0
#endif

typedef struct {
    uint64_t counter; /* at the last reading of the clock */
    uint64_t window;  /* counts after it that may be told by the counter; 0: none */
    uint64_t rate;    /* nanoseconds a count, times 2**32 */
    int64_t ns;       /* the clock at that reading */
    int64_t last;     /* the latest time told: no later call tells less */
    bool usable;
    uint64_t since_counter; /* where the measuring of the rate began */
    int64_t since_ns;
} sgpy_monotonic;

void sgpy_monotonic_init(sgpy_monotonic *clock);

/* Reads the clock itself, and measures the rate anew when it is time to. */
int64_t sgpy_monotonic_read(sgpy_monotonic *clock);

/* Nanoseconds. Not for several threads at once: the caller holds the GIL. */
static inline int64_t sgpy_monotonic_ns(sgpy_monotonic *clock) {
#if SGPY_HAS_COUNTER
    uint64_t counts = __rdtsc() - clock->counter;
    if (__builtin_expect(counts < clock->window, 1)) {
        int64_t ns = clock->ns + (int64_t)((counts * clock->rate) >> 32);
        if (ns > clock->last) /* another core's counter may lag a little */
            clock->last = ns;
        return clock->last;
    }
#endif
    return sgpy_monotonic_read(clock);
}

#endif
