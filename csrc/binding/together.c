/* Several limiters of one store at once: all admit, or none is charged. */
#include "server.h"

#include <stdlib.h>
#include <string.h>

/* ---- the reply */

/* What all.lua says of each member, and the one that binds: its index; -1: no such reply. */
static Py_ssize_t judge_all(sgpy_ask *ask, const sg_reply *reply, sgpy_outcome *outs,
                            bool *charged) {
    const sg_node *node = reply->nodes + 1;
    unsigned asked = 0;
    Py_ssize_t best = -1;
    for (unsigned i = 0; i < ask->member_count; i++) {
        asked += !ask->members[i].merged && ask->members[i].enabled;
    }
    if (reply->nodes[0].type != SG_RESP_ARRAY || reply->count != asked + 3u ||
        node[asked].type != SG_RESP_INTEGER || node[asked + 1].type != SG_RESP_INTEGER ||
        node[asked + 1].number < 0) {
        return -1;
    }
    *charged = node[asked].number == 1;
    const uint64_t now_us = (uint64_t)node[asked + 1].number;
    for (unsigned i = 0; i < ask->member_count; i++) {
        const sgpy_member *m = &ask->members[i];
        if (m->merged) {
            continue;
        }
        if (!m->enabled) {
            sgpy_admit(&outs[i]);
        } else {
            if (node->type != SG_RESP_STRING && node->type != SG_RESP_NIL) {
                return -1;
            }
            memset(&outs[i], 0, sizeof outs[i]);
            if (sg_answer_hit(&m->plan->plan, m->costs,
                              node->type == SG_RESP_NIL ? NULL : reply->bytes + node->start,
                              node->length, now_us, &outs[i].decision) == SG_SEEN_ERROR) {
                return -2 - (Py_ssize_t)i;
            }
            sgpy_set_flags(m->limiter, &outs[i]);
            node++;
        }
        const sgpy_one one = {&outs[i], m->plan->plan.quotas};
        if (best < 0) {
            best = (Py_ssize_t)i;
        } else {
            const sgpy_one other = {&outs[best], ask->members[best].plan->plan.quotas};
            best = sgpy_binds(&one, &other) ? (Py_ssize_t)i : best;
        }
    }
    return best;
}

void sgpy_all_replied(sgpy_ask *ask, const sg_reply *reply) {
    sgpy_outcome *outs = PyMem_Calloc(ask->member_count, sizeof *outs);
    bool charged = false;
    unsigned flags = 0;
    if (outs == NULL) {
        PyErr_NoMemory();
        sgpy_ask_deliver(ask, NULL);
        return;
    }
    const Py_ssize_t best = judge_all(ask, reply, outs, &charged);
    if (best < 0) {
        if (best <= -2) {
            ask->key = Py_XNewRef(ask->members[-2 - best].key);
            sgpy_ask_raise(ask, SG_FOREIGN, NULL, 0);
        } else {
            sgpy_ask_raise(ask, SG_REFUSED, "a reply that is none", 20);
        }
        sgpy_ask_deliver(ask, NULL);
        PyMem_Free(outs);
        return;
    }
    for (unsigned i = 0; i < ask->member_count; i++) {
        const sgpy_member *m = &ask->members[i];
        if (m->merged || !m->enabled) {
            continue;
        }
        flags |= outs[i].flags & SGPY_SHADOW;
        if (charged || !outs[i].decision.allowed) {
            sgpy_count_elsewhere(m->server->table, m->fp, m->bytes.data, m->bytes.length,
                                 &outs[i]);
        }
    }
    const sgpy_member *m = &ask->members[best];
    outs[best].flags |= flags;
    PyObject *decision = sgpy_outcome_decision(ask->state, m->quotas, &outs[best]);
    decision = sgpy_observed(m->limiter, m->key, decision);
    PyMem_Free(outs);
    sgpy_ask_deliver(ask, decision == NULL ? NULL : Py_BuildValue("(Nn)", decision, best));
    if (m->server->degraded) {
        sgpy_server_recovered(m->server);
    }
}

/* ---- the question */

static int read_member(sgpy_state *st, PyObject *triple, sgpy_member *m) {
    if (!PyTuple_Check(triple) || PyTuple_GET_SIZE(triple) != 3 ||
        !sgpy_is_limiter(st, PyTuple_GET_ITEM(triple, 0))) {
        PyErr_SetString(PyExc_TypeError, "hit_all takes tuples (limiter, key, cost)");
        return -1;
    }
    sgpy_limiter *limiter = (sgpy_limiter *)PyTuple_GET_ITEM(triple, 0);
    m->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    if (limiter->server == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a limiter of this hit_all has no server");
        return -1;
    }
    const uint64_t version = limiter->version;
    m->server = (sgpy_server *)Py_NewRef((PyObject *)limiter->server);
    m->enabled = limiter->enabled;
    if (sgpy_cost_row(st, PyTuple_GET_ITEM(triple, 2), limiter->quotas, m->costs) < 0) {
        return -1;
    }
    if (limiter->version != version) {
        PyErr_SetString(PyExc_RuntimeError, "a cost changed a limiter");
        return -1;
    }
    sgpy_plan *plan = sgpy_plan_of(limiter);
    if (plan == NULL || sgpy_key_read(PyTuple_GET_ITEM(triple, 1), &m->bytes) < 0) {
        return -1;
    }
    m->plan = sgpy_plan_hold(plan);
    m->quotas = Py_NewRef(limiter->quotas);
    m->key = Py_NewRef(PyTuple_GET_ITEM(triple, 1));
    m->fp = sg_fingerprint_of(&m->server->table->secret, m->bytes.data, m->bytes.length);
    return 0;
}

