/* Sender: the `send` of an ASGI server, for a response that is to have some headers more. It is
 * no coroutine of its own: it returns what `send` returns, so that a message costs one call. */
#include "fields.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    sgpy_state *state;
    PyObject *send;   /* NULL after tp_clear */
    PyObject *fields; /* a list of pairs, never shown */
} sgpy_sender;

/* Whether a message begins a response: of HTTP, or one that denies a WebSocket. What has no such
 * type is for `send` to judge. -1 with an exception. */
static int begins(const sgpy_state *st, PyObject *message) {
    PyObject *type = PyDict_GetItemWithError(message, st->str_type);
    if (type == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!PyUnicode_Check(type) ||
        PyUnicode_GET_LENGTH(type) < PyUnicode_GET_LENGTH(st->str_response_start)) {
        return 0;
    }
    return (int)PyUnicode_Tailmatch(type, st->str_response_start, 0, PY_SSIZE_T_MAX, 1);
}

/* The same message, its headers completed: a new one, for this one is the application's. */
static PyObject *completed(const sgpy_sender *self, PyObject *message) {
    const sgpy_state *st = self->state;
    PyObject *copy = PyDict_Copy(message);
    if (copy == NULL) {
        return NULL;
    }
    PyObject *headers = NULL, *own = PyDict_GetItemWithError(copy, st->str_headers);
    Py_XINCREF(own);
    const int some = own != NULL ? PyObject_IsTrue(own) : PyErr_Occurred() ? -1 : 0;
    if (some >= 0) {
        headers = sgpy_fields_completed(some ? own : NULL, self->fields);
    }
    if (headers == NULL || PyDict_SetItem(copy, st->str_headers, headers) < 0) {
        Py_CLEAR(copy);
    }
    Py_XDECREF(own);
    Py_XDECREF(headers);
    return copy;
}

static PyObject *sender_call(PyObject *op, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames) {
    sgpy_sender *self = (sgpy_sender *)op;
    PyObject *copy = NULL;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "send takes one message");
        return NULL;
    }
    if (SG_UNLIKELY(self->send == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "this send is being torn down");
        return NULL;
    }
    PyObject *message = args[0];
    if (SG_LIKELY(PyDict_Check(message))) {
        const int first = begins(self->state, message);
        if (first < 0 || (first > 0 && (copy = completed(self, message)) == NULL)) {
            return NULL;
        }
    }
    PyObject *send = Py_NewRef(self->send);
    PyObject *result = PyObject_CallOneArg(send, copy == NULL ? message : copy);
    Py_DECREF(send);
    Py_XDECREF(copy);
    return result;
}

PyObject *sgpy_sender_new(sgpy_state *st, PyObject *send, PyObject *fields) {
    sgpy_sender *self = PyObject_GC_New(sgpy_sender, st->Sender_Type);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = sender_call;
    self->state = st;
    self->send = Py_NewRef(send);
    self->fields = Py_NewRef(fields);
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"send", "fields", NULL};
    PyObject *send, *given;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Sender", names, &send, &given)) {
        return NULL;
    }
    if (!PyCallable_Check(send)) {
        PyErr_Format(PyExc_TypeError, "send is a function, not %.200s", Py_TYPE(send)->tp_name);
        return NULL;
    }
    PyObject *fields = PySequence_List(given);
    PyObject *self = fields == NULL ? NULL : sgpy_sender_new(st, send, fields);
    Py_XDECREF(fields);
    return self;
}

static int sender_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_sender *self = (sgpy_sender *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->send);
    Py_VISIT(self->fields);
    return 0;
}

static int sender_clear(PyObject *op) {
    sgpy_sender *self = (sgpy_sender *)op;
    Py_CLEAR(self->send);
    Py_CLEAR(self->fields);
    return 0;
}

static void sender_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)sender_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyMemberDef sender_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(sgpy_sender, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sender_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Sender(send, fields)\n--\n\n"
                                  "`send`, for responses with these headers beside their own.")},
    {Py_tp_new, (void *)sender_new},
    {Py_tp_dealloc, (void *)sender_dealloc},
    {Py_tp_traverse, (void *)sender_traverse},
    {Py_tp_clear, (void *)sender_clear},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_members, sender_members},
    {0, NULL},
};

static PyType_Spec sender_spec = {
    .name = "sluicegate._core.Sender",
    .basicsize = (int)sizeof(sgpy_sender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = sender_slots,
};

int sgpy_sending_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &sender_spec, &st->Sender_Type, true);
}
