#include "pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "room.h"

/* A command that was sent. */
struct sg_flight {
    sg_request *first; /* in the order of the reply's elements; NULL: ASKING */
    unsigned count;
    uint32_t text; /* the bit of the script whose text it takes along, or 0 */
};

/* Requests that leave as one command. */
struct sg_group {
    sg_request *first, *last;
    unsigned count;
    uint32_t run;
};

#define FIND 512u /* places by which groups are found while a write is put together */

bool sg_pipeline_init(sg_pipeline *p, const sg_owner_calls *calls, void *owner, uint64_t seed) {
    memset(p, 0, sizeof *p);
    p->calls = calls;
    p->owner = owner;
    p->random = seed;
    p->pass = seed << 32;
    p->resp = sg_resp_new();
    p->batch = calloc(1, sizeof *p->batch);
    if (p->resp != NULL && p->batch != NULL)
        return true;
    sg_pipeline_free(p);
    return false;
}

void sg_pipeline_free(sg_pipeline *p) {
    sg_resp_free(p->resp);
    if (p->batch != NULL)
        sg_batch_free(p->batch);
    free(p->batch);
    sg_command_free(&p->command);
    free(p->flights);
    free(p->groups);
    free(p->out);
    memset(p, 0, sizeof *p);
}

/* splitmix64 */
static uint64_t draw(sg_pipeline *p) {
    uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void sg_pipeline_add(sg_pipeline *p, sg_request *r) {
    r->next = NULL;
    if (p->last == NULL)
        p->first = r;
    else
        p->last->next = r;
    p->last = r;
    p->waiting++;
}

sg_request *sg_pipeline_take_waiting(sg_pipeline *p) {
    sg_request *first = p->first;
    p->first = p->last = p->put_back = NULL;
    p->waiting = 0;
    return first;
}

static void forget(sg_pipeline *p, sg_request *r) {
    if (r->held) /* its owner is being called about it; who does that forgets it */
        return;
    if (r->command != NULL) {
        sg_command_free(r->command);
        free(r->command);
        r->command = NULL;
    }
    p->calls->forget(p->owner, r);
}

static void fail(sg_pipeline *p, sg_request *r, sg_failure failure, const char *text,
                 size_t length) {
    if (r->over)
        return;
    r->over = true;
    p->calls->failed(p->owner, r, failure, text, length);
}

static void fail_and_forget(sg_pipeline *p, sg_request *r, sg_failure failure, const char *text,
                            size_t length) {
    fail(p, r, failure, text, length);
    forget(p, r);
}

/* Requests in their order, linked by `next`. */
typedef struct {
    sg_request *first, *last;
    size_t count;
} row;

static void append(row *row, sg_request *r) {
    r->next = NULL;
    if (row->last == NULL)
        row->first = r;
    else
        row->last->next = r;
    row->last = r;
    row->count++;
}

/* Puts a row before all that wait for the first time, and behind what was put back before it. */
static void put_back(sg_pipeline *p, const row *row) {
    if (row->last == NULL)
        return;
    sg_request **place = p->put_back == NULL ? &p->first : &p->put_back->next;
    row->last->next = *place;
    *place = row->first;
    if (row->last->next == NULL)
        p->last = row->last;
    p->put_back = row->last;
    p->waiting += row->count;
}

static void fail_row(sg_pipeline *p, sg_request *first, sg_failure failure, const char *text,
                     size_t length) {
    for (sg_request *r = first, *next; r != NULL; r = next) {
        next = r->next;
        fail_and_forget(p, r, failure, text, length);
    }
}

/* ---- writing */

/* A new last flight; there is room for it and one more. */
static sg_flight *add_flight(sg_pipeline *p) {
    return &p->flights[(p->flight_first + p->flight_count++) % p->flight_room];
}

static bool flight_room(sg_pipeline *p) {
    if (p->flight_count + 2 <= p->flight_room)
        return true;
    const size_t room = p->flight_room == 0 ? 16 : 2 * p->flight_room;
    sg_flight *moved = malloc(room * sizeof *moved);
    if (moved == NULL)
        return false;
    for (size_t i = 0; i < p->flight_count; i++)
        moved[i] = p->flights[(p->flight_first + i) % p->flight_room];
    free(p->flights);
    p->flights = moved;
    p->flight_first = 0;
    p->flight_room = room;
    return true;
}

static bool put_command(sg_pipeline *p, int argc, const char **argv, const size_t *lengths) {
    size_t size;
    void *out = p->out;
    char *command = sg_resp_command(argc, argv, lengths, &size);
    if (command == NULL || !sg_room_for(&out, &p->out_room, p->out_used + size, 1)) {
        if (command != NULL)
            sg_resp_release(command);
        return false;
    }
    p->out = out;
    memcpy(p->out + p->out_used, command, size);
    p->out_used += size;
    sg_resp_release(command);
    return true;
}

/* Appends the words of a command, with the script's text where the server did not know it. */
static bool put_words(sg_pipeline *p, sg_command *command, int script, bool evaluate,
                      bool asking) {
    int argc;
    const char **argv;
    const size_t *lengths;
    const size_t before = p->out_used;
    if (!sg_command_words(command, &argc, &argv, &lengths))
        return false;
    if (evaluate && script >= 0) {
        const sg_script *s = &sg_scripts[script];
        argv[0] = "EVAL";
        argv[1] = s->text;
        ((size_t *)(uintptr_t)lengths)[0] = 4;
        ((size_t *)(uintptr_t)lengths)[1] = s->length;
    }
    if (asking) {
        const char *word = "ASKING";
        const size_t length = 6;
        if (!put_command(p, 1, &word, &length))
            return false;
    }
    if (put_command(p, argc, argv, lengths))
        return true;
    p->out_used = before;
    return false;
}

static int script_of(const sg_request *r) {
    if (r->kind != SG_CHECK)
        return r->script;
    return r->plan->simple && r->op == SG_HIT ? SG_SCRIPT_GCRA : SG_SCRIPT_DECIDE;
}

/* The bit of a request's script; 0: it has none. */
static uint32_t bit_of(const sg_request *r) {
    const int script = script_of(r);
    return script < 0 ? 0 : UINT32_C(1) << script;
}

/* While a script's text is under way the server will know it before it reads what follows. */
static void share_text(const sg_pipeline *p, const sg_group *g) {
    for (sg_request *r = g->first; r != NULL && (p->texts & bit_of(r)); r = r->next)
        r->evaluate = false;
}

static bool put_batch(sg_pipeline *p, const sg_group *g) {
    sg_request *first = g->first;
    const uint64_t claim = draw(p) >> 13; /* below 2^51, so that all of a batch are below 2^52 */
    uint64_t number = 0;
    sg_batch_begin(p->batch, first->plan, (sg_check_op)first->op);
    for (sg_request *r = first; r != NULL; r = r->next) {
        r->claim = claim + number++;
        if (!sg_batch_add(p->batch, r->name, r->name_length, r->costs))
            return false;
    }
    sg_batch_command(p->batch, first->ttl_us, claim, &p->command);
    return put_words(p, &p->command, script_of(first), first->evaluate, first->asking);
}

/* False: no memory, and nothing of it was put. */
static bool put_group(sg_pipeline *p, const sg_group *g) {
    sg_request *first = g->first;
    share_text(p, g);
    if (!flight_room(p) || !(first->kind == SG_CHECK
                                 ? put_batch(p, g)
                                 : put_words(p, first->command, first->script, first->evaluate,
                                             first->asking)))
        return false;
    if (first->asking)
        *add_flight(p) = (sg_flight){NULL, 0, 0};
    const uint32_t text = first->evaluate ? bit_of(first) : 0;
    *add_flight(p) = (sg_flight){first, g->count, text};
    p->texts |= text;
    p->flying += g->count;
    return true;
}

/* Which run of its limiter's requests this one belongs to: within a run all do the same. */
static uint32_t run_of(const sg_pipeline *p, const sg_request *r) {
    sg_order *order = r->order;
    if (order == NULL)
        return 0;
    const sg_plan *plan = r->kind == SG_CHECK ? r->plan : NULL;
    const uint64_t ttl_us = r->op == SG_RESERVE ? r->ttl_us : 0;
    if (order->pass != p->pass) {
        order->pass = p->pass;
        order->run = 0;
    } else if (order->plan != plan || order->op != r->op || order->ttl_us != ttl_us) {
        order->run++;
    }
    order->plan = plan;
    order->op = r->op;
    order->ttl_us = ttl_us;
    return order->run;
}

static bool joins(const sg_group *g, const sg_request *r, uint32_t run) {
    const sg_request *f = g->first;
    return f->kind == SG_CHECK && r->kind == SG_CHECK && f->plan == r->plan && f->op == r->op &&
           f->order == r->order && g->run == run && f->slot == r->slot &&
           f->evaluate == r->evaluate && !r->alone && !f->alone && !r->asking && !f->asking &&
           g->count < SG_BATCH_MAX && (r->op != SG_RESERVE || f->ttl_us == r->ttl_us);
}

static unsigned place_of(const sg_request *r) {
    const uint64_t mixed = ((uint64_t)(uintptr_t)r->plan ^ r->slot * UINT64_C(0x9e3779b1)) *
                           UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mixed >> 40) % FIND;
}

