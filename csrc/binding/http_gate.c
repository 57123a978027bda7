/* HttpGate: the usual HTTP request, decided in one call: the first of some patterns that matches
 * its path says which limiter counts it, under the key of whom it comes from. Whatever is not usual
 * it leaves to the Python side, uncharged.
 *
 * What it has found out of a path and of an address it keeps, for the same come again and again. A
 * client chooses the paths: both tables have a bound, and one that is full begins anew. */
#include "fields.h"

#include <stddef.h>

#define PATHS_MAX 1024
#define PATH_MAX_LENGTH 256 /* characters; a longer one is matched each time */
#define WHO_MAX 4096
#define WHO_MAX_LENGTH 64 /* no address is as long */

/* A pattern. */
typedef struct {
    PyObject *matches;     /* whether a path does */
    PyObject *given;       /* what to tell of a refusal */
    sgpy_limiter *limiter; /* what counts; NULL: the Python side decides */
    sgpy_limiter *blocked; /* who is blocked is banned there; or NULL */
    PyObject *key;         /* from whom and a path to the key */
    PyObject *known;       /* a dict from whom (or its peer) to the key, of an empty path */
    bool by_path;          /* the path is the key's end */
} way;

typedef struct {
    PyObject_VAR_HEAD
    vectorcallfunc vectorcall;
    sgpy_state *state;
    PyObject *usual;   /* tells whether a path is, for one that is not has more spellings; or NULL */
    PyObject *address; /* of a scope: whom it comes from; NULL after tp_clear */
    bool by_peer;      /* which the peer's host alone tells */
    unsigned styles;   /* of the headers; 0: none */
    PyObject *paths;   /* a dict from a path to the index of its pattern, -1 for none */
    way ways[1];       /* Py_SIZE */
} sgpy_http_gate;

/* ---- whom, and under which key */

/* Keeps what was found out, in a table that does not grow without end. -1 with an exception. */
static int keep(PyObject *dict, Py_ssize_t most, PyObject *key, PyObject *value) {
    if (PyDict_GET_SIZE(dict) >= most) {
        PyDict_Clear(dict);
    }
    return PyDict_SetItem(dict, key, value);
}

/* The host of the peer, held, where it is one; else NULL, without an exception. */
static PyObject *peer_of(const sgpy_state *st, PyObject *scope) {
    PyObject *client = PyDict_GetItemWithError(scope, st->str_client), *host = NULL;
    if (client == NULL) {
        PyErr_Clear(); /* the Python side will see it */
        return NULL;
    }
    if (PyTuple_CheckExact(client) && PyTuple_GET_SIZE(client) > 0) {
        host = PyTuple_GET_ITEM(client, 0);
    } else if (PyList_CheckExact(client) && PyList_GET_SIZE(client) > 0) {
        host = PyList_GET_ITEM(client, 0);
    }
    if (host == NULL || !PyUnicode_CheckExact(host) || PyUnicode_GET_LENGTH(host) == 0) {
        return NULL;
    }
    return Py_NewRef(host);
}

/* The key of who comes, but for a path at its end. May run Python code. */
static PyObject *head_of(sgpy_http_gate *self, const way *w, PyObject *scope) {
    const sgpy_state *st = self->state;
    PyObject *peer = self->by_peer ? peer_of(st, scope) : NULL;
    PyObject *who = peer != NULL ? Py_NewRef(peer) : PyObject_CallOneArg(self->address, scope);
    PyObject *found = NULL;
    if (who == NULL || w->known == NULL) {
        goto done;
    }
    const bool kept = PyUnicode_CheckExact(who) && PyUnicode_GET_LENGTH(who) <= WHO_MAX_LENGTH;
    if (kept) {
        found = Py_XNewRef(PyDict_GetItemWithError(w->known, who));
        if (found != NULL || PyErr_Occurred()) {
            goto done;
        }
    }
    PyObject *name = peer == NULL ? Py_NewRef(who) : PyObject_CallOneArg(self->address, scope);
    if (name != NULL) {
        found = PyObject_CallFunctionObjArgs(w->key, name, st->str_empty, NULL);
        Py_DECREF(name);
    }
    if (found != NULL && !PyUnicode_CheckExact(found)) {
        PyErr_Format(PyExc_TypeError, "a key is a str here, not %.200s", Py_TYPE(found)->tp_name);
        Py_CLEAR(found);
    }
    if (found != NULL && kept && w->known != NULL && keep(w->known, WHO_MAX, who, found) < 0) {
        Py_CLEAR(found);
    }
done:
    Py_XDECREF(peer);
    Py_XDECREF(who);
    return found;
}

static PyObject *key_of(sgpy_http_gate *self, const way *w, PyObject *scope, PyObject *path) {
    PyObject *head = head_of(self, w, scope);
    if (head == NULL || !w->by_path) {
        return head;
    }
    PyObject *key = PyUnicode_Concat(head, path);
    Py_DECREF(head);
    return key;
}

/* ---- which pattern */

