/* Several events in one call: each by itself (hit_many), or all or none (hit_all). */
#include "operations.h"

#include <string.h>

/* ---- hit_many */

/* Converts and charges one pair; no clock, no observer. */
static PyObject *hit_one(sgpy_event *event) {
    sgpy_outcome out;
    if (sgpy_charge(event->limiter, event->rows, event->fp, event->key.data, event->key.length,
                    event->costs, event->now, &out) < 0) {
        return NULL;
    }
    return sgpy_outcome_decision(event->limiter->state, event->quotas, &out);
}

/* A pair as (key, cost), borrowed from it; -1: TypeError. */
static int read_pair(PyObject *pair, PyObject **key, PyObject **cost) {
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "hit_many takes tuples (key, cost)");
        return -1;
    }
    *key = PyTuple_GET_ITEM(pair, 0);
    *cost = PyTuple_GET_ITEM(pair, 1);
    return 0;
}

/* Begins the events of all pairs, so that a bad one is found before any is charged. */
static Py_ssize_t begin_all(sgpy_event *events, sgpy_limiter *limiter, PyObject *pairs) {
    const Py_ssize_t count = PyTuple_GET_SIZE(pairs);
    Py_ssize_t begun = 0;
    for (; begun < count; begun++) {
        PyObject *key, *cost;
        if (read_pair(PyTuple_GET_ITEM(pairs, begun), &key, &cost) < 0 ||
            sgpy_event_begin(&events[begun], limiter, key, cost) < 0) {
            break;
        }
    }
    return begun;
}

PyObject *sgpy_limiter_hit_many_nowait(PyObject *op, PyObject *given) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *list = NULL, *pairs = PySequence_Tuple(given);
    sgpy_event *events = NULL;
    Py_ssize_t begun = 0;
    if (pairs == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(pairs);
    events = PyMem_Calloc((size_t)count + 1, sizeof *events);
    if (events == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    begun = begin_all(events, limiter, pairs);
    if (begun < count || (list = PyList_New(count)) == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        sgpy_event *event = &events[i];
        if (event->version != limiter->version) {
            PyErr_SetString(PyExc_RuntimeError, "a cost or the clock changed the limiter");
            goto fail;
        }
        PyObject *decision = hit_one(event);
        if (decision == NULL) {
            goto fail;
        }
        PyList_SET_ITEM(list, i, decision);
    }
    for (Py_ssize_t i = 0; i < count && limiter->state->observer != NULL; i++) {
        PyObject *key = PyTuple_GET_ITEM(PyTuple_GET_ITEM(pairs, i), 0);
        PyObject *decision = sgpy_observed(limiter, key, Py_NewRef(PyList_GET_ITEM(list, i)));
        if (decision == NULL) {
            goto fail;
        }
        Py_DECREF(decision);
    }
    goto done;
fail:
    Py_CLEAR(list);
done:
    for (Py_ssize_t i = 0; i < begun; i++) {
        sgpy_event_end(&events[i]);
    }
    PyMem_Free(events);
    Py_DECREF(pairs);
    return list;
}

/* ---- hit_all */

typedef struct {
    sgpy_event event;
    sgpy_outcome out;
    sg_receipt receipt;
    bool merged;    /* its costs are in an earlier one */
    bool reserved;
} member;

static int begin_member(const sgpy_state *st, PyObject *triple, member *m) {
    if (!PyTuple_Check(triple) || PyTuple_GET_SIZE(triple) != 3) {
        PyErr_SetString(PyExc_TypeError, "hit_all takes tuples (limiter, key, cost)");
        return -1;
    }
    PyObject *limiter = PyTuple_GET_ITEM(triple, 0);
    if (!sgpy_is_limiter(st, limiter)) {
        PyErr_Format(PyExc_TypeError, "hit_all takes limiters, not %.200s",
                     Py_TYPE(limiter)->tp_name);
        return -1;
    }
    return sgpy_event_begin(&m->event, (sgpy_limiter *)limiter, PyTuple_GET_ITEM(triple, 1),
                            PyTuple_GET_ITEM(triple, 2));
}

static bool same_key(const sgpy_event *a, const sgpy_event *b) {
    return a->limiter == b->limiter && a->table == b->table && a->fp.lo == b->fp.lo &&
           a->fp.hi == b->fp.hi;
}

/* One limiter and key given twice are one event of both costs. */
static int merge(member *members, Py_ssize_t count) {
    for (Py_ssize_t i = 1; i < count; i++) {
        for (Py_ssize_t j = 0; j < i && !members[i].merged; j++) {
            sgpy_event *first = &members[j].event, *again = &members[i].event;
            if (members[j].merged || !same_key(first, again)) {
                continue;
            }
            for (unsigned q = 0; q < SG_QUOTAS_MAX; q++) {
                first->costs[q] += again->costs[q];
                if (first->costs[q] > SG_COST_MAX) {
                    PyErr_SetString(PyExc_ValueError,
                                    "the costs of one limiter and key add up to more than 2**40");
                    return -1;
                }
            }
            members[i].merged = true;
        }
    }
    return 0;
}

/* Of two admissions the one with less left binds; one that nothing limits never does. */
static bool fuller(const sgpy_one *a, const sgpy_one *b) {
    const unsigned qa = a->out->decision.binding, qb = b->out->decision.binding;
    if (qa >= SG_QUOTAS_MAX || qb >= SG_QUOTAS_MAX) {
        return qa < SG_QUOTAS_MAX;
    }
    return (sg_u128)a->out->decision.verdict.level * b->rows[qb].capacity >
           (sg_u128)b->out->decision.verdict.level * a->rows[qa].capacity;
}

bool sgpy_binds(const sgpy_one *one, const sgpy_one *other) {
    const sg_decision *a = &one->out->decision, *b = &other->out->decision;
    return a->allowed != b->allowed ? !a->allowed
           : a->allowed             ? fuller(one, other)
                                    : a->verdict.retry > b->verdict.retry;
}

static Py_ssize_t binding(const member *members, Py_ssize_t count) {
    Py_ssize_t best = 0;
    for (Py_ssize_t i = 1; i < count; i++) {
        const sgpy_one a = {&members[i].out, members[i].event.rows};
        const sgpy_one b = {&members[best].out, members[best].event.rows};
        if (!members[i].merged && sgpy_binds(&a, &b)) {
            best = i;
        }
    }
    return best;
}

static void refund(member *members, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (members[i].reserved) {
            sgpy_refund(&members[i].event, &members[i].receipt); /* needs no memory */
        }
    }
}

