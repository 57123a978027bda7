/* Slots and Slot: concurrency over a table that was made with no algorithms. */
#include "shared.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    sgpy_table *table;
    uint64_t limit;
} sgpy_slots;

typedef struct {
    PyObject_HEAD
    sgpy_table *table;
    PyObject *key;
    sg_fingerprint fp;
    uint64_t epoch; /* of the table: a cleared one counts none of these */
    sg_owner owner; /* of shared memory: a forked child does not give back its parent's */
    bool held;
    bool counted; /* not where a full table let it through */
    bool quiet;   /* its holder gives it back, but a cycle may be collected in any order */
    PyObject *weakrefs;
} sgpy_slot;

/* ---- Slot */

static PyObject *slot_new(sgpy_table *table, PyObject *key, sg_fingerprint fp, bool counted) {
    PyTypeObject *type = table->state->Slot_Type;
    sgpy_slot *slot = (sgpy_slot *)type->tp_alloc(type, 0);
    if (slot == NULL) {
        return NULL;
    }
    slot->table = (sgpy_table *)Py_NewRef((PyObject *)table);
    slot->key = Py_NewRef(key);
    slot->fp = fp;
    slot->epoch = sgpy_epoch(table);
    slot->held = true;
    slot->counted = counted;
    return (PyObject *)slot;
}

/* Of shared memory: one that a stopped process is in the way of is given back with the next. */
static void give_back(sgpy_table *table, sg_fingerprint fp, sg_owner owner) {
    if (table->sharing == NULL) {
        sg_slots_release(&table->core, fp);
        return;
    }
    sg_table *core = sgpy_enter(table, fp);
    if (core == NULL) {
        sgpy_owe(table, fp, owner);
        return;
    }
    if (owner == sgpy_self(table)) {
        sg_holders_release(core, fp, owner);
    }
    sgpy_leave(table);
}

/* Runs no Python code. */
static bool release(sgpy_slot *slot) {
    const bool held = slot->held;
    slot->held = false;
    if (held && slot->counted && slot->table != NULL && slot->epoch == sgpy_epoch(slot->table)) {
        give_back(slot->table, slot->fp, slot->owner);
    }
    return held;
}

/* Tells who waits for slots (set_released), if anybody does. May run Python code. */
static void tell_released(sgpy_slot *slot) {
    PyObject *released = slot->table == NULL ? NULL : slot->table->state->released;
    if (released == NULL) {
        return;
    }
    Py_INCREF(released);
    PyObject *result = PyObject_CallFunctionObjArgs(released, (PyObject *)slot->table, slot->key,
                                                    NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)slot);
    }
    Py_XDECREF(result);
    Py_DECREF(released);
}

static int slot_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_slot *slot = (sgpy_slot *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(slot->table);
    Py_VISIT(slot->key);
    return 0;
}

static int slot_clear(PyObject *op) {
    sgpy_slot *slot = (sgpy_slot *)op;
    (void)release(slot);
    Py_CLEAR(slot->table);
    Py_CLEAR(slot->key);
    return 0;
}

static void slot_finalize(PyObject *op) {
    PyObject *type, *value, *traceback;
    if (!release((sgpy_slot *)op)) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (!((sgpy_slot *)op)->quiet &&
        PyErr_ResourceWarning(op, 1, "a slot of %R was forgotten, not released",
                              ((sgpy_slot *)op)->key) < 0) {
        PyErr_WriteUnraisable(op);
    }
    tell_released((sgpy_slot *)op);
    PyErr_Restore(type, value, traceback);
}

static void slot_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (((sgpy_slot *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)slot_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *slot_release(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const bool held = release((sgpy_slot *)op);
    if (held) {
        tell_released((sgpy_slot *)op);
    }
    return PyBool_FromLong(held);
}

static PyObject *slot_key(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *key = ((sgpy_slot *)op)->key;
    return Py_NewRef(key == NULL ? Py_None : key);
}

static PyObject *slot_held(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_slot *)op)->held);
}

static PyObject *slot_repr(PyObject *op) {
    const sgpy_slot *slot = (sgpy_slot *)op;
    return PyUnicode_FromFormat("<Slot of %R, %s>", slot->key == NULL ? Py_None : slot->key,
                                slot->held ? "held" : "released");
}

