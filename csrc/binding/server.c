/* Server: a limiter's name on a server, and the plans by which its keys are decided. */
#include "server.h"

#include <stddef.h>
#include <string.h>

/* ---- plans */

void sgpy_plan_release(sgpy_plan *plan) {
    if (plan != NULL && --plan->users == 0) {
        PyMem_Free(plan);
    }
}

/* All plans of a name keep state for the longest period that is known of it: numbers change at run
 * time, and what counts under one must not be dropped by another. */
static void learn(sgpy_server *server, const sg_quota *rows) {
    for (unsigned i = 0; i < server->table->core.layout.quotas; i++) {
        const uint64_t period_us = rows[i].period / SG_TICKS_PER_US;
        if (period_us > server->keep_us[i]) {
            server->keep_us[i] = period_us;
            server->kept++;
        }
    }
}

static sgpy_plan *plan_new(sgpy_server *server, const sg_quota *rows) {
    const sg_layout *layout = &server->table->core.layout;
    sgpy_plan *plan = PyMem_Malloc(sizeof *plan);
    if (plan == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    plan->users = 1;
    plan->kept = server->kept;
    sg_plan_init(&plan->plan, layout->quotas, layout->algorithm, rows, server->keep_us);
    return plan;
}

sgpy_plan *sgpy_plan_of(sgpy_limiter *limiter) {
    sgpy_server *server = limiter->server;
    if (SG_LIKELY(limiter->plan != NULL && limiter->plan->kept == server->kept)) {
        return limiter->plan;
    }
    sg_quota rows[SG_QUOTAS_MAX];
    memcpy(rows, limiter->rows, sizeof rows);
    learn(server, rows);
    if (limiter->lease > 0) {
        sg_lease_lower(rows, limiter->count);
    }
    sgpy_plan *plan = plan_new(server, rows);
    if (plan != NULL) {
        sgpy_plan_release(limiter->plan);
        limiter->plan = plan;
    }
    return plan;
}

sgpy_plan *sgpy_plan_of_rows(sgpy_server *server, PyObject *quotas, const sg_quota *rows) {
    learn(server, rows);
    for (unsigned i = 0; i < SGPY_OTHER_PLANS; i++) {
        if (server->others[i].quotas == quotas && server->others[i].plan->kept == server->kept) {
            return sgpy_plan_hold(server->others[i].plan);
        }
    }
    sgpy_plan *plan = plan_new(server, rows);
    if (plan == NULL) {
        return NULL;
    }
    const unsigned at = server->next_other++ % SGPY_OTHER_PLANS;
    PyObject *old = server->others[at].quotas;
    sgpy_plan_release(server->others[at].plan);
    server->others[at].quotas = Py_NewRef(quotas);
    server->others[at].plan = sgpy_plan_hold(plan);
    Py_XDECREF(old); /* a tuple of Quota, whose end runs no code of others */
    return plan;
}

/* ---- routers */

sgpy_router *sgpy_server_router(sgpy_server *server) {
    sgpy_state *st = server->state;
    if (st->running_loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "set_running_loop was not called");
        return NULL;
    }
    PyObject *loop = PyObject_CallNoArgs(st->running_loop);
    if (loop == NULL) {
        return NULL;
    }
    sgpy_router *router = (sgpy_router *)server->router;
    if (SG_UNLIKELY(router == NULL || router->loop != loop || router->closed)) {
        Py_INCREF(server);
        PyObject *found = PyObject_CallMethod(server->store, "_router", "O", loop);
        if (found != NULL && !PyObject_TypeCheck(found, st->Router_Type)) {
            PyErr_SetString(PyExc_TypeError, "_router returned no Router");
            Py_CLEAR(found);
        }
        if (found == NULL) {
            Py_DECREF(loop);
            Py_DECREF(server);
            return NULL;
        }
        Py_XSETREF(server->router, found);
        router = (sgpy_router *)found;
        Py_DECREF(server);
    }
    Py_DECREF(loop); /* the router has it */
    return router;
}

/* ---- what the store hears */

static void tell(sgpy_server *server, const char *method, PyObject *why) {
    if (server->store == NULL) { /* it is being torn down */
        return;
    }
    PyObject *result = why == NULL
                           ? PyObject_CallMethod(server->store, method, "O", server->name)
                           : PyObject_CallMethod(server->store, method, "OO", server->name, why);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)server);
    }
    Py_XDECREF(result);
}

void sgpy_server_failed(sgpy_server *server, PyObject *why) {
    if (!server->degraded) {
        server->degraded = true;
        tell(server, "_degraded", why);
    }
}

void sgpy_server_recovered(sgpy_server *server) {
    server->degraded = false;
    tell(server, "_recovered", NULL);
}

void sgpy_server_other_shape(sgpy_server *server) {
    if (!server->warned) {
        server->warned = true;
        tell(server, "_other_shape", NULL);
    }
}

