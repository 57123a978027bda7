/* One live connection: its counters, its client, its place. */
#include "connections.h"

#include <structmember.h>

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
int sgpy_info_settle_last(sgpy_info *self) {
    if (self->last == LAST_TICKS && self->limiter != NULL && self->limiter->table != NULL) {
        sg_ticks now;
        struct timespec wall;
        const sg_ticks then = self->last_ticks;
        sgpy_table *table = self->limiter->table;
        Py_INCREF(table);
        const int failed = sgpy_table_now(table, &now);
        Py_DECREF(table);
        if (failed < 0) {
            return -1;
        }
        (void)clock_gettime(CLOCK_REALTIME, &wall);
        self->last_wall = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9 -
                          (double)sg_ahead(now, then) / (double)SG_TICKS_PER_SECOND;
        self->last = LAST_WALL;
    }
    return 0;
}

static PyObject *info_get_last(PyObject *op, void *Py_UNUSED(closure)) {
    sgpy_info *self = (sgpy_info *)op;
    if (sgpy_info_settle_last(self) < 0) {
        return NULL;
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

PyType_Spec sgpy_info_spec = {
    .name = "sluicegate._core.ConnectionInfo",
    .basicsize = (int)sizeof(sgpy_info),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = info_slots,
};
