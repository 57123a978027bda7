/* Decision: the raw outcome, turned to Python's numbers when it is asked. Dead ones are
 * kept for the next. */
#include "fields.h"

#include <math.h>
#include <stddef.h>

double sgpy_seconds_of(sg_ticks ticks) {
    if (ticks == SG_NEVER) {
        return Py_HUGE_VAL;
    }
    const uint64_t ns = ticks / SG_TICKS_PER_NS + (ticks % SG_TICKS_PER_NS != 0);
    double seconds = (double)ns / 1e9;
    while ((uint64_t)rint(seconds * 1e9) < ns) {
        seconds = nextafter(seconds, INFINITY);
    }
    return seconds;
}

static inline sgpy_decision *allocate(sgpy_state *st) {
    sgpy_decision *self = st->free_decisions;
    if (SG_LIKELY(self != NULL)) {
        st->free_decisions = (sgpy_decision *)self->quota;
        st->free_decisions_count--;
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
        _Py_NewReference((PyObject *)self);
#else
        /* It kept its type, and its reference to it. */
        Py_SET_REFCNT((PyObject *)self, 1);
#endif
        return self;
    }
    self = PyObject_New(sgpy_decision, st->Decision_Type);
    if (self != NULL) {
        self->state = st;
    }
    return self;
}

PyObject *sgpy_decision_new(sgpy_state *st, unsigned flags, PyObject *quota, uint64_t level,
                            sg_ticks retry, sg_ticks reset) {
    sgpy_decision *self = allocate(st);
    if (SG_UNLIKELY(self == NULL)) {
        return NULL;
    }
    Py_XINCREF(quota);
    self->quota = quota;
    self->flags = flags;
    self->level = level;
    self->retry.ticks = retry;
    self->reset.ticks = reset;
    return (PyObject *)self;
}

