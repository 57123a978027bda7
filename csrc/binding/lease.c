/* Leased quota: a hit spends what was drawn, or waits for the next draw of its key, of which there is
 * one at a time. See csrc/redis/purse.h for the promise. */
#include "server.h"

#include <string.h>

#define DRAWS 256u /* places by which draws under way are found */

struct sgpy_draw {
    struct sgpy_draw *next;
    sg_fingerprint fp;
    sgpy_limiter *limiter;   /* whose it is; borrowed from its asks */
    sgpy_ask *first, *last;  /* who waits for it */
};

struct sgpy_lease {
    sg_purse *purse;
    sgpy_draw *draws[DRAWS];
};

/* ---- life */

static sgpy_lease *lease_of(sgpy_server *server) {
    if (server->lease == NULL) {
        server->lease = PyMem_Calloc(1, sizeof *server->lease);
        if (server->lease != NULL && (server->lease->purse = sg_purse_new()) == NULL) {
            PyMem_Free(server->lease);
            server->lease = NULL;
        }
    }
    return server->lease;
}

int sgpy_lease_traverse(sgpy_lease *lease, visitproc visit, void *arg) {
    for (unsigned i = 0; lease != NULL && i < DRAWS; i++) {
        for (sgpy_draw *draw = lease->draws[i]; draw != NULL; draw = draw->next) {
            for (sgpy_ask *ask = draw->first; ask != NULL; ask = (sgpy_ask *)ask->request.next) {
                const int found = sgpy_ask_traverse(ask, visit, arg);
                if (found != 0) {
                    return found;
                }
            }
        }
    }
    return 0;
}

void sgpy_lease_free(sgpy_lease *lease) {
    for (unsigned i = 0; lease != NULL && i < DRAWS; i++) {
        while (lease->draws[i] != NULL) {
            sgpy_draw *draw = lease->draws[i];
            lease->draws[i] = draw->next;
            for (sgpy_ask *ask = draw->first, *next; ask != NULL; ask = next) {
                next = (sgpy_ask *)ask->request.next;
                sgpy_ask_free(ask);
            }
            PyMem_Free(draw);
        }
    }
    if (lease != NULL) {
        sg_purse_free(lease->purse);
        PyMem_Free(lease);
    }
}

void sgpy_lease_forget(sgpy_server *server, sg_fingerprint fp) {
    if (server->lease != NULL) {
        sg_purse_forget(server->lease->purse, fp);
    }
}

/* ---- draws under way */

static sgpy_draw **place_of(sgpy_lease *lease, const sgpy_ask *ask) {
    sgpy_draw **place = &lease->draws[ask->fp.lo % DRAWS];
    while (*place != NULL && ((*place)->fp.lo != ask->fp.lo || (*place)->fp.hi != ask->fp.hi ||
                              (*place)->limiter != ask->limiter)) {
        place = &(*place)->next;
    }
    return place;
}

static void wait_for(sgpy_draw *draw, sgpy_ask *ask) {
    ask->request.next = NULL;
    if (draw->last == NULL) {
        draw->first = ask;
    } else {
        draw->last->request.next = (sg_request *)ask;
    }
    draw->last = ask;
}

/* The question that draws for `ask`. NULL with MemoryError. */
static sgpy_ask *draw_for(const sgpy_ask *ask) {
    sgpy_ask *draw = sgpy_ask_new(ask->state, ask->request.name_length);
    if (draw == NULL) {
        return NULL;
    }
    draw->kind = SGPY_ASK_DRAW;
    draw->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)ask->limiter);
    draw->server = (sgpy_server *)Py_NewRef((PyObject *)ask->server);
    draw->quotas = Py_NewRef(ask->quotas);
    draw->plan = sgpy_plan_hold(ask->plan);
    draw->key = Py_NewRef(ask->key);
    draw->fp = ask->fp;
    draw->request.kind = SG_CHECK;
    draw->request.op = SG_HIT;
    draw->request.plan = &draw->plan->plan;
    draw->request.order = ask->request.order;
    draw->request.slot = ask->request.slot;
    draw->request.name_length = ask->request.name_length;
    memcpy(draw->name, ask->name, ask->request.name_length);
    draw->made_ns = sgpy_now_ns(ask->state);
    sg_purse_lack(ask->server->lease->purse, ask->fp, &ask->plan->plan,
                  ask->request.costs, ask->limiter->lease, draw->made_ns, draw->request.costs);
    draw->request.deadline_ns = draw->made_ns + ask->limiter->timeout_ns;
    return draw;
}

/* ---- spending */

sg_purse_state sgpy_lease_take(sgpy_server *server, sg_fingerprint fp, const sg_plan *plan,
                               const uint64_t *costs, sg_decision *out) {
    if (server->lease == NULL) {
        return SG_PURSE_NONE;
    }
    return sg_purse_take(server->lease->purse, fp, plan, costs, sgpy_now_ns(server->state), out);
}

