/* One limiter over its own table and memory, on a clock of its own, for the tests. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "limiter.h"
#include "support.h"

typedef struct {
    test_memory memory;
    sg_allocator allocator;
    sg_table table;
    sg_quota quotas[SG_QUOTAS_MAX];
    unsigned count;
    sg_ticks now;
} fixture;

void set_up(fixture *f, unsigned count, const sg_quota *quotas, uint64_t max_keys,
            uint64_t max_bytes);

/* Frees the table, and checks that all its memory came back. */
void tear_down(fixture *f);

/* The same cost for every quota. */
const uint64_t *each(uint64_t cost);

/* These must not want for memory. */
sg_decision hit(fixture *f, uint64_t key, const uint64_t *costs);
sg_decision peek(fixture *f, uint64_t key, const uint64_t *costs);
bool reserve(fixture *f, uint64_t key, uint64_t cost, sg_ticks ttl, sg_receipt *receipt);
void settle(fixture *f, sg_receipt *receipt, uint64_t cost);

/* What quota i alone would admit at once. */
uint64_t remaining(fixture *f, uint64_t key, unsigned i);

/* One quota of each algorithm, 10 a minute. */
void four(sg_quota quotas[4]);

#endif
