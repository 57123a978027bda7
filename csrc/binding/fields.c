/* A decision as header fields. "ietf" is draft-ietf-httpapi-ratelimit-headers-10, "x" the
 * customary X-RateLimit-*; a refusal has Retry-After in either, unless it is for good. What a
 * quota's policy reads is the same in each response: sluicegate.headers writes it, once. */
#include "fields.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define INTEGER_MAX UINT64_C(999999999999999) /* of a structured field: 15 digits */
#define DIGITS_MAX 20                         /* of 64 bits */

typedef enum { POLICY, LIMIT, X_LIMIT, X_REMAINING, X_RESET, RETRY_AFTER } field_name;

static const char *const titles[SGPY_FIELDS] = {
    [POLICY] = "RateLimit-Policy",
    [LIMIT] = "RateLimit",
    [X_LIMIT] = "X-RateLimit-Limit",
    [X_REMAINING] = "X-RateLimit-Remaining",
    [X_RESET] = "X-RateLimit-Reset",
    [RETRY_AFTER] = "Retry-After",
};

int sgpy_fields_init(sgpy_state *st) {
    char small[32];
    for (unsigned i = 0; i < SGPY_FIELDS; i++) {
        const size_t length = strlen(titles[i]);
        for (size_t at = 0; at < length; at++) {
            small[at] = (char)Py_TOLOWER(titles[i][at]);
        }
        st->field_titles[i] = PyUnicode_InternFromString(titles[i]);
        st->field_names[i] = PyBytes_FromStringAndSize(small, (Py_ssize_t)length);
        if (st->field_titles[i] == NULL || st->field_names[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* ---- the values */

typedef struct {
    field_name name;
    PyObject *value; /* bytes, strong */
} field;

typedef struct {
    field fields[SGPY_FIELDS];
    unsigned count;
    PyObject *policy; /* the pair of POLICY, borrowed from the quota; NULL */
} rendered;

static void done(rendered *r) {
    while (r->count > 0) {
        Py_DECREF(r->fields[--r->count].value);
    }
}

/* Takes `value`; -1 where it is NULL. */
static int add(rendered *r, field_name name, PyObject *value) {
    if (value == NULL) {
        return -1;
    }
    r->fields[r->count++] = (field){name, value};
    return 0;
}

static char *put_integer(char *to, uint64_t value) {
    char digits[DIGITS_MAX];
    unsigned count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (count > 0) {
        *to++ = digits[--count];
    }
    return to;
}

static char *put_text(char *to, const char *text) {
    const size_t length = strlen(text);
    memcpy(to, text, length);
    return to + length;
}

/* Rounded up, and cut to what a structured field holds. Not for NaN. */
static uint64_t whole(double seconds) {
    const double up = ceil(seconds);
    return up >= (double)INTEGER_MAX ? INTEGER_MAX : (uint64_t)up;
}

static PyObject *integer_bytes(uint64_t value) {
    char text[DIGITS_MAX];
    return PyBytes_FromStringAndSize(text, put_integer(text, value) - text);
}

/* What sluicegate.headers writes of a quota: (name, policy), ASCII. */
static int write_policy(const sgpy_state *st, sgpy_quota *quota) {
    const char *name, *text;
    Py_ssize_t name_length, text_length;
    PyObject *module = PyImport_ImportModule("sluicegate.headers"), *value = NULL, *label = NULL;
    PyObject *pair = NULL, *made = NULL;
    if (module != NULL) {
        made = PyObject_CallMethod(module, "policy_of", "O", (PyObject *)quota);
        Py_DECREF(module);
    }
    if (made == NULL || !PyArg_ParseTuple(made, "s#s#", &name, &name_length, &text, &text_length)) {
        goto fail;
    }
    label = PyBytes_FromStringAndSize(name, name_length);
    value = PyBytes_FromStringAndSize(text, text_length);
    if (label == NULL || value == NULL ||
        (pair = PyTuple_Pack(2, st->field_names[POLICY], value)) == NULL) {
        goto fail;
    }
    Py_XSETREF(quota->label, label);
    Py_XSETREF(quota->policy, pair);
    Py_DECREF(value);
    Py_DECREF(made);
    return 0;
fail:
    Py_XDECREF(label);
    Py_XDECREF(value);
    Py_XDECREF(made);
    return -1;
}

static int add_ietf(const sgpy_state *st, rendered *r, const sgpy_decision *decision) {
    sgpy_quota *quota = (sgpy_quota *)decision->quota;
    char tail[2 * DIGITS_MAX + 8], *end = tail;
    if (SG_UNLIKELY(quota->policy == NULL) && write_policy(st, quota) < 0) {
        return -1;
    }
    r->policy = quota->policy;
    (void)add(r, POLICY, Py_NewRef(PyTuple_GET_ITEM(quota->policy, 1)));
    end = put_text(end, ";r=");
    end = put_integer(end, sg_min(sgpy_decision_remaining(decision), INTEGER_MAX));
    /* t: when more is to be had; of a refusal that is when to come again */
    const double wait = decision->flags & SGPY_ALLOWED ? sgpy_decision_reset(decision)
                                                       : sgpy_decision_retry(decision);
    if (!isinf(wait)) {
        end = put_text(end, ";t=");
        end = put_integer(end, whole(wait));
    }
    const Py_ssize_t label = PyBytes_GET_SIZE(quota->label), more = end - tail;
    PyObject *value = PyBytes_FromStringAndSize(NULL, label + more);
    if (value != NULL) {
        memcpy(PyBytes_AS_STRING(value), PyBytes_AS_STRING(quota->label), (size_t)label);
        memcpy(PyBytes_AS_STRING(value) + label, tail, (size_t)more);
    }
    return add(r, LIMIT, value);
}

static int add_x(rendered *r, const sgpy_decision *decision) {
    struct timespec now = {0, 0};
    double wait = sgpy_decision_reset(decision);
    if (isinf(wait)) {
        wait = (double)((sgpy_quota *)decision->quota)->period_us / 1e6;
    }
    (void)clock_gettime(CLOCK_REALTIME, &now); /* since the epoch, as most clients expect */
    const double then = (double)now.tv_sec + (double)now.tv_nsec / 1e9 + wait;
    return add(r, X_LIMIT, integer_bytes(sgpy_decision_limit(decision))) < 0 ||
                   add(r, X_REMAINING, integer_bytes(sgpy_decision_remaining(decision))) < 0 ||
                   add(r, X_RESET, integer_bytes(whole(then))) < 0
               ? -1 : 0;
}

/* Under a ban no quota binds, so there is Retry-After alone. */
static int render(const sgpy_state *st, rendered *r, const sgpy_decision *decision,
                  unsigned styles) {
    r->count = 0;
    r->policy = NULL;
    if (decision->quota != NULL) {
        if ((styles & SGPY_IETF) && add_ietf(st, r, decision) < 0) {
            goto fail;
        }
        if ((styles & SGPY_X) && add_x(r, decision) < 0) {
            goto fail;
        }
    }
    if (!(decision->flags & SGPY_ALLOWED)) {
        const double wait = sgpy_decision_retry(decision);
        if (!isinf(wait) && add(r, RETRY_AFTER, integer_bytes(sg_max(1, whole(wait)))) < 0) {
            goto fail;
        }
    }
    return 0;
fail:
    done(r);
    return -1;
}

/* ---- as Python has them */

int sgpy_styles(PyObject *name, bool both) {
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "headers are named by a str, not %.200s",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    static const struct {
        const char *name;
        int styles;
    } known[] = {{"ietf", SGPY_IETF}, {"x", SGPY_X}, {"both", SGPY_IETF | SGPY_X}};
    for (size_t i = 0; i < (both ? 3u : 2u); i++) {
        if (PyUnicode_CompareWithASCIIString(name, known[i].name) == 0) {
            return known[i].styles;
        }
    }
    PyErr_Format(PyExc_ValueError, "headers are 'ietf'%s 'x'%s, not %R", both ? "," : " or",
                 both ? " or 'both'" : "", name);
    return -1;
}

PyObject *sgpy_fields_raw(sgpy_state *st, PyObject *decision, unsigned styles) {
    rendered r;
    PyObject *pairs[SGPY_FIELDS], *list = NULL;
    unsigned made = 0;
    if (render(st, &r, (sgpy_decision *)decision, styles) < 0) {
        return NULL;
    }
    for (; made < r.count; made++) {
        const field *one = &r.fields[made];
        pairs[made] = one->name == POLICY
                          ? Py_NewRef(r.policy)
                          : PyTuple_Pack(2, st->field_names[one->name], one->value);
        if (pairs[made] == NULL) {
            break;
        }
    }
    /* Last, and filled at once: the collector shows a list from its making on. */
    if (made == r.count) {
        list = PyList_New((Py_ssize_t)made);
    }
    for (unsigned i = 0; i < made; i++) {
        if (list == NULL) {
            Py_DECREF(pairs[i]);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, pairs[i]);
        }
    }
    done(&r);
    return list;
}

PyObject *sgpy_fields_dict(sgpy_state *st, PyObject *decision, unsigned styles) {
    rendered r;
    if (render(st, &r, (sgpy_decision *)decision, styles) < 0) {
        return NULL;
    }
    PyObject *dict = PyDict_New();
    for (unsigned i = 0; dict != NULL && i < r.count; i++) {
        const field *one = &r.fields[i];
        PyObject *text = PyUnicode_FromStringAndSize(PyBytes_AS_STRING(one->value),
                                                     PyBytes_GET_SIZE(one->value));
        if (text == NULL || PyDict_SetItem(dict, st->field_titles[one->name], text) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(text);
    }
    done(&r);
    return dict;
}

PyObject *sgpy_raw_headers(PyObject *module, PyObject *args) {
    sgpy_state *st = sgpy_state_of_module(module);
    PyObject *decision, *style;
    if (!PyArg_ParseTuple(args, "O!O:raw_headers", st->Decision_Type, &decision, &style)) {
        return NULL;
    }
    const int styles = sgpy_styles(style, true);
    return styles < 0 ? NULL : sgpy_fields_raw(st, decision, (unsigned)styles);
}

/* ---- beside those of a response */

/* Whether a header's name, in any letters, is `name`, in small ones. -1 with an exception. */
static int is_named(PyObject *given, PyObject *name) {
    PyObject *bytes = PyBytes_CheckExact(given) ? Py_NewRef(given) : PyObject_Bytes(given);
    if (bytes == NULL) {
        return -1;
    }
    const Py_ssize_t length = PyBytes_GET_SIZE(name);
    int same = PyBytes_GET_SIZE(bytes) == length;
    for (Py_ssize_t i = 0; same && i < length; i++) {
        same = Py_TOLOWER(PyBytes_AS_STRING(bytes)[i]) == PyBytes_AS_STRING(name)[i];
    }
    Py_DECREF(bytes);
    return same;
}

/* Whether one of the first `count` pairs of the list has that name. */
static int has_name(PyObject *list, Py_ssize_t count, PyObject *name) {
    for (Py_ssize_t i = 0; i < count && i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PySequence_Fast(PyList_GET_ITEM(list, i), "a header is (name, value)");
        if (pair == NULL) {
            return -1;
        }
        int same = -1;
        if (PySequence_Fast_GET_SIZE(pair) == 2) {
            PyObject *given = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 0));
            same = is_named(given, name);
            Py_DECREF(given);
        } else {
            PyErr_SetString(PyExc_ValueError, "a header is (name, value)");
        }
        Py_DECREF(pair);
        if (same != 0) {
            return same;
        }
    }
    return 0;
}

/* The name of a pair of `more`; NULL with an exception. Borrowed. */
static PyObject *name_of(PyObject *pair) {
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 ||
        !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0))) {
        PyErr_SetString(PyExc_TypeError, "more headers are tuples of two bytes");
        return NULL;
    }
    return PyTuple_GET_ITEM(pair, 0);
}

PyObject *sgpy_fields_completed(PyObject *own, PyObject *more) {
    PyObject *list = own == NULL ? PyList_New(0) : PySequence_List(own);
    if (list == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyList_GET_SIZE(list);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(more); i++) {
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(more, i));
        PyObject *name = name_of(pair);
        const int found = name == NULL ? -1 : has_name(list, count, name);
        const int failed = found < 0 || (found == 0 && PyList_Append(list, pair) < 0);
        Py_DECREF(pair);
        if (failed) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

PyObject *sgpy_completed(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *own, *given;
    if (!PyArg_ParseTuple(args, "OO:completed", &own, &given)) {
        return NULL;
    }
    PyObject *more = PySequence_List(given);
    PyObject *result = more == NULL ? NULL : sgpy_fields_completed(own, more);
    Py_XDECREF(more);
    return result;
}