/* Such an event is admitted unless its key is banned: only the server knows. */
static bool costs_nothing(const sgpy_ask *ask) {
    for (unsigned i = 0; i < ask->plan->plan.count; i++) {
        if (ask->request.costs[i] > 0) {
            return false;
        }
    }
    return true;
}

PyObject *sgpy_lease_hit(sgpy_ask *ask, sgpy_link *link, sgpy_leased *leased) {
    sgpy_lease *lease = lease_of(ask->server);
    sg_purse_state state;
    *leased = SGPY_LEASE_ASK;
    if (lease == NULL) {
        return NULL; /* no memory to lease with: ask */
    }
    PyObject *result = sgpy_spend(ask->limiter, ask->server, ask->quotas, &ask->plan->plan, ask->key,
                                  &ask->bytes, ask->fp, ask->request.costs, &state);
    if (state == SG_PURSE_TAKEN) {
        *leased = SGPY_LEASE_DONE;
        return result;
    }
    if (state == SG_PURSE_DRY || costs_nothing(ask) ||
        !sg_purse_room(lease->purse, ask->fp, sgpy_now_ns(ask->state))) {
        return NULL; /* asked about as any other */
    }
    sgpy_draw **place = place_of(lease, ask);
    if (*place == NULL) {
        sgpy_draw *made = PyMem_Calloc(1, sizeof *made);
        sgpy_ask *question = made == NULL ? NULL : draw_for(ask);
        if (question == NULL || sgpy_link_add(link, question) < 0) {
            if (question != NULL) {
                sgpy_ask_free(question);
            }
            PyMem_Free(made);
            PyErr_Clear();
            return NULL; /* so it is asked about itself */
        }
        made->fp = ask->fp;
        made->limiter = ask->limiter;
        *place = made;
    }
    ask->link = link;
    wait_for(*place, ask);
    *leased = SGPY_LEASE_WAITS;
    return NULL;
}

/* ---- what becomes of a draw */

/* Takes off who waits for it; NULL: nobody (the child of a fork forgot them). */
static sgpy_ask *take_waiting(sgpy_ask *draw) {
    sgpy_server *server = draw->server;
    if (server->lease == NULL) {
        return NULL;
    }
    sgpy_draw **place = place_of(server->lease, draw), *found = *place;
    if (found == NULL) {
        return NULL;
    }
    sgpy_ask *first = found->first;
    *place = found->next;
    PyMem_Free(found);
    return first;
}

/* Asks for the event itself. */
static void ask_itself(sgpy_ask *ask, sgpy_link *link) {
    if (link->down != NULL || sgpy_link_add(link, ask) < 0) {
        PyErr_Clear();
        sgpy_ask_give_up(ask, SG_UNSENT, NULL, 0);
    }
}

void sgpy_lease_drawn(sgpy_ask *draw, const sg_answer *answer) {
    sgpy_server *server = draw->server;
    sgpy_ask *ask = take_waiting(draw), *next;
    sgpy_link *link = draw->link;
    if (server->lease == NULL) {
        return;
    }
    sgpy_lease *lease = server->lease;
    const int64_t now_ns = sgpy_now_ns(draw->state);
    if (answer->decision.allowed) {
        (void)sg_purse_put(lease->purse, draw->fp, &draw->plan->plan, draw->request.costs,
                           &answer->decision, answer->bytes, answer->length, answer->now_us,
                           draw->made_ns, now_ns);
    } else {
        const uint64_t retry_ns = answer->decision.verdict.retry / SG_TICKS_PER_NS;
        sg_purse_dry(lease->purse, draw->fp, now_ns,
                     now_ns + (int64_t)sg_min(retry_ns, (uint64_t)SG_LEASE_NS));
    }
    Py_INCREF((PyObject *)server);
    for (; ask != NULL; ask = next) {
        sgpy_leased leased = SGPY_LEASE_ASK;
        next = (sgpy_ask *)ask->request.next;
        ask->request.next = NULL;
        if (!sgpy_ask_wanted(ask)) { /* cancelled while it waited: nothing is spent */
            sgpy_ask_free(ask);
            continue;
        }
        PyObject *result = server->lease == lease ? sgpy_lease_hit(ask, link, &leased) : NULL;
        if (leased == SGPY_LEASE_DONE) {
            ask->request.over = true;
            sgpy_ask_deliver(ask, result);
            sgpy_ask_free(ask);
        } else if (leased == SGPY_LEASE_ASK) {
            ask_itself(ask, link);
        }
    }
    Py_DECREF((PyObject *)server);
}

void sgpy_lease_failed(sgpy_ask *draw, sg_failure failure, const char *text, size_t length) {
    sgpy_ask *ask = take_waiting(draw), *next;
    for (; ask != NULL; ask = next) {
        next = (sgpy_ask *)ask->request.next;
        sgpy_ask_give_up(ask, failure, text, length);
    }
}
