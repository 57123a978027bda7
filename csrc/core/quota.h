/* A quota, checked once and turned into integers. */
#ifndef SG_QUOTA_H
#define SG_QUOTA_H

#include "sg.h"

typedef enum {
    SG_GCRA = 0,
    SG_FIXED_WINDOW,
    SG_SLIDING_WINDOW,
    SG_SLIDING_LOG,
    SG_ALGORITHMS
} sg_algorithm;

#define SG_LIMIT_MAX SG_COST_MAX
#define SG_PERIOD_MIN_US UINT64_C(1000)
#define SG_PERIOD_MAX_US (UINT64_C(3660) * 86400 * 1000000) /* 10 years, leap days included */
#define SG_RATE_MAX UINT64_C(1000000000)                     /* units a second */
/* The longest time a bucket may take to fill: with one burst of debt on top, and the
 * clock's own value, it stays inside 64 bits of ticks. */
#define SG_CAPACITY_MAX (UINT64_C(12) * 366 * 86400 * SG_TICKS_PER_SECOND)

typedef struct {
    uint8_t algorithm; /* sg_algorithm */
    bool shadow;       /* charged apart, holds nothing back */
    bool unlimited;    /* a hole in a limiter's row of quotas: admits all, keeps nothing */
    uint64_t limit;    /* units a period, 1 to SG_LIMIT_MAX */
    uint64_t burst;    /* units at once; equal to limit for all but gcra */
    sg_ticks period;   /* a whole number of microseconds */
    sg_ticks interval; /* gcra: ticks a unit, rounded up, so that no rounding admits more */
    uint64_t capacity; /* what "full" is: gcra, interval * burst in ticks; others, limit in units */
} sg_quota;

typedef enum {
    SG_QUOTA_OK = 0,
    SG_QUOTA_BAD_ALGORITHM,
    SG_QUOTA_BAD_LIMIT,    /* not 1 to SG_LIMIT_MAX */
    SG_QUOTA_BAD_PERIOD,   /* not 1 ms to 10 years */
    SG_QUOTA_BAD_BURST,    /* not 1 to SG_LIMIT_MAX */
    SG_QUOTA_BURST_UNUSED, /* a burst other than the limit, with an algorithm that has none */
    SG_QUOTA_BAD_RATE,     /* above SG_RATE_MAX */
    SG_QUOTA_BAD_FILL,     /* the burst would take longer to fill than SG_CAPACITY_MAX */
} sg_quota_error;

/* `burst` 0 means: equal to the limit. On an error *quota is left alone. */
sg_quota_error sg_quota_init(sg_quota *quota, sg_algorithm algorithm, uint64_t limit,
                             uint64_t period_us, uint64_t burst, bool shadow);

/* Seconds to whole microseconds, rounded up (a longer period admits less), but not for
 * the noise of a binary fraction: 0.1 is 100000. Returns false for what is not finite or
 * outside 1 ms to 10 years. */
bool sg_period_us(double seconds, uint64_t *us);

/* Words of 8 bytes that the state of one quota takes in a cell. */
static inline unsigned sg_state_words(unsigned algorithm) {
    return algorithm == SG_FIXED_WINDOW ? 2u : algorithm == SG_SLIDING_WINDOW ? 3u : 1u;
}

#endif