static PyMethodDef slot_methods[] = {
    {"release_nowait", slot_release, METH_NOARGS,
     PyDoc_STR("release_nowait($self, /)\n--\n\nGives it back; whether it was held.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef slot_getset[] = {
    {"key", slot_key, NULL, PyDoc_STR("The key as it was given."), NULL},
    {"held", slot_held, NULL, PyDoc_STR("Whether it is held."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef slot_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_slot, weakrefs), READONLY, NULL},
    {"quiet", T_BOOL, offsetof(sgpy_slot, quiet), 0,
     PyDoc_STR("Whether it may be forgotten without a warning.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slot_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One held slot, given back by release_nowait().")},
    {Py_tp_dealloc, (void *)slot_dealloc},
    {Py_tp_finalize, (void *)slot_finalize},
    {Py_tp_traverse, (void *)slot_traverse},
    {Py_tp_clear, (void *)slot_clear},
    {Py_tp_repr, (void *)slot_repr},
    {Py_tp_methods, slot_methods},
    {Py_tp_getset, slot_getset},
    {Py_tp_members, slot_members},
    {0, NULL},
};

static PyType_Spec slot_spec = {
    .name = "sluicegate._core.Slot",
    .basicsize = (int)sizeof(sgpy_slot),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slot_slots,
};

/* ---- Slots */

static int limit_of(PyObject *object, uint64_t *limit) {
    if (PyBool_Check(object) || !PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "a limit is an int, not %.200s", Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0 || value < 1 || (uint64_t)value > SG_LIMIT_MAX) {
        PyErr_Format(PyExc_ValueError, "a limit is 1 to 2**40 slots, not %R", object);
        return -1;
    }
    *limit = (uint64_t)value;
    return 0;
}

static PyObject *slots_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"table", "limit", NULL};
    PyObject *table, *limit;
    uint64_t units;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:Slots", names, st->Table_Type, &table,
                                     &limit) ||
        limit_of(limit, &units) < 0) {
        return NULL;
    }
    if (((sgpy_table *)table)->core.layout.quotas != 0) {
        PyErr_SetString(PyExc_ValueError, "slots need a table of their own: Table(())");
        return NULL;
    }
    sgpy_slots *self = (sgpy_slots *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->table = (sgpy_table *)Py_NewRef(table);
        self->limit = units;
    }
    return (PyObject *)self;
}

static int slots_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((sgpy_slots *)op)->table);
    return 0;
}

static int slots_clear(PyObject *op) {
    Py_CLEAR(((sgpy_slots *)op)->table);
    return 0;
}

static void slots_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)slots_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* A slot where the table is full of held ones, as its on_full says. */
static PyObject *acquire_full(sgpy_table *table, sg_status status, PyObject *key,
                              sg_fingerprint fp) {
    if (!sgpy_is_full(table, status)) {
        return PyErr_NoMemory();
    }
    if (table->on_full == SGPY_ALLOW) {
        return slot_new(table, key, fp, false);
    }
    if (table->on_full == SGPY_DENY) {
        Py_RETURN_NONE;
    }
    PyErr_SetString(table->state->StoreFullError,
                    "the store is full of held slots: raise its max_keys or max_bytes, or set "
                    "on_full");
    return NULL;
}

