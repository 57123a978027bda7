/* Live WebSocket connections, and the check of a message: one call that finds the
 * connection, looks at the size, decides over messages and bytes at once, and counts.
 *
 * What is refused goes to Python as (info, reason, decision, size), which makes the
 * documented result of it; what is admitted never leaves C. */
#include "binding.h"

#include <structmember.h>

/* Their places in sgpy_state.strings. */
enum {
    STR_CONNECTION_ID,
    STR_MESSAGE_SIZE,
    STR_REMAINING,
    STR_NOT_FOUND,
    STR_TOO_LARGE,
    STR_RATE,
    STR_BANDWIDTH,
    STR_INTERNAL,
    STR_REFUSED,
    STR_ALLOWED,
    STR_REASON,
    STR_OK,
    STR_TEMPLATE, /* no string: the dict that every admitted message's result is copied from */
    STR_COUNT
};

_Static_assert(STR_COUNT <= SGPY_STRINGS, "more strings than the state has places for");

typedef enum { LAST_NEVER = 0, LAST_WALL, LAST_TICKS } last_kind;

typedef struct {
    PyObject_HEAD
    PyObject *connection_id;
    PyObject *client_id;
    PyObject *metadata;
    PyObject *plan;  /* Python's: the limits of this client */
    PyObject *place; /* Python's: the place it holds, given back when it is dropped */
    double connected_at;
    unsigned long long message_count, bytes_sent;
    /* When the last message was admitted: ticks of the table's clock as C wrote them, and
     * seconds of wall time once somebody has asked. */
    sg_ticks last_ticks;
    double last_wall;
    last_kind last;
    /* Set while it is registered. */
    sgpy_limiter *limiter; /* over messages and bytes; NULL before the first _add */
    sgpy_prepared client;
    uint64_t max_size;     /* UINT64_MAX: none */
    unsigned byte_quotas;  /* bit i: quota i is charged the size, not 1 */
} sgpy_info;

typedef struct {
    PyObject_HEAD
    sgpy_state *state;
    PyObject *live; /* dict: connection id to ConnectionInfo */
    unsigned long long messages, bytes; /* admitted */
} sgpy_connections;

/* ---- ConnectionInfo */

static int info_init(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"connection_id", "client_id",  "connected_at",
                            "message_count", "bytes_sent", "last_message_time",
                            "metadata",      NULL};
    sgpy_info *self = (sgpy_info *)op;
    PyObject *connection_id = Py_None, *client_id = NULL, *connected_at = NULL;
    PyObject *last = Py_None, *metadata = Py_None;
    unsigned long long message_count = 0, bytes_sent = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOOKKOO:ConnectionInfo", names,
                                     &connection_id, &client_id, &connected_at, &message_count,
                                     &bytes_sent, &last, &metadata)) {
        return -1;
    }
    if (client_id == NULL || connected_at == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "ConnectionInfo needs client_id= and connected_at= (seconds since 1970)");
        return -1;
    }
    const double at = PyFloat_AsDouble(connected_at);
    if (at == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    double last_wall = 0;
    if (last != Py_None) {
        last_wall = PyFloat_AsDouble(last);
        if (last_wall == -1.0 && PyErr_Occurred()) {
            return -1;
        }
    }
    PyObject *own = metadata == Py_None ? PyDict_New() : Py_NewRef(metadata);
    if (own == NULL) {
        return -1;
    }
    self->connected_at = at;
    self->message_count = message_count;
    self->bytes_sent = bytes_sent;
    self->last_wall = last_wall;
    self->last = last == Py_None ? LAST_NEVER : LAST_WALL;
    Py_XSETREF(self->metadata, own);
    Py_XSETREF(self->connection_id, Py_NewRef(connection_id));
    Py_XSETREF(self->client_id, Py_NewRef(client_id));
    return 0;
}

static int info_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_info *self = (sgpy_info *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->connection_id);
    Py_VISIT(self->client_id);
    Py_VISIT(self->metadata);
    Py_VISIT(self->plan);
    Py_VISIT(self->place);
    Py_VISIT(self->limiter);
    Py_VISIT(self->client.object);
    return 0;
}

static int info_clear(PyObject *op) {
    sgpy_info *self = (sgpy_info *)op;
    Py_CLEAR(self->connection_id);
    Py_CLEAR(self->client_id);
    Py_CLEAR(self->metadata);
    Py_CLEAR(self->plan);
    Py_CLEAR(self->place);
    Py_CLEAR(self->limiter);
    sgpy_prepared_clear(&self->client);
    return 0;
}

