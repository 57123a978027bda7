/* Limiter: quotas over a table. Its methods are in operations.c and hit.c. */
#include "binding.h"
#include "operations.h"
#include "shared.h"
#ifdef SG_REDIS
#include "server.h"
#endif

#include <stddef.h>
#include <string.h>

int sgpy_rows_of(const sgpy_table *table, PyObject *quotas, sg_quota *rows, PyObject **tuple) {
    const sgpy_state *st = table->state;
    const sg_layout *layout = &table->core.layout;
    if (PyUnicode_Check(quotas) || sgpy_is_quota(st, quotas)) {
        PyErr_Format(PyExc_TypeError, "quotas is a sequence of Quota or None, not %.200s",
                     Py_TYPE(quotas)->tp_name);
        return -1;
    }
    PyObject *items = PySequence_Tuple(quotas);
    if (items == NULL) {
        return -1;
    }
    if (PyTuple_GET_SIZE(items) != layout->quotas || layout->quotas == 0) {
        if (layout->quotas == 0) {
            PyErr_SetString(PyExc_ValueError, "a table of slots keeps no quotas: use Slots");
        } else {
            PyErr_Format(PyExc_ValueError, "the table keeps %d quotas, not %zd",
                         (int)layout->quotas, PyTuple_GET_SIZE(items));
        }
        goto fail;
    }
    memset(rows, 0, SG_QUOTAS_MAX * sizeof *rows);
    for (unsigned i = 0; i < layout->quotas; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, (Py_ssize_t)i);
        if (item == Py_None) {
            rows[i].algorithm = layout->algorithm[i];
            rows[i].unlimited = true;
            continue;
        }
        if (!sgpy_is_quota(st, item)) {
            PyErr_Format(PyExc_TypeError, "quotas has Quota or None, not %.200s",
                         Py_TYPE(item)->tp_name);
            goto fail;
        }
        rows[i] = ((sgpy_quota *)item)->quota;
        if (rows[i].algorithm != layout->algorithm[i]) {
            PyErr_Format(PyExc_ValueError, "quota %u is %U here, but %U in the table", i,
                         st->algorithms[rows[i].algorithm], st->algorithms[layout->algorithm[i]]);
            goto fail;
        }
    }
    *tuple = items;
    return 0;
fail:
    Py_DECREF(items);
    return -1;
}

/* Gives the limiter another table and other quotas; nothing changes if it fails. */
static int rebind(sgpy_limiter *self, sgpy_state *st, PyObject *table, PyObject *quotas) {
    sg_quota rows[SG_QUOTAS_MAX];
    PyObject *tuple, *old;
    if (!PyObject_TypeCheck(table, st->Table_Type)) {
        PyErr_Format(PyExc_TypeError, "table is a Table, not %.200s", Py_TYPE(table)->tp_name);
        return -1;
    }
    if (sgpy_rows_of((sgpy_table *)table, quotas, rows, &tuple) < 0) {
        return -1;
    }
    PyObject *old_table = (PyObject *)self->table, *old_key = self->hot_key;
    sgpy_plan *old_plan = self->plan;
    old = self->quotas;
    self->state = st;
    self->table = (sgpy_table *)Py_NewRef(table);
    self->quotas = tuple;
    self->count = self->table->core.layout.quotas;
    self->hot_key = NULL;
    self->version++;
    self->plan = NULL;
    /* A server decides for its own table: of another one it knows nothing. */
    PyObject *old_server = old_table == table ? NULL : sgpy_server_object(self->server);
    self->server = old_table == table ? self->server : NULL;
    self->plain = self->server == NULL;
    memcpy(self->rows, rows, sizeof rows);
    sgpy_know(self->table, rows);
    sgpy_plan_release(old_plan);
    /* At the end, for what goes may run Python code. */
    Py_XDECREF(old);
    Py_XDECREF(old_key);
    Py_XDECREF(old_table);
    Py_XDECREF(old_server);
    return 0;
}

static int limiter_init(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"table", "quotas", "shadow", "enabled", NULL};
    sgpy_limiter *self = (sgpy_limiter *)op;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    PyObject *table, *quotas;
    int shadow = 0, enabled = 1;
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$pp:Limiter", names, &table,
                                                   &quotas, &shadow, &enabled) ||
        rebind(self, st, table, quotas) < 0) {
        return -1;
    }
    self->shadow = shadow != 0;
    self->enabled = enabled != 0;
    return 0;
}

