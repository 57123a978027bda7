/* Ticket: an open reservation on a server, settled once. */
#include "server.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    sgpy_limiter *limiter;
    sgpy_server *server; /* of then: the limiter may have moved on */
    PyObject *quotas, *key;
    sg_ticket ticket;
} sgpy_ticket;

PyObject *sgpy_ticket_new(sgpy_limiter *limiter, sgpy_server *server, PyObject *quotas,
                          PyObject *key, const sg_ticket *ticket) {
    sgpy_ticket *self = PyObject_GC_New(sgpy_ticket, limiter->state->Ticket_Type);
    if (self == NULL) {
        return NULL;
    }
    self->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    self->server = (sgpy_server *)Py_NewRef((PyObject *)server);
    self->quotas = Py_NewRef(quotas);
    self->key = Py_NewRef(key);
    self->ticket = *ticket;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int ticket_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_ticket *self = (sgpy_ticket *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->limiter);
    Py_VISIT((PyObject *)self->server);
    Py_VISIT(self->quotas);
    Py_VISIT(self->key);
    return 0;
}

static int ticket_clear(PyObject *op) {
    sgpy_ticket *self = (sgpy_ticket *)op;
    PyObject *server = (PyObject *)self->server;
    self->ticket.open = false;
    self->server = NULL;
    Py_XDECREF(server);
    Py_CLEAR(self->limiter);
    Py_CLEAR(self->quotas);
    Py_CLEAR(self->key);
    return 0;
}

static void ticket_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)ticket_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

/* Settles at `actual`: a future, or None where nothing is open (any more). */
static PyObject *ticket_settle(PyObject *op, PyObject *actual) {
    sgpy_ticket *self = (sgpy_ticket *)op;
    uint64_t costs[SG_QUOTAS_MAX];
    uint8_t argument[SG_SETTLE_BYTES];
    if (self->limiter == NULL || !self->ticket.open) {
        Py_RETURN_NONE;
    }
    sgpy_limiter *limiter = self->limiter;
    if (sgpy_cost_row(limiter->state, actual, self->quotas, costs) < 0) {
        return NULL;
    }
    if (!self->ticket.open) {
        Py_RETURN_NONE;
    }
    if (limiter->server != self->server) { /* by testing.override: what is there stays charged */
        self->ticket.open = false;
        Py_RETURN_NONE;
    }
    sgpy_plan *plan = sgpy_plan_of(limiter);
    if (plan == NULL) {
        return NULL;
    }
    const size_t length = sg_settle_argument(&plan->plan, &self->ticket, costs, argument);
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)argument, (Py_ssize_t)length);
    if (bytes == NULL) {
        return NULL;
    }
    self->ticket.open = false;
    PyObject *future = sgpy_settle(limiter, self->key, bytes);
    Py_DECREF(bytes);
    return future;
}

static PyObject *ticket_open(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_ticket *)op)->ticket.open);
}

static PyObject *ticket_reserved(PyObject *op, void *Py_UNUSED(closure)) {
    const sgpy_ticket *self = (sgpy_ticket *)op;
    const Py_ssize_t count = self->quotas == NULL ? 0 : PyTuple_GET_SIZE(self->quotas);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        const uint64_t cost = self->ticket.cost[i];
        PyObject *units = PyLong_FromUnsignedLongLong(cost <= SG_COST_MAX ? cost : 0);
        if (units == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, units);
    }
    return tuple;
}

static PyMethodDef ticket_methods[] = {
    {"settle", ticket_settle, METH_O,
     PyDoc_STR("settle($self, actual, /)\n--\n\n"
               "Charges `actual` in place of what was reserved; a future, or None if it was "
               "settled before.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ticket_getset[] = {
    {"open", ticket_open, NULL, PyDoc_STR("Whether it is still to be settled."), NULL},
    {"reserved", ticket_reserved, NULL, PyDoc_STR("The units charged of each quota."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An open reservation on a server.")},
    {Py_tp_dealloc, (void *)ticket_dealloc},
    {Py_tp_traverse, (void *)ticket_traverse},
    {Py_tp_clear, (void *)ticket_clear},
    {Py_tp_methods, ticket_methods},
    {Py_tp_getset, ticket_getset},
    {0, NULL},
};

static PyType_Spec ticket_spec = {
    .name = "sluicegate._core.Ticket",
    .basicsize = (int)sizeof(sgpy_ticket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ticket_slots,
};

int sgpy_ticket_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &ticket_spec, &st->Ticket_Type, true);
}
