/* Quota: the numbers of one quota, checked when it is made. Immutable, hashable. */
#include "binding.h"

#include <stddef.h>

int sgpy_algorithm(const sgpy_state *st, PyObject *name) {
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "an algorithm is a str, not %.200s", Py_TYPE(name)->tp_name);
        return -1;
    }
    for (int i = 0; i < SG_ALGORITHMS; i++) {
        if (name == st->algorithms[i] || PyUnicode_Compare(name, st->algorithms[i]) == 0) {
            return i;
        }
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "there is no algorithm %R: it is gcra, fixed-window, sliding-window or "
                 "sliding-log",
                 name);
    return -1;
}

/* An int from 1 up; what does not fit 64 bits becomes UINT64_MAX, which no check passes. */
static int units_of(PyObject *object, const char *what, uint64_t *units) {
    int overflow;
    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is an int, not %.200s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        return -1;
    }
    const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    *units = overflow != 0 || value < 1 ? UINT64_MAX : (uint64_t)value;
    return 0;
}

static int period_of(PyObject *object, uint64_t *us) {
    if (PyBool_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a period is a number of seconds, not bool");
        return -1;
    }
    const double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "a period is a number of seconds, not %.200s",
                         Py_TYPE(object)->tp_name);
            return -1;
        }
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
    } else if (sg_period_us(seconds, us)) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "a period is 0.001 seconds to 10 years (316224000 seconds), not %R", object);
    return -1;
}

static void refuse(sg_quota_error error, PyObject *limit, PyObject *period, PyObject *burst) {
    switch (error) {
    case SG_QUOTA_BAD_LIMIT:
        PyErr_Format(PyExc_ValueError, "a limit is 1 to 2**40 units, not %R", limit);
        return;
    case SG_QUOTA_BAD_BURST:
        PyErr_Format(PyExc_ValueError, "a burst is 1 to 2**40 units, not %R", burst);
        return;
    case SG_QUOTA_BURST_UNUSED:
        PyErr_Format(PyExc_ValueError,
                     "only gcra has a burst other than the limit: leave out burst=%R", burst);
        return;
    case SG_QUOTA_BAD_RATE:
        PyErr_Format(PyExc_ValueError,
                     "%R in %R seconds is more than 1000000000 units a second", limit, period);
        return;
    case SG_QUOTA_BAD_FILL:
        PyErr_Format(PyExc_ValueError,
                     "at %R in %R seconds a burst of %R takes more than 12 years to fill", limit,
                     period, burst);
        return;
    case SG_QUOTA_BAD_PERIOD:
        PyErr_Format(PyExc_ValueError, "a period is 0.001 seconds to 10 years, not %R", period);
        return;
    case SG_QUOTA_BAD_ALGORITHM:
    case SG_QUOTA_OK:
        break;
    }
    PyErr_SetString(PyExc_ValueError, "not a quota");
}

static PyObject *quota_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"limit", "period", "burst", "algorithm", "name", "shadow", NULL};
    PyObject *limit, *period, *burst = Py_None, *algorithm = NULL, *name = Py_None;
    int shadow = 0;
    uint64_t units, burst_units = 0, us = 0;
    sg_quota quota;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOp:Quota", names, &limit, &period,
                                     &burst, &algorithm, &name, &shadow)) {
        return NULL;
    }
    const int which = algorithm == NULL ? SG_GCRA : sgpy_algorithm(st, algorithm);
    if (which < 0 || units_of(limit, "a limit", &units) < 0 || period_of(period, &us) < 0 ||
        (burst != Py_None && units_of(burst, "a burst", &burst_units) < 0)) {
        return NULL;
    }
    if (name != Py_None && !PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a name is a str or None, not %.200s",
                     Py_TYPE(name)->tp_name);
        return NULL;
    }
    const sg_quota_error error =
        sg_quota_init(&quota, (sg_algorithm)which, units, us, burst_units, shadow != 0);
    if (error != SG_QUOTA_OK) {
        refuse(error, limit, period, burst == Py_None ? limit : burst);
        return NULL;
    }
    sgpy_quota *self = (sgpy_quota *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->quota = quota;
    self->period_us = us;
    self->name = self->label = self->policy = NULL;
    if (name != Py_None) {
        /* An exact str: the name is compared where no Python code may run. */
        self->name = PyUnicode_FromObject(name);
        if (self->name == NULL) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static void quota_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(((sgpy_quota *)op)->name);
    Py_XDECREF(((sgpy_quota *)op)->label);
    Py_XDECREF(((sgpy_quota *)op)->policy);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- reading it */

static PyObject *quota_limit(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((sgpy_quota *)op)->quota.limit);
}

static PyObject *quota_period(PyObject *op, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble((double)((sgpy_quota *)op)->period_us / 1e6);
}

static PyObject *quota_burst(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((sgpy_quota *)op)->quota.burst);
}

