/* Costs and seconds, as people give them, to integers that the core takes. */
#include "binding.h"

#include <math.h>

const uint64_t sgpy_ones[SG_QUOTAS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};

static int cost_of_int(PyObject *number, uint64_t *cost) {
    int overflow;
    const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (overflow != 0 || value < 0 || (uint64_t)value > SG_COST_MAX) {
        PyErr_Format(PyExc_ValueError, "a cost is 0 to 2**40, not %R", number);
        return -1;
    }
    *cost = (uint64_t)value;
    return 0;
}

int sgpy_cost_one(PyObject *object, uint64_t *cost) {
    if (SG_LIKELY(PyLong_CheckExact(object))) {
        return cost_of_int(object, cost);
    }
    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "a cost is an int, not %.200s", Py_TYPE(object)->tp_name);
        return -1;
    }
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        return -1;
    }
    const int result = cost_of_int(number, cost);
    Py_DECREF(number);
    return result;
}

static PyObject *quota_name(const sgpy_state *st, PyObject *quotas, Py_ssize_t i) {
    PyObject *item = PyTuple_GET_ITEM(quotas, i);
    return sgpy_is_quota(st, item) ? ((sgpy_quota *)item)->name : NULL;
}

/* ValueError that lists the names there are. */
static void unknown_name(const sgpy_state *st, PyObject *quotas, PyObject *name) {
    PyObject *known = PyList_New(0), *text = NULL, *separator = NULL;
    if (known == NULL) {
        return;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(quotas); i++) {
        PyObject *one = quota_name(st, quotas, i);
        PyObject *shown = one == NULL ? NULL : PyObject_Repr(one);
        if (one != NULL && (shown == NULL || PyList_Append(known, shown) < 0)) {
            Py_XDECREF(shown);
            goto done;
        }
        Py_XDECREF(shown);
    }
    if (PyList_GET_SIZE(known) == 0) {
        PyErr_Format(PyExc_ValueError,
                     "no quota is named %R: none has a name here, so give the cost as an int",
                     name);
        goto done;
    }
    separator = PyUnicode_FromString(", ");
    text = separator == NULL ? NULL : PyUnicode_Join(separator, known);
    if (text != NULL) {
        PyErr_Format(PyExc_ValueError, "no quota is named %R; the names are %U", name, text);
    }
done:
    Py_XDECREF(separator);
    Py_XDECREF(text);
    Py_DECREF(known);
}

/* Puts the cost of one (name, cost) into the row, at every quota of that name. */
static int cost_of_name(const sgpy_state *st, PyObject *quotas, PyObject *name, PyObject *value,
                        uint64_t *row) {
    uint64_t cost = 0;
    bool found = false;
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a cost mapping has the names of quotas as keys, not %.200s",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    if (sgpy_cost_one(value, &cost) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(quotas); i++) {
        PyObject *one = quota_name(st, quotas, i);
        if (one == NULL) {
            continue;
        }
        if (one != name) {
            const int order = PyUnicode_Compare(one, name);
            if (order == -1 && PyErr_Occurred()) {
                return -1;
            }
            if (order != 0) {
                continue;
            }
        }
        row[i] = cost;
        found = true;
    }
    if (!found) {
        unknown_name(st, quotas, name);
        return -1;
    }
    return 0;
}

static int cost_of_mapping(const sgpy_state *st, PyObject *object, PyObject *quotas,
                           uint64_t *row) {
    int result = -1;
    /* A list of its own: values may run code that changes the mapping. */
    PyObject *items = PyMapping_Items(object);
    if (items == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "the items of a cost mapping are pairs");
            goto done;
        }
        Py_INCREF(pair);
        const int one = cost_of_name(st, quotas, PyTuple_GET_ITEM(pair, 0),
                                     PyTuple_GET_ITEM(pair, 1), row);
        Py_DECREF(pair);
        if (one < 0) {
            goto done;
        }
    }
    result = 0;
done:
    Py_DECREF(items);
    return result;
}

static int cost_row(const sgpy_state *st, PyObject *object, PyObject *quotas, uint64_t *row) {
    uint64_t cost = 1;
    const bool mapping = object != NULL && !PyLong_Check(object) && !PyUnicode_Check(object) &&
                         !PyIndex_Check(object) &&
                         (PyDict_Check(object) ||
                          (PyMapping_Check(object) && !PySequence_Check(object)) ||
                          PyObject_HasAttrString(object, "items"));
    if (object != NULL && !mapping && sgpy_cost_one(object, &cost) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) && !PyIndex_Check(object)) {
            PyErr_Format(PyExc_TypeError,
                         "a cost is an int, or a mapping of quota names to ints, not %.200s",
                         Py_TYPE(object)->tp_name);
        }
        return -1;
    }
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++) {
        row[i] = cost;
    }
    return mapping ? cost_of_mapping(st, object, quotas, row) : 0;
}

int sgpy_cost_row(const sgpy_state *st, PyObject *object, PyObject *quotas, uint64_t *row) {
    /* Held, for the cost may rebind the limiter whose tuple it is. */
    Py_INCREF(quotas);
    const int result = cost_row(st, object, quotas, row);
    Py_DECREF(quotas);
    return result;
}

int sgpy_seconds(PyObject *object, const char *what, sg_ticks *ticks) {
    const double most = (double)SG_PERIOD_MAX_US / 1e6;
    const double seconds = PyBool_Check(object) ? NAN : PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            if (PyErr_ExceptionMatches(PyExc_TypeError)) {
                PyErr_Format(PyExc_TypeError, "%s is a number of seconds, not %.200s", what,
                             Py_TYPE(object)->tp_name);
            }
            return -1;
        }
        PyErr_Clear();
        goto outside;
    }
    if (PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is a number of seconds, not bool", what);
        return -1;
    }
    if (!(seconds > 0 && seconds <= most)) {
        goto outside;
    }
    *ticks = (sg_ticks)ceil(seconds * 1e9) * SG_TICKS_PER_NS;
    return 0;
outside:
    PyErr_Format(PyExc_ValueError, "%s is more than 0 seconds and at most 10 years, not %R", what,
                 object);
    return -1;
}