/* The group that it leaves with, new or known; NULL: no memory. */
static sg_group *group_of(sg_pipeline *p, uint32_t *found, const sg_request *r) {
    const uint32_t run = run_of(p, r);
    uint32_t *place = &found[place_of(r)]; /* a group's number + 1; of two that meet, the later */
    if (r->kind == SG_CHECK && *place > 0 && joins(&p->groups[*place - 1], r, run))
        return &p->groups[*place - 1];
    void *groups = p->groups;
    if (!sg_room_for(&groups, &p->group_room, p->group_count + 1, sizeof *p->groups))
        return NULL;
    p->groups = groups;
    sg_group *g = &p->groups[p->group_count++];
    *g = (sg_group){.run = run};
    if (r->kind == SG_CHECK)
        *place = (uint32_t)p->group_count;
    return g;
}

void sg_pipeline_write(sg_pipeline *p) {
    uint32_t found[FIND] = {0};
    row unwanted = {0}, lacking = {0};
    sg_request *next;
    p->group_count = 0;
    p->pass++;
    for (sg_request *r = sg_pipeline_take_waiting(p); r != NULL; r = next) {
        next = r->next;
        if (r->over || !p->calls->wanted(p->owner, r)) {
            append(&unwanted, r);
            continue;
        }
        sg_group *g = group_of(p, found, r);
        if (g == NULL) {
            append(&lacking, r);
            continue;
        }
        r->next = NULL;
        if (g->first == NULL)
            g->first = r;
        else
            g->last->next = r;
        g->last = r;
        g->count++;
    }
    for (size_t i = 0; i < p->group_count; i++) {
        const sg_group *g = &p->groups[i];
        if (put_group(p, g))
            continue;
        for (sg_request *r = g->first; r != NULL; r = next) {
            next = r->next;
            append(&lacking, r);
        }
    }
    /* Now that all is in its place the owner may do as it likes. */
    for (sg_request *r = unwanted.first; r != NULL; r = next) {
        next = r->next;
        forget(p, r);
    }
    fail_row(p, lacking.first, SG_NO_ROOM, NULL, 0);
}

