/* SharedFile: a file in which the workers of a machine keep one state; and the tables in it. */
#include "shared.h"

#include <stddef.h>
#include <string.h>

/* ---- errors */

static void raise_file(const sgpy_state *st, PyObject *path, sg_file_error error,
                       int system_error) {
    if (system_error != 0) {
        PyErr_Format(st->StoreError, "%U: %s (%s)", path, sg_file_why(error),
                     strerror(system_error));
    } else {
        PyErr_Format(st->StoreError, "%U: %s", path, sg_file_why(error));
    }
}

static void raise_shared(const sgpy_state *st, const sgpy_file *file, sg_shared_error error) {
    switch (error) {
    case SG_SHARED_NO_SEAT:
        PyErr_Format(st->StoreError,
                     "%U: %u processes have it open, and a file of its size has seats for no "
                     "more: make it larger, by a megabyte a process",
                     file->path, (unsigned)file->shared.locks.map.seats);
        break;
    case SG_SHARED_NO_ENTRY:
        PyErr_Format(st->StoreFullError,
                     "%U: it has %u limiters, and can have no more: give some of them another file",
                     file->path, SG_ENTRIES);
        break;
    case SG_SHARED_NO_PAGES:
        PyErr_Format(st->StoreFullError,
                     "%U: there is no room for one limiter more: remove the file when no process "
                     "uses it, and give a larger size=",
                     file->path);
        break;
    case SG_SHARED_NAME:
        PyErr_Format(PyExc_ValueError, "a name in shared memory has 1 to %u bytes of UTF-8",
                     SG_NAME_BYTES);
        break;
    default:
        PyErr_Format(st->StoreError,
                     "%U: a process that is stopped has the lock: let it go on, or end it",
                     file->path);
        break;
    }
}

void sgpy_raise_stalled(const sgpy_table *table) {
    raise_shared(table->state, table->sharing->file, SG_SHARED_STALLED);
}

/* ---- SharedFile */

static PyObject *file_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"path", "size", "keep", "make", NULL};
    PyObject *path, *encoded = NULL;
    unsigned long long size = 0;
    int keep = 1, make = 1;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "U|Kpp:SharedFile", names, &path, &size,
                                     &keep, &make) ||
        !PyUnicode_FSConverter(path, &encoded)) {
        return NULL;
    }
    sgpy_file *self = (sgpy_file *)type->tp_alloc(type, 0);
    if (self == NULL) {
        goto fail;
    }
    self->path = Py_NewRef(path);
    if (!make) {
        size = SG_FILE_AS_IT_IS;
    } else if (size == SG_FILE_AS_IT_IS) {
        size--; /* too large, as it is said */
    }
    sg_file_error error = SG_FILE_OK;
    int system_error = 0;
    sg_shared_error result = SG_SHARED_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        /* Another process may be making it, on a slow disk. */
        Py_BEGIN_ALLOW_THREADS
        result = sg_shared_open(&self->shared, PyBytes_AS_STRING(encoded), size, keep != 0,
                                &error, &system_error);
        Py_END_ALLOW_THREADS
        if (result != SG_SHARED_NO_SEAT) {
            break;
        }
        PyGC_Collect(); /* some may be this process's own, forgotten in a circle */
    }
    if (result == SG_SHARED_FILE) {
        raise_file(st, path, error, system_error);
        goto fail;
    }
    if (result != SG_SHARED_OK) {
        raise_shared(st, self, result);
        goto fail;
    }
    self->open = true;
    Py_DECREF(encoded);
    return (PyObject *)self;
fail:
    Py_XDECREF(encoded);
    Py_XDECREF((PyObject *)self);
    return NULL;
}