static void decision_dealloc(PyObject *op) {
    sgpy_decision *self = (sgpy_decision *)op;
    sgpy_state *st = self->state;
    Py_CLEAR(self->quota);
    if (SG_LIKELY(st->free_decisions_count < SGPY_FREE_MAX && !st->closed)) {
        self->quota = (PyObject *)st->free_decisions;
        st->free_decisions = self;
        st->free_decisions_count++;
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_Free(op);
    Py_DECREF(type);
}

void sgpy_decision_free_all(sgpy_state *st) {
    sgpy_decision *self = st->free_decisions;
    st->free_decisions = NULL;
    st->free_decisions_count = 0;
    while (self != NULL) {
        sgpy_decision *next = (sgpy_decision *)self->quota;
        PyTypeObject *type = Py_TYPE(self);
        PyObject_Free(self);
        Py_DECREF(type);
        self = next;
    }
}

/* ---- the fields */

uint64_t sgpy_decision_limit(const sgpy_decision *self) {
    if (self->flags & SGPY_MADE) {
        return self->limit;
    }
    if (self->quota != NULL) {
        return ((sgpy_quota *)self->quota)->quota.limit;
    }
    return self->flags & SGPY_UNLIMITED ? SG_LIMIT_MAX : 0;
}

uint64_t sgpy_decision_remaining(const sgpy_decision *self) {
    if (self->flags & SGPY_MADE) {
        return self->level;
    }
    if (self->quota != NULL) {
        const sg_verdict verdict = {.allowed = (self->flags & SGPY_ALLOWED) != 0,
                                    .level = self->level};
        return sg_remaining(&((sgpy_quota *)self->quota)->quota, &verdict);
    }
    return self->flags & SGPY_UNLIMITED ? SG_COST_MAX : 0;
}

double sgpy_decision_retry(const sgpy_decision *self) {
    return self->flags & SGPY_MADE ? self->retry.seconds : sgpy_seconds_of(self->retry.ticks);
}

double sgpy_decision_reset(const sgpy_decision *self) {
    return self->flags & SGPY_MADE ? self->reset.seconds : sgpy_seconds_of(self->reset.ticks);
}

static PyObject *get_flag(PyObject *op, void *closure) {
    const unsigned flag = (unsigned)(uintptr_t)closure;
    return PyBool_FromLong((((sgpy_decision *)op)->flags & flag) != 0);
}

static PyObject *get_limit(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(sgpy_decision_limit((sgpy_decision *)op));
}

static PyObject *get_remaining(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(sgpy_decision_remaining((sgpy_decision *)op));
}

static PyObject *get_retry_after(PyObject *op, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(sgpy_decision_retry((sgpy_decision *)op));
}

static PyObject *get_reset_after(PyObject *op, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(sgpy_decision_reset((sgpy_decision *)op));
}

static PyObject *get_quota(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *quota = ((sgpy_decision *)op)->quota;
    return Py_NewRef(quota == NULL ? Py_None : quota);
}

static PyGetSetDef decision_getset[] = {
    {"allowed", get_flag, NULL, PyDoc_STR("Whether the event is admitted."),
     (void *)(uintptr_t)SGPY_ALLOWED},
    {"limit", get_limit, NULL, PyDoc_STR("Units a period of the quota that binds."), NULL},
    {"remaining", get_remaining, NULL, PyDoc_STR("Units that would be admitted at once."), NULL},
    {"retry_after", get_retry_after, NULL,
     PyDoc_STR("Seconds until the same event would be admitted; 0.0 if it was; inf if never."),
     NULL},
    {"reset_after", get_reset_after, NULL, PyDoc_STR("Seconds until nothing is used."), NULL},
    {"quota", get_quota, NULL, PyDoc_STR("The quota that binds, or None."), NULL},
    {"degraded", get_flag, NULL, PyDoc_STR("Not decided by the store that was asked."),
     (void *)(uintptr_t)SGPY_DEGRADED},
    {"shadow", get_flag, NULL, PyDoc_STR("A shadow quota or limiter would have refused."),
     (void *)(uintptr_t)SGPY_SHADOW},
    {NULL, NULL, NULL, NULL, NULL},
};

static int decision_bool(PyObject *op) {
    return (((sgpy_decision *)op)->flags & SGPY_ALLOWED) != 0;
}

/* ---- making one by hand */

static int seconds_field(PyObject *object, const char *name, double *seconds) {
    if (object == NULL) {
        return 0;
    }
    *seconds = PyFloat_AsDouble(object);
    if (*seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(*seconds >= 0)) {
        PyErr_Format(PyExc_ValueError, "%s is not negative and not NaN, but %R", name, object);
        return -1;
    }
    return 0;
}

static int units_field(PyObject *object, const char *name, uint64_t *units) {
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is an int, not %.200s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    const unsigned long long value = PyLong_AsUnsignedLongLong(object);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "%s is 0 to 2**64 - 2, not %R", name, object);
        return -1;
    }
    *units = value;
    return 0;
}

static PyObject *decision_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"allowed",     "quota",       "limit",    "remaining", "retry_after",
                            "reset_after", "degraded", "shadow",    NULL};
    int allowed, degraded = 0, shadow = 0;
    PyObject *quota = Py_None, *limit = Py_None, *remaining = NULL, *retry = NULL, *reset = NULL;
    uint64_t limit_units = 0, remaining_units = 0;
    double retry_seconds = 0, reset_seconds = 0;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "p|$OOOOOpp:Decision", names, &allowed, &quota,
                                     &limit, &remaining, &retry, &reset, &degraded, &shadow)) {
        return NULL;
    }
    if (quota != Py_None && !sgpy_is_quota(st, quota)) {
        PyErr_Format(PyExc_TypeError, "quota is a Quota or None, not %.200s",
                     Py_TYPE(quota)->tp_name);
        return NULL;
    }
    if (quota != Py_None) {
        limit_units = ((sgpy_quota *)quota)->quota.limit;
    }
    if ((limit != Py_None && units_field(limit, "limit", &limit_units) < 0) ||
        (remaining != NULL && units_field(remaining, "remaining", &remaining_units) < 0) ||
        seconds_field(retry, "retry_after", &retry_seconds) < 0 ||
        seconds_field(reset, "reset_after", &reset_seconds) < 0) {
        return NULL;
    }
    const unsigned flags = SGPY_MADE | (allowed ? SGPY_ALLOWED : 0u) |
                           (degraded ? SGPY_DEGRADED : 0u) | (shadow ? SGPY_SHADOW : 0u);
    PyObject *op = sgpy_decision_new(st, flags, quota == Py_None ? NULL : quota, remaining_units,
                                     0, 0);
    if (op != NULL) {
        ((sgpy_decision *)op)->limit = limit_units;
        ((sgpy_decision *)op)->retry.seconds = retry_seconds;
        ((sgpy_decision *)op)->reset.seconds = reset_seconds;
    }
    return op;
}