void sg_pipeline_sent(sg_pipeline *p) {
    p->out_used = 0;
    if (p->out_room > (1u << 20)) { /* after a burst */
        free(p->out);
        p->out = NULL;
        p->out_room = 0;
    }
}

/* ---- reading */

static bool begins(const char *text, size_t length, const char *word) {
    const size_t size = strlen(word);
    return length >= size && memcmp(text, word, size) == 0;
}

/* "MOVED 3999 127.0.0.1:6381": the slot and the node. */
static bool read_redirect(const char *text, size_t length, unsigned *slot, const char **node,
                          size_t *node_length) {
    const char *end = text + length, *p = memchr(text, ' ', length);
    unsigned number = 0;
    if (p == NULL || ++p == end || *p == ' ')
        return false;
    for (; p < end && *p >= '0' && *p <= '9' && number < 100000; p++)
        number = 10 * number + (unsigned)(*p - '0');
    if (p >= end || *p != ' ' || number >= 16384)
        return false;
    *slot = number;
    *node = p + 1;
    *node_length = (size_t)(end - *node);
    return *node_length > 0;
}

/* The whole command was answered with an error, so nothing of it was done. */
static void refused(sg_pipeline *p, const sg_flight *flight, const char *text, size_t length) {
    const bool unknown = begins(text, length, "NOSCRIPT"), moved = begins(text, length, "MOVED "),
               ask = begins(text, length, "ASK "), again = begins(text, length, "TRYAGAIN");
    row resent = {0}, rest = {0};
    const char *node = NULL;
    size_t node_length = 0;
    unsigned slot = 0;
    const bool elsewhere = (moved || ask) && read_redirect(text, length, &slot, &node, &node_length);
    sg_request *next;
    for (sg_request *r = flight->first; r != NULL; r = next) {
        next = r->next;
        if (r->over || !((unknown && !r->evaluate && (r->kind == SG_CHECK || r->script >= 0)) ||
                         (again && flight->count > 1))) {
            append(&rest, r);
            continue;
        }
        r->evaluate |= unknown && !(p->texts & bit_of(r));
        r->alone |= again;
        r->asking = false;
        append(&resent, r);
    }
    put_back(p, &resent);
    for (sg_request *r = rest.first; r != NULL; r = next) {
        next = r->next;
        r->next = NULL;
        if (r->over) {
            forget(p, r);
        } else if ((elsewhere || again) && r->redirects < UINT8_MAX) {
            r->redirects++;
            r->asking = ask;
            p->calls->redirected(p->owner, r, again ? SG_LATER : ask ? SG_ASK : SG_MOVED, slot,
                                 node, node_length);
        } else {
            fail_and_forget(p, r, SG_REFUSED, text, length);
        }
    }
}