/* ---- the type */

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"store", "prefix", "name", "table", NULL};
    PyObject *store, *prefix, *name, *table;
    sgpy_key prefix_key, name_key;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OUUO!:Server", names, &store,
                                                   &prefix, &name, st->Table_Type, &table) ||
        sgpy_key_read(prefix, &prefix_key) < 0) {
        return NULL;
    }
    if (sgpy_key_read(name, &name_key) < 0) {
        sgpy_key_done(&prefix_key);
        return NULL;
    }
    sgpy_server *self = (sgpy_server *)type->tp_alloc(type, 0);
    if (self == NULL) {
        goto done;
    }
    self->state = st;
    self->head = PyMem_Malloc(sg_name_head_room(prefix_key.length, name_key.length));
    if (self->head == NULL) {
        Py_CLEAR(self);
        PyErr_NoMemory();
        goto done;
    }
    self->head_length = sg_name_head(prefix_key.data, prefix_key.length, name_key.data,
                                     name_key.length, self->head);
    self->digests = sg_name_secret(prefix_key.data, prefix_key.length);
    self->store = Py_NewRef(store);
    self->name = Py_NewRef(name);
    self->table = (sgpy_table *)Py_NewRef(table);
    self->kept = 1;
done:
    sgpy_key_done(&prefix_key);
    sgpy_key_done(&name_key);
    return (PyObject *)self;
}

static int server_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_server *self = (sgpy_server *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->store);
    Py_VISIT(self->table);
    Py_VISIT(self->router);
    for (unsigned i = 0; i < SGPY_OTHER_PLANS; i++) {
        Py_VISIT(self->others[i].quotas);
    }
    return sgpy_lease_traverse(self->lease, visit, arg);
}

static int server_clear(PyObject *op) {
    sgpy_server *self = (sgpy_server *)op;
    sgpy_lease *lease = self->lease;
    self->lease = NULL;
    sgpy_lease_free(lease);
    Py_CLEAR(self->router);
    Py_CLEAR(self->store);
    for (unsigned i = 0; i < SGPY_OTHER_PLANS; i++) {
        sgpy_plan *plan = self->others[i].plan;
        self->others[i].plan = NULL;
        sgpy_plan_release(plan);
        Py_CLEAR(self->others[i].quotas);
    }
    return 0;
}

static void server_dealloc(PyObject *op) {
    sgpy_server *self = (sgpy_server *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)server_clear(op);
    Py_CLEAR(self->name);
    Py_CLEAR(self->table);
    PyMem_Free(self->head);
    sg_denied_free(self->denied);
    type->tp_free(op);
    Py_DECREF(type);
}

/* The name of a subject's key, as it stands on the server. */
static PyObject *server_key(PyObject *op, PyObject *subject) {
    const sgpy_server *self = (sgpy_server *)op;
    sgpy_key key;
    if (sgpy_key_read(subject, &key) < 0) {
        return NULL;
    }
    PyObject *name = NULL;
    char *out = PyMem_Malloc(self->head_length + SG_NAME_ROOM);
    if (out == NULL) {
        PyErr_NoMemory();
    } else {
        const size_t length = sg_name_write(self->head, self->head_length, &self->digests,
                                            key.data, key.length, out);
        name = PyBytes_FromStringAndSize(out, (Py_ssize_t)length);
        PyMem_Free(out);
    }
    sgpy_key_done(&key);
    return name;
}

static PyObject *server_forget(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_server *self = (sgpy_server *)op;
    sgpy_lease *lease = self->lease;
    sg_denied_free(self->denied);
    self->denied = NULL;
    self->lease = NULL;
    sgpy_lease_free(lease);
    Py_CLEAR(self->router);
    Py_RETURN_NONE;
}

static PyObject *server_degraded(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_server *)op)->degraded);
}

static PyObject *server_table(PyObject *op, void *Py_UNUSED(closure)) {
    return Py_NewRef((PyObject *)((sgpy_server *)op)->table);
}

static PyObject *server_name(PyObject *op, void *Py_UNUSED(closure)) {
    return Py_NewRef(((sgpy_server *)op)->name);
}

static PyMethodDef server_methods[] = {
    {"key", server_key, METH_O,
     PyDoc_STR("key($self, subject, /)\n--\n\nWhat a subject's key is called on the server.")},
    {"slots", sgpy_server_slots, METH_VARARGS,
     PyDoc_STR("slots($self, operation, owner, ttl_us, keys, numbers, timeout, /)\n--\n\n"
               "A future of what slots.lua replies.")},
    {"forget", server_forget, METH_NOARGS,
     PyDoc_STR("forget($self, /)\n--\n\nForgets what this process remembers of it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef server_getset[] = {
    {"degraded", server_degraded, NULL,
     PyDoc_STR("Whether the last check was decided without the server."), NULL},
    {"table", server_table, NULL, PyDoc_STR("What counts its decisions here."), NULL},
    {"name", server_name, NULL, PyDoc_STR("The limiter's name."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef server_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_server, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Server(store, prefix, name, table)\n--\n\n"
                                  "The name of a limiter on a server.")},
    {Py_tp_new, (void *)server_new},
    {Py_tp_dealloc, (void *)server_dealloc},
    {Py_tp_traverse, (void *)server_traverse},
    {Py_tp_clear, (void *)server_clear},
    {Py_tp_methods, server_methods},
    {Py_tp_getset, server_getset},
    {Py_tp_members, server_members},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "sluicegate._core.Server",
    .basicsize = (int)sizeof(sgpy_server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = server_slots,
};

PyObject *sgpy_server_object(sgpy_server *server) { return (PyObject *)server; }

int sgpy_server_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &server_spec, &st->Server_Type, true);
}

int sgpy_server_init_types(PyObject *module, sgpy_state *st) {
    return sgpy_server_init_type(module, st) < 0 || sgpy_router_init_type(module, st) < 0 ||
                   sgpy_link_init_type(module, st) < 0 || sgpy_ticket_init_type(module, st) < 0
               ? -1 : 0;
}