/* ---- as other values */

/* Every field as a keyword of the constructor, but for `allowed`. */
static PyObject *keywords_of(const sgpy_decision *self) {
    return Py_BuildValue("{sOsKsKsdsdsOsO}", "quota", self->quota == NULL ? Py_None : self->quota,
                         "limit", (unsigned long long)sgpy_decision_limit(self), "remaining",
                         (unsigned long long)sgpy_decision_remaining(self), "retry_after", sgpy_decision_retry(self),
                         "reset_after", sgpy_decision_reset(self), "degraded",
                         self->flags & SGPY_DEGRADED ? Py_True : Py_False, "shadow",
                         self->flags & SGPY_SHADOW ? Py_True : Py_False);
}

static PyObject *decision_getnewargs(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("((O)N)", decision_bool(op) ? Py_True : Py_False,
                         keywords_of((sgpy_decision *)op));
}

static PyObject *decision_as_dict(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const sgpy_decision *self = (sgpy_decision *)op;
    const sgpy_quota *quota = (sgpy_quota *)self->quota;
    const double retry = sgpy_decision_retry(self);
    PyObject *retry_after = isinf(retry) ? Py_NewRef(Py_None) : PyFloat_FromDouble(retry);
    return Py_BuildValue("{sOsKsKsNsdsOsOsO}", "allowed", decision_bool(op) ? Py_True : Py_False,
                         "limit", (unsigned long long)sgpy_decision_limit(self), "remaining",
                         (unsigned long long)sgpy_decision_remaining(self), "retry_after", retry_after,
                         "reset_after", sgpy_decision_reset(self), "quota",
                         quota == NULL || quota->name == NULL ? Py_None : quota->name, "degraded",
                         self->flags & SGPY_DEGRADED ? Py_True : Py_False, "shadow",
                         self->flags & SGPY_SHADOW ? Py_True : Py_False);
}

static PyObject *decision_headers(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"style", NULL};
    PyObject *style = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:headers", names, &style)) {
        return NULL;
    }
    const int styles = style == NULL ? SGPY_IETF : sgpy_styles(style, false);
    return styles < 0 ? NULL
                      : sgpy_fields_dict(((sgpy_decision *)op)->state, op, (unsigned)styles);
}

static PyObject *decision_repr(PyObject *op) {
    const sgpy_decision *self = (sgpy_decision *)op;
    PyObject *retry = PyFloat_FromDouble(sgpy_decision_retry(self));
    PyObject *reset = PyFloat_FromDouble(sgpy_decision_reset(self));
    PyObject *text = NULL;
    if (retry != NULL && reset != NULL) {
        text = PyUnicode_FromFormat(
            "Decision(%s, quota=%R, limit=%llu, remaining=%llu, retry_after=%R, "
            "reset_after=%R%s%s)",
            decision_bool(op) ? "True" : "False", self->quota == NULL ? Py_None : self->quota,
            (unsigned long long)sgpy_decision_limit(self), (unsigned long long)sgpy_decision_remaining(self), retry,
            reset, self->flags & SGPY_DEGRADED ? ", degraded=True" : "",
            self->flags & SGPY_SHADOW ? ", shadow=True" : "");
    }
    Py_XDECREF(retry);
    Py_XDECREF(reset);
    return text;
}

