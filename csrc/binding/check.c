/* Checks that a server decides, from Python's objects to a request: one, many, or none where what is
 * known here will do. */
#include "server.h"

#include <string.h>

/* A check from Python's objects: all that may run Python code but for the router. NULL with an
 * exception. */
static sgpy_ask *check_new(sgpy_limiter *limiter, sg_check_op op, PyObject *key, PyObject *cost,
                           PyObject *quotas) {
    sgpy_server *server = limiter->server;
    sgpy_state *st = limiter->state;
    const uint64_t version = limiter->version;
    sgpy_ask *ask = sgpy_ask_new(st, server->head_length + SG_NAME_ROOM);
    if (ask == NULL) {
        return NULL;
    }
    ask->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    ask->server = (sgpy_server *)Py_NewRef((PyObject *)server);
    ask->request.kind = SG_CHECK;
    ask->request.op = (uint8_t)op;
    ask->request.repeatable = op == SG_PEEK;
    if (SG_LIKELY(cost == NULL)) {
        memcpy(ask->request.costs, sgpy_ones, sizeof ask->request.costs);
    } else if (sgpy_cost_row(st, cost, limiter->quotas, ask->request.costs) < 0) {
        goto fail;
    }
    if (SG_UNLIKELY(limiter->version != version)) {
        goto changed;
    }
    if (SG_LIKELY(quotas == NULL)) {
        ask->plan = sgpy_plan_of(limiter);
        ask->quotas = Py_NewRef(limiter->quotas);
        ask->leases = true;
        if (ask->plan != NULL) {
            (void)sgpy_plan_hold(ask->plan);
        }
    } else {
        sg_quota rows[SG_QUOTAS_MAX];
        if (sgpy_other_rows(limiter, server->table, quotas, rows, &ask->quotas) < 0) {
            goto fail;
        }
        if (limiter->version != version) {
            goto changed;
        }
        ask->plan = sgpy_plan_of_rows(server, ask->quotas, rows);
    }
    if (ask->plan == NULL) {
        goto fail;
    }
    if (sgpy_key_read(key, &ask->bytes) < 0) {
        goto fail;
    }
    ask->key = Py_NewRef(key);
    ask->request.plan = &ask->plan->plan;
    ask->request.order = &server->order;
    ask->fp = sg_fingerprint_of(&server->table->secret, ask->bytes.data, ask->bytes.length);
    sgpy_ask_write_name(ask, server, &ask->bytes);
    return ask;
changed:
    PyErr_SetString(PyExc_RuntimeError, "a cost, or what quotas= gave, changed the limiter");
fail:
    sgpy_ask_free(ask);
    return NULL;
}

/* A refusal that is remembered, as the result; NULL: there is none, or an exception. */
static PyObject *remembered(sgpy_ask *ask) {
    sgpy_server *server = ask->server;
    sgpy_outcome out;
    if (server->denied == NULL ||
        !sg_denied_get(server->denied, ask->fp, &ask->plan->plan, ask->request.costs,
                       sgpy_now_ns(ask->state), &out.decision)) {
        return NULL;
    }
    sgpy_set_flags(ask->limiter, &out);
    sgpy_count_elsewhere(server->table, ask->fp, ask->bytes.data, ask->bytes.length, &out);
    return sgpy_ask_result(ask, &out, NULL);
}

/* Hands a check on, to the lease or to the link. Where it is decided at once it is freed, and *result
 * is what it came to, NULL with an exception. -1 with an exception: it is still the caller's. 1 with
 * an exception: see sgpy_link_ask. */
static int add(sgpy_link *link, sgpy_ask *ask, PyObject **result) {
    sgpy_leased leased = SGPY_LEASE_ASK;
    *result = NULL;
    if (SG_UNLIKELY(ask->limiter->lease > 0 && ask->request.op == SG_HIT && ask->leases)) {
        *result = sgpy_lease_hit(ask, link, &leased);
        if (leased == SGPY_LEASE_DONE) {
            sgpy_ask_free(ask);
            return 0;
        }
    }
    return leased == SGPY_LEASE_WAITS ? 0 : sgpy_link_ask(link, ask);
}

/* Sends a check; *result is what is known at once (NULL with an exception: a failure), or NULL
 * and *future is set. The ask is gone in any case. */
