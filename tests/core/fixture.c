#include "fixture.h"

void set_up(fixture *f, unsigned count, const sg_quota *quotas, uint64_t max_keys,
                   uint64_t max_bytes) {
    uint8_t algorithms[SG_QUOTAS_MAX];
    memset(f, 0, sizeof *f);
    f->allocator = test_allocator(&f->memory);
    f->count = count;
    f->now = DAY;
    for (unsigned i = 0; i < count; i++) {
        f->quotas[i] = quotas[i];
        algorithms[i] = quotas[i].algorithm;
    }
    EQUAL(sg_table_init(&f->table, &f->allocator, count, algorithms, max_keys, max_bytes), SG_OK);
}

void tear_down(fixture *f) {
    EQUAL(f->memory.bytes, sg_table_bytes(&f->table));
    sg_table_free(&f->table);
    EQUAL(f->memory.pieces, 0);
}

const uint64_t *each(uint64_t cost) {
    static uint64_t costs[SG_QUOTAS_MAX];
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++)
        costs[i] = cost;
    return costs;
}

sg_decision hit(fixture *f, uint64_t key, const uint64_t *costs) {
    sg_decision decision;
    EQUAL(sg_hit(&f->table, f->quotas, key_of(key), costs, f->now, &decision), SG_OK);
    return decision;
}

sg_decision peek(fixture *f, uint64_t key, const uint64_t *costs) {
    sg_decision decision;
    sg_peek(&f->table, f->quotas, key_of(key), costs, f->now, &decision);
    return decision;
}

uint64_t remaining(fixture *f, uint64_t key, unsigned i) {
    uint64_t low = 0, high = 2 * f->quotas[i].burst;
    while (low < high) { /* what would be admitted is all the interface tells of one quota */
        uint64_t costs[SG_QUOTAS_MAX] = {0}, middle = (low + high + 1) / 2;
        costs[i] = middle;
        if ((peek(f, key, costs).refusals >> i) & 1u)
            high = middle - 1;
        else
            low = middle;
    }
    return low;
}

bool reserve(fixture *f, uint64_t key, uint64_t cost, sg_ticks ttl, sg_receipt *receipt) {
    sg_decision decision;
    EQUAL(sg_reserve(&f->table, f->quotas, key_of(key), each(cost), ttl, f->now, &decision, receipt),
          SG_OK);
    assert_true(receipt->open == decision.allowed);
    return decision.allowed;
}

void settle(fixture *f, sg_receipt *receipt, uint64_t cost) {
    EQUAL(sg_settle(&f->table, f->quotas, receipt, each(cost), f->now), SG_OK);
    assert_false(receipt->open);
}

void four(sg_quota quotas[4]) {
    for (unsigned a = 0; a < SG_ALGORITHMS; a++)
        quotas[a] = quota_of((sg_algorithm)a, 10, 60, 0);
}
