/* FrameSend: the `send` of the application of a WebSocket. Its frames go to the `send` of the server
 * at once, and what that returns is what it returns: no coroutine of its own. All else goes to the
 * Python side, and so do frames once they are not to go straight any more. */
#include "binding.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    sgpy_state *state;
    PyObject *send;      /* NULL after tp_clear */
    PyObject *otherwise; /* what takes the rest */
    char straight;       /* whether frames go to `send` */
} sgpy_frame_send;

static PyObject *frame_send_call(PyObject *op, PyObject *const *args, size_t nargsf,
                                 PyObject *kwnames) {
    sgpy_frame_send *self = (sgpy_frame_send *)op;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "send takes one message");
        return NULL;
    }
    PyObject *message = args[0], *taker = self->otherwise;
    if (SG_LIKELY(self->straight && PyDict_Check(message))) {
        PyObject *type = PyDict_GetItemWithError(message, self->state->str_type);
        if (type == NULL && PyErr_Occurred()) {
            return NULL;
        }
        if (sgpy_is_text(type, self->state->str_websocket_send)) {
            taker = self->send;
        }
    }
    if (SG_UNLIKELY(taker == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "this send is being torn down");
        return NULL;
    }
    Py_INCREF(taker);
    PyObject *result = PyObject_CallOneArg(taker, message);
    Py_DECREF(taker);
    return result;
}

static PyObject *frame_send_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"send", "otherwise", NULL};
    PyObject *send, *otherwise;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO:FrameSend", names, &send,
                                                   &otherwise)) {
        return NULL;
    }
    if (!PyCallable_Check(send) || !PyCallable_Check(otherwise)) {
        PyErr_SetString(PyExc_TypeError, "send and otherwise are functions");
        return NULL;
    }
    sgpy_frame_send *self = (sgpy_frame_send *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = frame_send_call;
        self->state = st;
        self->send = Py_NewRef(send);
        self->otherwise = Py_NewRef(otherwise);
        self->straight = 1;
    }
    return (PyObject *)self;
}

static int frame_send_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_frame_send *self = (sgpy_frame_send *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->send);
    Py_VISIT(self->otherwise);
    return 0;
}

static int frame_send_clear(PyObject *op) {
    sgpy_frame_send *self = (sgpy_frame_send *)op;
    Py_CLEAR(self->send);
    Py_CLEAR(self->otherwise);
    return 0;
}

static void frame_send_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)frame_send_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef frame_send_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(sgpy_frame_send, vectorcall), READONLY, NULL},
    {"straight", T_BOOL, offsetof(sgpy_frame_send, straight), 0,
     PyDoc_STR("Whether frames go to the server at once.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot frame_send_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("FrameSend(send, otherwise)\n--\n\n"
                                  "The `send` of a WebSocket's application.")},
    {Py_tp_new, (void *)frame_send_new},
    {Py_tp_dealloc, (void *)frame_send_dealloc},
    {Py_tp_traverse, (void *)frame_send_traverse},
    {Py_tp_clear, (void *)frame_send_clear},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_members, frame_send_members},
    {0, NULL},
};

static PyType_Spec frame_send_spec = {
    .name = "sluicegate._core.FrameSend",
    .basicsize = (int)sizeof(sgpy_frame_send),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = frame_send_slots,
};

int sgpy_frame_send_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &frame_send_spec, &st->FrameSend_Type, true);
}
