/* Live WebSocket connections by their ids. What a message does is in message.c. */
#include "connections.h"
#include "shared.h"

#include <structmember.h>

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
    Py_VISIT(((sgpy_connections *)op)->tallied);
    Py_VISIT(((sgpy_connections *)op)->live);
    return 0;
}

static int connections_clear(PyObject *op) {
    /* Emptied, not dropped: methods may still be called by what is cleared later. */
    PyObject *live = ((sgpy_connections *)op)->live;
    if (live != NULL) {
        PyDict_Clear(live);
    }
    Py_CLEAR(((sgpy_connections *)op)->tallied);
    return 0;
}

static void connections_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((sgpy_connections *)op)->live);
    Py_CLEAR(((sgpy_connections *)op)->tallied);
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
    return sgpy_message_check(self, id, size);
}

/* What awaiting check_message runs. */
static PyObject *check_awaited(sgpy_state *st, PyObject *op, PyObject *id, PyObject *size,
                               PyObject *Py_UNUSED(c), PyObject **delegate) {
    PyObject *result = sgpy_message_check((sgpy_connections *)op, id, size);
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
    if (sgpy_message_decide(self, id, size, units, &m) == 0) {
        result = m.reason == NULL ? sgpy_message_decision(self->state, &m)
                                  : sgpy_message_refusal(self->state, &m);
        if (result != NULL && sgpy_message_observe(self->state, &m) < 0) {
            Py_CLEAR(result);
        }
    }
    sgpy_message_done(&m);
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
    /* Its ticks are those of the table that it leaves. */
    if (info->limiter != (sgpy_limiter *)limiter && sgpy_info_settle_last(info) < 0) {
        PyErr_Clear(); /* a clock that fails tells no time, and keeps nobody from moving */
        info->last = LAST_NEVER;
    }
    if ((max_size != Py_None && sgpy_message_size(max_size, &max) < 0) ||
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

static PyObject *connections_tally(PyObject *op, PyObject *table) {
    sgpy_connections *self = (sgpy_connections *)op;
    if (table != Py_None && (!PyObject_TypeCheck(table, self->state->Table_Type) ||
                             ((sgpy_table *)table)->sharing == NULL)) {
        PyErr_SetString(PyExc_TypeError, "messages are tallied in a table of shared memory, or "
                                         "(None) nowhere");
        return NULL;
    }
    PyObject *old = (PyObject *)self->tallied;
    self->tallied = table == Py_None ? NULL : (sgpy_table *)Py_NewRef(table);
    Py_XDECREF(old);
    Py_RETURN_NONE;
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
    {"_tally_in", connections_tally, METH_O,
     PyDoc_STR("_tally_in($self, table, /)\n--\n\n"
               "Counts messages and bytes for all processes, too, as tallies 0 and 1 of a table.")},
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
        [STR_DEGRADED] = "degraded",
        [STR_NOT_FOUND] = "connection_not_found",
        [STR_TOO_LARGE] = "message_too_large",
        [STR_RATE] = "rate_limit_exceeded",
        [STR_BANDWIDTH] = "bandwidth_exceeded",
        [STR_INTERNAL] = "internal_error",
        [STR_ELSEWHERE] = "elsewhere",
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
        sgpy_add_type(module, &sgpy_info_spec, &st->ConnectionInfo_Type, true) < 0) {
        return -1;
    }
    return sgpy_add_type(module, &connections_spec, &st->Connections_Type, true);
}
