/* The check of a message: one call that finds the connection, looks at the size, decides
 * over messages and bytes at once, and counts.
 *
 * What is refused goes to Python as (info, reason, decision, size), which makes the
 * documented result of it; what is admitted never leaves C. */
#include "connections.h"
#include "shared.h"

void sgpy_message_done(sgpy_message *m) {
    if (m->limiter != NULL && m->limiter->table != NULL) {
        sgpy_tell(m->limiter->table);
    }
    Py_CLEAR(m->info);
    Py_CLEAR(m->limiter);
}

int sgpy_message_size(PyObject *object, uint64_t *size) {
    int overflow;
    long long value;
    if (SG_LIKELY(PyLong_CheckExact(object))) {
        value = PyLong_AsLongLongAndOverflow(object, &overflow);
    } else {
        if (PyBool_Check(object) || !PyIndex_Check(object)) {
            PyErr_Format(PyExc_TypeError,
                         "message_size is an int, the message's size in bytes, not %.200s",
                         Py_TYPE(object)->tp_name);
            return -1;
        }
        PyObject *number = PyNumber_Index(object);
        if (number == NULL) {
            return -1;
        }
        value = PyLong_AsLongLongAndOverflow(number, &overflow);
        Py_DECREF(number);
    }
    if (value == -1 && overflow == 0 && PyErr_Occurred()) {
        return -1;
    }
    if (overflow < 0 || (overflow == 0 && value < 0)) {
        PyErr_Format(PyExc_ValueError, "message_size is 0 or more bytes, not %R", object);
        return -1;
    }
    *size = overflow > 0 ? UINT64_MAX : (uint64_t)value;
    return 0;
}

/* The limiter of a connection and the time of its table. A clock may be Python code, which
 * may rebind; then the time is read again. */
static int message_now(sgpy_message *m, sg_ticks *now) {
    for (int i = 0; i < 16; i++) {
        sgpy_table *table = m->limiter->table;
        if (table == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the limiter of this connection is gone");
            return -1;
        }
        if (SG_LIKELY(table->clock == NULL)) {
            return sgpy_table_now(table, now);
        }
        Py_INCREF(table);
        const int failed = sgpy_table_now(table, now);
        const bool same = m->limiter->table == table;
        Py_DECREF(table);
        if (failed < 0) {
            return -1;
        }
        if (same) {
            return 0;
        }
    }
    PyErr_SetString(PyExc_RuntimeError, "the clock changes the limiter each time it is asked");
    return -1;
}

/* The reason of a refusal, in the documented order: messages, then bytes. */
static PyObject *reason_of(const sgpy_state *st, const sgpy_message *m) {
    const sg_decision *d = &m->outcome.decision;
    if ((m->outcome.flags & SGPY_DEGRADED) && d->binding == SG_NONE) {
        /* The table is full, or stands still, and nobody counted: no limit was reached. */
        return st->strings[STR_INTERNAL];
    }
    unsigned holding = 0;
    for (unsigned i = 0; i < m->limiter->count; i++) {
        if (((d->refusals >> i) & 1u) && !m->limiter->rows[i].shadow) {
            holding |= 1u << i;
        }
    }
    const bool bytes_alone = holding != 0 && (holding & ~m->info->byte_quotas) == 0;
    return st->strings[bytes_alone ? STR_BANDWIDTH : STR_RATE];
}

int sgpy_message_decide(sgpy_connections *self, PyObject *id, PyObject *size, uint64_t cost,
                        sgpy_message *m) {
    const sgpy_state *st = self->state;
    sg_ticks now;
    m->info = NULL;
    m->limiter = NULL;
    m->reason = NULL;
    m->decided = false;
    m->size = 0;
    if (size != NULL && sgpy_message_size(size, &m->size) < 0) {
        return -1;
    }
    PyObject *found = PyDict_GetItemWithError(self->live, id);
    if (found == NULL) {
        if (PyErr_Occurred()) {
            return -1;
        }
        m->reason = st->strings[STR_NOT_FOUND];
        return 0;
    }
    if (SG_UNLIKELY(Py_TYPE(found) != st->ConnectionInfo_Type ||
                    ((sgpy_info *)found)->limiter == NULL)) {
        PyErr_SetString(PyExc_TypeError, "the connections were changed from outside: "
                                         "register_connection alone puts one there");
        return -1;
    }
    m->info = (sgpy_info *)Py_NewRef(found);
    if (SG_UNLIKELY(m->size > m->info->max_size)) {
        m->reason = st->strings[STR_TOO_LARGE];
        return 0;
    }
    if (SG_UNLIKELY(m->size > SG_COST_MAX)) {
        PyErr_SetString(PyExc_ValueError, "message_size is at most 2**40 bytes");
        return -1;
    }
    m->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)m->info->limiter);
    if (SG_UNLIKELY(m->limiter->server != NULL)) {
        m->reason = st->strings[STR_ELSEWHERE]; /* a server decides, and Python asks it */
        return 0;
    }
    if (message_now(m, &now) < 0) {
        return -1;
    }
    uint64_t costs[SG_QUOTAS_MAX];
    const unsigned byte_quotas = m->info->byte_quotas;
    for (unsigned i = 0; i < m->limiter->count; i++) {
        costs[i] = (byte_quotas >> i) & 1u ? m->size : cost;
    }
    sgpy_prepared *client = &m->info->client;
    if (sgpy_charge(m->limiter, m->limiter->rows, sgpy_prepared_fp(client, m->limiter->table),
                    client->key.data, client->key.length, costs, now, &m->outcome) < 0) {
        if (!PyErr_ExceptionMatches(st->StoreFullError)) {
            return -1;
        }
        PyErr_Clear(); /* what follows from it is the failure policy's, in Python */
        m->reason = st->strings[STR_INTERNAL];
        return 0;
    }
    m->decided = true;
    if (SG_UNLIKELY(!m->outcome.decision.allowed)) {
        m->reason = reason_of(st, m);
        return 0;
    }
    sgpy_info *info = m->info;
    info->message_count++;
    info->bytes_sent += m->size;
    info->last_ticks = now;
    info->last = LAST_TICKS;
    self->messages++;
    self->bytes += m->size;
    if (SG_UNLIKELY(self->tallied != NULL)) {
        sg_shared_tally(&self->tallied->sharing->table, TALLY_MESSAGES, 1);
        sg_shared_tally(&self->tallied->sharing->table, TALLY_BYTES, m->size);
    }
    return 0;
}

