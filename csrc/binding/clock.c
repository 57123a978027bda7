/* A clock that stands until it is advanced: nanoseconds that a table reads directly. */
#include "binding.h"

#include <math.h>

static int clock_set_ns(sgpy_clock *self, PyObject *value) {
    int overflow;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the time of a clock cannot be deleted");
        return -1;
    }
    if (PyBool_Check(value) || !PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "ns is an int, not %.200s", Py_TYPE(value)->tp_name);
        return -1;
    }
    const long long ns = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        PyErr_Format(PyExc_ValueError, "ns fits 64 bits, which %R does not", value);
        return -1;
    }
    self->ns = ns;
    return 0;
}

static int clock_init(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"start", NULL};
    double start = 0.0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|d:Clock", names, &start)) {
        return -1;
    }
    const double ns = rint(start * 1e9);
    if (!(ns > -9.2e18 && ns < 9.2e18)) {
        PyErr_SetString(PyExc_ValueError,
                        "start is finite and within 290 years of 0, in seconds");
        return -1;
    }
    ((sgpy_clock *)op)->ns = (int64_t)ns;
    return 0;
}

static PyObject *clock_time(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    return PyFloat_FromDouble((double)((sgpy_clock *)op)->ns / 1e9);
}

static PyObject *clock_get_ns(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(((sgpy_clock *)op)->ns);
}

static int clock_put_ns(PyObject *op, PyObject *value, void *Py_UNUSED(closure)) {
    return clock_set_ns((sgpy_clock *)op, value);
}

static PyObject *clock_repr(PyObject *op) {
    PyObject *seconds = clock_time(op, NULL);
    if (seconds == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("<Clock at %R s>", seconds);
    Py_DECREF(seconds);
    return text;
}

static void clock_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef clock_methods[] = {
    {"time", clock_time, METH_NOARGS, PyDoc_STR("time($self, /)\n--\n\nThe time in seconds.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef clock_getset[] = {
    {"ns", clock_get_ns, clock_put_ns, PyDoc_STR("The time in nanoseconds."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot clock_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Clock(start=0.0)\n--\n\n"
                                  "A clock that stands until it is advanced.")},
    {Py_tp_init, (void *)clock_init},
    {Py_tp_dealloc, (void *)clock_dealloc},
    {Py_tp_repr, (void *)clock_repr},
    {Py_tp_methods, clock_methods},
    {Py_tp_getset, clock_getset},
    {0, NULL},
};

static PyType_Spec clock_spec = {
    .name = "sluicegate._core.Clock",
    .basicsize = (int)sizeof(sgpy_clock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = clock_slots,
};

int sgpy_clock_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &clock_spec, &st->Clock_Type, true);
}
