/* MessageGate: the usual message of one WebSocket, decided in one call: by a limiter under a
 * prepared key, its size too where that counts. Whatever is not usual it leaves to the Python side,
 * uncharged. */
#include "binding.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    sgpy_state *state;
    sgpy_limiter *limiter; /* NULL: the size alone is limited */
    sgpy_prepared prepared;
    unsigned messages; /* of its quotas the first ones; the others are of bytes */
    bool sized;        /* whether the size counts */
    bool open;         /* until tp_clear */
    uint64_t max_size;
} sgpy_message_gate;

/* Bytes in UTF-8; a lone surrogate has three. */
static uint64_t utf8_size(PyObject *text) {
    const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    uint64_t size = (uint64_t)length;
    if (PyUnicode_IS_ASCII(text)) {
        return size;
    }
    const int kind = (int)PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    for (Py_ssize_t i = 0; i < length; i++) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);
        size += (c >= 0x80u ? 1u : 0u) + (c >= 0x800u ? 1u : 0u) + (c >= 0x10000u ? 1u : 0u);
    }
    return size;
}

/* The size of a message; false for one that the Python side has to look at. */
static bool size_of(const sgpy_state *st, PyObject *message, uint64_t *size) {
    PyObject *data = PyDict_GetItemWithError(message, st->str_text);
    if (data != NULL && PyUnicode_CheckExact(data)) {
        *size = utf8_size(data);
        return true;
    }
    if (data == NULL || data == Py_None) {
        data = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(message, st->str_bytes);
        if (data != NULL && PyBytes_CheckExact(data)) {
            *size = (uint64_t)PyBytes_GET_SIZE(data);
            return true;
        }
    }
    PyErr_Clear();
    return false;
}

/* True, the Decision that refuses it, or None for what is not decided here; NULL with an
 * exception. */
static PyObject *decide(sgpy_message_gate *self, sgpy_limiter *limiter, uint64_t size) {
    sgpy_state *st = self->state;
    uint64_t costs[SG_QUOTAS_MAX];
    sgpy_outcome out;
    sg_ticks now;
    if (SG_UNLIKELY(!sgpy_is_usual(limiter))) {
        Py_RETURN_NONE;
    }
    for (unsigned i = 0; i < limiter->count; i++) {
        costs[i] = i < self->messages ? 1 : size;
    }
    (void)sgpy_table_now(limiter->table, &now); /* of a clock that is usual */
    if (sgpy_charge(limiter, limiter->rows, sgpy_prepared_fp(&self->prepared, limiter->table),
                    self->prepared.key.data, self->prepared.key.length, costs, now, &out) < 0) {
        return NULL;
    }
    if (SG_LIKELY((out.flags & SGPY_ALLOWED) && st->observer == NULL)) {
        Py_RETURN_TRUE; /* without an object of it, which nobody would look at */
    }
    PyObject *decision = sgpy_observed(limiter, self->prepared.object,
                                       sgpy_outcome_decision(st, limiter->quotas, &out));
    if (decision != NULL && (out.flags & SGPY_ALLOWED)) {
        Py_DECREF(decision);
        Py_RETURN_TRUE;
    }
    return decision;
}

static PyObject *gate_call(PyObject *op, PyObject *const *args, size_t nargsf,
                           PyObject *kwnames) {
    sgpy_message_gate *self = (sgpy_message_gate *)op;
    uint64_t size = 0;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a gate takes a message");
        return NULL;
    }
    PyObject *message = args[0];
    if (SG_UNLIKELY(!self->open || !PyDict_CheckExact(message))) {
        Py_RETURN_NONE;
    }
    PyObject *type = PyDict_GetItemWithError(message, self->state->str_type);
    if (!sgpy_is_text(type, self->state->str_websocket_receive)) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    if (self->sized && (!size_of(self->state, message, &size) || size > self->max_size ||
                        size > SG_COST_MAX)) {
        Py_RETURN_NONE;
    }
    if (self->limiter == NULL) {
        Py_RETURN_TRUE;
    }
    sgpy_limiter *limiter = (sgpy_limiter *)Py_NewRef((PyObject *)self->limiter);
    PyObject *verdict = decide(self, limiter, size);
    Py_DECREF(limiter);
    return verdict;
}

static PyObject *gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"limiter", "key", "messages", "max_size", NULL};
    PyObject *limiter, *key, *max_size = Py_None;
    unsigned messages = 0;
    uint64_t most = UINT64_MAX;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|IO:MessageGate", names, &limiter, &key,
                                     &messages, &max_size)) {
        return NULL;
    }
    if (limiter != Py_None && !sgpy_is_limiter(st, limiter)) {
        PyErr_Format(PyExc_TypeError, "a limiter is a Limiter or None, not %.200s",
                     Py_TYPE(limiter)->tp_name);
        return NULL;
    }
    if (max_size != Py_None) {
        most = PyLong_AsUnsignedLongLong(max_size);
        if (most == UINT64_MAX && PyErr_Occurred()) {
            return NULL;
        }
    }
    sgpy_message_gate *self = (sgpy_message_gate *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = gate_call;
    self->state = st;
    self->limiter = limiter == Py_None ? NULL : (sgpy_limiter *)Py_NewRef(limiter);
    self->messages = messages;
    self->max_size = most;
    self->sized = max_size != Py_None ||
                  (self->limiter != NULL && self->limiter->count > messages);
    self->open = true;
    if (sgpy_prepare(&self->prepared, key) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int gate_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_message_gate *self = (sgpy_message_gate *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->limiter);
    Py_VISIT(self->prepared.object);
    return 0;
}

static int gate_clear(PyObject *op) {
    sgpy_message_gate *self = (sgpy_message_gate *)op;
    self->open = false;
    Py_CLEAR(self->limiter);
    sgpy_prepared_clear(&self->prepared);
    return 0;
}

static void gate_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)gate_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef gate_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(sgpy_message_gate, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("MessageGate(limiter, key, messages=0, max_size=None)\n--\n\n"
                       "Decides what is received: True where it is a message and admitted, the decision that refuses "
                       "it, or\nNone for what is not to be decided here. The first `messages` "
                       "quotas take 1, the\nothers its bytes.")},
    {Py_tp_new, (void *)gate_new},
    {Py_tp_dealloc, (void *)gate_dealloc},
    {Py_tp_traverse, (void *)gate_traverse},
    {Py_tp_clear, (void *)gate_clear},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_members, gate_members},
    {0, NULL},
};

static PyType_Spec gate_spec = {
    .name = "sluicegate._core.MessageGate",
    .basicsize = (int)sizeof(sgpy_message_gate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = gate_slots,
};

int sgpy_message_gate_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &gate_spec, &st->MessageGate_Type, true);
}