static PyObject *acquire(sgpy_table *table, PyObject *key, uint64_t limit) {
    sgpy_key bytes;
    sg_ticks now;
    bool acquired;
    uint64_t held;
    if (sgpy_table_now(table, &now) < 0 || sgpy_key_read(key, &bytes) < 0) {
        return NULL;
    }
    const sg_fingerprint fp = sg_fingerprint_of(&table->secret, bytes.data, bytes.length);
    sgpy_pay(table);
    sg_table *core = sgpy_enter_at(table, fp, &now);
    if (core == NULL) {
        sgpy_raise_stalled(table);
        sgpy_tell(table);
        sgpy_key_done(&bytes);
        return NULL;
    }
    const sg_owner owner = sgpy_self(table);
    const uint64_t epoch = sgpy_epoch(table);
    sg_status status;
    if (SG_LIKELY(table->sharing == NULL)) {
        status = sg_slots_acquire(core, fp, limit, now, &acquired, &held);
    } else {
        const sg_witness witness = sgpy_witness(table);
        status = sg_holders_acquire(core, fp, limit, owner, &witness, now, &acquired, &held);
    }
    sg_counts *counts = sgpy_counts(table);
    if (status != SG_OK) {
        sg_count(&counts->full, sgpy_is_full(table, status));
    } else {
        sg_count(&counts->admitted, acquired);
        sg_count(&counts->refused, !acquired);
        sgpy_count_key(table, !acquired, fp, bytes.data, bytes.length, now);
    }
    sgpy_leave(table);
    sgpy_tell(table);
    PyObject *slot = NULL;
    if (status != SG_OK) {
        slot = acquire_full(table, status, key, fp);
    } else if (!acquired) {
        slot = Py_NewRef(Py_None);
    } else {
        slot = slot_new(table, key, fp, true);
        if (slot != NULL) {
            ((sgpy_slot *)slot)->owner = owner;
            ((sgpy_slot *)slot)->epoch = epoch;
        } else if (sgpy_epoch(table) == epoch) {
            give_back(table, fp, owner);
        }
    }
    sgpy_key_done(&bytes);
    return slot;
}

static PyObject *slots_acquire(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames) {
    static const char *const names[] = {"key", "limit", NULL};
    const sgpy_slots *self = (sgpy_slots *)op;
    PyObject *given[2];
    uint64_t limit = self->limit;
    if (sgpy_args("acquire_nowait", names, 2, 1, args, nargs, kwnames, given) < 0 ||
        (given[1] != NULL && given[1] != Py_None && limit_of(given[1], &limit) < 0)) {
        return NULL;
    }
    sgpy_table *table = (sgpy_table *)Py_NewRef((PyObject *)self->table);
    PyObject *slot = acquire(table, given[0], limit);
    Py_DECREF(table);
    return slot;
}

static PyObject *slots_count(PyObject *op, PyObject *key) {
    sgpy_table *table = ((sgpy_slots *)op)->table;
    sgpy_key bytes;
    if (sgpy_key_read(key, &bytes) < 0) {
        return NULL;
    }
    const sg_fingerprint fp = sg_fingerprint_of(&table->secret, bytes.data, bytes.length);
    sgpy_key_done(&bytes);
    sg_table *core = sgpy_enter(table, fp);
    if (core == NULL) {
        sgpy_raise_stalled(table);
        return NULL;
    }
    uint64_t held;
    if (table->sharing == NULL) {
        held = sg_slots_count(core, fp);
    } else {
        const sg_witness witness = sgpy_witness(table);
        held = sg_holders_count(core, fp, &witness);
    }
    sgpy_leave(table);
    return PyLong_FromUnsignedLongLong(held);
}

static PyObject *slots_limit(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((sgpy_slots *)op)->limit);
}

static PyMethodDef slots_methods[] = {
    {"acquire_nowait", (PyCFunction)(void (*)(void))slots_acquire,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("acquire_nowait($self, /, key, limit=None)\n--\n\nA slot, or None.")},
    {"count_nowait", slots_count, METH_O,
     PyDoc_STR("count_nowait($self, key, /)\n--\n\nHow many are held.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef slots_getset[] = {
    {"limit", slots_limit, NULL, PyDoc_STR("Slots a key."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Slots(table, limit)\n--\n\n"
                                  "Up to `limit` slots a key are held at once.")},
    {Py_tp_new, (void *)slots_new},
    {Py_tp_dealloc, (void *)slots_dealloc},
    {Py_tp_traverse, (void *)slots_traverse},
    {Py_tp_clear, (void *)slots_clear},
    {Py_tp_methods, slots_methods},
    {Py_tp_getset, slots_getset},
    {0, NULL},
};

static PyType_Spec slots_spec = {
    .name = "sluicegate._core.Slots",
    .basicsize = (int)sizeof(sgpy_slots),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots_slots,
};

int sgpy_slots_init_types(PyObject *module, sgpy_state *st) {
    if (sgpy_add_type(module, &slots_spec, &st->Slots_Type, true) < 0) {
        return -1;
    }
    return sgpy_add_type(module, &slot_spec, &st->Slot_Type, true);
}
