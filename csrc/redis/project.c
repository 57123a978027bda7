/* What a whole key foretells: its state in a table of its own, for the core's sg_project. */
#include <string.h>

#include "request.h"

#define ENTRY 13u
#define CHUNK 8u
#define RING 32u

/* The longest period lies behind; all the rest is for what is to come. */
static sg_server_time time_of(const sg_plan *plan, uint64_t now_us) {
    uint64_t log_us = 0, behind = 1000000;
    for (unsigned i = 0; i < plan->count; i++) {
        behind = sg_max(behind, plan->keep_us[i]);
        if (plan->algorithm[i] == SG_SLIDING_LOG)
            log_us = sg_max(log_us, plan->quotas[i].period / SG_TICKS_PER_US);
    }
    /* So that the spans of the longest log begin where the server's do, if that is not too far. */
    if (log_us > 0 && log_us < SG_PERIOD_MAX_US / 20)
        behind = (behind + log_us - 1) / log_us * log_us + now_us % log_us;
    return (sg_server_time){.now_us = now_us, .now = behind * SG_TICKS_PER_US};
}

static bool add(sg_log *log, sg_bytes *b, unsigned entries, sg_server_time time) {
    for (unsigned i = 0; i < entries; i++) {
        const uint64_t at = sg_bytes_take(b, 7), count = sg_bytes_take(b, 6);
        if (b->bad || log->length == log->capacity)
            return false;
        log->entries[log->length++] = (sg_log_entry){.at = sg_ticks_at(time, at, 0), .count = count};
        log->total += count;
    }
    return true;
}

/* Reads a log and its ring into *log, which is empty and has room for SG_LOG_MAX. */
static bool read_log(sg_bytes *b, const sg_text *ring, sg_server_time time, sg_log *log) {
    sg_bytes_take(b, 6); /* the total is counted again */
    const unsigned first = (unsigned)sg_bytes_take(b, 1), chunks = (unsigned)sg_bytes_take(b, 1);
    const unsigned merged = (unsigned)sg_bytes_take(b, 2);
    const unsigned oldest = (unsigned)sg_bytes_take(b, 1), newest = (unsigned)sg_bytes_take(b, 1);
    if (b->bad || oldest > CHUNK || newest > CHUNK || chunks >= RING || !add(log, b, oldest, time))
        return false;
    for (unsigned c = 0; c < chunks; c++) {
        const size_t from = (size_t)((first + c) % RING) * CHUNK * ENTRY;
        if (ring->bytes == NULL || ring->length < from + CHUNK * ENTRY)
            continue; /* the server evicted it */
        sg_bytes chunk = {.at = (const uint8_t *)ring->bytes + from, .left = CHUNK * ENTRY};
        if (!add(log, &chunk, CHUNK, time))
            return false;
    }
    if (!add(log, b, newest, time))
        return false;
    log->merged = (uint16_t)sg_min(merged, log->length);
    return true;
}

/* The states into `cell`. */
static sg_seen fill(const sg_plan *plan, sg_table *table, sg_cell *cell, const sg_text *values,
                    sg_server_time time, sg_status *status) {
    sg_bytes b = {.at = (const uint8_t *)values[0].bytes, .left = values[0].length};
    unsigned rings = 0;
    b.at += plan->head_length;
    b.left -= plan->head_length;
    sg_bytes_take(&b, 4);
    for (unsigned i = 0; i < plan->count && !b.bad; i++) {
        sg_state state = {{0, 0, 0}};
        if (plan->algorithm[i] == SG_SLIDING_LOG) {
            const sg_ref ref = sg_arena_alloc(&table->arena, sg_log_bytes(SG_LOG_MAX));
            if (ref == 0) {
                *status = SG_NO_MEMORY;
                return SG_SEEN;
            }
            sg_log *log = sg_arena_at(&table->arena, ref);
            sg_log_init(log, SG_LOG_MAX);
            state.log.log = ref;
            sg_cell_set_state(table, cell, i, &state);
            if (!read_log(&b, &values[1 + rings++], time, log))
                return SG_SEEN_ERROR;
            continue;
        }
        const uint64_t us = sg_bytes_take(&b, 7);
        if (plan->algorithm[i] == SG_GCRA) {
            state.gcra.tat = sg_ticks_at(time, us, (uint32_t)sg_bytes_take(&b, 2));
        } else {
            state.words[0] = sg_ticks_at(time, us, 0);
            state.words[1] = sg_bytes_take(&b, 6);
            if (plan->algorithm[i] == SG_SLIDING_WINDOW)
                state.words[2] = sg_bytes_take(&b, 6);
        }
        sg_cell_set_state(table, cell, i, &state);
    }
    if (b.left > 0) {
        const uint64_t until = sg_bytes_take(&b, 7), length = sg_bytes_take(&b, 7);
        const sg_ticks left = sg_ahead(sg_ticks_at(time, until, 0), time.now);
        const uint64_t most = SG_CLOCK_MAX / SG_TICKS_PER_US;
        if (!b.bad && left > 0)
            *status = sg_limiter_ban(table, (sg_fingerprint){0},
                                     sg_min(left, sg_min(length, most) * SG_TICKS_PER_US),
                                     time.now);
    }
    return b.bad ? SG_SEEN_ERROR : SG_SEEN;
}

sg_status sg_answer_project(const sg_plan *plan, const sg_allocator *allocator,
                            const sg_text *values, uint64_t now_us, const uint64_t *costs,
                            size_t events, sg_seen *seen, sg_ticks *wait) {
    const sg_server_time time = time_of(plan, now_us);
    const sg_text *value = &values[0];
    sg_table table;
    sg_cell *cell;
    *seen = SG_SEEN;
    sg_status status = sg_table_init(&table, allocator, plan->count, plan->algorithm, 1, 0);
    if (status != SG_OK)
        return status;
    if (value->bytes != NULL)
        status = sg_table_insert(&table, (sg_fingerprint){0}, time.now, &cell);
    if (status == SG_OK && value->bytes != NULL) {
        if (plan->count == 1 && plan->gcras == 1 && value->length == 9) {
            sg_sight sight;
            *seen = sg_sight_read(plan, value->bytes, 9, time, costs, &sight);
            sg_cell_set_state(&table, cell, 0, &sight.state[0]);
        } else if (value->length < plan->head_length ||
                   memcmp(value->bytes, plan->head, plan->head_length) != 0) {
            *seen = SG_SEEN_OTHER;
        } else {
            *seen = fill(plan, &table, cell, values, time, &status);
        }
    }
    if (status == SG_OK && *seen != SG_SEEN_ERROR)
        status = sg_project(&table, plan->quotas, (sg_fingerprint){0}, costs, events, time.now,
                            wait);
    sg_table_free(&table);
    return status;
}
