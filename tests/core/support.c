#include "support.h"

#include <stdlib.h>
#include <time.h>

static uint64_t random_state;

void random_seed(void) {
    const char *given = getenv("SLUICEGATE_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    random_state = given != NULL ? strtoull(given, NULL, 10)
                                 : (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    printf("SLUICEGATE_SEED=%llu\n", (unsigned long long)random_state);
    fflush(stdout);
}

uint64_t random_bits(void) {
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t random_get(void) { return random_state; }

void random_set(uint64_t state) { random_state = state; }

uint64_t random_below(uint64_t bound) { return random_bits() % bound; }

uint64_t random_skewed(uint64_t bound) {
    unsigned shift = (unsigned)random_below(64);
    return (random_bits() >> shift) % bound;
}

/* The size stands in front, so that what is given back can be checked. */
typedef struct {
    size_t size;
    uint64_t unused;
} header;

static void *memory_alloc(void *context, size_t size) {
    test_memory *memory = context;
    memory->allocations++;
    if (memory->fail_at != 0 &&
        (memory->allocations == memory->fail_at ||
         (memory->for_good && memory->allocations > memory->fail_at))) {
        memory->failures++;
        return NULL;
    }
    header *piece = calloc(1, sizeof *piece + size);
    if (piece == NULL)
        return NULL;
    piece->size = size;
    memory->pieces++;
    memory->bytes += size;
    return piece + 1;
}

static void memory_free(void *context, void *pointer, size_t size) {
    test_memory *memory = context;
    header *piece = (header *)pointer - 1;
    EQUAL(piece->size, size);
    memory->pieces--;
    memory->bytes -= size;
    memset(pointer, 0xa5, size);
    free(piece);
}

sg_allocator test_allocator(test_memory *memory) {
    return (sg_allocator){.alloc = memory_alloc, .free = memory_free, .context = memory};
}

sg_quota quota_of(sg_algorithm algorithm, uint64_t limit, double seconds, uint64_t burst) {
    sg_quota quota;
    uint64_t us = 0;
    assert_true(sg_period_us(seconds, &us));
    EQUAL(sg_quota_init(&quota, algorithm, limit, us, burst, false), SG_QUOTA_OK);
    return quota;
}

sg_fingerprint key_of(uint64_t n) {
    const sg_secret secret = {1, 2};
    return sg_fingerprint_of(&secret, &n, sizeof n);
}