static PyObject *decision_compare(PyObject *left, PyObject *right, int op) {
    const sgpy_decision *a = (sgpy_decision *)left, *b = (sgpy_decision *)right;
    const unsigned compared = SGPY_ALLOWED | SGPY_DEGRADED | SGPY_SHADOW;
    if (Py_TYPE(left) != Py_TYPE(right) || (op != Py_EQ && op != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int equal = (a->flags & compared) == (b->flags & compared) && sgpy_decision_limit(a) == sgpy_decision_limit(b) &&
                sgpy_decision_remaining(a) == sgpy_decision_remaining(b) && sgpy_decision_retry(a) == sgpy_decision_retry(b) &&
                sgpy_decision_reset(a) == sgpy_decision_reset(b);
    if (equal) {
        equal = PyObject_RichCompareBool(a->quota == NULL ? Py_None : a->quota,
                                         b->quota == NULL ? Py_None : b->quota, Py_EQ);
        if (equal < 0) {
            return NULL;
        }
    }
    return PyBool_FromLong(op == Py_EQ ? equal : !equal);
}

static Py_hash_t decision_hash(PyObject *op) {
    const sgpy_decision *self = (sgpy_decision *)op;
    PyObject *fields = Py_BuildValue("(IKKddO)", self->flags & (SGPY_ALLOWED | SGPY_SHADOW),
                                     (unsigned long long)sgpy_decision_limit(self),
                                     (unsigned long long)sgpy_decision_remaining(self), sgpy_decision_retry(self),
                                     sgpy_decision_reset(self), self->quota == NULL ? Py_None : self->quota);
    if (fields == NULL) {
        return -1;
    }
    const Py_hash_t hash = PyObject_Hash(fields);
    Py_DECREF(fields);
    return hash;
}

static PyMethodDef decision_methods[] = {
    {"as_dict", decision_as_dict, METH_NOARGS,
     PyDoc_STR("as_dict($self, /)\n--\n\n"
               "The fields; retry_after is None for inf, quota its name.")},
    {"headers", (PyCFunction)(void (*)(void))decision_headers, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("headers($self, /, style='ietf')\n--\n\n"
               "The HTTP headers that tell of it, by name.")},
    {"__getnewargs_ex__", decision_getnewargs, METH_NOARGS, PyDoc_STR("For copy and pickle.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot decision_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Decision(allowed, *, quota=None, limit=None, remaining=0, "
                                  "retry_after=0.0, reset_after=0.0, degraded=False, "
                                  "shadow=False)\n--\n\n"
                                  "What became of one event. True when it is admitted.")},
    {Py_tp_new, (void *)decision_new},
    {Py_tp_dealloc, (void *)decision_dealloc},
    {Py_tp_repr, (void *)decision_repr},
    {Py_tp_hash, (void *)decision_hash},
    {Py_tp_richcompare, (void *)decision_compare},
    {Py_tp_methods, decision_methods},
    {Py_tp_getset, decision_getset},
    {Py_nb_bool, (void *)decision_bool},
    {0, NULL},
};

static PyType_Spec decision_spec = {
    .name = "sluicegate._core.Decision",
    .basicsize = (int)sizeof(sgpy_decision),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = decision_slots,
};

int sgpy_decision_init_type(PyObject *module, sgpy_state *st) {
    if (sgpy_add_type(module, &decision_spec, &st->Decision_Type, true) < 0) {
        return -1;
    }
    return sgpy_set_match_args(
        st->Decision_Type,
        "allowed limit remaining retry_after reset_after quota degraded shadow");
}
