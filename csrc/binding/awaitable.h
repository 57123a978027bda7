/* The coroutine object, for awaitable.c (its life and type) and running.c (its steps). */
#ifndef SGPY_AWAITABLE_H
#define SGPY_AWAITABLE_H

#include "binding.h"

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

int sgpy_call_clear(PyObject *op); /* ends it and drops all it holds */

PySendResult sgpy_call_send(PyObject *op, PyObject *value, PyObject **result);
PyObject *sgpy_call_iternext(PyObject *op);
PyObject *sgpy_call_send_method(PyObject *op, PyObject *value);
PyObject *sgpy_call_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
PyObject *sgpy_call_close(PyObject *op, PyObject *ignored);

#endif
