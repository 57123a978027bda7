/* The steps of a coroutine object: send, throw, close, as a coroutine of Python has them. */
#include "awaitable.h"

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

/* A StopIteration that a clock or an observer let pass is an error, as in any coroutine: a
 * task cannot end with one, and would never end. */
static void no_stop(void) {
    PyObject *type, *stop, *traceback;
    if (SG_LIKELY(!PyErr_ExceptionMatches(PyExc_StopIteration))) {
        return;
    }
    PyErr_Fetch(&type, &stop, &traceback);
    PyErr_NormalizeException(&type, &stop, &traceback);
    PyObject *error = PyObject_CallFunction(PyExc_RuntimeError, "s",
                                            "coroutine raised StopIteration");
    if (error != NULL) {
        PyException_SetCause(error, Py_XNewRef(stop)); /* steals */
        PyErr_SetObject(PyExc_RuntimeError, error);
        Py_DECREF(error);
    }
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(traceback);
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
            no_stop();
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

PySendResult sgpy_call_send(PyObject *op, PyObject *value, PyObject **result) {
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

PyObject *sgpy_call_iternext(PyObject *op) {
    PyObject *result;
    const PySendResult sent = sgpy_call_send(op, Py_None, &result);
    return as_method(sent, result);
}

PyObject *sgpy_call_send_method(PyObject *op, PyObject *value) {
    PyObject *result;
    const PySendResult sent = sgpy_call_send(op, value, &result);
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

PyObject *sgpy_call_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
    sgpy_call *call = (sgpy_call *)op;
    sgpy_state *st = call->state;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments, not %zd", nargs);
        return NULL;
    }
    PyObject *value = nargs > 1 ? args[1] : NULL, *traceback = nargs > 2 ? args[2] : NULL;
    if (call->stage == FRESH) {
        (void)sgpy_call_clear(op);
        raise_given(args[0], value, traceback);
        return NULL;
    }
    if (call->stage != AWAITING) {
        (void)refuse(call);
        return NULL;
    }
    PyObject *method = NULL;
    call->stage = RUNNING; /* before the attribute, which may be code that looks at this */
    if (!is_generator_exit(args[0])) {
        method = PyObject_GetAttr(call->inner, st->str_throw);
        if (method == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
            call->stage = AWAITING;
            return NULL;
        }
        PyErr_Clear();
    }
    if (method == NULL) {
        /* As `yield from` does: what cannot be thrown into is let go, or closed. */
        if (!is_generator_exit(args[0]) || close_inner(call, st) == 0) {
            (void)sgpy_call_clear(op);
            raise_given(args[0], value, traceback);
        }
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_DECREF(method);
    call->stage = result == NULL ? DONE : AWAITING;
    if (result == NULL) {
        Py_CLEAR(call->inner); /* StopIteration, if it ended, carries its value */
    }
    return result;
}

PyObject *sgpy_call_close(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_call *call = (sgpy_call *)op;
    if (call->stage == RUNNING) {
        (void)refuse(call);
        return NULL;
    }
    if (call->stage == AWAITING && close_inner(call, call->state) < 0) {
        return NULL;
    }
    (void)sgpy_call_clear(op);
    Py_RETURN_NONE;
}