/* Reserves one after another; where one is refused after all (two limiters over one state)
 * or finds the store full, the others get theirs back. 1: all are charged, 0: none. */
static int reserve_all(member *members, Py_ssize_t count, Py_ssize_t *index) {
    const sg_ticks ttl = 60 * SG_TICKS_PER_SECOND;
    for (Py_ssize_t i = 0; i < count; i++) {
        member *m = &members[i];
        if (m->merged || (m->out.flags & SGPY_TURNED)) {
            continue;
        }
        if (sgpy_reserve_uncounted(&m->event, ttl, &m->out, &m->receipt) < 0) {
            refund(members, i);
            return -1;
        }
        if (!m->out.decision.allowed) {
            refund(members, i);
            *index = i;
            return 0;
        }
        m->reserved = m->receipt.open;
    }
    return 1;
}

/* Whether a charge of it cannot fail: its cell is there and needs no more memory, and no other
 * process charges it meanwhile. */
static bool is_sure(const member *m) {
    sg_table *core = &m->event.table->core;
    return !m->event.limiter->enabled || (m->out.flags & SGPY_TURNED) ||
           (m->event.table->sharing == NULL && !core->layout.logs &&
            sg_table_find(core, m->event.fp) != NULL);
}

/* Whether all can be charged at once, since nothing can fail that would have to be taken
 * back: of those that may fail there is one, which *first is, in a table of its own (an
 * insert may evict), and no two limiters charge one state. */
static bool all_sure(const member *members, Py_ssize_t count, Py_ssize_t *first) {
    Py_ssize_t unsure = -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (members[i].merged || (!is_sure(&members[i]) && unsure >= 0)) {
            return false;
        }
        if (!is_sure(&members[i])) {
            unsure = i;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        for (Py_ssize_t j = 0; j < i; j++) {
            const sgpy_event *a = &members[i].event, *b = &members[j].event;
            if (a->table == b->table &&
                (i == unsure || j == unsure || (a->fp.lo == b->fp.lo && a->fp.hi == b->fp.hi))) {
                return false;
            }
        }
    }
    *first = unsure < 0 ? 0 : unsure;
    return true;
}

