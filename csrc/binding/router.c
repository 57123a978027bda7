/* Router: the links of one loop to one store's servers. Its Python subclass makes them. */
#include "server.h"

#include <stddef.h>
#include <string.h>

/* A Link that Python was asked for, borrowed: whoever names one keeps it. */
static sgpy_link *as_link(sgpy_state *st, PyObject *found) {
    if (found == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(found, st->Link_Type)) {
        PyErr_SetString(PyExc_TypeError, "a router names a Link");
        Py_DECREF(found);
        return NULL;
    }
    Py_DECREF(found);
    return (sgpy_link *)found;
}

sgpy_link *sgpy_router_link(sgpy_router *router, unsigned slot) {
    if (router->slots != NULL && router->slots[slot] != NULL) {
        return router->slots[slot];
    }
    if (router->single != NULL) {
        return router->single;
    }
    return as_link(router->state,
                   PyObject_CallMethod((PyObject *)router, "_locate", "I", slot));
}

/* ---- asks that are to be made again */

static void later(sgpy_router *router, sgpy_ask *ask) {
    ask->request.next = NULL;
    ask->link = NULL;
    if (router->later_last != NULL) {
        router->later_last->request.next = (sg_request *)ask;
        router->later_last = ask;
        return;
    }
    router->later_first = router->later_last = ask;
    PyObject *result = PyObject_CallMethod((PyObject *)router, "_later", NULL);
    if (result == NULL) {
        PyErr_Clear();
        sgpy_router_drop_later(router, "its loop is closed");
    }
    Py_XDECREF(result);
}

static sgpy_ask *take_later(sgpy_router *router) {
    sgpy_ask *ask = router->later_first;
    router->later_first = router->later_last = NULL;
    return ask;
}

void sgpy_router_drop_later(sgpy_router *router, const char *why) {
    sgpy_ask *ask = take_later(router), *next;
    for (; ask != NULL; ask = next) {
        next = (sgpy_ask *)ask->request.next;
        sgpy_ask_give_up(ask, SG_UNSENT, why, strlen(why));
    }
}

/* Hands an ask to a link; it is freed if that cannot be. */
static void pass_on(sgpy_link *link, sgpy_ask *ask) {
    if (link != NULL && link->down == NULL && sgpy_link_add(link, ask) == 0) {
        return;
    }
    PyErr_Clear();
    Py_ssize_t length = 0;
    const char *why = link == NULL || link->down == NULL
                          ? NULL : PyUnicode_AsUTF8AndSize(link->down, &length);
    PyErr_Clear();
    sgpy_ask_give_up(ask, SG_UNSENT, why, why == NULL ? 0 : (size_t)length);
}

/* Whether the exception that is set is a StoreError, which says why it cannot be sent anywhere: the
 * ask is gone then. None is set any more. */
static bool given_up_as_told(sgpy_state *st, sgpy_ask *ask) {
    const bool told = PyErr_ExceptionMatches(st->StoreError);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (told) {
        Py_ssize_t length = 0;
        PyObject *text = value == NULL ? NULL : PyObject_Str(value);
        const char *why = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &length);
        PyErr_Clear();
        sgpy_ask_give_up(ask, SG_REFUSED, why, why == NULL ? 0 : (size_t)length);
        Py_XDECREF(text);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return told;
}

void sgpy_router_redirect(sgpy_router *router, sgpy_ask *ask, sg_redirect how, unsigned slot,
                          const char *node, size_t length) {
    if (router->closed) {
        sgpy_ask_give_up(ask, SG_UNSENT, "the store was closed", 20);
        return;
    }
    /* A slot that is sent round and round is one that moves just now. */
    if (how == SG_LATER || ask->request.redirects > 5) {
        later(router, ask);
        return;
    }
    sgpy_link *link = as_link(router->state,
                              PyObject_CallMethod((PyObject *)router, "_redirected", "iIs#",
                                                  how == SG_ASK, slot, node, (Py_ssize_t)length));
    if (link == NULL) {
        if (!given_up_as_told(router->state, ask)) {
            later(router, ask);
        }
        return;
    }
    pass_on(link, ask);
}

static PyObject *router_again(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_router *self = (sgpy_router *)op;
    sgpy_ask *ask = take_later(self), *next;
    const int64_t now_ns = sgpy_now_ns(self->state);
    for (; ask != NULL; ask = next) {
        next = (sgpy_ask *)ask->request.next;
        if (ask->request.deadline_ns <= now_ns) {
            sgpy_ask_give_up(ask, SG_UNSENT, "its slot is being moved", 23);
            continue;
        }
        if (ask->request.redirects > 5) {
            ask->request.redirects = 1;
        }
        ask->request.asking = false;
        pass_on(sgpy_router_link(self, ask->request.slot), ask);
    }
    Py_RETURN_NONE;
}

/* ---- what Python sets */

static void drop_slots(sgpy_router *self) {
    sgpy_link **slots = self->slots;
    self->slots = NULL;
    for (unsigned i = 0; slots != NULL && i < SG_HASH_SLOTS; i++) {
        Py_XDECREF((PyObject *)slots[i]);
    }
    PyMem_Free(slots);
}