static PyObject *limiter_rebind(PyObject *op, PyObject *args) {
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    PyObject *table, *quotas;
    if (st == NULL || !PyArg_ParseTuple(args, "OO:_rebind", &table, &quotas) ||
        rebind((sgpy_limiter *)op, st, table, quotas) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The policy of that name: 4 if there is none. */
static uint8_t policy_of(const char *name) {
    static const char *const policies[] = {
        [SGPY_POLICY_RAISE] = "raise", [SGPY_POLICY_ALLOW] = "allow",
        [SGPY_POLICY_DENY] = "deny", [SGPY_POLICY_LOCAL] = "local"};
    uint8_t which = 0;
    while (which < 4 && strcmp(policies[which], name) != 0) {
        which++;
    }
    return which;
}

/* What a check comes to whose lock, in shared memory, a stopped process has; `local` is the
 * table that then decides, or None. */
static PyObject *limiter_when_stalled(PyObject *op, PyObject *args) {
    sgpy_limiter *self = (sgpy_limiter *)op;
    const char *policy;
    PyObject *local;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    if (st == NULL || !PyArg_ParseTuple(args, "sO:_when_stalled", &policy, &local)) {
        return NULL;
    }
    const uint8_t which = policy_of(policy);
    if (which == 4 || self->table == NULL) {
        PyErr_SetString(PyExc_ValueError, "on_store_error makes no sense, or __init__ was not "
                                          "called");
        return NULL;
    }
    if (local != Py_None) {
        if (!PyObject_TypeCheck(local, st->Table_Type)) {
            PyErr_Format(PyExc_TypeError, "local is a Table or None, not %.200s",
                         Py_TYPE(local)->tp_name);
            return NULL;
        }
        const sg_layout *a = &((sgpy_table *)local)->core.layout, *b = &self->table->core.layout;
        if (a->quotas != b->quotas || memcmp(a->algorithm, b->algorithm, a->quotas) != 0 ||
            ((sgpy_table *)local)->sharing != NULL) {
            PyErr_SetString(PyExc_ValueError, "local is a table of private memory, with the "
                                              "algorithms of the limiter's own");
            return NULL;
        }
    }
    PyObject *old = (PyObject *)self->local;
    self->local = local == Py_None ? NULL : (sgpy_table *)Py_NewRef(local);
    self->policy = which;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

#ifdef SG_REDIS
/* Goes on over a server (None: not over one), which then decides in place of the table. */
static PyObject *limiter_serve(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"server", "on_store_error", "timeout", "deny_cache", "lease", NULL};
    sgpy_limiter *self = (sgpy_limiter *)op;
    const char *policy = "raise";
    PyObject *server;
    double timeout = 0.5, deny_cache = 0.0;
    unsigned long long lease = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|sddK:_serve", names, &server, &policy,
                                     &timeout, &deny_cache, &lease)) {
        return NULL;
    }
    if (self->table == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Limiter.__init__ was not called");
        return NULL;
    }
    const uint8_t which = policy_of(policy);
    if (which == 4 || !(timeout > 0 && timeout < 1e9) || !(deny_cache >= 0 && deny_cache < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "on_store_error, timeout or deny_cache makes no sense");
        return NULL;
    }
    if (server != Py_None && (!PyObject_TypeCheck(server, self->state->Server_Type) ||
                              ((sgpy_server *)server)->table != self->table)) {
        PyErr_SetString(PyExc_TypeError, "server is a Server over the limiter's table, or None");
        return NULL;
    }
    PyObject *old = sgpy_server_object(self->server);
    sgpy_plan *old_plan = self->plan;
    self->plan = NULL;
    self->server = server == Py_None ? NULL : (sgpy_server *)Py_NewRef(server);
    self->plain = server == Py_None;
    self->policy = which;
    self->timeout_ns = (int64_t)(timeout * 1e9);
    self->deny_ns = (int64_t)(deny_cache * 1e9);
    self->lease = lease;
    self->version++;
    sgpy_plan_release(old_plan);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}
