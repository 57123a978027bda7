#include "resp.h"

#include <stdlib.h>
#include <string.h>

#include <hiredis.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

struct sg_resp {
    redisReader *reader;
    sg_node *nodes;
    size_t count, room;
    char *bytes;
    size_t used, bytes_room;
    bool whole; /* what is in the nodes has been handed out */
};

const char *sg_resp_version(void) {
    return TEXT(HIREDIS_MAJOR) "." TEXT(HIREDIS_MINOR) "." TEXT(HIREDIS_PATCH);
}

/* ---- what the reader calls: NULL from any of these ends the stream */

static sg_node *add(const redisReadTask *task, sg_resp_type type) {
    sg_resp *resp = task->privdata;
    if (resp->count == resp->room) {
        const size_t room = resp->room == 0 ? 64 : 2 * resp->room;
        void *moved = resp->count >= SG_RESP_NODES_MAX
                          ? NULL : realloc(resp->nodes, room * sizeof *resp->nodes);
        if (moved == NULL)
            return NULL;
        resp->nodes = moved;
        resp->room = room;
    }
    sg_node *node = &resp->nodes[resp->count++];
    *node = (sg_node){.type = type};
    return node;
}

/* The reader holds what it is given as an object and only asks whether it is NULL. */
static void *object(sg_node *node) { return node; }

static void *add_text(const redisReadTask *task, char *text, size_t length) {
    sg_resp *resp = task->privdata;
    sg_node *node = add(task, task->type == REDIS_REPLY_ERROR    ? SG_RESP_ERROR
                              : task->type == REDIS_REPLY_STATUS ? SG_RESP_STATUS
                                                                 : SG_RESP_STRING);
    if (node == NULL || length > SG_RESP_BYTES_MAX - resp->used)
        return NULL;
    if (resp->bytes == NULL || resp->used + length > resp->bytes_room) { /* "" is no nil */
        size_t room = resp->bytes_room == 0 ? 1024 : resp->bytes_room;
        while (room < resp->used + length)
            room *= 2;
        char *moved = realloc(resp->bytes, room);
        if (moved == NULL)
            return NULL;
        resp->bytes = moved;
        resp->bytes_room = room;
    }
    if (length > 0)
        memcpy(resp->bytes + resp->used, text, length);
    node->start = (uint32_t)resp->used;
    node->length = (uint32_t)length;
    resp->used += length;
    return object(node);
}

static void *add_number(const redisReadTask *task, long long value) {
    sg_node *node = add(task, SG_RESP_INTEGER);
    if (node != NULL)
        node->number = value;
    return object(node);
}

static void *add_nil(const redisReadTask *task) { return object(add(task, SG_RESP_NIL)); }

#if HIREDIS_MAJOR >= 1
static void *add_array(const redisReadTask *task, size_t elements) {
#else
static void *add_array(const redisReadTask *task, int elements) {
#endif
    unsigned depth = 1;
    for (const redisReadTask *outer = task->parent; outer != NULL; outer = outer->parent) {
        if (++depth > SG_RESP_DEPTH_MAX)
            return NULL;
    }
    sg_node *node = add(task, SG_RESP_ARRAY);
    if (node != NULL)
        node->number = (int64_t)elements;
    return object(node);
}

#if HIREDIS_MAJOR >= 1
/* RESP3, which nobody asked for. */
static void *no_double(const redisReadTask *task, double value, char *text, size_t length) {
    (void)task;
    (void)value;
    (void)text;
    (void)length;
    return NULL;
}

static void *no_bool(const redisReadTask *task, int value) {
    (void)task;
    (void)value;
    return NULL;
}
#endif

static void keep(void *thing) { (void)thing; } /* the nodes are the sg_resp's */

static redisReplyObjectFunctions functions = {
    .createString = add_text,
    .createArray = add_array,
    .createInteger = add_number,
#if HIREDIS_MAJOR >= 1
    .createDouble = no_double,
    .createBool = no_bool,
#endif
    .createNil = add_nil,
    .freeObject = keep,
};

/* ---- the stream */

sg_resp *sg_resp_new(void) {
    sg_resp *resp = calloc(1, sizeof *resp);
    if (resp == NULL)
        return NULL;
    resp->reader = redisReaderCreateWithFunctions(&functions);
    if (resp->reader == NULL) {
        free(resp);
        return NULL;
    }
    resp->reader->privdata = resp;
    return resp;
}

void sg_resp_free(sg_resp *resp) {
    if (resp == NULL)
        return;
    redisReaderFree(resp->reader);
    free(resp->nodes);
    free(resp->bytes);
    free(resp);
}

bool sg_resp_feed(sg_resp *resp, const char *bytes, size_t length) {
    const redisReader *reader = resp->reader;
    const size_t unread = reader->len - reader->pos;
    return unread + length <= SG_RESP_BYTES_MAX &&
           redisReaderFeed(resp->reader, bytes, length) == REDIS_OK;
}

sg_resp_state sg_resp_next(sg_resp *resp, sg_reply *reply) {
    void *whole = NULL;
    if (resp->whole)
        resp->count = resp->used = 0;
    resp->whole = false;
    if (redisReaderGetReply(resp->reader, &whole) != REDIS_OK)
        return SG_RESP_BROKEN;
    if (whole == NULL)
        return SG_RESP_MORE;
    resp->whole = true;
    *reply = (sg_reply){.nodes = resp->nodes, .count = resp->count, .bytes = resp->bytes};
    return SG_RESP_READY;
}

/* ---- commands */

char *sg_resp_command(int argc, const char **argv, const size_t *lengths, size_t *size) {
    char *command = NULL;
    const long long made = redisFormatCommandArgv(&command, argc, argv, lengths);
    if (made < 0)
        return NULL;
    *size = (size_t)made;
    return command;
}

void sg_resp_release(char *command) { redisFreeCommand(command); }
