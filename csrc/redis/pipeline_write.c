/* What waits, put together as few commands. */
#include "pipeline_parts.h"

#include <stdlib.h>
#include <string.h>

#include "room.h"

#define FIND 512u /* places by which groups are found while a write is put together */

/* splitmix64 */
static uint64_t draw(sg_pipeline *p) {
    uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

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

uint32_t sg_pipeline_text_bit(const sg_request *r) {
    const int script = script_of(r);
    return script < 0 ? 0 : UINT32_C(1) << script;
}

/* While a script's text is under way the server will know it before it reads what follows. */
static void share_text(const sg_pipeline *p, const sg_group *g) {
    for (sg_request *r = g->row.first; r != NULL && (p->texts & sg_pipeline_text_bit(r));
         r = r->next)
        r->evaluate = false;
}

static bool put_batch(sg_pipeline *p, const sg_group *g) {
    sg_request *first = g->row.first;
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
    sg_request *first = g->row.first;
    share_text(p, g);
    if (!flight_room(p) || !(first->kind == SG_CHECK
                                 ? put_batch(p, g)
                                 : put_words(p, first->command, first->script, first->evaluate,
                                             first->asking)))
        return false;
    if (first->asking)
        *add_flight(p) = (sg_flight){NULL, 0, 0};
    const uint32_t text = first->evaluate ? sg_pipeline_text_bit(first) : 0;
    *add_flight(p) = (sg_flight){first, (unsigned)g->row.count, text};
    p->texts |= text;
    p->flying += g->row.count;
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
    const sg_request *f = g->row.first;
    return f->kind == SG_CHECK && r->kind == SG_CHECK && f->plan == r->plan && f->op == r->op &&
           f->order == r->order && g->run == run && f->slot == r->slot &&
           f->evaluate == r->evaluate && !r->alone && !f->alone && !r->asking && !f->asking &&
           g->row.count < SG_BATCH_MAX && (r->op != SG_RESERVE || f->ttl_us == r->ttl_us);
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
    sg_row unwanted = {0}, lacking = {0};
    sg_request *next;
    p->group_count = 0;
    p->pass++;
    for (sg_request *r = sg_pipeline_take_waiting(p); r != NULL; r = next) {
        next = r->next;
        if (r->over || !p->calls->wanted(p->owner, r)) {
            sg_row_append(&unwanted, r);
            continue;
        }
        sg_group *g = group_of(p, found, r);
        if (g == NULL) {
            sg_row_append(&lacking, r);
            continue;
        }
        sg_row_append(&g->row, r);
    }
    for (size_t i = 0; i < p->group_count; i++) {
        const sg_group *g = &p->groups[i];
        if (put_group(p, g))
            continue;
        for (sg_request *r = g->row.first; r != NULL; r = next) {
            next = r->next;
            sg_row_append(&lacking, r);
        }
    }
    /* Now that all is in its place the owner may do as it likes. */
    for (sg_request *r = unwanted.first; r != NULL; r = next) {
        next = r->next;
        sg_pipeline_forget(p, r);
    }
    sg_pipeline_fail_row(p, lacking.first, SG_NO_ROOM, NULL, 0);
}

void sg_pipeline_sent(sg_pipeline *p) {
    p->out_used = 0;
    if (p->out_room > (1u << 20)) { /* after a burst */
        free(p->out);
        p->out = NULL;
        p->out_room = 0;
    }
}