static void info_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)info_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Wall time of the last message, worked out when it is first asked for: reading a second
 * clock for every message would be paid by all. */
static PyObject *info_get_last(PyObject *op, void *Py_UNUSED(closure)) {
    sgpy_info *self = (sgpy_info *)op;
    if (self->last == LAST_TICKS && self->limiter != NULL && self->limiter->table != NULL) {
        sg_ticks now;
        struct timespec wall;
        const sg_ticks then = self->last_ticks;
        sgpy_table *table = self->limiter->table;
        Py_INCREF(table);
        const int failed = sgpy_table_now(table, &now);
        Py_DECREF(table);
        if (failed < 0) {
            return NULL;
        }
        (void)clock_gettime(CLOCK_REALTIME, &wall);
        self->last_wall = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9 -
                          (double)sg_ahead(now, then) / (double)SG_TICKS_PER_SECOND;
        self->last = LAST_WALL;
    }
    if (self->last == LAST_NEVER) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble(self->last_wall);
}

static int info_set_last(PyObject *op, PyObject *value, void *Py_UNUSED(closure)) {
    sgpy_info *self = (sgpy_info *)op;
    if (value == NULL || value == Py_None) {
        self->last = LAST_NEVER;
        return 0;
    }
    const double wall = PyFloat_AsDouble(value);
    if (wall == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    self->last_wall = wall;
    self->last = LAST_WALL;
    return 0;
}

static PyObject *info_repr(PyObject *op) {
    sgpy_info *self = (sgpy_info *)op;
    PyObject *text = NULL, *at = PyFloat_FromDouble(self->connected_at);
    PyObject *last = info_get_last(op, NULL);
    if (at != NULL && last != NULL) {
        text = PyUnicode_FromFormat(
            "ConnectionInfo(connection_id=%R, client_id=%R, connected_at=%R, message_count=%llu, "
            "bytes_sent=%llu, last_message_time=%R, metadata=%R)",
            self->connection_id == NULL ? Py_None : self->connection_id,
            self->client_id == NULL ? Py_None : self->client_id, at, self->message_count,
            self->bytes_sent, last, self->metadata == NULL ? Py_None : self->metadata);
    }
    Py_XDECREF(at);
    Py_XDECREF(last);
    return text;
}

static PyMemberDef info_members[] = {
    {"connection_id", T_OBJECT, offsetof(sgpy_info, connection_id), 0, NULL},
    {"client_id", T_OBJECT, offsetof(sgpy_info, client_id), 0, NULL},
    {"metadata", T_OBJECT, offsetof(sgpy_info, metadata), 0, NULL},
    {"connected_at", T_DOUBLE, offsetof(sgpy_info, connected_at), 0,
     PyDoc_STR("Seconds since 1970.")},
    {"message_count", T_ULONGLONG, offsetof(sgpy_info, message_count), 0,
     PyDoc_STR("Messages admitted.")},
    {"bytes_sent", T_ULONGLONG, offsetof(sgpy_info, bytes_sent), 0,
     PyDoc_STR("Bytes of the messages admitted.")},
    {"_plan", T_OBJECT, offsetof(sgpy_info, plan), 0, NULL},
    {"_place", T_OBJECT, offsetof(sgpy_info, place), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef info_getset[] = {
    {"last_message_time", info_get_last, info_set_last,
     PyDoc_STR("When a message was last admitted, in seconds since 1970; None before."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot info_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "ConnectionInfo(connection_id=None, client_id=None, connected_at=None, "
         "message_count=0, bytes_sent=0, last_message_time=None, metadata=None)\n--\n\n"
         "One WebSocket connection and its live counters. Times are seconds since 1970.")},
    {Py_tp_init, (void *)info_init},
    {Py_tp_dealloc, (void *)info_dealloc},
    {Py_tp_traverse, (void *)info_traverse},
    {Py_tp_clear, (void *)info_clear},
    {Py_tp_repr, (void *)info_repr},
    {Py_tp_members, info_members},
    {Py_tp_getset, info_getset},
    {0, NULL},
};

static PyType_Spec info_spec = {
    .name = "sluicegate._core.ConnectionInfo",
    .basicsize = (int)sizeof(sgpy_info),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = info_slots,
};

/* ---- the check of a message */

typedef struct {
    sgpy_info *info;      /* a reference, or NULL */
    uint64_t size;
    PyObject *reason;     /* borrowed from the state; NULL: admitted */
    sgpy_limiter *limiter; /* a reference, or NULL */
    bool decided;         /* outcome holds */
    sgpy_outcome outcome;
} sgpy_message;

static void message_done(sgpy_message *m) {
    Py_CLEAR(m->info);
    Py_CLEAR(m->limiter);
}

/* Bytes of a message; what fits no 64 bits is too large for anything. */
static int read_size(PyObject *object, uint64_t *size) {
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
    for (;;) {
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
}

/* The reason of a refusal, in the documented order: messages, then bytes. */
static PyObject *reason_of(const sgpy_state *st, const sgpy_message *m) {
    const sg_decision *d = &m->outcome.decision;
    if (m->outcome.flags & SGPY_DEGRADED) {
        return st->strings[STR_INTERNAL]; /* the table is full: no limit was reached */
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

/* Decides and counts. -1: an exception. The caller ends with message_done in any case. */
static int decide_message(sgpy_connections *self, PyObject *id, PyObject *size, uint64_t cost,
                          sgpy_message *m) {
    const sgpy_state *st = self->state;
    sg_ticks now;
    m->info = NULL;
    m->limiter = NULL;
    m->reason = NULL;
    m->decided = false;
    m->size = 0;
    if (size != NULL && read_size(size, &m->size) < 0) {
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
    return 0;
}

static PyObject *message_decision(sgpy_state *st, const sgpy_message *m) {
    return sgpy_outcome_decision(st, m->limiter->quotas, &m->outcome);
}

/* Tells the observer, if there is one. -1: it raised. */
static int message_observe(sgpy_state *st, const sgpy_message *m) {
    if (SG_LIKELY(st->observer == NULL) || !m->decided) {
        return 0;
    }
    PyObject *decision = message_decision(st, m);
    if (decision == NULL) {
        return -1;
    }
    PyObject *passed = sgpy_observed(m->limiter, m->info->client.object, decision);
    Py_XDECREF(passed);
    return passed == NULL ? -1 : 0;
}

/* (info, reason, decision, size) of what was refused. */
static PyObject *message_refusal(sgpy_state *st, const sgpy_message *m) {
    PyObject *decision = m->decided ? message_decision(st, m) : Py_NewRef(Py_None);
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
    PyObject *remaining = message_remaining(m);
    if (remaining == NULL) {
        return NULL;
    }
    PyObject *result = PyDict_Copy(st->strings[STR_TEMPLATE]);
    if (result != NULL &&
        PyDict_SetItem(result, st->strings[STR_REMAINING], remaining) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(remaining);
    return result;
}

/* A result dict, or the tuple of a refusal. */
static PyObject *check(sgpy_connections *self, PyObject *id, PyObject *size) {
    sgpy_message m;
    PyObject *result = NULL;
    if (decide_message(self, id, size, 1, &m) == 0) {
        /* Before the observer, which is Python code: it uses the time of this message. */
        result = m.reason == NULL ? message_result(self->state, &m)
                                  : message_refusal(self->state, &m);
        if (result != NULL && message_observe(self->state, &m) < 0) {
            Py_CLEAR(result);
        }
    }
    message_done(&m);
    return result;
}

/* ---- Connections */

static PyObject *connections_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                                 PyObject *Py_UNUSED(kwargs)) {
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL) {
        return NULL;
    }
    sgpy_connections *self = (sgpy_connections *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = st;
    self->live = PyDict_New();
    if (self->live == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int connections_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((sgpy_connections *)op)->live);
    return 0;
}

static int connections_clear(PyObject *op) {
    /* Emptied, not dropped: methods may still be called by what is cleared later. */
    PyObject *live = ((sgpy_connections *)op)->live;
    if (live != NULL) {
        PyDict_Clear(live);
    }
    return 0;
}

static void connections_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((sgpy_connections *)op)->live);
    type->tp_free(op);
    Py_DECREF(type);
}

/* The arguments (connection_id, message_size=0), also by name. */
static int message_arguments(sgpy_state *st, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames, PyObject **id, PyObject **size) {
    *id = nargs > 0 ? args[0] : NULL;
    *size = nargs > 1 ? args[1] : NULL;
    if (nargs > 2) {
        goto wrong;
    }
    const Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        PyObject **to;
        if (PyUnicode_Compare(name, st->strings[STR_MESSAGE_SIZE]) == 0) {
            to = size;
        } else if (PyUnicode_Compare(name, st->strings[STR_CONNECTION_ID]) == 0) {
            to = id;
        } else {
            goto wrong;
        }
        if (*to != NULL) {
            goto wrong;
        }
        *to = args[nargs + i];
    }
    if (*id != NULL) {
        return 0;
    }
wrong:
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError,
                        "check_message takes (connection_id, message_size=0), each once");
    }
    return -1;
}

static PyObject *connections_check(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    sgpy_connections *self = (sgpy_connections *)op;
    PyObject *id, *size;
    if (message_arguments(self->state, args, nargs, kwnames, &id, &size) < 0) {
        return NULL;
    }
    return check(self, id, size);
}

/* What awaiting check_message runs. */
static PyObject *check_awaited(sgpy_state *st, PyObject *op, PyObject *id, PyObject *size,
                               PyObject *Py_UNUSED(c), PyObject **delegate) {
    PyObject *result = check((sgpy_connections *)op, id, size);
    if (result == NULL || SG_LIKELY(PyDict_CheckExact(result))) {
        return result;
    }
    PyObject *refused = PyObject_GetAttr(op, st->strings[STR_REFUSED]);
    if (refused != NULL) {
        *delegate = PyObject_CallObject(refused, result);
        Py_DECREF(refused);
    }
    Py_DECREF(result);
    return NULL;
}

static const sgpy_call_kind check_kind = {
    .run = check_awaited,
    .name = "check_message",
    .qualname = "WebSocketRateLimiter.check_message",
};

static PyObject *connections_check_awaitable(PyObject *op, PyObject *const *args,
                                             Py_ssize_t nargs, PyObject *kwnames) {
    sgpy_connections *self = (sgpy_connections *)op;
    PyObject *id, *size;
    if (message_arguments(self->state, args, nargs, kwnames, &id, &size) < 0) {
        return NULL;
    }
    return sgpy_call_new(self->state, &check_kind, op, id, size, NULL);
}

static PyObject *connections_decide(PyObject *op, PyObject *args) {
    sgpy_connections *self = (sgpy_connections *)op;
    PyObject *id, *size, *cost = NULL;
    uint64_t units = 1;
    sgpy_message m;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "OO|O:_decide", &id, &size, &cost) ||
        (cost != NULL && sgpy_cost_one(cost, &units) < 0)) {
        return NULL;
    }
    if (decide_message(self, id, size, units, &m) == 0) {
        result = m.reason == NULL ? message_decision(self->state, &m)
                                  : message_refusal(self->state, &m);
        if (result != NULL && message_observe(self->state, &m) < 0) {
            Py_CLEAR(result);
        }
    }
    message_done(&m);
    return result;
}