/* One limiter and key given twice are one event of both costs. -1 with an exception. */
static int merge_members(sgpy_member *members, unsigned count) {
    for (unsigned i = 1; i < count; i++) {
        for (unsigned j = 0; j < i; j++) {
            sgpy_member *a = &members[j], *b = &members[i];
            if (a->merged || a->server != b->server || a->fp.lo != b->fp.lo ||
                a->fp.hi != b->fp.hi) {
                continue;
            }
            if (a->limiter != b->limiter) {
                PyErr_SetString(PyExc_ValueError, "two limiters of one name charge one key here: "
                                                  "hit_all takes one of them");
                return -1;
            }
            for (unsigned q = 0; q < SG_QUOTAS_MAX; q++) {
                a->costs[q] += b->costs[q];
                if (a->costs[q] > SG_COST_MAX) {
                    PyErr_SetString(PyExc_ValueError,
                                    "the costs of one limiter and key add up to more than 2**40");
                    return -1;
                }
            }
            b->merged = true;
            break;
        }
    }
    return 0;
}

/* The command; -1: MemoryError. */
static int all_command(sgpy_ask *ask) {
    unsigned keys = 0;
    size_t room = 0;
    for (unsigned i = 0; i < ask->member_count; i++) {
        const sgpy_member *m = &ask->members[i];
        if (!m->merged && m->enabled) {
            keys += 1 + m->plan->plan.logs;
            room = sg_max(room, m->server->head_length + SG_NAME_ROOM);
        }
    }
    char *name = PyMem_Malloc(room + 1);
    if (name == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    sg_command *c = ask->request.command;
    sg_command_begin(c, SG_SCRIPT_ALL, keys);
    for (unsigned i = 0; i < ask->member_count; i++) {
        const sgpy_member *m = &ask->members[i];
        const sgpy_server *server = m->server;
        if (m->merged || !m->enabled) {
            continue;
        }
        const size_t length = sg_name_write(server->head, server->head_length, &server->digests,
                                            m->bytes.data, m->bytes.length, name);
        sg_command_key(c, name, length);
        sg_command_rings(c, &m->plan->plan, name, length);
    }
    PyMem_Free(name);
    for (unsigned i = 0; i < ask->member_count; i++) {
        const sgpy_member *m = &ask->members[i];
        if (m->merged || !m->enabled) {
            continue;
        }
        uint8_t row[1 + SG_ROW_BYTES];
        row[0] = m->limiter->shadow ? 1 : 0;
        sg_command_argument(c, m->plan->plan.bytes, m->plan->plan.length);
        sg_command_argument(c, row, 1 + sg_row_of_costs(&m->plan->plan, m->costs, row + 1));
    }
    return 0;
}

PyObject *sgpy_ask_all(PyObject *module, PyObject *given) {
    sgpy_state *st = sgpy_state_of_module(module);
    PyObject *triples = PySequence_Tuple(given);
    sgpy_ask *ask = NULL;
    bool any = false;
    if (triples == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(triples);
    if (count < 1 || count > (Py_ssize_t)SG_BATCH_MAX) {
        PyErr_SetString(PyExc_ValueError, "hit_all takes 1 to 256 (limiter, key, cost)");
        goto fail;
    }
    ask = sgpy_words_new(st, SGPY_ASK_ALL, 0);
    if (ask == NULL) {
        goto fail;
    }
    ask->request.script = SG_SCRIPT_ALL;
    ask->members = PyMem_Calloc((size_t)count, sizeof *ask->members);
    if (ask->members == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    ask->member_count = (unsigned)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_member(st, PyTuple_GET_ITEM(triples, i), &ask->members[i]) < 0) {
            goto fail;
        }
        any |= ask->members[i].enabled;
        if (ask->members[i].server->store != ask->members[0].server->store) {
            PyErr_SetString(PyExc_ValueError, "the limiters of one question are of one store");
            goto fail;
        }
    }
    if (!any) {
        sgpy_outcome out;
        sgpy_admit(&out);
        PyObject *decision = sgpy_outcome_decision(st, ask->members[0].quotas, &out);
        sgpy_ask_free(ask);
        Py_DECREF(triples);
        return decision == NULL ? NULL : Py_BuildValue("(Ni)", decision, 0);
    }
    if (merge_members(ask->members, ask->member_count) < 0 || all_command(ask) < 0) {
        goto fail;
    }
    Py_DECREF(triples);
    const sgpy_member *first = &ask->members[0];
    sgpy_router *router = sgpy_server_router(first->server);
    if (router == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    return sgpy_ask_send(ask, router, first->limiter->timeout_ns);
fail:
    if (ask != NULL) {
        sgpy_ask_free(ask);
    }
    Py_XDECREF(triples);
    return NULL;
}
