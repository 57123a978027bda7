/* An event, from Python's objects to what the core takes. */
#include "shared.h"

/* A clock or a cost that changes the limiter each time it is asked has no answer. */
#define TRIES 16

int sgpy_limiter_ready(const sgpy_limiter *limiter) {
    if (SG_LIKELY(limiter->plain)) {
        return 0;
    }
    if (limiter->server != NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "what decides at once (hit_nowait and the like) needs state in this "
                        "process; that of this limiter is on a server: await hit(), peek() and "
                        "so on, or use sluicegate.sync");
        return -1;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "this limiter has no table: Limiter.__init__ was not called");
    return -1;
}

int sgpy_other_rows(sgpy_limiter *limiter, sgpy_table *table, PyObject *quotas, sg_quota *rows,
                    PyObject **tuple) {
    PyObject *read = limiter->state->str_quotas_of;
    PyObject *method = PyObject_GetAttr((PyObject *)limiter, read);
    if (method == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return sgpy_rows_of(table, quotas, rows, tuple);
    }
    PyObject *sequence = PyObject_CallOneArg(method, quotas);
    Py_DECREF(method);
    if (sequence == NULL) {
        return -1;
    }
    const int result = sgpy_rows_of(table, sequence, rows, tuple);
    Py_DECREF(sequence);
    return result;
}

/* One try: -1 an exception, 0 the limiter changed meanwhile, 1 done. */
static int try_begin(sgpy_event *event, PyObject *cost, PyObject *quotas, sg_quota *rows) {
    sgpy_limiter *limiter = event->limiter;
    if (sgpy_limiter_ready(limiter) < 0) {
        return -1;
    }
    event->version = limiter->version;
    event->table = (sgpy_table *)Py_NewRef((PyObject *)limiter->table);
    event->quotas = NULL;
    event->rows = rows;
    if (quotas != NULL) {
        if (sgpy_other_rows(limiter, event->table, quotas, rows, &event->quotas) < 0) {
            goto fail;
        }
    } else {
        event->quotas = Py_NewRef(limiter->quotas);
        event->rows = limiter->rows;
    }
    /* The names are the limiter's, whatever the numbers of this call are. */
    if (sgpy_cost_row(limiter->state, cost, limiter->quotas, event->costs) < 0 ||
        sgpy_table_now(event->table, &event->now) < 0) {
        goto fail;
    }
    if (limiter->version != event->version) {
        sgpy_event_end(event);
        return 0;
    }
    return 1;
fail:
    sgpy_event_end(event);
    return -1;
}

int sgpy_event_begin(sgpy_event *event, sgpy_limiter *limiter, PyObject *key, PyObject *cost) {
    return sgpy_event_begin_with(event, limiter, key, cost, NULL, NULL);
}

int sgpy_event_begin_with(sgpy_event *event, sgpy_limiter *limiter, PyObject *key,
                          PyObject *cost, PyObject *quotas, sg_quota *rows) {
    event->limiter = limiter;
    event->table = NULL;
    event->quotas = NULL;
    event->key.owned = NULL;
    for (int i = 0; i < TRIES; i++) {
        const int done = try_begin(event, cost, quotas, rows);
        if (done < 0) {
            return -1;
        }
        if (done == 0) {
            continue;
        }
        /* Last, for it runs no Python code. */
        if (sgpy_key_read(key, &event->key) < 0) {
            sgpy_event_end(event);
            return -1;
        }
        event->fp = sg_fingerprint_of(&event->table->secret, event->key.data, event->key.length);
        if (quotas != NULL) {
            sgpy_know(event->table, event->rows);
        }
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "the clock or the cost changes the limiter each time it is asked");
    return -1;
}

void sgpy_event_end(sgpy_event *event) {
    sgpy_key_done(&event->key);
    if (event->table != NULL) {
        sgpy_tell(event->table);
    }
    Py_CLEAR(event->table);
    Py_CLEAR(event->quotas);
}