#endif

static int limiter_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_limiter *self = (sgpy_limiter *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->table);
    Py_VISIT(self->local);
    Py_VISIT(sgpy_server_object(self->server));
    Py_VISIT(self->quotas);
    return 0;
}

static int limiter_clear(PyObject *op) {
    sgpy_limiter *self = (sgpy_limiter *)op;
    PyObject *server = sgpy_server_object(self->server);
    sgpy_plan *plan = self->plan;
    self->plain = false;
    self->server = NULL;
    self->plan = NULL;
    sgpy_plan_release(plan);
    Py_XDECREF(server);
    Py_CLEAR(self->hot_key);
    Py_CLEAR(self->local);
    Py_CLEAR(self->table);
    Py_CLEAR(self->quotas);
    return 0;
}

static void limiter_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (((sgpy_limiter *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)limiter_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- attributes */

static PyObject *limiter_quotas(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *quotas = ((sgpy_limiter *)op)->quotas;
    return quotas == NULL ? PyTuple_New(0) : Py_NewRef(quotas);
}

static PyObject *limiter_table(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *table = (PyObject *)((sgpy_limiter *)op)->table;
    if (table == NULL) {
        PyErr_SetString(PyExc_AttributeError,
                        "this limiter has no table: Limiter.__init__ was not called");
        return NULL;
    }
    return Py_NewRef(table);
}

static PyObject *limiter_shadow(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_limiter *)op)->shadow);
}

static PyObject *limiter_enabled(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_limiter *)op)->enabled);
}

static int limiter_set_enabled(PyObject *op, PyObject *value, void *Py_UNUSED(closure)) {
    const int enabled = value == NULL ? -1 : PyObject_IsTrue(value);
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "enabled cannot be deleted");
    }
    if (enabled < 0) {
        return -1;
    }
    ((sgpy_limiter *)op)->enabled = enabled != 0;
    return 0;
}

#define FAST_ANY(function) (PyCFunction)(void (*)(void))(function)
#define FAST(function) FAST_ANY(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef limiter_methods[] = {
    {"_rebind", limiter_rebind, METH_VARARGS,
     PyDoc_STR("_rebind($self, table, quotas, /)\n--\n\nGoes on over another table.")},
    {"_when_stalled", limiter_when_stalled, METH_VARARGS,
     PyDoc_STR("_when_stalled($self, on_store_error, local, /)\n--\n\n"
               "What a check comes to where a stopped process has the lock of shared memory.")},
#ifdef SG_REDIS
    {"_serve", FAST_ANY(limiter_serve), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_serve($self, server, on_store_error='raise', timeout=0.5, deny_cache=0.0, "
               "lease=0)\n--\n\nGoes on over a server, or (None) without one.")},
    {"_ask", FAST_ANY(sgpy_limiter_ask), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_ask($self, operation, key, cost=1, quotas=None, ttl=60.0, detailed=0)\n--\n\n"
               "A check by the server: what it comes to, or a future of that.")},
    {"_ask_many", sgpy_limiter_ask_many, METH_O,
     PyDoc_STR("_ask_many($self, pairs, /)\n--\n\nA list of decisions, or a future of one.")},
    {"_change", sgpy_limiter_change, METH_VARARGS,
     PyDoc_STR("_change($self, operation, key, argument=None, /)\n--\n\nA future of None.")},
    {"_fetch", sgpy_limiter_fetch, METH_O,
     PyDoc_STR("_fetch($self, key, /)\n--\n\nA future of all that the server has of a key.")},
    {"_foretell", sgpy_limiter_foretell, METH_VARARGS,
     PyDoc_STR("_foretell($self, fetched, costs, /)\n--\n\n"
               "Seconds until the last of these events would be admitted, one after another.")},