static void decide_one(sg_pipeline *p, sg_request *r, const sg_node *node, const char *bytes,
                       uint64_t now_us) {
    sg_answer answer;
    const char *text = node->type == SG_RESP_NIL ? NULL : bytes + node->start;
    const size_t length = node->type == SG_RESP_NIL ? 0 : node->length;
    const sg_plan *plan = r->plan;
    answer.seen = r->op == SG_HIT ? sg_answer_hit(plan, r->costs, text, length, now_us,
                                                  &answer.decision)
                  : r->op == SG_PEEK
                      ? sg_answer_peek(plan, r->costs, text, length, now_us, &answer.decision)
                      : sg_answer_reserve(plan, r->costs, r->ttl_us, r->claim, text, length, now_us,
                                          &answer.decision, &answer.ticket);
    if (answer.seen == SG_SEEN_ERROR) {
        fail(p, r, SG_FOREIGN, NULL, 0);
        return;
    }
    answer.bytes = text;
    answer.length = length;
    answer.now_us = now_us;
    r->over = true;
    p->calls->decided(p->owner, r, &answer);
}

/* Whether a reply is what the scripts of checks reply: a text or nil for each, and the time. */
static bool is_answer(const sg_reply *reply, unsigned count) {
    if (reply->nodes[0].type != SG_RESP_ARRAY || reply->nodes[0].number != (int64_t)count + 1 ||
        reply->count != (size_t)count + 2 || reply->nodes[count + 1].type != SG_RESP_INTEGER ||
        reply->nodes[count + 1].number < 0)
        return false;
    for (unsigned i = 1; i <= count; i++) {
        if (reply->nodes[i].type != SG_RESP_STRING && reply->nodes[i].type != SG_RESP_NIL)
            return false;
    }
    return true;
}

/* False: the reply is none to what was asked. The flight is taken off all the same, or not at all. */
static bool handle(sg_pipeline *p, const sg_reply *reply) {
    if (p->flight_count == 0)
        return false;
    const sg_flight flight = p->flights[p->flight_first];
    const bool error = reply->nodes[0].type == SG_RESP_ERROR;
    const bool check = flight.first != NULL && flight.first->kind == SG_CHECK;
    if (check && !error && !is_answer(reply, flight.count))
        return false;
    p->flight_first = (p->flight_first + 1) % p->flight_room;
    p->flight_count--;
    p->texts &= ~flight.text;
    if (flight.first == NULL) /* what ASKING comes to shows in the reply behind it */
        return true;
    p->flying -= flight.count;
    if (error) {
        refused(p, &flight, reply->bytes + reply->nodes[0].start, reply->nodes[0].length);
        return true;
    }
    const uint64_t now_us = check ? (uint64_t)reply->nodes[flight.count + 1].number : 0;
    const sg_node *node = reply->nodes + 1;
    for (sg_request *r = flight.first, *next; r != NULL; r = next) {
        next = r->next;
        if (r->over) {
            /* failed meanwhile */
        } else if (check) {
            decide_one(p, r, node, reply->bytes, now_us);
        } else {
            r->over = true;
            p->calls->replied(p->owner, r, reply);
        }
        node++;
        forget(p, r);
    }
    return true;
}

/* What was read of a stream that has ended says nothing about the next one. */
static void end_stream(sg_pipeline *p) {
    p->out_used = 0;
    p->ends++;
    if (!p->handling) {
        sg_resp_free(p->resp);
        p->resp = NULL;
    }
}

/* Around calls of the owner in the midst of something: it may end the stream then. */
static uint64_t begin_handling(sg_pipeline *p) {
    p->handling = true;
    return p->ends;
}

static void end_handling(sg_pipeline *p, uint64_t ends) {
    p->handling = false;
    if (p->ends != ends) {
        sg_resp_free(p->resp);
        p->resp = NULL;
    }
}