static void file_dealloc(PyObject *op) {
    sgpy_file *self = (sgpy_file *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->open) {
        sg_shared_close(&self->shared);
    }
    Py_XDECREF(self->path);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Limiter number i for a look: not the table that a limiter of this process has. NULL where
 * there is none, with an exception where there was no memory. */
static sg_shared_table *look_at(sgpy_file *self, uint32_t i) {
    sg_shared_table *t = PyMem_Calloc(1, sizeof *t);
    if (t == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!sg_shared_table_at(t, &self->shared, i)) {
        PyMem_Free(t);
        return NULL;
    }
    return t;
}

static PyObject *tell_limiter(const sgpy_state *st, sg_shared_table *t) {
    const sg_entry *entry = t->entry;
    PyObject *algorithms = PyTuple_New(t->table.layout.quotas);
    if (algorithms == NULL) {
        return NULL;
    }
    for (unsigned k = 0; k < t->table.layout.quotas; k++) {
        PyTuple_SET_ITEM(algorithms, (Py_ssize_t)k,
                         Py_NewRef(st->algorithms[t->table.layout.algorithm[k]]));
    }
    PyObject *name = PyUnicode_DecodeUTF8(entry->name, (Py_ssize_t)entry->name_length,
                                          "backslashreplace");
    PyObject *text = PyUnicode_DecodeUTF8(entry->text, (Py_ssize_t)entry->text_length,
                                          "backslashreplace");
    PyObject *item = name == NULL || text == NULL ? NULL : PyTuple_Pack(3, name, algorithms, text);
    Py_DECREF(algorithms);
    Py_XDECREF(name);
    Py_XDECREF(text);
    return item;
}

/* A list of what `tell` says of each limiter (NULL without an exception: nothing). */
static PyObject *of_each(PyObject *op, PyObject *(*tell)(const sgpy_state *, sg_shared_table *)) {
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    PyObject *list = st == NULL ? NULL : PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < SG_ENTRIES; i++) {
        sg_shared_table *t = look_at((sgpy_file *)op, i);
        PyObject *item = t == NULL ? NULL : tell(st, t);
        PyMem_Free(t);
        if (item != NULL ? PyList_Append(list, item) < 0 : PyErr_Occurred() != NULL) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *tell_faults(const sgpy_state *st, sg_shared_table *t) {
    const char *what = "";
    const uint64_t faults = sg_shared_check(t, &what);
    (void)st;
    return faults == 0 ? NULL
                       : PyUnicode_FromFormat("%llu faults, the first: %s",
                                              (unsigned long long)faults, what);
}

static PyObject *file_limiters(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    return of_each(op, tell_limiter);
}

static PyObject *file_check(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    return of_each(op, tell_faults);
}

static PyObject *tell_cleared(const sgpy_state *st, sg_shared_table *t) {
    (void)st;
    return sg_shared_clear(t) ? NULL : Py_NewRef(Py_False);
}

static PyObject *file_clear_all(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    PyObject *left = of_each(op, tell_cleared);
    if (left == NULL) {
        return NULL;
    }
    const bool all = PyList_GET_SIZE(left) == 0;
    Py_DECREF(left);
    if (!all) {
        sgpy_state *st = sgpy_state_for(Py_TYPE(op));
        if (st != NULL) {
            raise_shared(st, (sgpy_file *)op, SG_SHARED_STALLED);
        }
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *file_processes(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(sg_seats_alive(&((sgpy_file *)op)->shared.locks));
}

static PyObject *file_path(PyObject *op, void *Py_UNUSED(closure)) {
    return Py_NewRef(((sgpy_file *)op)->path);
}

static PyObject *file_size(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((sgpy_file *)op)->shared.file.size);
}

static PyObject *file_made(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_file *)op)->shared.file.made);
}

