/* The time of the machine, which all its processes share: for waiting and looking, not for
 * deciding, which takes its time as an argument. */
#ifndef SG_MOMENT_H
#define SG_MOMENT_H

#include <stdint.h>
#include <time.h>

static inline int64_t sg_moment_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