static PyObject *begin(sgpy_ask *ask, PyObject **future) {
    sgpy_limiter *limiter = ask->limiter;
    PyObject *result = NULL;
    if (limiter->deny_ns > 0 && ask->request.op == SG_HIT) {
        result = remembered(ask);
        if (result != NULL || PyErr_Occurred()) {
            sgpy_ask_free(ask);
            return result;
        }
    }
    sgpy_router *router = sgpy_server_router(limiter->server);
    sgpy_link *link = router == NULL ? NULL : sgpy_ask_link(ask, router);
    if (link == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    if (link->down != NULL) {
        size_t length;
        const char *text = sgpy_link_why_down(link, &length);
        Py_INCREF(link);
        ask->link = link;
        result = sgpy_ask_result_without(ask, SG_UNSENT, text, length);
        sgpy_ask_free(ask);
        Py_DECREF(link);
        return result;
    }
    Py_INCREF(link);
    PyObject *made = PyObject_CallNoArgs(link->create_future);
    if (made != NULL) {
        ask->future = Py_NewRef(made);
        sgpy_ask_set_deadline(ask, link, limiter->timeout_ns);
        if (add(link, ask, &result) < 0) {
            sgpy_ask_free(ask);
            Py_CLEAR(made);
        } else if (result != NULL || PyErr_Occurred()) {
            Py_CLEAR(made); /* units had come meanwhile, or it was interrupted */
        }
    } else {
        sgpy_ask_free(ask);
    }
    Py_DECREF(link);
    *future = made;
    return result;
}

/* The decision of a disabled limiter, in the form that the operation has. */
static PyObject *disabled(sgpy_limiter *limiter, sg_check_op op, PyObject *key, bool details) {
    sgpy_outcome out;
    sgpy_admit(&out);
    PyObject *decision = sgpy_outcome_decision(limiter->state, limiter->quotas, &out);
    if (op == SG_HIT) {
        decision = sgpy_observed(limiter, key, decision);
    }
    if (decision == NULL || (op != SG_RESERVE && !details)) {
        return decision;
    }
    if (op == SG_RESERVE) {
        return Py_BuildValue("(NO)", decision, Py_None);
    }
    PyObject *remaining = PyTuple_New((Py_ssize_t)limiter->count);
    for (unsigned i = 0; remaining != NULL && i < limiter->count; i++) {
        PyTuple_SET_ITEM(remaining, (Py_ssize_t)i, Py_NewRef(Py_None));
    }
    if (remaining == NULL) {
        Py_DECREF(decision);
        return NULL;
    }
    return Py_BuildValue("(NIN)", decision, 0u, remaining);
}

/* What is drawn is spent without an ask being made of it. NULL: there is too little, or an
 * exception. */
static PyObject *spend_at_once(sgpy_limiter *limiter, PyObject *key, PyObject *cost) {
    uint64_t costs[SG_QUOTAS_MAX];
    sg_purse_state state;
    sgpy_key bytes;
    sgpy_plan *plan = sgpy_plan_of(limiter);
    if (plan == NULL || (cost != NULL && !PyLong_CheckExact(cost))) {
        return NULL; /* a mapping may run code: as any other */
    }
    costs[0] = 1;
    if ((cost != NULL && sgpy_cost_one(cost, costs) < 0) || sgpy_key_read(key, &bytes) < 0) {
        return NULL;
    }
    for (unsigned i = 1; i < limiter->count; i++) {
        costs[i] = costs[0];
    }
    (void)sgpy_plan_hold(plan);
    PyObject *quotas = Py_NewRef(limiter->quotas);
    const sg_fingerprint fp = sg_fingerprint_of(&limiter->server->table->secret, bytes.data,
                                                bytes.length);
    PyObject *decision = sgpy_spend(limiter, limiter->server, quotas, &plan->plan, key, &bytes, fp,
                                    costs, &state);
    Py_DECREF(quotas);
    sgpy_plan_release(plan);
    sgpy_key_done(&bytes);
    return decision;
}

PyObject *sgpy_ask_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas,
                       PyObject **delegate) {
    if (SG_UNLIKELY(!limiter->enabled)) {
        return disabled(limiter, SG_HIT, key, false);
    }
    if (limiter->lease > 0 && quotas == NULL) {
        PyObject *decision = spend_at_once(limiter, key, cost);
        if (decision != NULL || PyErr_Occurred()) {
            return decision;
        }
    }
    sgpy_ask *ask = check_new(limiter, SG_HIT, key, cost, quotas);
    return ask == NULL ? NULL : begin(ask, delegate);
}

/* 0, or -1 and RuntimeError where the limiter has no server. */
static int over_server(const sgpy_limiter *limiter) {
    if (limiter->server != NULL && limiter->table != NULL) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "this limiter has no server to ask");
    return -1;
}

PyObject *sgpy_limiter_ask(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"operation", "key", "cost", "quotas", "ttl", "detailed", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *key, *cost = NULL, *quotas = NULL, *ttl = NULL, *future = NULL;
    int which, details = 0;
    sg_ticks ttl_ticks = 60 * SG_TICKS_PER_SECOND;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO|OOOi:_ask", names, &which, &key, &cost,
                                     &quotas, &ttl, &details) ||
        over_server(limiter) < 0 || (ttl != NULL && sgpy_seconds(ttl, "ttl", &ttl_ticks) < 0)) {
        return NULL;
    }
    if (which < SG_PEEK || which > SG_RESERVE) {
        PyErr_SetString(PyExc_ValueError, "an operation is 0 (peek), 1 (hit) or 2 (reserve)");
        return NULL;
    }
    const sg_check_op operation = (sg_check_op)which;
    if (!limiter->enabled) {
        return disabled(limiter, operation, key, (details & 1) != 0);
    }
    sgpy_ask *ask = check_new(limiter, operation, key, cost,
                              quotas == Py_None ? NULL : quotas);
    if (ask == NULL) {
        return NULL;
    }
    ask->request.ttl_us = operation == SG_RESERVE
                              ? (ttl_ticks + SG_TICKS_PER_US - 1) / SG_TICKS_PER_US : 0;
    ask->detailed = (details & 1) != 0;
    ask->quiet = (details & 2) != 0;
    PyObject *result = begin(ask, &future);
    return future != NULL ? future : result;
}

