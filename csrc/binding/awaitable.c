/* A coroutine object in C: it runs a C function when it is first awaited. It has what
 * asyncio asks of a coroutine (send, throw, close), and passes on to an inner awaitable
 * as `return await` would. Python registers its type as collections.abc.Coroutine. */
#include "awaitable.h"

#include <stddef.h>

PyObject *sgpy_call_new(sgpy_state *st, const sgpy_call_kind *kind, PyObject *self, PyObject *a,
                        PyObject *b, PyObject *c) {
    sgpy_call *call = st->free_calls;
    if (SG_LIKELY(call != NULL)) {
        st->free_calls = (sgpy_call *)call->self;
        st->free_calls_count--;
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
        _Py_NewReference((PyObject *)call);
#else
        Py_SET_REFCNT((PyObject *)call, 1);
#endif
    } else {
        call = PyObject_GC_New(sgpy_call, st->Call_Type);
        if (call == NULL) {
            return NULL;
        }
        call->state = st;
        call->inner = NULL;
        call->weakrefs = NULL;
    }
    Py_INCREF(self);
    Py_XINCREF(a);
    Py_XINCREF(b);
    Py_XINCREF(c);
    call->kind = kind;
    call->self = self;
    call->a = a;
    call->b = b;
    call->c = c;
    call->stage = FRESH;
    PyObject_GC_Track((PyObject *)call);
    return (PyObject *)call;
}

static int call_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_call *call = (sgpy_call *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(call->self);
    Py_VISIT(call->a);
    Py_VISIT(call->b);
    Py_VISIT(call->c);
    Py_VISIT(call->inner);
    return 0;
}

int sgpy_call_clear(PyObject *op) {
    sgpy_call *call = (sgpy_call *)op;
    call->stage = DONE;
    Py_CLEAR(call->self);
    Py_CLEAR(call->a);
    Py_CLEAR(call->b);
    Py_CLEAR(call->c);
    Py_CLEAR(call->inner);
    return 0;
}

static void call_finalize(PyObject *op) {
    sgpy_call *call = (sgpy_call *)op;
    PyObject *type, *value, *traceback;
    if (call->stage != FRESH) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                         call->kind->qualname) < 0) {
        PyErr_WriteUnraisable(op);
    }
    PyErr_Restore(type, value, traceback);
}

static inline void end(PyObject *op) {
    sgpy_call *call = (sgpy_call *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (SG_UNLIKELY(call->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    (void)sgpy_call_clear(op);
    sgpy_state *st = sgpy_state_of_type(type);
    /* A finalised object must not come back: the collector would never finalise it again. */
    if (st != NULL && !st->closed && st->free_calls_count < SGPY_FREE_MAX &&
        !PyObject_GC_IsFinalized(op)) {
        call->self = (PyObject *)st->free_calls;
        st->free_calls = call;
        st->free_calls_count++;
        return;
    }
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static void call_dealloc(PyObject *op) {
    if (SG_LIKELY(((sgpy_call *)op)->stage != FRESH)) {
        PyObject_GC_UnTrack(op);
        end(op);
        return;
    }
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    /* It still has its arguments, and these may be calls in turn, to any depth. */
    Py_TRASHCAN_BEGIN(op, call_dealloc)
    end(op);
    Py_TRASHCAN_END
}

void sgpy_call_free_all(sgpy_state *st) {
    sgpy_call *call = st->free_calls;
    st->free_calls = NULL;
    st->free_calls_count = 0;
    while (call != NULL) {
        sgpy_call *next = (sgpy_call *)call->self;
        PyTypeObject *type = Py_TYPE(call);
        call->self = NULL;
        PyObject_GC_Del(call);
        Py_DECREF(type);
        call = next;
    }
}

/* ---- the type */

static PyObject *call_name(PyObject *op, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((sgpy_call *)op)->kind->name);
}

static PyObject *call_qualname(PyObject *op, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((sgpy_call *)op)->kind->qualname);
}

static PyObject *call_running(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_call *)op)->stage == RUNNING);
}

static PyObject *call_awaits(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *inner = ((sgpy_call *)op)->inner;
    return Py_NewRef(inner == NULL ? Py_None : inner);
}

static PyObject *call_repr(PyObject *op) {
    return PyUnicode_FromFormat("<coroutine object %s at %p>", ((sgpy_call *)op)->kind->qualname,
                                (void *)op);
}

static PyMethodDef call_methods[] = {
    {"send", sgpy_call_send_method, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nRuns it on.")},
    {"throw", (PyCFunction)(void (*)(void))sgpy_call_throw, METH_FASTCALL,
     PyDoc_STR("throw(type[, value[, traceback]])\n\nRaises an exception in it.")},
    {"close", sgpy_call_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nEnds it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"__name__", call_name, NULL, NULL, NULL},
    {"__qualname__", call_qualname, NULL, NULL, NULL},
    {"cr_running", call_running, NULL, NULL, NULL},
    {"cr_await", call_awaits, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef call_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_call, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call that is made when it is awaited.")},
    {Py_tp_dealloc, (void *)call_dealloc},
    {Py_tp_finalize, (void *)call_finalize},
    {Py_tp_traverse, (void *)call_traverse},
    {Py_tp_clear, (void *)sgpy_call_clear},
    {Py_tp_repr, (void *)call_repr},
    {Py_tp_iter, (void *)PyObject_SelfIter}, /* for `yield from call.__await__()` */
    {Py_tp_iternext, (void *)sgpy_call_iternext},
    {Py_am_await, (void *)Py_NewRef},
    {Py_am_send, (void *)sgpy_call_send},
    {Py_tp_methods, call_methods},
    {Py_tp_getset, call_getset},
    {Py_tp_members, call_members},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "sluicegate._core.Call",
    .basicsize = (int)sizeof(sgpy_call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};

int sgpy_call_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &call_spec, &st->Call_Type, true);
}
