/* Handle: a limiter and a key whose fingerprint is made. */
#include "binding.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    sgpy_limiter *limiter;
    sgpy_prepared prepared;
    PyObject *weakrefs;
} sgpy_handle;

static PyObject *make(PyTypeObject *type, sgpy_limiter *limiter, PyObject *key) {
    /* One over a server has what `hit` and `peek` need, if not what decides at once. */
    if (limiter->server == NULL && sgpy_limiter_ready(limiter) < 0) {
        return NULL;
    }
    sgpy_handle *self = (sgpy_handle *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    if (sgpy_prepare(&self->prepared, key) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *sgpy_handle_new(sgpy_limiter *limiter, PyObject *key) {
    /* without a state it has not been made, and there is no type to make one of */
    if (limiter->state == NULL) {
        (void)sgpy_limiter_ready(limiter);
        return NULL;
    }
    return make(limiter->state->Handle_Type, limiter, key);
}

static PyObject *handle_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"limiter", "key", NULL};
    PyObject *limiter, *key;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:Handle", names,
                                                   st->Limiter_Type, &limiter, &key)) {
        return NULL;
    }
    return make(type, (sgpy_limiter *)limiter, key);
}

static int handle_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_handle *self = (sgpy_handle *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->limiter);
    Py_VISIT(self->prepared.object);
    return 0;
}

static int handle_clear(PyObject *op) {
    sgpy_handle *self = (sgpy_handle *)op;
    Py_CLEAR(self->limiter);
    sgpy_prepared_clear(&self->prepared);
    return 0;
}

static void handle_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (((sgpy_handle *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)handle_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* NULL and RuntimeError after tp_clear. */
static sgpy_limiter *limiter_of(const sgpy_handle *self) {
    if (SG_UNLIKELY(self->limiter == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "this handle is being torn down");
    }
    return self->limiter;
}

/* The cost of a call by place or name; NULL for none given. -1: TypeError. */
static int cost_of(const char *function, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject **cost) {
    static const char *const names[] = {"cost", NULL};
    *cost = NULL;
    if (SG_LIKELY(nargs == 0 && kwnames == NULL)) {
        return 0;
    }
    return sgpy_args(function, names, 1, 0, args, nargs, kwnames, cost);
}

static PyObject *hit(sgpy_handle *self, PyObject *cost) {
    sgpy_limiter *limiter = limiter_of(self);
    return limiter == NULL ? NULL : sgpy_hit_prepared(limiter, &self->prepared, cost);
}

static PyObject *handle_hit_nowait(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    PyObject *cost;
    if (cost_of("hit_nowait", args, nargs, kwnames, &cost) < 0) {
        return NULL;
    }
    return hit((sgpy_handle *)op, cost);
}

static PyObject *run_hit(sgpy_state *st, PyObject *self, PyObject *cost, PyObject *b, PyObject *c,
                         PyObject **delegate) {
    (void)st;
    (void)b;
    (void)c;
    sgpy_limiter *limiter = limiter_of((sgpy_handle *)self);
    if (SG_UNLIKELY(limiter != NULL && limiter->server != NULL)) {
        return sgpy_ask_hit(limiter, ((sgpy_handle *)self)->prepared.object, cost, NULL, delegate);
    }
    return hit((sgpy_handle *)self, cost);
}

static const sgpy_call_kind hit_kind = {run_hit, "hit", "Handle.hit"};

static PyObject *handle_hit_awaitable(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                      PyObject *kwnames) {
    PyObject *cost;
    const sgpy_limiter *limiter = limiter_of((sgpy_handle *)op);
    if (limiter == NULL || cost_of("hit", args, nargs, kwnames, &cost) < 0) {
        return NULL;
    }
    return sgpy_call_new(limiter->state, &hit_kind, op, cost, NULL, NULL);
}

static PyObject *handle_peek_nowait(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames) {
    sgpy_handle *self = (sgpy_handle *)op;
    sgpy_limiter *limiter = limiter_of(self);
    sgpy_event event;
    sgpy_outcome out;
    PyObject *cost;
    if (limiter == NULL || cost_of("peek_nowait", args, nargs, kwnames, &cost) < 0 ||
        sgpy_event_begin(&event, limiter, self->prepared.object, cost) < 0) {
        return NULL;
    }
    if (sgpy_look(&event, &out) < 0) {
        sgpy_event_end(&event);
        return NULL;
    }
    PyObject *decision = sgpy_outcome_decision(limiter->state, event.quotas, &out);
    sgpy_event_end(&event);
    return decision;
}

static PyObject *handle_key(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *key = ((sgpy_handle *)op)->prepared.object;
    return Py_NewRef(key == NULL ? Py_None : key);
}

static PyObject *handle_limiter(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *limiter = (PyObject *)limiter_of((sgpy_handle *)op);
    return limiter == NULL ? NULL : Py_NewRef(limiter);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef handle_methods[] = {
    {"hit_nowait", FAST(handle_hit_nowait),
     PyDoc_STR("hit_nowait($self, /, cost=1)\n--\n\nDecides and charges.")},
    {"hit_awaitable", FAST(handle_hit_awaitable),
     PyDoc_STR("hit_awaitable($self, /, cost=1)\n--\n\n"
               "Decides and charges when it is first awaited.")},
    {"peek_nowait", FAST(handle_peek_nowait),
     PyDoc_STR("peek_nowait($self, /, cost=1)\n--\n\nDecides, charges nothing.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"key", handle_key, NULL, PyDoc_STR("The key as it was given."), NULL},
    {"limiter", handle_limiter, NULL, PyDoc_STR("The limiter."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Handle(limiter, key)\n--\n\n"
                                  "A limiter and a key whose fingerprint is made.")},
    {Py_tp_new, (void *)handle_new},
    {Py_tp_dealloc, (void *)handle_dealloc},
    {Py_tp_traverse, (void *)handle_traverse},
    {Py_tp_clear, (void *)handle_clear},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "sluicegate._core.Handle",
    .basicsize = (int)sizeof(sgpy_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = handle_slots,
};

int sgpy_handle_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &handle_spec, &st->Handle_Type, true);
}
