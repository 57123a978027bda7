/* What the tests of the core share: cmocka, random numbers with a printed seed, memory that
 * can be made to fail, and quotas in one line. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"
#include "decide.h"
#include "fingerprint.h"
#include "quota.h"

#define SECOND SG_TICKS_PER_SECOND
#define MINUTE (60 * SECOND)
#define DAY (86400 * SECOND)

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A check that tells what was compared; of unsigned numbers. */
#define EQUAL(got, expected) assert_int_equal((uint64_t)(got), (uint64_t)(expected))
#define AT_MOST(got, most) assert_in_range((uint64_t)(got), 0, (uint64_t)(most))

/* splitmix64, seeded by SLUICEGATE_SEED or from the clock; the seed is printed. */
void random_seed(void);
uint64_t random_bits(void);
uint64_t random_get(void); /* where the numbers are, for random_set to come back to */
void random_set(uint64_t state);
uint64_t random_below(uint64_t bound); /* 0 to bound - 1 */
/* Mostly small, sometimes anywhere up to bound - 1. */
uint64_t random_skewed(uint64_t bound);

/* Memory whose allocations are counted, filled with junk when given back, and fail on
 * request: the one numbered `fail_at` (from 1), and if `for_good` all after it. */
typedef struct {
    uint64_t allocations;
    uint64_t fail_at;
    bool for_good;
    uint64_t failures;
    uint64_t pieces; /* in use */
    uint64_t bytes;  /* in use */
} test_memory;

sg_allocator test_allocator(test_memory *memory);

/* A quota that must be good. */
sg_quota quota_of(sg_algorithm algorithm, uint64_t limit, double seconds, uint64_t burst);

/* The fingerprint of key number n. */
sg_fingerprint key_of(uint64_t n);

#endif
