/* What a limiter does besides the plain hit: each method converts, then makes one call of
 * the core. */
#include "operations.h"
#include "shared.h"

#include <string.h>

/* The exception of a status, for what on_full has no answer to. */
static int check(sgpy_limiter *limiter, sg_status status) {
    if (SG_LIKELY(status == SG_OK)) {
        return 0;
    }
    if (!sgpy_is_full(limiter->table, status)) {
        PyErr_NoMemory();
    } else {
        PyErr_SetString(limiter->state->StoreFullError,
                        "the store is full of bans, reservations or held slots, so this cannot "
                        "be kept: raise its max_keys, max_bytes or size");
    }
    return -1;
}

/* The table of an event's key, entered; NULL with a StoreError: a change is not made by halves,
 * nor elsewhere, whatever on_store_error says. */
static sg_table *enter(sgpy_event *event) {
    sg_table *core = sgpy_enter_at(event->table, event->fp, &event->now);
    if (core == NULL) {
        sgpy_raise_stalled(event->table);
    }
    return core;
}

static PyObject *end(sgpy_event *event, bool done) {
    sgpy_event_end(event);
    return done ? Py_NewRef(Py_None) : NULL;
}

/* ---- hit */

static const char *const hit_names[] = {"key", "cost", "quotas", NULL};

static inline PyObject *unless_none(PyObject *object) {
    return object == Py_None ? NULL : object;
}