bool sg_pipeline_feed(sg_pipeline *p, const char *bytes, size_t length) {
    sg_reply reply;
    sg_resp_state state = SG_RESP_MORE;
    if (p->handling)
        return false;
    if (p->resp == NULL)
        p->resp = sg_resp_new();
    if (p->resp == NULL || !sg_resp_feed(p->resp, bytes, length))
        return false;
    const uint64_t ends = begin_handling(p);
    while (p->ends == ends && (state = sg_resp_next(p->resp, &reply)) == SG_RESP_READY) {
        if (!handle(p, &reply)) {
            state = SG_RESP_BROKEN;
            break;
        }
    }
    end_handling(p, ends);
    return state != SG_RESP_BROKEN;
}

/* ---- ends */

/* Fails what flies past its deadline; it stays until its reply comes, to be skipped then. */
static size_t expire_flying(sg_pipeline *p, int64_t now_ns, int64_t *next) {
    const uint64_t ends = begin_handling(p);
    size_t expired = 0;
    for (size_t i = 0; i < p->flight_count; i++) {
        sg_request *r = p->flights[(p->flight_first + i) % p->flight_room].first;
        for (; r != NULL; r = r->next) {
            if (r->over)
                continue;
            if (r->deadline_ns > now_ns) {
                *next = r->deadline_ns < *next ? r->deadline_ns : *next;
                continue;
            }
            expired++;
            r->held = true;
            fail(p, r, SG_TIMED_OUT, NULL, 0);
            r->held = false;
            if (p->ends != ends) { /* nothing flies any more */
                forget(p, r);
                end_handling(p, ends);
                return expired;
            }
        }
    }
    end_handling(p, ends);
    return expired;
}

size_t sg_pipeline_expire(sg_pipeline *p, int64_t now_ns, int64_t *next) {
    row due = {0};
    *next = INT64_MAX;
    size_t expired = p->handling ? 0 : expire_flying(p, now_ns, next);
    sg_request *put_back = NULL, **place = &p->first;
    bool before = p->put_back != NULL; /* among what was put back */
    p->last = NULL;
    for (sg_request *r = p->first, *after; r != NULL; r = after) {
        after = r->next;
        const bool is_last = r == p->put_back;
        if (r->deadline_ns <= now_ns) {
            *place = after;
            append(&due, r);
        } else {
            *next = r->deadline_ns < *next ? r->deadline_ns : *next;
            place = &r->next;
            p->last = r;
            put_back = before ? r : put_back;
        }
        before = before && !is_last;
    }
    p->put_back = put_back;
    p->waiting -= due.count;
    fail_row(p, due.first, SG_UNSENT, NULL, 0);
    return expired + due.count;
}

void sg_pipeline_each(const sg_pipeline *p, void (*visit)(void *context, sg_request *request),
                      void *context) {
    for (size_t i = 0; i < p->flight_count; i++) {
        for (sg_request *r = p->flights[(p->flight_first + i) % p->flight_room].first; r != NULL;
             r = r->next)
            visit(context, r);
    }
    for (sg_request *r = p->first; r != NULL; r = r->next)
        visit(context, r);
}

/* Takes all that flies off, in order, as one row. */
static sg_request *land(sg_pipeline *p) {
    sg_request *first = NULL, **end = &first;
    while (p->flight_count > 0) {
        *end = p->flights[p->flight_first].first;
        while (*end != NULL)
            end = &(*end)->next;
        p->flight_first = (p->flight_first + 1) % p->flight_room;
        p->flight_count--;
    }
    p->texts = 0;
    p->flying = 0;
    return first;
}

void sg_pipeline_lost(sg_pipeline *p, const char *text, size_t length) {
    row again = {0}, rest = {0};
    sg_request *next;
    for (sg_request *r = land(p); r != NULL; r = next) {
        next = r->next;
        if (r->over || !r->repeatable) {
            append(&rest, r);
            continue;
        }
        r->asking = false;
        append(&again, r);
    }
    end_stream(p);
    put_back(p, &again);
    fail_row(p, rest.first, SG_LOST, text, length);
}

void sg_pipeline_drop(sg_pipeline *p, sg_failure failure, const char *text, size_t length) {
    sg_request *flying = land(p);
    end_stream(p);
    fail_row(p, flying, failure == SG_UNSENT ? SG_LOST : failure, text, length);
    fail_row(p, sg_pipeline_take_waiting(p), failure, text, length);
}