static PyObject *connections_add(PyObject *op, PyObject *args) {
    sgpy_connections *self = (sgpy_connections *)op;
    sgpy_info *info;
    PyObject *limiter, *max_size;
    unsigned byte_quotas;
    uint64_t max = UINT64_MAX;
    sgpy_prepared client = {0};
    if (!PyArg_ParseTuple(args, "O!O!IO:_add", self->state->ConnectionInfo_Type, &info,
                          self->state->Limiter_Type, &limiter, &byte_quotas, &max_size)) {
        return NULL;
    }
    if ((max_size != Py_None && read_size(max_size, &max) < 0) ||
        sgpy_prepare(&client, info->client_id == NULL ? Py_None : info->client_id) < 0) {
        return NULL;
    }
    Py_INCREF(limiter);
    Py_XSETREF(info->limiter, (sgpy_limiter *)limiter);
    /* The old key last: letting go of it may run Python code. */
    sgpy_prepared old = info->client;
    info->client = client;
    info->byte_quotas = byte_quotas;
    info->max_size = max;
    sgpy_prepared_clear(&old);
    if (PyDict_SetItem(self->live, info->connection_id == NULL ? Py_None : info->connection_id,
                       (PyObject *)info) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *connections_remove(PyObject *op, PyObject *id) {
    PyObject *live = ((sgpy_connections *)op)->live;
    PyObject *info = PyDict_GetItemWithError(live, id);
    if (info == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    Py_INCREF(info);
    if (PyDict_DelItem(live, id) < 0) {
        Py_DECREF(info);
        return NULL;
    }
    return info;
}

static PyObject *connections_get(PyObject *op, PyObject *id) {
    PyObject *info = PyDict_GetItemWithError(((sgpy_connections *)op)->live, id);
    if (info == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(info == NULL ? Py_None : info);
}

static PyMethodDef connections_methods[] = {
    {"check_message_awaitable", (PyCFunction)(void (*)(void))connections_check_awaitable,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("check_message_awaitable($self, /, connection_id, message_size=0)\n--\n\n"
               "Whether this connection may send a message of that many bytes; decided, and\n"
               "charged, when it is first awaited.")},
    {"_check", (PyCFunction)(void (*)(void))connections_check, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("_check($self, /, connection_id, message_size=0)\n--\n\n"
               "A result dict, or (info, reason, decision, size) of a refusal.")},
    {"_decide", connections_decide, METH_VARARGS,
     PyDoc_STR("_decide($self, connection_id, message_size, cost=1, /)\n--\n\n"
               "A Decision, or (info, reason, decision, size) of a refusal.")},
    {"_add", connections_add, METH_VARARGS,
     PyDoc_STR("_add($self, info, limiter, byte_quotas, max_message_size, /)\n--\n\n"
               "Registers a connection by its id, in place of one there.")},
    {"_remove", connections_remove, METH_O,
     PyDoc_STR("_remove($self, connection_id, /)\n--\n\nThe connection forgotten, or None.")},
    {"_get", connections_get, METH_O,
     PyDoc_STR("_get($self, connection_id, /)\n--\n\nThe connection, or None.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef connections_members[] = {
    {"_live", T_OBJECT_EX, offsetof(sgpy_connections, live), READONLY, NULL},
    {"total_messages", T_ULONGLONG, offsetof(sgpy_connections, messages), 0,
     PyDoc_STR("Messages admitted since it was made.")},
    {"total_bytes", T_ULONGLONG, offsetof(sgpy_connections, bytes), 0,
     PyDoc_STR("Bytes admitted since it was made.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot connections_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Connections()\n--\n\n"
                                  "Connection ids, and the check of their messages.")},
    {Py_tp_new, (void *)connections_new},
    {Py_tp_dealloc, (void *)connections_dealloc},
    {Py_tp_traverse, (void *)connections_traverse},
    {Py_tp_clear, (void *)connections_clear},
    {Py_tp_methods, connections_methods},
    {Py_tp_members, connections_members},
    {0, NULL},
};

static PyType_Spec connections_spec = {
    .name = "sluicegate._core.Connections",
    .basicsize = (int)sizeof(sgpy_connections),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = connections_slots,
};

static int add_strings(sgpy_state *st) {
    static const char *const words[STR_COUNT] = {
        [STR_CONNECTION_ID] = "connection_id",
        [STR_MESSAGE_SIZE] = "message_size",
        [STR_REMAINING] = "remaining",
        [STR_NOT_FOUND] = "connection_not_found",
        [STR_TOO_LARGE] = "message_too_large",
        [STR_RATE] = "rate_limit_exceeded",
        [STR_BANDWIDTH] = "bandwidth_exceeded",
        [STR_INTERNAL] = "internal_error",
        [STR_REFUSED] = "_refused",
        [STR_ALLOWED] = "allowed",
        [STR_REASON] = "reason",
        [STR_OK] = "ok",
    };
    for (unsigned i = 0; i < STR_TEMPLATE; i++) {
        st->strings[i] = PyUnicode_InternFromString(words[i]);
        if (st->strings[i] == NULL) {
            return -1;
        }
    }
    PyObject *template = st->strings[STR_TEMPLATE] = PyDict_New();
    if (template == NULL ||
        PyDict_SetItem(template, st->strings[STR_ALLOWED], Py_True) < 0 ||
        PyDict_SetItem(template, st->strings[STR_REASON], st->strings[STR_OK]) < 0 ||
        PyDict_SetItem(template, st->strings[STR_REMAINING], Py_None) < 0) {
        return -1;
    }
    return 0;
}

int sgpy_connections_init(PyObject *module, sgpy_state *st) {
    if (add_strings(st) < 0 ||
        sgpy_add_type(module, &info_spec, &st->ConnectionInfo_Type, true) < 0) {
        return -1;
    }
    return sgpy_add_type(module, &connections_spec, &st->Connections_Type, true);
}