SGPY_FAST_METHOD(sgpy_limiter_hit_nowait) {
    PyObject *given[3];
    if (SG_LIKELY(nargs == 1 && kwnames == NULL)) {
        return sgpy_hit((sgpy_limiter *)op, args[0], NULL, NULL);
    }
    if (sgpy_args("hit_nowait", hit_names, 2, 1, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    return sgpy_hit((sgpy_limiter *)op, given[0], given[1], unless_none(given[2]));
}

static PyObject *run_hit(sgpy_state *st, PyObject *self, PyObject *key, PyObject *cost,
                         PyObject *quotas, PyObject **delegate) {
    sgpy_limiter *limiter = (sgpy_limiter *)self;
    (void)st;
    if (SG_UNLIKELY(limiter->server != NULL)) {
        return sgpy_ask_hit(limiter, key, cost, quotas, delegate);
    }
    return sgpy_hit(limiter, key, cost, quotas);
}

static const sgpy_call_kind hit_kind = {run_hit, "hit", "Limiter.hit"};

SGPY_FAST_METHOD(sgpy_limiter_hit_awaitable) {
    sgpy_state *st = ((sgpy_limiter *)op)->state;
    PyObject *given[3];
    if (SG_UNLIKELY(st == NULL)) {
        st = sgpy_state_for(Py_TYPE(op));
        if (st == NULL) {
            return NULL;
        }
    }
    if (SG_LIKELY(nargs == 1 && kwnames == NULL)) {
        return sgpy_call_new(st, &hit_kind, op, args[0], NULL, NULL);
    }
    if (sgpy_args("hit", hit_names, 2, 1, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    return sgpy_call_new(st, &hit_kind, op, given[0], given[1], unless_none(given[2]));
}

/* ---- peek, project */

SGPY_FAST_METHOD(sgpy_limiter_peek_nowait) {
    static const char *const names[] = {"key", "cost", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *given[2];
    sgpy_event event;
    sgpy_outcome out;
    if (sgpy_args("peek_nowait", names, 2, 1, args, nargs, kwnames, given) < 0 ||
        sgpy_event_begin(&event, limiter, given[0], given[1]) < 0) {
        return NULL;
    }
    if (sgpy_look(&event, &out) < 0) {
        sgpy_event_end(&event);
        return NULL;
    }
    PyObject *decision = sgpy_outcome_decision(limiter->state, event.quotas, &out);
    sgpy_event_end(&event);
    return decision;
}

/* The rows of all costs, `count` numbers each; NULL with an exception. */
static uint64_t *project_rows(sgpy_limiter *limiter, PyObject *costs, PyObject *quotas,
                              unsigned count) {
    const Py_ssize_t events = PyTuple_GET_SIZE(costs);
    uint64_t row[SG_QUOTAS_MAX];
    uint64_t *rows = PyMem_Calloc((size_t)events * count + 1, sizeof *rows);
    if (rows == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < events; i++) {
        if (sgpy_cost_row(limiter->state, PyTuple_GET_ITEM(costs, i), quotas, row) < 0) {
            PyMem_Free(rows);
            return NULL;
        }
        memcpy(rows + (size_t)i * count, row, count * sizeof *rows);
    }
    return rows;
}

SGPY_FAST_METHOD(sgpy_limiter_project_nowait) {
    static const char *const names[] = {"key", "costs", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *given[2], *costs = NULL, *result = NULL, *quotas = NULL;
    sgpy_event event;
    sg_ticks wait = 0;
    if (sgpy_args("project_nowait", names, 2, 2, args, nargs, kwnames, given) < 0 ||
        sgpy_limiter_ready(limiter) < 0) {
        return NULL;
    }
    costs = PySequence_Tuple(given[1]);
    if (costs == NULL) {
        return NULL;
    }
    for (int i = 0; i < 16 && result == NULL; i++) {
        const uint64_t version = limiter->version;
        const unsigned count = limiter->count;
        quotas = Py_NewRef(limiter->quotas);
        uint64_t *rows = project_rows(limiter, costs, quotas, count);
        Py_DECREF(quotas);
        if (rows == NULL || sgpy_event_begin(&event, limiter, given[0], NULL) < 0) {
            PyMem_Free(rows);
            goto done;
        }
        if (limiter->version == version) {
            sg_status status = SG_OK;
            bool entered = true;
            if (limiter->enabled && !limiter->shadow) {
                sg_table *core = enter(&event);
                entered = core != NULL;
                if (entered) {
                    status = sg_project(core, event.rows, event.fp, rows,
                                        (size_t)PyTuple_GET_SIZE(costs), event.now, &wait);
                    sgpy_leave(event.table);
                }
            }
            if (entered && check(limiter, status) == 0) {
                result = PyFloat_FromDouble(sgpy_seconds_of(wait));
            }
            i = 16;
        }
        PyMem_Free(rows);
        sgpy_event_end(&event);
    }
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_RuntimeError, "the costs change the limiter each time");
    }
done:
    Py_DECREF(costs);
    return result;
}

/* ---- penalize, reward */

/* Key and cost of a call: the event of it. */
static int begin(const char *function, sgpy_event *event, PyObject *op, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "cost", NULL};
    PyObject *given[2];
    if (sgpy_args(function, names, 2, 1, args, nargs, kwnames, given) < 0) {
        return -1;
    }
    return sgpy_event_begin(event, (sgpy_limiter *)op, given[0], given[1]);
}

SGPY_FAST_METHOD(sgpy_limiter_penalize_nowait) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    sgpy_event event;
    sg_status status = SG_OK;
    if (begin("penalize_nowait", &event, op, args, nargs, kwnames) < 0) {
        return NULL;
    }
    if (limiter->enabled) {
        sg_table *core = enter(&event);
        if (core == NULL) {
            return end(&event, false);
        }
        status = sg_limiter_penalize(core, event.rows, event.fp, event.costs, event.now);
        sgpy_leave(event.table);
    }
    sgpy_event_end(&event);
    if (check(limiter, status) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

SGPY_FAST_METHOD(sgpy_limiter_reward_nowait) {
    sgpy_event event;
    if (begin("reward_nowait", &event, op, args, nargs, kwnames) < 0) {
        return NULL;
    }
    if (!((sgpy_limiter *)op)->enabled) {
        return end(&event, true);
    }
    sg_table *core = enter(&event);
    if (core != NULL) {
        sg_limiter_reward(core, event.rows, event.fp, event.costs, event.now);
        sgpy_leave(event.table);
    }
    return end(&event, core != NULL);
}

/* ---- reset, ban, unban */

static const char *const key_names[] = {"key", NULL};

static int begin_key(const char *function, sgpy_event *event, PyObject *op, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *key;
    if (sgpy_args(function, key_names, 1, 1, args, nargs, kwnames, &key) < 0) {
        return -1;
    }
    return sgpy_event_begin(event, (sgpy_limiter *)op, key, NULL);
}

SGPY_FAST_METHOD(sgpy_limiter_reset_nowait) {
    sgpy_event event;
    if (begin_key("reset_nowait", &event, op, args, nargs, kwnames) < 0) {
        return NULL;
    }
    sg_table *core = enter(&event);
    if (core != NULL) {
        sg_limiter_reset(core, event.fp);
        sgpy_leave(event.table);
    }
    return end(&event, core != NULL);
}

SGPY_FAST_METHOD(sgpy_limiter_unban_nowait) {
    sgpy_event event;
    if (begin_key("unban_nowait", &event, op, args, nargs, kwnames) < 0) {
        return NULL;
    }
    sg_table *core = enter(&event);
    if (core != NULL) {
        sg_limiter_unban(core, event.fp, event.now);
        sgpy_leave(event.table);
    }
    return end(&event, core != NULL);
}

SGPY_FAST_METHOD(sgpy_limiter_ban_nowait) {
    static const char *const names[] = {"key", "seconds", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *given[2];
    sgpy_event event;
    sg_ticks length;
    if (sgpy_args("ban_nowait", names, 2, 2, args, nargs, kwnames, given) < 0 ||
        sgpy_seconds(given[1], "the length of a ban", &length) < 0 ||
        sgpy_event_begin(&event, limiter, given[0], NULL) < 0) {
        return NULL;
    }
    /* Not as on_full says: a ban that was not kept would be a limit silently off. */
    sg_table *core = enter(&event);
    if (core == NULL) {
        return end(&event, false);
    }
    const sg_status status = sg_limiter_ban(core, event.fp, length, event.now);
    sgpy_leave(event.table);
    sgpy_event_end(&event);
    if (check(limiter, status) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- reserve, bind */

SGPY_FAST_METHOD(sgpy_limiter_reserve_nowait) {
    static const char *const names[] = {"key", "cost", "ttl", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *given[3], *decision = NULL, *receipt = NULL, *result = NULL;
    sgpy_event event;
    sgpy_outcome out;
    sg_receipt raw;
    sg_ticks ttl = 60 * SG_TICKS_PER_SECOND;
    if (sgpy_args("reserve_nowait", names, 3, 1, args, nargs, kwnames, given) < 0 ||
        (given[2] != NULL && sgpy_seconds(given[2], "ttl", &ttl) < 0) ||
        sgpy_event_begin(&event, limiter, given[0], given[1]) < 0) {
        return NULL;
    }
    if (sgpy_reserve(&event, ttl, &out, &raw) == 0) {
        decision = sgpy_outcome_decision(limiter->state, event.quotas, &out);
    }
    if (decision != NULL) {
        /* Admitted without a charge (disabled, in shadow, full): a receipt that is closed. */
        receipt = out.decision.allowed
                      ? sgpy_receipt_new(limiter, event.table, event.quotas, event.rows, &raw)
                      : Py_NewRef(Py_None);
        if (receipt == NULL && raw.open) {
            sgpy_refund(&event, &raw);
        }
    }
    sgpy_event_end(&event);
    if (decision != NULL && receipt != NULL) {
        decision = sgpy_observed(limiter, given[0], decision);
        result = decision == NULL ? NULL : PyTuple_Pack(2, decision, receipt);
    }
    Py_XDECREF(decision);
    Py_XDECREF(receipt);
    return result;
}

SGPY_FAST_METHOD(sgpy_limiter_bind) {
    PyObject *key;
    if (sgpy_args("bind", key_names, 1, 1, args, nargs, kwnames, &key) < 0) {
        return NULL;
    }
    return sgpy_handle_new((sgpy_limiter *)op, key);
}
