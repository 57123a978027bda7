#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "name.h"
#include "request.h"
#include "room.h"

static void word(sg_command *c, const void *bytes, size_t length) {
    void *ends = c->ends, *text = c->bytes;
    size_t words_room = (size_t)c->words_room;
    if (c->failed)
        return;
    c->failed = !sg_room_for(&text, &c->room, c->used + length, 1);
    c->bytes = text;
    c->failed |= !sg_room_for(&ends, &words_room, (size_t)c->words + 1, sizeof *c->ends);
    c->ends = ends;
    c->words_room = (int)words_room;
    if (c->failed)
        return;
    if (length > 0)
        memcpy(c->bytes + c->used, bytes, length);
    c->used += length;
    c->ends[c->words++] = c->used;
}

void sg_command_plain(sg_command *c) {
    c->used = 0;
    c->words = 0;
    c->failed = false;
}

void sg_command_begin(sg_command *c, sg_script_id script, unsigned keys) {
    char count[16];
    sg_command_plain(c);
    word(c, "EVALSHA", 7);
    word(c, sg_scripts[script].sha1, 40);
    word(c, count, (size_t)snprintf(count, sizeof count, "%u", keys));
}

void sg_command_free(sg_command *c) {
    free(c->bytes);
    free(c->ends);
    free(c->argv);
    free(c->lengths);
    memset(c, 0, sizeof *c);
}

void sg_command_key(sg_command *c, const char *name, size_t length) {
    word(c, name, length);
}

void sg_command_rings(sg_command *c, const sg_plan *plan, const char *name, size_t length) {
    for (unsigned i = 0; i < plan->logs; i++) {
        char ending[SG_NAME_ENDING_ROOM];
        const size_t extra = sg_name_ring(ending, 0, i);
        word(c, name, length);
        if (c->failed)
            return;
        c->words--; /* the ending belongs to the same word */
        word(c, ending, extra);
    }
}

void sg_command_argument(sg_command *c, const void *bytes, size_t length) {
    word(c, bytes, length);
}

bool sg_command_words(sg_command *c, int *argc, const char ***argv, const size_t **lengths) {
    if (c->failed)
        return false;
    void *moved = realloc((void *)c->argv, (size_t)c->words * sizeof *c->argv);
    if (moved == NULL)
        return false;
    c->argv = moved;
    moved = realloc(c->lengths, (size_t)c->words * sizeof *c->lengths);
    if (moved == NULL)
        return false;
    c->lengths = moved;
    for (int i = 0; i < c->words; i++) {
        const size_t start = i == 0 ? 0 : c->ends[i - 1];
        c->argv[i] = c->bytes + start;
        c->lengths[i] = c->ends[i] - start;
    }
    *argc = c->words;
    *argv = c->argv;
    *lengths = c->lengths;
    return true;
}

void sg_batch_begin(sg_batch *batch, const sg_plan *plan, sg_check_op op) {
    batch->plan = plan;
    batch->op = op;
    batch->checks = batch->keys = 0;
    batch->one_row = true;
    batch->starts[0] = 0;
    memset(batch->hashed, 0, sizeof batch->hashed);
}

void sg_batch_free(sg_batch *batch) {
    free(batch->names);
    memset(batch, 0, sizeof *batch);
}

/* Only spreads the names of one batch: who aims at it makes 256 comparisons of a few bytes. */
static unsigned hash_of(const char *name, size_t length) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    return (hash ^ (hash >> 15)) % (2 * SG_BATCH_MAX);
}

/* The number of the key of this name, new or known; SG_BATCH_MAX: no memory. */
static unsigned key_of(sg_batch *b, const char *name, size_t length) {
    unsigned at = hash_of(name, length);
    for (; b->hashed[at] != 0; at = (at + 1) % (2 * SG_BATCH_MAX)) {
        const unsigned key = b->hashed[at] - 1u;
        const size_t start = b->starts[key];
        if (b->starts[key + 1] - start == length && memcmp(b->names + start, name, length) == 0)
            return key;
    }
    const size_t start = b->starts[b->keys];
    void *names = b->names;
    if (!sg_room_for(&names, &b->names_room, start + length, 1))
        return SG_BATCH_MAX;
    b->names = names;
    memcpy(b->names + start, name, length);
    b->starts[b->keys + 1] = start + length;
    b->hashed[at] = (uint16_t)(b->keys + 1);
    return b->keys++;
}

bool sg_batch_add(sg_batch *b, const char *name, size_t length, const uint64_t *costs) {
    const size_t size = b->plan->row_length;
    if (b->checks == SG_BATCH_MAX)
        return false;
    const unsigned key = key_of(b, name, length);
    if (key == SG_BATCH_MAX)
        return false;
    uint8_t *row = b->rows + b->checks * size;
    sg_row_of_costs(b->plan, costs, row);
    b->one_row &= memcmp(row, b->rows, size) == 0;
    b->place[b->checks++] = (uint16_t)key;
    return true;
}

void sg_batch_command(const sg_batch *b, uint64_t ttl_us, uint64_t claim, sg_command *c) {
    const sg_plan *plan = b->plan;
    const bool hot = plan->simple && b->op == SG_HIT;
    uint8_t index[2 * SG_BATCH_MAX], argument[14];
    sg_command_begin(c, hot ? SG_SCRIPT_GCRA : SG_SCRIPT_DECIDE,
                     b->keys * (1 + plan->logs));
    for (unsigned i = 0; i < b->keys; i++)
        sg_command_key(c, b->names + b->starts[i], b->starts[i + 1] - b->starts[i]);
    for (unsigned i = 0; i < b->keys && plan->logs > 0; i++)
        sg_command_rings(c, plan, b->names + b->starts[i], b->starts[i + 1] - b->starts[i]);
    sg_command_argument(c, plan->bytes, plan->length);
    sg_command_argument(c, b->rows, plan->row_length * (b->one_row ? 1u : b->checks));
    for (unsigned i = 0; i < b->checks; i++)
        sg_bytes_put(index + 2 * i, b->place[i], 2);
    sg_command_argument(c, index, b->keys == b->checks ? 0 : 2 * b->checks);
    if (hot)
        return;
    sg_command_argument(c, &"012"[b->op], 1);
    if (b->op == SG_RESERVE)
        sg_command_argument(c, argument, sg_reserve_argument(ttl_us, claim, argument));
}