#define NONE (-1)
#define FAILED (-2) /* with an exception */
#define UNUSUAL (-3)

/* The index of the first that matches, or one of these. */
static Py_ssize_t search(sgpy_http_gate *self, PyObject *path) {
    PyObject *usual = Py_XNewRef(self->usual);
    PyObject *told = usual == NULL ? Py_NewRef(Py_True) : PyObject_CallOneArg(usual, path);
    const int is = told == NULL ? -1 : PyObject_IsTrue(told);
    Py_XDECREF(told);
    Py_XDECREF(usual);
    if (is <= 0) {
        return is < 0 ? FAILED : UNUSUAL;
    }
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        PyObject *matches = self->ways[i].matches;
        if (matches == NULL) {
            return NONE;
        }
        Py_INCREF(matches);
        PyObject *match = PyObject_CallOneArg(matches, path);
        Py_DECREF(matches);
        const int does = match == NULL ? -1 : PyObject_IsTrue(match);
        Py_XDECREF(match);
        if (does != 0) {
            return does < 0 ? FAILED : i;
        }
    }
    return NONE;
}

static Py_ssize_t find(sgpy_http_gate *self, PyObject *path) {
    if (PyUnicode_GET_LENGTH(path) > PATH_MAX_LENGTH) {
        return search(self, path);
    }
    PyObject *known = PyDict_GetItemWithError(self->paths, path);
    if (SG_LIKELY(known != NULL)) {
        return PyLong_AsSsize_t(known);
    }
    const Py_ssize_t found = PyErr_Occurred() ? FAILED : search(self, path);
    if (found == FAILED || self->paths == NULL) {
        return found;
    }
    PyObject *index = PyLong_FromSsize_t(found);
    const int failed = index == NULL || keep(self->paths, PATHS_MAX, path, index) < 0;
    Py_XDECREF(index);
    return failed ? FAILED : found;
}

/* ---- a request */

/* Whether this can be decided here, now. */
static bool is_usual(const way *w) {
    if (w->limiter == NULL || !w->limiter->plain) {
        return false;
    }
    /* where anybody is blocked, that is one decision with the count */
    const sgpy_limiter *blocked = w->blocked;
    return blocked == NULL || (blocked->plain && blocked->table->sharing == NULL &&
                               blocked->table->core.body->keys == 0);
}

static PyObject *admitted(const sgpy_http_gate *self, PyObject *send, PyObject *decision) {
    if (self->styles == 0) {
        return Py_NewRef(send);
    }
    PyObject *fields = sgpy_fields_raw(self->state, decision, self->styles);
    PyObject *sender = fields == NULL ? NULL : sgpy_sender_new(self->state, send, fields);
    Py_XDECREF(fields);
    return sender;
}

/* Whether the scope has no root_path, which a path may be written with and without. */
static bool is_at_root(const sgpy_state *st, PyObject *scope) {
    PyObject *root = PyDict_GetItemWithError(scope, st->str_root_path);
    return root == NULL ? PyErr_Occurred() == NULL
                        : PyUnicode_CheckExact(root) && PyUnicode_GET_LENGTH(root) == 0;
}

static PyObject *gate_call(PyObject *op, PyObject *const *args, size_t nargsf,
                           PyObject *kwnames) {
    sgpy_http_gate *self = (sgpy_http_gate *)op;
    if (PyVectorcall_NARGS(nargsf) != 2 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a gate takes a scope and a send");
        return NULL;
    }
    PyObject *scope = args[0], *send = args[1], *result = NULL;
    PyObject *path = PyDict_CheckExact(scope)
                         ? PyDict_GetItemWithError(scope, self->state->str_path)
                         : NULL;
    /* Without a `send` it could not be told from None that the request is decided. */
    if (path == NULL || !PyUnicode_CheckExact(path) || self->address == NULL || send == Py_None ||
        !is_at_root(self->state, scope)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    Py_INCREF(path);
    const Py_ssize_t index = find(self, path);
    if (index < 0) {
        result = index == FAILED ? NULL : Py_NewRef(index == NONE ? send : Py_None);
        goto done;
    }
    const way *w = &self->ways[index];
    if (!is_usual(w)) {
        result = Py_NewRef(Py_None);
        goto done;
    }
    sgpy_limiter *limiter = (sgpy_limiter *)Py_NewRef((PyObject *)w->limiter);
    PyObject *key = key_of(self, w, scope, path);
    if (key != NULL && !is_usual(w)) { /* what made the key may have changed that */
        result = Py_NewRef(Py_None);
    } else if (key != NULL) {
        PyObject *decision = sgpy_hit(limiter, key, NULL, NULL);
        if (decision != NULL) {
            result = ((sgpy_decision *)decision)->flags & SGPY_ALLOWED
                         ? admitted(self, send, decision)
                         : PyTuple_Pack(2, w->given == NULL ? Py_None : w->given, decision);
            Py_DECREF(decision);
        }
    }
    Py_XDECREF(key);
    Py_DECREF(limiter);
done:
    Py_DECREF(path);
    return result;
}

/* ---- its life */

static int way_read(const sgpy_state *st, PyObject *item, way *w) {
    PyObject *matches, *given, *limiter, *blocked, *key;
    int by_path;
    if (!PyTuple_Check(item) ||
        !PyArg_ParseTuple(item, "OOOOOp;a pattern is (matches, given, limiter, blocked, key, "
                                "by_path)",
                          &matches, &given, &limiter, &blocked, &key, &by_path)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "a pattern is a tuple");
        }
        return -1;
    }
    if ((limiter != Py_None && !sgpy_is_limiter(st, limiter)) ||
        (blocked != Py_None && !sgpy_is_limiter(st, blocked))) {
        PyErr_SetString(PyExc_TypeError, "what counts and who is blocked are Limiters, or None");
        return -1;
    }
    w->known = PyDict_New();
    if (w->known == NULL) {
        return -1;
    }
    w->matches = Py_NewRef(matches);
    w->given = Py_NewRef(given);
    w->limiter = limiter == Py_None ? NULL : (sgpy_limiter *)Py_NewRef(limiter);
    w->blocked = blocked == Py_None ? NULL : (sgpy_limiter *)Py_NewRef(blocked);
    w->key = Py_NewRef(key);
    w->by_path = by_path != 0;
    return 0;
}

