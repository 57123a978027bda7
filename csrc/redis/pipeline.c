#include "pipeline_parts.h"

#include <stdlib.h>
#include <string.h>

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

void sg_pipeline_add(sg_pipeline *p, sg_request *r) {
    sg_row_append(&p->waiting, r);
}

sg_request *sg_pipeline_take_waiting(sg_pipeline *p) {
    sg_request *first = p->waiting.first;
    p->waiting = (sg_row){0};
    p->put_back = NULL;
    return first;
}

void sg_pipeline_forget(sg_pipeline *p, sg_request *r) {
    if (r->held) /* its owner is being called about it; who does that forgets it */
        return;
    if (r->command != NULL) {
        sg_command_free(r->command);
        free(r->command);
        r->command = NULL;
    }
    p->calls->forget(p->owner, r);
}

void sg_pipeline_fail(sg_pipeline *p, sg_request *r, sg_failure failure, const char *text,
                      size_t length) {
    if (r->over)
        return;
    r->over = true;
    p->calls->failed(p->owner, r, failure, text, length);
}

void sg_pipeline_fail_and_forget(sg_pipeline *p, sg_request *r, sg_failure failure,
                                 const char *text, size_t length) {
    sg_pipeline_fail(p, r, failure, text, length);
    sg_pipeline_forget(p, r);
}

void sg_pipeline_put_back(sg_pipeline *p, const sg_row *row) {
    if (row->last == NULL)
        return;
    sg_request **place = p->put_back == NULL ? &p->waiting.first : &p->put_back->next;
    row->last->next = *place;
    *place = row->first;
    if (row->last->next == NULL)
        p->waiting.last = row->last;
    p->put_back = row->last;
    p->waiting.count += row->count;
}

void sg_pipeline_fail_row(sg_pipeline *p, sg_request *first, sg_failure failure, const char *text,
                          size_t length) {
    for (sg_request *r = first, *next; r != NULL; r = next) {
        next = r->next;
        sg_pipeline_fail_and_forget(p, r, failure, text, length);
    }
}

uint64_t sg_pipeline_begin_handling(sg_pipeline *p) {
    p->handling = true;
    return p->ends;
}

void sg_pipeline_end_handling(sg_pipeline *p, uint64_t ends) {
    p->handling = false;
    if (p->ends != ends) {
        sg_resp_free(p->resp);
        p->resp = NULL;
    }
}

/* ---- ends */

/* What was read of a stream that has ended says nothing about the next one. */
static void end_stream(sg_pipeline *p) {
    p->out_used = 0;
    p->ends++;
    if (!p->handling) {
        sg_resp_free(p->resp);
        p->resp = NULL;
    }
}

/* Fails what flies past its deadline; it stays until its reply comes, to be skipped then. */
static size_t expire_flying(sg_pipeline *p, int64_t now_ns, int64_t *next) {
    const uint64_t ends = sg_pipeline_begin_handling(p);
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
            sg_pipeline_fail(p, r, SG_TIMED_OUT, NULL, 0);
            r->held = false;
            if (p->ends != ends) { /* nothing flies any more */
                sg_pipeline_forget(p, r);
                sg_pipeline_end_handling(p, ends);
                return expired;
            }
        }
    }
    sg_pipeline_end_handling(p, ends);
    return expired;
}

size_t sg_pipeline_expire(sg_pipeline *p, int64_t now_ns, int64_t *next) {
    sg_row due = {0};
    *next = INT64_MAX;
    size_t expired = p->handling ? 0 : expire_flying(p, now_ns, next);
    sg_request *put_back = NULL, **place = &p->waiting.first;
    bool before = p->put_back != NULL; /* among what was put back */
    p->waiting.last = NULL;
    for (sg_request *r = p->waiting.first, *after; r != NULL; r = after) {
        after = r->next;
        const bool is_last = r == p->put_back;
        if (r->deadline_ns <= now_ns) {
            *place = after;
            sg_row_append(&due, r);
        } else {
            *next = r->deadline_ns < *next ? r->deadline_ns : *next;
            place = &r->next;
            p->waiting.last = r;
            put_back = before ? r : put_back;
        }
        before = before && !is_last;
    }
    p->put_back = put_back;
    p->waiting.count -= due.count;
    sg_pipeline_fail_row(p, due.first, SG_UNSENT, NULL, 0);
    return expired + due.count;
}

void sg_pipeline_each(const sg_pipeline *p, void (*visit)(void *context, sg_request *request),
                      void *context) {
    for (size_t i = 0; i < p->flight_count; i++) {
        for (sg_request *r = p->flights[(p->flight_first + i) % p->flight_room].first; r != NULL;
             r = r->next)
            visit(context, r);
    }
    for (sg_request *r = p->waiting.first; r != NULL; r = r->next)
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
    sg_row again = {0}, rest = {0};
    sg_request *next;
    for (sg_request *r = land(p); r != NULL; r = next) {
        next = r->next;
        if (r->over || !r->repeatable) {
            sg_row_append(&rest, r);
            continue;
        }
        r->asking = false;
        sg_row_append(&again, r);
    }
    end_stream(p);
    sg_pipeline_put_back(p, &again);
    sg_pipeline_fail_row(p, rest.first, SG_LOST, text, length);
}

void sg_pipeline_drop(sg_pipeline *p, sg_failure failure, const char *text, size_t length) {
    sg_request *flying = land(p);
    end_stream(p);
    sg_pipeline_fail_row(p, flying, failure == SG_UNSENT ? SG_LOST : failure, text, length);
    sg_pipeline_fail_row(p, sg_pipeline_take_waiting(p), failure, text, length);
}
