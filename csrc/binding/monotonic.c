#include "monotonic.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#if SGPY_HAS_COUNTER
#include <cpuid.h>
#endif

/* The rate is first measured over 10 ms, then over a second at a time. */
#define FIRST_NS INT64_C(10000000)
#define AGAIN_NS INT64_C(1000000000)
#define WINDOW_NS UINT64_C(1000000)
/* A reading that took longer than this was interrupted, and measures nothing. */
#define STEADY_COUNTS 300u

static int64_t read_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#if SGPY_HAS_COUNTER
/* The counter is invariant, and the kernel found it good enough to keep time by. */
static bool counter_is_trusted(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(0x80000007u, &a, &b, &c, &d) || !(d & (1u << 8)))
        return false;
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    char name[8] = "";
    if (file == NULL)
        return false;
    bool read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    return read && strncmp(name, "tsc", 3) == 0 && (name[3] == '\n' || name[3] == '\0');
}
#endif

void sgpy_monotonic_init(sgpy_monotonic *clock) {
    *clock = (sgpy_monotonic){.last = INT64_MIN};
#if SGPY_HAS_COUNTER
    clock->usable = counter_is_trusted();
#endif
}

#if SGPY_HAS_COUNTER
/* Measures the rate since it was last measured, when that is long enough ago. */
static void measure(sgpy_monotonic *clock) {
    if (clock->since_counter == 0) {
        clock->since_counter = clock->counter;
        clock->since_ns = clock->ns;
    }
    int64_t elapsed = clock->ns - clock->since_ns;
    uint64_t counts = clock->counter - clock->since_counter;
    if (elapsed < (clock->rate == 0 ? FIRST_NS : AGAIN_NS) || counts == 0)
        return;
    __extension__ unsigned __int128 scaled = (unsigned __int128)(uint64_t)elapsed << 32;
    uint64_t rate = (uint64_t)(scaled / counts);
    /* 100 MHz to 20 GHz: what else comes out is no counter to go by. */
    bool sane = rate > (UINT64_C(1) << 32) / 20 && rate < UINT64_C(10) << 32;
    clock->rate = sane ? rate : 0;
    clock->window = sane ? (WINDOW_NS << 32) / rate : 0;
    clock->since_counter = clock->counter;
    clock->since_ns = clock->ns;
}
#endif

int64_t sgpy_monotonic_read(sgpy_monotonic *clock) {
    int64_t ns = read_clock();
#if SGPY_HAS_COUNTER
    if (clock->usable) {
        uint64_t before, after = __rdtsc();
        /* The two belong together only where nothing came between them. */
        for (int tries = 0; tries < 3; tries++) {
            before = after;
            ns = read_clock();
            after = __rdtsc();
            if (after - before < STEADY_COUNTS) {
                clock->counter = after;
                clock->ns = ns;
                measure(clock);
                break;
            }
        }
    }
#endif
    if (ns > clock->last)
        clock->last = ns;
    return clock->last;
}