PyObject *sgpy_message_decision(sgpy_state *st, const sgpy_message *m) {
    return sgpy_outcome_decision(st, m->limiter->quotas, &m->outcome);
}

int sgpy_message_observe(sgpy_state *st, const sgpy_message *m) {
    if (SG_LIKELY(st->observer == NULL) || !m->decided) {
        return 0;
    }
    PyObject *decision = sgpy_message_decision(st, m);
    if (decision == NULL) {
        return -1;
    }
    PyObject *passed = sgpy_observed(m->limiter, m->info->client.object, decision);
    Py_XDECREF(passed);
    return passed == NULL ? -1 : 0;
}

PyObject *sgpy_message_refusal(sgpy_state *st, const sgpy_message *m) {
    PyObject *decision = m->decided ? sgpy_message_decision(st, m) : Py_NewRef(Py_None);
    PyObject *size = PyLong_FromUnsignedLongLong(m->size);
    PyObject *result = NULL;
    if (decision != NULL && size != NULL) {
        result = PyTuple_Pack(4, m->info == NULL ? Py_None : (PyObject *)m->info, m->reason,
                              decision, size);
    }
    Py_XDECREF(decision);
    Py_XDECREF(size);
    return result;
}

/* Messages that remain: of the quota of messages that has the smallest share left. None
 * where messages are unlimited. */
static PyObject *message_remaining(const sgpy_message *m) {
    const sgpy_limiter *limiter = m->limiter;
    const uint64_t *level = m->outcome.decision.level;
    const sg_quota *least = NULL;
    sg_verdict verdict = {.allowed = true};
    for (unsigned i = 0; i < limiter->count; i++) {
        const sg_quota *row = &limiter->rows[i];
        if (((m->info->byte_quotas >> i) & 1u) || row->unlimited || row->shadow) {
            continue;
        }
        if (least == NULL || (sg_u128)level[i] * least->capacity >
                                 (sg_u128)verdict.level * row->capacity) {
            least = row;
            verdict.level = level[i];
        }
    }
    if (least == NULL) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(sg_remaining(least, &verdict));
}

/* {"allowed": True, "reason": "ok", "remaining": n} */
static PyObject *message_result(const sgpy_state *st, const sgpy_message *m) {
    const bool degraded = (m->outcome.flags & SGPY_DEGRADED) != 0;
    /* Without a quota nobody has counted. */
    PyObject *remaining = SG_UNLIKELY(degraded && m->outcome.decision.binding == SG_NONE)
                              ? Py_NewRef(Py_None)
                              : message_remaining(m);
    if (remaining == NULL) {
        return NULL;
    }
    PyObject *result = PyDict_Copy(st->strings[STR_TEMPLATE]);
    if (result != NULL &&
        (PyDict_SetItem(result, st->strings[STR_REMAINING], remaining) < 0 ||
         (SG_UNLIKELY(degraded) &&
          PyDict_SetItem(result, st->strings[STR_DEGRADED], Py_True) < 0))) {
        Py_CLEAR(result);
    }
    Py_DECREF(remaining);
    return result;
}

PyObject *sgpy_message_check(sgpy_connections *self, PyObject *id, PyObject *size) {
    sgpy_message m;
    PyObject *result = NULL;
    if (sgpy_message_decide(self, id, size, 1, &m) == 0) {
        /* Before the observer, which is Python code: it uses the time of this message. */
        result = m.reason == NULL ? message_result(self->state, &m)
                                  : sgpy_message_refusal(self->state, &m);
        if (result != NULL && sgpy_message_observe(self->state, &m) < 0) {
            Py_CLEAR(result);
        }
    }
    sgpy_message_done(&m);
    return result;
}