static PyObject *quota_algorithm(PyObject *op, void *Py_UNUSED(closure)) {
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    if (st == NULL) {
        return NULL;
    }
    return Py_NewRef(st->algorithms[((sgpy_quota *)op)->quota.algorithm]);
}

static PyObject *quota_name(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *name = ((sgpy_quota *)op)->name;
    return Py_NewRef(name == NULL ? Py_None : name);
}

static PyObject *quota_shadow(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_quota *)op)->quota.shadow);
}

static PyGetSetDef quota_getset[] = {
    {"limit", quota_limit, NULL, PyDoc_STR("Units a period."), NULL},
    {"period", quota_period, NULL, PyDoc_STR("Seconds."), NULL},
    {"burst", quota_burst, NULL, PyDoc_STR("Units at once; equal to limit unless given."), NULL},
    {"algorithm", quota_algorithm, NULL,
     PyDoc_STR("gcra, fixed-window, sliding-window or sliding-log."), NULL},
    {"name", quota_name, NULL, PyDoc_STR("What a cost mapping calls it, or None."), NULL},
    {"shadow", quota_shadow, NULL, PyDoc_STR("Charged apart, holds nothing back."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* (limit, period, burst, algorithm, name, shadow): what makes two of them equal. */
static PyObject *quota_fields(PyObject *op) {
    const sgpy_quota *self = (sgpy_quota *)op;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    if (st == NULL) {
        return NULL;
    }
    return Py_BuildValue("(KdKOOO)", (unsigned long long)self->quota.limit,
                         (double)self->period_us / 1e6, (unsigned long long)self->quota.burst,
                         st->algorithms[self->quota.algorithm],
                         self->name == NULL ? Py_None : self->name,
                         self->quota.shadow ? Py_True : Py_False);
}

static PyObject *quota_compare(PyObject *left, PyObject *right, int op) {
    sgpy_state *st = sgpy_state_for(Py_TYPE(left));
    PyObject *a = NULL, *b = NULL, *result = NULL;
    if (st == NULL) {
        return NULL;
    }
    if ((op != Py_EQ && op != Py_NE) || !sgpy_is_quota(st, right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    a = quota_fields(left);
    b = a == NULL ? NULL : quota_fields(right);
    if (b != NULL) {
        result = PyObject_RichCompare(a, b, op);
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

static Py_hash_t quota_hash(PyObject *op) {
    PyObject *fields = quota_fields(op);
    if (fields == NULL) {
        return -1;
    }
    const Py_hash_t hash = PyObject_Hash(fields);
    Py_DECREF(fields);
    return hash;
}

/* The keywords that differ from the defaults; also the arguments of a copy. */
static PyObject *quota_keywords(const sgpy_quota *self, const sgpy_state *st) {
    PyObject *burst = NULL, *keywords = PyDict_New();
    if (keywords == NULL) {
        return NULL;
    }
    if (self->quota.burst != self->quota.limit) {
        burst = PyLong_FromUnsignedLongLong(self->quota.burst);
        if (burst == NULL || PyDict_SetItemString(keywords, "burst", burst) < 0) {
            goto fail;
        }
    }
    if ((self->quota.algorithm != SG_GCRA &&
         PyDict_SetItemString(keywords, "algorithm", st->algorithms[self->quota.algorithm]) < 0) ||
        (self->name != NULL && PyDict_SetItemString(keywords, "name", self->name) < 0) ||
        (self->quota.shadow && PyDict_SetItemString(keywords, "shadow", Py_True) < 0)) {
        goto fail;
    }
    Py_XDECREF(burst);
    return keywords;
fail:
    Py_XDECREF(burst);
    Py_DECREF(keywords);
    return NULL;
}

static PyObject *quota_getnewargs(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const sgpy_quota *self = (sgpy_quota *)op;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    PyObject *keywords = st == NULL ? NULL : quota_keywords(self, st);
    if (keywords == NULL) {
        return NULL;
    }
    return Py_BuildValue("((Kd)N)", (unsigned long long)self->quota.limit,
                         (double)self->period_us / 1e6, keywords);
}

static PyObject *quota_repr(PyObject *op) {
    const sgpy_quota *self = (sgpy_quota *)op;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    PyObject *keywords = NULL, *parts = NULL, *part = NULL, *comma = NULL, *text = NULL;
    PyObject *name, *value, *period = NULL, *type_name = NULL;
    Py_ssize_t at = 0;
    if (st == NULL || (keywords = quota_keywords(self, st)) == NULL ||
        (parts = PyList_New(0)) == NULL ||
        (period = PyFloat_FromDouble((double)self->period_us / 1e6)) == NULL) {
        goto done;
    }
    part = PyUnicode_FromFormat("%llu, %R", (unsigned long long)self->quota.limit, period);
    if (part == NULL || PyList_Append(parts, part) < 0) {
        goto done;
    }
    while (PyDict_Next(keywords, &at, &name, &value)) {
        Py_XSETREF(part, PyUnicode_FromFormat("%U=%R", name, value));
        if (part == NULL || PyList_Append(parts, part) < 0) {
            goto done;
        }
    }
    comma = PyUnicode_FromString(", ");
    type_name = comma == NULL ? NULL : PyObject_GetAttrString((PyObject *)Py_TYPE(op), "__name__");
    if (type_name != NULL) {
        Py_XSETREF(part, PyUnicode_Join(comma, parts));
        text = part == NULL ? NULL : PyUnicode_FromFormat("%S(%U)", type_name, part);
    }
done:
    Py_XDECREF(keywords);
    Py_XDECREF(parts);
    Py_XDECREF(part);
    Py_XDECREF(comma);
    Py_XDECREF(period);
    Py_XDECREF(type_name);
    return text;
}

static PyMethodDef quota_methods[] = {
    {"__getnewargs_ex__", quota_getnewargs, METH_NOARGS, PyDoc_STR("For copy and pickle.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot quota_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
                    "Quota(limit, period, *, burst=None, algorithm='gcra', name=None, "
                    "shadow=False)\n--\n\n"
                    "limit units in period seconds.")},
    {Py_tp_new, (void *)quota_new},
    {Py_tp_dealloc, (void *)quota_dealloc},
    {Py_tp_repr, (void *)quota_repr},
    {Py_tp_hash, (void *)quota_hash},
    {Py_tp_richcompare, (void *)quota_compare},
    {Py_tp_methods, quota_methods},
    {Py_tp_getset, quota_getset},
    {0, NULL},
};

static PyType_Spec quota_spec = {
    .name = "sluicegate._core.Quota",
    .basicsize = (int)sizeof(sgpy_quota),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = quota_slots,
};

int sgpy_quota_init_type(PyObject *module, sgpy_state *st) {
    if (sgpy_add_type(module, &quota_spec, &st->Quota_Type, true) < 0) {
        return -1;
    }
    return sgpy_set_match_args(st->Quota_Type, "limit period burst algorithm name shadow");
}