static PyObject *gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"patterns", "address", "by_peer", "headers", "usual", NULL};
    PyObject *given, *address, *headers = Py_None, *usual = Py_None;
    int by_peer = 0, styles = 0;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|pOO:HttpGate", names, &given,
                                                   &address, &by_peer, &headers, &usual)) {
        return NULL;
    }
    if (!PyCallable_Check(address)) {
        PyErr_Format(PyExc_TypeError, "address is a function, not %.200s",
                     Py_TYPE(address)->tp_name);
        return NULL;
    }
    if (usual != Py_None && !PyCallable_Check(usual)) {
        PyErr_Format(PyExc_TypeError, "usual is a function or None, not %.200s",
                     Py_TYPE(usual)->tp_name);
        return NULL;
    }
    if (headers != Py_None && (styles = sgpy_styles(headers, true)) < 0) {
        return NULL;
    }
    PyObject *patterns = PySequence_Tuple(given);
    if (patterns == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(patterns);
    sgpy_http_gate *self = (sgpy_http_gate *)type->tp_alloc(type, count);
    if (self == NULL) {
        Py_DECREF(patterns);
        return NULL;
    }
    self->vectorcall = gate_call;
    self->state = st;
    self->address = Py_NewRef(address);
    self->usual = usual == Py_None ? NULL : Py_NewRef(usual);
    self->by_peer = by_peer != 0;
    self->styles = (unsigned)styles;
    self->paths = PyDict_New();
    int failed = self->paths == NULL;
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        failed = way_read(st, PyTuple_GET_ITEM(patterns, i), &self->ways[i]) < 0;
    }
    Py_DECREF(patterns);
    if (failed) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int gate_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_http_gate *self = (sgpy_http_gate *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->address);
    Py_VISIT(self->usual);
    Py_VISIT(self->paths);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_VISIT(self->ways[i].matches);
        Py_VISIT(self->ways[i].given);
        Py_VISIT(self->ways[i].limiter);
        Py_VISIT(self->ways[i].blocked);
        Py_VISIT(self->ways[i].key);
        Py_VISIT(self->ways[i].known);
    }
    return 0;
}

static int gate_clear(PyObject *op) {
    sgpy_http_gate *self = (sgpy_http_gate *)op;
    Py_CLEAR(self->address);
    Py_CLEAR(self->usual);
    Py_CLEAR(self->paths);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_CLEAR(self->ways[i].matches);
        Py_CLEAR(self->ways[i].given);
        Py_CLEAR(self->ways[i].limiter);
        Py_CLEAR(self->ways[i].blocked);
        Py_CLEAR(self->ways[i].key);
        Py_CLEAR(self->ways[i].known);
    }
    return 0;
}

static void gate_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)gate_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef gate_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(sgpy_http_gate, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("HttpGate(patterns, address, by_peer=False, headers=None, usual=None)"
                       "\n--\n\n"
                       "Decides a request of (scope, send): the `send` to go on with; (given, "
                       "decision)\nof a refusal; None for what is not to be decided here.")},
    {Py_tp_new, (void *)gate_new},
    {Py_tp_dealloc, (void *)gate_dealloc},
    {Py_tp_traverse, (void *)gate_traverse},
    {Py_tp_clear, (void *)gate_clear},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_members, gate_members},
    {0, NULL},
};

static PyType_Spec gate_spec = {
    .name = "sluicegate._core.HttpGate",
    .basicsize = (int)offsetof(sgpy_http_gate, ways),
    .itemsize = (int)sizeof(way),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = gate_slots,
};

int sgpy_http_gate_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &gate_spec, &st->HttpGate_Type, true);
}
