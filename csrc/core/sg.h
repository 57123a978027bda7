/* Words that every file of the core uses. The core is pure C11: it includes no
 * Python.h, does no I/O and reads no clock; time is always an argument. */
#ifndef SG_H
#define SG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __SIZEOF_INT128__
#error "sluicegate needs a 64-bit compiler with __int128 (gcc or clang)"
#endif

__extension__ typedef unsigned __int128 sg_u128;

/* Time is counted in ticks of 1/16 ns. A quota of 10 million units a second has an
 * emission interval of 1600 ticks, so rounding it to whole ticks moves the rate by
 * less than 0.1 %; 64 bits hold 36 years of ticks. The origin is whatever the store's
 * clock has; only differences matter. */
typedef uint64_t sg_ticks;

#define SG_TICKS_PER_NS UINT64_C(16)
#define SG_TICKS_PER_US UINT64_C(16000)
#define SG_TICKS_PER_SECOND UINT64_C(16000000000)

/* No clock goes further (12 years from its origin): with the longest quota's reach on top,
 * every sum of the rule stays inside 64 bits. */
#define SG_CLOCK_MAX UINT64_C(6000000000000000000)

/* "Never": the answer to when an event that costs more than the burst is admitted. */
#define SG_NEVER UINT64_MAX

/* One event costs 0 to 2**40 units. */
#define SG_COST_MAX (UINT64_C(1) << 40)

/* A limiter holds up to this many quotas. */
#define SG_QUOTAS_MAX 8

#define SG_LIKELY(x) __builtin_expect(!!(x), 1)
#define SG_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What an operation on the state can come to, besides its result. */
typedef enum {
    SG_OK = 0,
    SG_NO_MEMORY, /* an allocation failed; nothing was changed */
    SG_FULL,      /* only state that may not be evicted fills the bound; nothing was changed */
} sg_status;

static inline uint64_t sg_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t sg_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* a - b, or 0 where b is the larger. */
static inline uint64_t sg_ahead(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* Counts what others read without the lock; under it one alone writes. */
static inline void sg_count(uint64_t *count, uint64_t more) {
    __atomic_store_n(count, *count + more, __ATOMIC_RELAXED);
}

/* a * b / c rounded down; the caller knows that the result fits 64 bits. */
static inline uint64_t sg_muldiv(uint64_t a, uint64_t b, uint64_t c) {
    return (uint64_t)((sg_u128)a * b / c);
}

/* a * b / c rounded up; the caller knows that the result fits 64 bits. */
static inline uint64_t sg_muldiv_up(uint64_t a, uint64_t b, uint64_t c) {
    return (uint64_t)(((sg_u128)a * b + (c - 1)) / c);
}

#endif