static PyMethodDef file_methods[] = {
    {"limiters", file_limiters, METH_NOARGS,
     PyDoc_STR("limiters($self, /)\n--\n\nThose that it knows: (name, algorithms, quotas as text); "
               "one of slots has no algorithms.")},
    {"clear", file_clear_all, METH_NOARGS,
     PyDoc_STR("clear($self, /)\n--\n\nForgets every key of every limiter; StoreError where a "
               "stopped process is in the way.")},
    {"check", file_check, METH_NOARGS,
     PyDoc_STR("check($self, /)\n--\n\nWalks all state and tells what cannot be: of a good file, "
               "nothing.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef file_getset[] = {
    {"path", file_path, NULL, PyDoc_STR("Where it is."), NULL},
    {"size", file_size, NULL, PyDoc_STR("Its bytes."), NULL},
    {"made", file_made, NULL, PyDoc_STR("Whether it was made here."), NULL},
    {"processes", file_processes, NULL, PyDoc_STR("How many live ones have it open."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot file_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("SharedFile(path, size=0, keep=True, make=True)\n--\n\n"
                                  "A file in which processes of one machine share state.")},
    {Py_tp_new, (void *)file_new},
    {Py_tp_dealloc, (void *)file_dealloc},
    {Py_tp_methods, file_methods},
    {Py_tp_getset, file_getset},
    {0, NULL},
};

static PyType_Spec file_spec = {
    .name = "sluicegate._core.SharedFile",
    .basicsize = (int)sizeof(sgpy_file),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = file_slots,
};

int sgpy_file_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &file_spec, &st->SharedFile_Type, true);
}

/* ---- tables */

/* Where a clock that was given begins: where it stood when the first process of the file had one,
 * so that it tells all of them the same. `now_ns`: what it says here. */
static int64_t origin_of(sgpy_file *file, int64_t now_ns) {
    uint64_t *origin = &file->shared.root->origin;
    /* 0 is nowhere, so that the sign is turned. */
    const uint64_t turned = UINT64_C(1) << 63;
    uint64_t seen = 0;
    if (__atomic_compare_exchange_n(origin, &seen, (uint64_t)now_ns ^ turned, false,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        return now_ns;
    }
    return (int64_t)(seen ^ turned);
}

int sgpy_share(sgpy_table *table, PyObject *file, PyObject *name, PyObject *text,
               PyObject *listener, unsigned count, const uint8_t *algorithms) {
    Py_ssize_t name_length, text_length = 0;
    const char *said = "";
    if (!PyObject_TypeCheck(file, table->state->SharedFile_Type)) {
        PyErr_Format(PyExc_TypeError, "shared is a SharedFile, not %.200s",
                     Py_TYPE(file)->tp_name);
        return -1;
    }
    if (name == NULL || !PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a table in shared memory has a name, a str");
        return -1;
    }
    const char *called = PyUnicode_AsUTF8AndSize(name, &name_length);
    if (called == NULL) {
        return -1;
    }
    if (text != NULL && text != Py_None &&
        (said = PyUnicode_AsUTF8AndSize(text, &text_length)) == NULL) {
        return -1;
    }
    struct sgpy_sharing *sharing = PyMem_Calloc(1, sizeof *sharing);
    if (sharing == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    sgpy_file *shared = (sgpy_file *)file;
    const sg_shared_error error =
        sg_shared_table_open(&sharing->table, &shared->shared, called, (size_t)name_length, said,
                             (size_t)text_length, count, algorithms);
    if (error != SG_SHARED_OK) {
        PyMem_Free(sharing);
        raise_shared(table->state, shared, error);
        return -1;
    }
    const sg_file_header *header = sg_shared_header(&shared->shared);
    memcpy(&table->secret, header->secret, sizeof table->secret);
    /* One time for all processes. */
    table->origin_ns = table->clock == NULL ? (int64_t)header->born_ns
                                            : origin_of(shared, table->origin_ns);
    sharing->file = (sgpy_file *)Py_NewRef(file);
    sharing->listener = listener == NULL || listener == Py_None ? NULL : Py_NewRef(listener);
    table->sharing = sharing;
    return 0;
}

void sgpy_unshare(sgpy_table *table) {
    struct sgpy_sharing *sharing = table->sharing;
    table->sharing = NULL;
    if (sharing != NULL) {
        Py_XDECREF(sharing->listener);
        Py_DECREF((PyObject *)sharing->file);
        PyMem_Free(sharing->owed);
        PyMem_Free(sharing);
    }
}

sg_table *sgpy_enter_shared(sgpy_table *table, sg_fingerprint fp) {
    struct sgpy_sharing *sharing = table->sharing;
    const uint32_t shard = sg_shared_shard_of(&sharing->table, fp);
    if (SG_UNLIKELY(!sg_shared_enter_shard(&sharing->table, shard))) {
        sharing->stalled = shard + 1;
        table->degraded++;
        return NULL;
    }
    if (SG_UNLIKELY(sharing->stalled == shard + 1)) {
        sharing->stalled = 0;
    }
    return &sharing->table.table;
}

static sg_ticks read_again(void *context) {
    sg_ticks now;
    (void)sgpy_table_now(context, &now); /* the real clock: it cannot fail */
    return now;
}

sg_table *sgpy_enter_shared_at(sgpy_table *table, sg_fingerprint fp, sg_ticks *now) {
    sg_table *core = sgpy_enter_shared(table, fp);
    if (core != NULL && table->clock == NULL) {
        *now = sg_shared_moment(&table->sharing->table, *now, read_again, table);
    }
    return core;
}

void sgpy_leave_shared(sgpy_table *table) { sg_shared_leave(&table->sharing->table); }

void sgpy_tell_slow(sgpy_table *table) {
    struct sgpy_sharing *sharing = table->sharing;
    PyObject *type, *value, *traceback, *listener = sharing->listener;
    sharing->told = sharing->stalled != 0;
    if (listener == NULL) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(listener);
    PyObject *result =
        PyObject_CallFunctionObjArgs(listener, sharing->told ? Py_True : Py_False, NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable(listener);
    }
    Py_XDECREF(result);
    Py_DECREF(listener);
    PyErr_Restore(type, value, traceback);
}

void sgpy_owe(sgpy_table *table, sg_fingerprint fp, sg_owner owner) {
    struct sgpy_sharing *sharing = table->sharing;
    if (sharing->owed_count == sharing->owed_room) {
        const size_t room = sharing->owed_room * 2 + 16;
        sgpy_debt *larger = PyMem_Realloc(sharing->owed, room * sizeof *larger);
        if (larger == NULL) {
            return; /* it is given back when this process ends */
        }
        sharing->owed = larger;
        sharing->owed_room = room;
    }
    sharing->owed[sharing->owed_count++] = (sgpy_debt){.fp = fp, .owner = owner};
}

void sgpy_pay_slow(sgpy_table *table) {
    struct sgpy_sharing *sharing = table->sharing;
    while (sharing->owed_count > 0) {
        const sgpy_debt debt = sharing->owed[sharing->owed_count - 1];
        sg_table *core = sgpy_enter_shared(table, debt.fp);
        if (core == NULL) {
            return;
        }
        if (debt.owner == sgpy_self(table)) {
            sg_holders_release(core, debt.fp, debt.owner);
        }
        sgpy_leave_shared(table);
        sharing->owed_count--;
    }
}

PyObject *sgpy_shared_clear(sgpy_table *table) {
    if (!sg_shared_clear(&table->sharing->table)) {
        sgpy_raise_stalled(table);
        return NULL;
    }
    Py_RETURN_NONE;
}

typedef struct {
    sgpy_table *table;
    uint64_t slots, keys;
} held_sum;

static void add_held(void *context, sg_table *core, sg_cell *cell) {
    held_sum *sum = context;
    const sg_witness witness = sgpy_witness(sum->table);
    const sg_holders *holders = sg_holders_of(core, cell);
    uint64_t held = 0;
    for (uint32_t i = 0; holders != NULL && i < holders->used; i++) {
        if (witness.lives(witness.context, holders->shares[i].owner)) {
            held += holders->shares[i].count;
        }
    }
    sum->slots += held;
    sum->keys += held > 0;
}

void sgpy_shared_held(sgpy_table *table, uint64_t *slots, uint64_t *keys) {
    sg_shared_table *t = &table->sharing->table;
    held_sum sum = {.table = table};
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (sg_shared_enter_shard(t, i)) { /* of a stopped process's shard nothing is told */
            sg_table_each(&t->table, add_held, &sum);
            sg_shared_leave(t);
        }
    }
    *slots = sum.slots;
    *keys = sum.keys;
}

size_t sgpy_shared_top(sgpy_table *table, bool refused, sg_topk_entry *out, size_t most) {
    sg_shared_table *t = &table->sharing->table;
    size_t found = 0;
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (!sg_shared_enter_shard(t, i)) {
            continue; /* of a stopped process's shard nothing is told */
        }
        const sg_shared_topk *top = refused ? &t->shard->refused : &t->shard->hot;
        found = sg_topk_gather(top->entries, SG_SHARED_TOPK, out, found, most);
        sg_shared_leave(t);
    }
    return found;
}