#endif
    {"hit_nowait", FAST(sgpy_limiter_hit_nowait),
     PyDoc_STR("hit_nowait($self, /, key, cost=1, *, quotas=None)\n--\n\n"
               "Charges `cost` to `key` if all quotas admit it, else nothing; at once.\n\n"
               "An int is the cost to every quota; a mapping names quotas, those not named\n"
               "take 1. `quotas` are other numbers for this one event. Never raises because\n"
               "of a limit: the decision is false when refused.")},
    {"hit_awaitable", FAST(sgpy_limiter_hit_awaitable),
     PyDoc_STR("hit_awaitable($self, /, key, cost=1, *, quotas=None)\n--\n\n"
               "Charges `cost` to `key` if all quotas admit it, else nothing; when awaited.\n\n"
               "An int is the cost to every quota; a mapping names quotas, those not named\n"
               "take 1. `quotas` are other numbers for this one event. Never raises because\n"
               "of a limit: the decision is false when refused.")},
    {"peek_nowait", FAST(sgpy_limiter_peek_nowait),
     PyDoc_STR("peek_nowait($self, /, key, cost=1)\n--\n\nDecides, charges nothing.")},
    {"hit_many_nowait", sgpy_limiter_hit_many_nowait, METH_O,
     PyDoc_STR("hit_many_nowait($self, pairs, /)\n--\n\n"
               "Each (key, cost) by itself, in order.")},
    {"project_nowait", FAST(sgpy_limiter_project_nowait),
     PyDoc_STR("project_nowait($self, /, key, costs)\n--\n\n"
               "Seconds until the last of these events would be admitted, one after another.")},
    {"penalize_nowait", FAST(sgpy_limiter_penalize_nowait),
     PyDoc_STR("penalize_nowait($self, /, key, cost=1)\n--\n\n"
               "Charges, past the limit by at most one burst.")},
    {"reward_nowait", FAST(sgpy_limiter_reward_nowait),
     PyDoc_STR("reward_nowait($self, /, key, cost=1)\n--\n\nGives back, at most to full.")},
    {"reset_nowait", FAST(sgpy_limiter_reset_nowait),
     PyDoc_STR("reset_nowait($self, /, key)\n--\n\nForgets a key.")},
    {"ban_nowait", FAST(sgpy_limiter_ban_nowait),
     PyDoc_STR("ban_nowait($self, /, key, seconds)\n--\n\nRefuses a key for that long.")},
    {"unban_nowait", FAST(sgpy_limiter_unban_nowait),
     PyDoc_STR("unban_nowait($self, /, key)\n--\n\nEnds a ban.")},
    {"reserve_nowait", FAST(sgpy_limiter_reserve_nowait),
     PyDoc_STR("reserve_nowait($self, /, key, cost=1, ttl=60.0)\n--\n\n"
               "Charges now, to be settled within ttl seconds.")},
    {"bind", FAST(sgpy_limiter_bind),
     PyDoc_STR("bind($self, /, key)\n--\n\nA handle with the key prepared.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *limiter_server(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *server = sgpy_server_object(((sgpy_limiter *)op)->server);
    return Py_NewRef(server == NULL ? Py_None : server);
}

static PyGetSetDef limiter_getset[] = {
    {"server", limiter_server, NULL, PyDoc_STR("Whose its state is, or None."), NULL},
    {"quotas", limiter_quotas, NULL, PyDoc_STR("Quota or None, one a place."), NULL},
    {"table", limiter_table, NULL, PyDoc_STR("Where its state lives."), NULL},
    {"shadow", limiter_shadow, NULL, PyDoc_STR("Decides, counts, and admits all."), NULL},
    {"enabled", limiter_enabled, limiter_set_enabled,
     PyDoc_STR("False: admits all, charges nothing."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef limiter_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_limiter, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Limiter(table, quotas, *, shadow=False, enabled=True)\n--\n\n"
                                  "Quotas over a table: all of them admit or none is charged.")},
    {Py_tp_init, (void *)limiter_init},
    {Py_tp_dealloc, (void *)limiter_dealloc},
    {Py_tp_traverse, (void *)limiter_traverse},
    {Py_tp_clear, (void *)limiter_clear},
    {Py_tp_methods, limiter_methods},
    {Py_tp_getset, limiter_getset},
    {Py_tp_members, limiter_members},
    {0, NULL},
};

static PyType_Spec limiter_spec = {
    .name = "sluicegate._core.Limiter",
    .basicsize = (int)sizeof(sgpy_limiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = limiter_slots,
};

int sgpy_limiter_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &limiter_spec, &st->Limiter_Type, true);
}
