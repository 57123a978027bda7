/* Replies, handed to the owners of what they answer. */
#include "pipeline_parts.h"

#include <string.h>

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
    sg_row resent = {0}, rest = {0};
    const char *node = NULL;
    size_t node_length = 0;
    unsigned slot = 0;
    const bool elsewhere = (moved || ask) && read_redirect(text, length, &slot, &node, &node_length);
    sg_request *next;
    for (sg_request *r = flight->first; r != NULL; r = next) {
        next = r->next;
        if (r->over || !((unknown && !r->evaluate && (r->kind == SG_CHECK || r->script >= 0)) ||
                         (again && flight->count > 1))) {
            sg_row_append(&rest, r);
            continue;
        }
        r->evaluate |= unknown && !(p->texts & sg_pipeline_text_bit(r));
        r->alone |= again;
        r->asking = false;
        sg_row_append(&resent, r);
    }
    sg_pipeline_put_back(p, &resent);
    for (sg_request *r = rest.first; r != NULL; r = next) {
        next = r->next;
        r->next = NULL;
        if (r->over) {
            sg_pipeline_forget(p, r);
        } else if ((elsewhere || again) && r->redirects < UINT8_MAX) {
            r->redirects++;
            r->asking = ask;
            p->calls->redirected(p->owner, r, again ? SG_LATER : ask ? SG_ASK : SG_MOVED, slot,
                                 node, node_length);
        } else {
            sg_pipeline_fail_and_forget(p, r, SG_REFUSED, text, length);
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
        sg_pipeline_fail(p, r, SG_FOREIGN, NULL, 0);
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
        sg_pipeline_forget(p, r);
    }
    return true;
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
    const uint64_t ends = sg_pipeline_begin_handling(p);
    while (p->ends == ends && (state = sg_resp_next(p->resp, &reply)) == SG_RESP_READY) {
        if (!handle(p, &reply)) {
            state = SG_RESP_BROKEN;
            break;
        }
    }
    sg_pipeline_end_handling(p, ends);
    return state != SG_RESP_BROKEN;
}