static PyObject *router_assign(PyObject *op, PyObject *args) {
    sgpy_router *self = (sgpy_router *)op;
    unsigned first, last;
    PyObject *link;
    if (!PyArg_ParseTuple(args, "IIO:_assign", &first, &last, &link)) {
        return NULL;
    }
    if (first > last || last >= SG_HASH_SLOTS) {
        PyErr_SetString(PyExc_ValueError, "slots are 0 to 16383");
        return NULL;
    }
    if (link != Py_None && !PyObject_TypeCheck(link, self->state->Link_Type)) {
        PyErr_SetString(PyExc_TypeError, "a slot is assigned a Link");
        return NULL;
    }
    if (self->slots == NULL) {
        self->slots = PyMem_Calloc(SG_HASH_SLOTS, sizeof *self->slots);
        if (self->slots == NULL) {
            return PyErr_NoMemory();
        }
    }
    for (unsigned i = first; i <= last && self->slots != NULL; i++) {
        sgpy_link *old = self->slots[i];
        self->slots[i] = link == Py_None ? NULL : (sgpy_link *)Py_NewRef(link);
        Py_XDECREF((PyObject *)old);
    }
    Py_RETURN_NONE;
}

static PyObject *router_serve(PyObject *op, PyObject *link) {
    sgpy_router *self = (sgpy_router *)op;
    if (link != Py_None && !PyObject_TypeCheck(link, self->state->Link_Type)) {
        PyErr_SetString(PyExc_TypeError, "a router is served by a Link");
        return NULL;
    }
    sgpy_link *old = self->single;
    self->single = link == Py_None ? NULL : (sgpy_link *)Py_NewRef(link);
    Py_XDECREF((PyObject *)old);
    Py_RETURN_NONE;
}

static PyObject *router_end(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_router *self = (sgpy_router *)op;
    sgpy_link *single = self->single;
    self->closed = true;
    sgpy_router_drop_later(self, "the store was closed");
    self->single = NULL;
    Py_XDECREF((PyObject *)single);
    drop_slots(self);
    Py_RETURN_NONE;
}

/* ---- the type */

static PyObject *router_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *loop;
    sgpy_state *st = sgpy_state_for(type);
    (void)kwargs;
    if (st == NULL || !PyArg_ParseTuple(args, "O:Router", &loop)) {
        return NULL;
    }
    sgpy_router *self = (sgpy_router *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = st;
        self->loop = Py_NewRef(loop);
    }
    return (PyObject *)self;
}

static int router_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_router *self = (sgpy_router *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT((PyObject *)self->single);
    for (unsigned i = 0; self->slots != NULL && i < SG_HASH_SLOTS; i++) {
        Py_VISIT((PyObject *)self->slots[i]);
    }
    for (sgpy_ask *ask = self->later_first; ask != NULL; ask = (sgpy_ask *)ask->request.next) {
        const int found = sgpy_ask_traverse(ask, visit, arg);
        if (found != 0) {
            return found;
        }
    }
    return 0;
}

static int router_clear(PyObject *op) {
    sgpy_router *self = (sgpy_router *)op;
    sgpy_link *single = self->single;
    self->closed = true;
    sgpy_router_drop_later(self, "its loop is gone");
    self->single = NULL;
    Py_XDECREF((PyObject *)single);
    drop_slots(self);
    Py_CLEAR(self->loop);
    return 0;
}

static void router_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (((sgpy_router *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)router_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *router_loop(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *loop = ((sgpy_router *)op)->loop;
    return Py_NewRef(loop == NULL ? Py_None : loop);
}

static PyObject *router_closed(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_router *)op)->closed);
}

static PyMethodDef router_methods[] = {
    {"_assign", router_assign, METH_VARARGS,
     PyDoc_STR("_assign($self, first, last, link, /)\n--\n\nThe link of a range of slots.")},
    {"_serve", router_serve, METH_O,
     PyDoc_STR("_serve($self, link, /)\n--\n\nThe link of all slots that have none of their own.")},
    {"_again", router_again, METH_NOARGS,
     PyDoc_STR("_again($self, /)\n--\n\nAsks again what was put off.")},
    {"_end", router_end, METH_NOARGS, PyDoc_STR("_end($self, /)\n--\n\nLets go of its links.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef router_getset[] = {
    {"loop", router_loop, NULL, PyDoc_STR("Its loop."), NULL},
    {"closed", router_closed, NULL, PyDoc_STR("Whether it was ended."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef router_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_router, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot router_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Router(loop, /)\n--\n\nThe links of one loop to a store.")},
    {Py_tp_new, (void *)router_new},
    {Py_tp_dealloc, (void *)router_dealloc},
    {Py_tp_traverse, (void *)router_traverse},
    {Py_tp_clear, (void *)router_clear},
    {Py_tp_methods, router_methods},
    {Py_tp_getset, router_getset},
    {Py_tp_members, router_members},
    {0, NULL},
};

static PyType_Spec router_spec = {
    .name = "sluicegate._core.Router",
    .basicsize = (int)sizeof(sgpy_router),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = router_slots,
};

int sgpy_router_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &router_spec, &st->Router_Type, true);
}
