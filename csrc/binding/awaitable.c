/* A coroutine object in C: it runs a C function when it is first awaited. It has what
 * asyncio asks of a coroutine (send, throw, close), and passes on to an inner awaitable
 * as `return await` would. Python registers its type as collections.abc.Coroutine. */
#include "binding.h"

#include <stddef.h>

typedef enum { FRESH, RUNNING, AWAITING, DONE } stage;

struct sgpy_call {
    PyObject_HEAD
    sgpy_state *state; /* looked up anew where the object dies */
    const sgpy_call_kind *kind;
    PyObject *self, *a, *b, *c; /* self links the free list */
    PyObject *inner;            /* what is awaited */
    stage stage;
    PyObject *weakrefs;
};

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

static int call_clear(PyObject *op) {
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

static void call_dealloc(PyObject *op) {
    sgpy_call *call = (sgpy_call *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (SG_UNLIKELY(call->stage == FRESH) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (SG_UNLIKELY(call->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    (void)call_clear(op);
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

/* ---- running */

/* What to drive for `await delegate`: a coroutine itself, else its __await__. Steals. */
static PyObject *awaited_iterator(PyObject *delegate) {
    if (PyCoro_CheckExact(delegate)) {
        return delegate;
    }
    PyAsyncMethods *methods = Py_TYPE(delegate)->tp_as_async;
    PyObject *iterator = NULL;
    if (methods != NULL && methods->am_await != NULL) {
        iterator = methods->am_await(delegate);
        if (iterator != NULL && !PyIter_Check(iterator)) {
            PyErr_Format(PyExc_TypeError, "__await__() returned no iterator but %.200s",
                         Py_TYPE(iterator)->tp_name);
            Py_CLEAR(iterator);
        }
    } else {
        PyErr_Format(PyExc_TypeError, "%.200s cannot be awaited", Py_TYPE(delegate)->tp_name);
    }
    Py_DECREF(delegate);
    return iterator;
}

/* After a step of the inner awaitable. */
static PySendResult after_step(sgpy_call *call, PySendResult sent) {
    if (sent == PYGEN_NEXT) {
        call->stage = AWAITING;
        return sent;
    }
    call->stage = DONE;
    Py_CLEAR(call->inner);
    return sent;
}

static PySendResult first_step(sgpy_call *call, PyObject **result) {
    PyObject *self = call->self, *a = call->a, *b = call->b, *c = call->c, *delegate = NULL;
    PySendResult sent = PYGEN_RETURN;
    /* Ours from here on: the function may run code that looks at this object. */
    call->self = call->a = call->b = call->c = NULL;
    call->stage = RUNNING;
    *result = call->kind->run(call->state, self, a, b, c, &delegate);
    if (SG_UNLIKELY(delegate != NULL)) {
        call->inner = awaited_iterator(delegate);
        sent = call->inner == NULL ? PYGEN_ERROR : PyIter_Send(call->inner, Py_None, result);
        sent = after_step(call, sent);
    } else {
        call->stage = DONE;
        if (SG_UNLIKELY(*result == NULL)) {
            sent = PYGEN_ERROR;
        }
    }
    Py_DECREF(self);
    Py_XDECREF(a);
    Py_XDECREF(b);
    Py_XDECREF(c);
    return sent;
}

static PySendResult refuse(const sgpy_call *call) {
    if (call->stage == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    } else {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    }
    return PYGEN_ERROR;
}

static PySendResult call_send(PyObject *op, PyObject *value, PyObject **result) {
    sgpy_call *call = (sgpy_call *)op;
    *result = NULL;
    if (SG_LIKELY(call->stage == FRESH)) {
        if (SG_UNLIKELY(value != Py_None && value != NULL)) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        return first_step(call, result);
    }
    if (call->stage != AWAITING) {
        return refuse(call);
    }
    call->stage = RUNNING;
    return after_step(call, PyIter_Send(call->inner, value == NULL ? Py_None : value, result));
}

/* StopIteration(value); a tuple or an exception would be taken apart if merely set. */
static void set_stop(PyObject *value) {
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

/* What a step gives to who called a method: the value, or an exception. */
static PyObject *as_method(PySendResult sent, PyObject *result) {
    if (sent == PYGEN_NEXT) {
        return result;
    }
    if (sent == PYGEN_RETURN) {
        if (PyTuple_Check(result) || PyExceptionInstance_Check(result)) {
            set_stop(result);
        } else {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_DECREF(result);
    }
    return NULL;
}

static PyObject *call_iternext(PyObject *op) {
    PyObject *result;
    const PySendResult sent = call_send(op, Py_None, &result);
    return as_method(sent, result);
}

static PyObject *call_send_method(PyObject *op, PyObject *value) {
    PyObject *result;
    const PySendResult sent = call_send(op, value, &result);
    return as_method(sent, result);
}

/* ---- throw and close */

/* Raises what throw() was given: an exception, or a class with a value and a traceback. */
static void raise_given(PyObject *type, PyObject *value, PyObject *traceback) {
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL && value != Py_None) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return;
        }
        value = type;
        type = (PyObject *)Py_TYPE(type);
    } else if (!PyExceptionClass_Check(type)) {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from BaseException, not "
                     "%.200s",
                     Py_TYPE(type)->tp_name);
        return;
    }
    if (traceback == Py_None) {
        traceback = NULL;
    }
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
        return;
    }
    if (traceback == NULL && PyExceptionInstance_Check(value == NULL ? Py_None : value)) {
        traceback = PyException_GetTraceback(value); /* new, kept by Restore */
    } else {
        Py_XINCREF(traceback);
    }
    Py_INCREF(type);
    if (value != NULL) {
        Py_INCREF(value);
    }
    PyErr_Restore(type, value, traceback);
}

/* Closes the inner awaitable. -1: it would not. */
static int close_inner(sgpy_call *call, const sgpy_state *st) {
    PyObject *method, *inner = call->inner;
    call->inner = NULL;
    call->stage = RUNNING;
    method = PyObject_GetAttr(inner, st->str_close);
    PyObject *result = NULL;
    if (method != NULL) {
        result = PyObject_CallNoArgs(method);
        Py_DECREF(method);
    } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(inner);
    call->stage = DONE;
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static bool is_generator_exit(PyObject *type) {
    return PyErr_GivenExceptionMatches(type, PyExc_GeneratorExit) != 0;
}

static PyObject *call_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
    sgpy_call *call = (sgpy_call *)op;
    sgpy_state *st = call->state;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments, not %zd", nargs);
        return NULL;
    }
    PyObject *value = nargs > 1 ? args[1] : NULL, *traceback = nargs > 2 ? args[2] : NULL;
    if (call->stage == FRESH) {
        (void)call_clear(op);
        raise_given(args[0], value, traceback);
        return NULL;
    }
    if (call->stage != AWAITING) {
        (void)refuse(call);
        return NULL;
    }
    PyObject *method = NULL;
    if (!is_generator_exit(args[0])) {
        method = PyObject_GetAttr(call->inner, st->str_throw);
        if (method == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    if (method == NULL) {
        /* As `yield from` does: what cannot be thrown into is let go, or closed. */
        if (!is_generator_exit(args[0]) || close_inner(call, st) == 0) {
            (void)call_clear(op);
            raise_given(args[0], value, traceback);
        }
        return NULL;
    }
    call->stage = RUNNING;
    PyObject *result = PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_DECREF(method);
    call->stage = result == NULL ? DONE : AWAITING;
    if (result == NULL) {
        Py_CLEAR(call->inner); /* StopIteration, if it ended, carries its value */
    }
    return result;
}

static PyObject *call_close(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_call *call = (sgpy_call *)op;
    if (call->stage == RUNNING) {
        (void)refuse(call);
        return NULL;
    }
    if (call->stage == AWAITING && close_inner(call, call->state) < 0) {
        return NULL;
    }
    (void)call_clear(op);
    Py_RETURN_NONE;
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
    {"send", call_send_method, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nRuns it on.")},
    {"throw", (PyCFunction)(void (*)(void))call_throw, METH_FASTCALL,
     PyDoc_STR("throw(type[, value[, traceback]])\n\nRaises an exception in it.")},
    {"close", call_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nEnds it.")},
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
    {Py_tp_clear, (void *)call_clear},
    {Py_tp_repr, (void *)call_repr},
    {Py_tp_iter, (void *)PyObject_SelfIter}, /* for `yield from call.__await__()` */
    {Py_tp_iternext, (void *)call_iternext},
    {Py_am_await, (void *)Py_NewRef},
    {Py_am_send, (void *)call_send},
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