/* Charges them, `first` before the others. 1: all are charged, 0: none; -1 an exception. */
static int charge_all(member *members, Py_ssize_t count, Py_ssize_t first, Py_ssize_t *index) {
    for (Py_ssize_t k = 0; k < count; k++) {
        const Py_ssize_t i = k == 0 ? first : k - (k <= first);
        member *m = &members[i];
        if (m->out.flags & SGPY_TURNED) {
            continue;
        }
        if (sgpy_charge_uncounted(&m->event, &m->out) < 0) {
            return -1;
        }
        if (!m->out.decision.allowed) {
            *index = i; /* the first, and on_full refused it */
            return 0;
        }
    }
    return 1;
}

/* Settles every reservation at what it reserved. */
static void keep_all(member *members, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (members[i].reserved) {
            sgpy_keep(&members[i].event, &members[i].receipt);
        }
    }
}

static void count_members(member *members, Py_ssize_t count, bool charged) {
    for (Py_ssize_t i = 0; i < count; i++) {
        member *m = &members[i];
        if (!m->merged && (charged || !m->out.decision.allowed)) {
            sgpy_count(&m->event, &m->out);
        }
    }
}

/* Decides and charges all; NULL with an exception. Runs no Python code. */
static PyObject *decide_all(sgpy_state *st, member *members, Py_ssize_t count,
                            Py_ssize_t *index) {
    unsigned all = 0;
    bool admitted = true;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!members[i].merged) {
            if (sgpy_look(&members[i].event, &members[i].out) < 0) {
                return NULL;
            }
            admitted &= members[i].out.decision.allowed;
        }
    }
    *index = -1;
    Py_ssize_t first;
    int charged = 0;
    if (admitted && all_sure(members, count, &first)) {
        charged = charge_all(members, count, first, index);
    } else if (admitted) {
        charged = reserve_all(members, count, index);
        if (charged > 0) {
            keep_all(members, count);
        }
    }
    if (charged < 0) {
        return NULL;
    }
    count_members(members, count, charged != 0);
    if (*index < 0) {
        *index = binding(members, count);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        all |= members[i].merged ? 0u : members[i].out.flags & (SGPY_SHADOW | SGPY_DEGRADED);
    }
    member *m = &members[*index];
    m->out.flags |= all;
    return sgpy_outcome_decision(st, m->event.quotas, &m->out);
}

PyObject *sgpy_hit_all_nowait(PyObject *module, PyObject *given) {
    sgpy_state *st = sgpy_state_of_module(module);
    PyObject *decision = NULL, *result = NULL, *triples = PySequence_Tuple(given);
    member *members = NULL;
    Py_ssize_t begun = 0, index = 0;
    if (triples == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(triples);
    if (count == 0) {
        PyErr_SetString(PyExc_ValueError, "hit_all needs at least one (limiter, key, cost)");
        goto done;
    }
    members = PyMem_Calloc((size_t)count, sizeof *members);
    if (members == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; begun < count; begun++) {
        if (begin_member(st, PyTuple_GET_ITEM(triples, begun), &members[begun]) < 0) {
            goto done;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (members[i].event.version != members[i].event.limiter->version) {
            PyErr_SetString(PyExc_RuntimeError, "a cost or a clock changed a limiter");
            goto done;
        }
    }
    if (merge(members, count) == 0) {
        decision = decide_all(st, members, count, &index);
    }
    if (decision != NULL) {
        PyObject *triple = PyTuple_GET_ITEM(triples, index);
        decision = sgpy_observed(members[index].event.limiter, PyTuple_GET_ITEM(triple, 1),
                                 decision);
        result = decision == NULL ? NULL : Py_BuildValue("(Nn)", decision, index);
    }
done:
    for (Py_ssize_t i = 0; i < begun; i++) {
        sgpy_event_end(&members[i].event);
    }
    PyMem_Free(members);
    Py_DECREF(triples);
    return result;
}