/* ---- hit_many */

static sgpy_many *many_new(Py_ssize_t count) {
    sgpy_many *many = PyMem_Calloc(1, sizeof *many);
    if (many == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    many->users = 1;
    many->left = count;
    many->list = PyList_New(count);
    if (many->list == NULL) {
        sgpy_many_release(many);
        return NULL;
    }
    /* The collector may not empty what is still being filled, nor show it to anybody. */
    PyObject_GC_UnTrack(many->list);
    return many;
}

/* One of many that is known at once (stolen; NULL: an exception is set). */
static void keep_result(sgpy_many *many, Py_ssize_t index, PyObject *result) {
    PyObject *error = result == NULL ? sgpy_take_exception() : NULL;
    many->left--;
    if (result != NULL) {
        PyList_SET_ITEM(many->list, index, result);
    } else if (many->error == NULL) {
        many->error = error;
    } else {
        Py_XDECREF(error);
    }
}

/* Begins one of many; -1 with an exception. */
static int begin_one(sgpy_many *many, Py_ssize_t index, sgpy_ask *ask, sgpy_router *router) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_link *link;
    PyObject *result = NULL;
    if (limiter->deny_ns > 0) {
        result = remembered(ask);
    }
    if (result == NULL && !PyErr_Occurred()) {
        link = sgpy_ask_link(ask, router);
        if (link == NULL) {
            sgpy_ask_free(ask);
            return -1;
        }
        Py_INCREF(link);
        ask->link = link;
        if (link->down == NULL) {
            sgpy_ask_set_deadline(ask, link, limiter->timeout_ns);
            if (PyList_GET_SIZE(many->list) > 1) {
                link->alone = 0; /* the others come at once */
            }
            ask->many = many;
            ask->index = index;
            many->users++;
            const int added = add(link, ask, &result);
            if (added < 0) {
                sgpy_ask_free(ask);
            }
            Py_DECREF(link);
            if (result != NULL || (added == 0 && PyErr_Occurred())) {
                keep_result(many, index, result);
            }
            return added == 0 ? 0 : -1;
        }
        size_t length;
        const char *text = sgpy_link_why_down(link, &length);
        result = sgpy_ask_result_without(ask, SG_UNSENT, text, length);
        Py_DECREF(link);
    }
    sgpy_ask_free(ask);
    keep_result(many, index, result);
    return 0;
}

PyObject *sgpy_limiter_ask_many(PyObject *op, PyObject *given) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *pairs = NULL, *result = NULL;
    sgpy_ask **asks = NULL;
    sgpy_many *many = NULL;
    Py_ssize_t made = 0, begun = 0, count = 0;
    if (over_server(limiter) < 0 || (pairs = PySequence_Tuple(given)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(pairs);
    asks = PyMem_Calloc((size_t)count + 1, sizeof *asks);
    many = many_new(count);
    if (asks == NULL || many == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        goto done;
    }
    /* All are made before any is asked: a bad one charges nothing. */
    for (; made < count; made++) {
        PyObject *pair = PyTuple_GET_ITEM(pairs, made);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "hit_many takes tuples (key, cost)");
            goto done;
        }
        PyObject *key = PyTuple_GET_ITEM(pair, 0);
        if (!limiter->enabled) {
            PyObject *decision = disabled(limiter, SG_HIT, key, false);
            if (decision == NULL) {
                goto done;
            }
            PyList_SET_ITEM(many->list, made, decision);
            many->left--;
            continue;
        }
        asks[made] = check_new(limiter, SG_HIT, key, PyTuple_GET_ITEM(pair, 1), NULL);
        if (asks[made] == NULL) {
            goto done;
        }
    }
    sgpy_router *router = many->left == 0 ? NULL : sgpy_server_router(limiter->server);
    if (router == NULL && many->left > 0) {
        goto done;
    }
    Py_XINCREF(router);
    for (; begun < count; begun++) {
        sgpy_ask *ask = asks[begun];
        asks[begun] = NULL;
        if (ask != NULL && begin_one(many, begun, ask, router) < 0) {
            Py_XDECREF(router);
            goto done; /* those that were begun have a list, and nobody who waits for it */
        }
    }
    if (many->left == 0) {
        if (many->error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(many->error), many->error);
        } else {
            PyObject_GC_Track(many->list);
            result = Py_NewRef(many->list);
        }
    } else {
        many->future = PyObject_CallMethod(router->loop, "create_future", NULL);
        result = Py_XNewRef(many->future);
    }
    Py_XDECREF(router);
done:
    for (Py_ssize_t i = 0; asks != NULL && i < count; i++) {
        if (asks[i] != NULL) {
            sgpy_ask_free(asks[i]);
        }
    }
    PyMem_Free(asks);
    sgpy_many_release(many);
    Py_DECREF(pairs);
    return result;
}
