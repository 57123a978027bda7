/* Table: the state of one limiter name, its clock, its counters. */
#include "shared.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

/* Where a table's clock stands when it is made, if it is not the real one: a step back by
 * up to two years is still a time, and ten years lie ahead. */
#define ORIGIN_TICKS (UINT64_C(2) * 366 * 86400 * SG_TICKS_PER_SECOND)
#define KEYS_MAX (UINT64_C(1) << 36)

/* ---- time */

static sg_ticks ticks_since(int64_t ns, int64_t origin_ns) {
    const __int128 ticks = ((__int128)ns - origin_ns) * (__int128)SG_TICKS_PER_NS + ORIGIN_TICKS;
    if (ticks < 0) {
        return 0;
    }
    return ticks > (__int128)SG_CLOCK_MAX ? SG_CLOCK_MAX : (sg_ticks)ticks;
}

/* What a callable clock says, in nanoseconds cut to 64 bits. */
static int call_clock(PyObject *clock, double *seconds, int64_t *ns) {
    Py_INCREF(clock);
    PyObject *value = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    if (value == NULL) {
        return -1;
    }
    *seconds = PyFloat_AsDouble(value);
    Py_DECREF(value);
    if (*seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!isfinite(*seconds)) {
        PyErr_SetString(PyExc_ValueError, "the clock of a table must give a finite number");
        return -1;
    }
    const double wanted = rint(*seconds * 1e9);
    *ns = wanted >= 9.2e18 ? INT64_C(9200000000000000000)
          : wanted <= -9.2e18 ? -INT64_C(9200000000000000000)
                              : (int64_t)wanted;
    return 0;
}

int sgpy_table_now_slow(sgpy_table *table, sg_ticks *now) {
    double seconds;
    int64_t ns;
    if (table->clock_is_object) {
        ns = ((sgpy_clock *)table->clock)->ns;
    } else if (call_clock(table->clock, &seconds, &ns) < 0) {
        return -1;
    }
    *now = ticks_since(ns, table->origin_ns);
    return 0;
}

double sgpy_table_time(sgpy_table *table) {
    double seconds;
    int64_t ns;
    if (table->clock == NULL) {
        return (double)sgpy_monotonic_ns(&table->state->monotonic) / 1e9;
    }
    if (table->clock_is_object) {
        return (double)((sgpy_clock *)table->clock)->ns / 1e9;
    }
    return call_clock(table->clock, &seconds, &ns) < 0 ? -1.0 : seconds;
}

/* ---- making one */

static int set_clock(sgpy_table *self, PyObject *clock) {
    double seconds;
    if (clock == Py_None) {
        self->origin_ns = sgpy_monotonic_ns(&self->state->monotonic);
        return 0;
    }
    self->clock_is_object = PyObject_TypeCheck(clock, self->state->Clock_Type) != 0;
    if (!self->clock_is_object && !PyCallable_Check(clock)) {
        PyErr_Format(PyExc_TypeError, "a clock is a Clock, a callable or None, not %.200s",
                     Py_TYPE(clock)->tp_name);
        return -1;
    }
    if (self->clock_is_object) {
        self->origin_ns = ((sgpy_clock *)clock)->ns;
    } else if (call_clock(clock, &seconds, &self->origin_ns) < 0) {
        return -1;
    }
    Py_INCREF(clock);
    self->clock = clock;
    return 0;
}

static int set_secret(sgpy_table *self, PyObject *secret) {
    if (secret == Py_None) {
        if (getentropy(&self->secret, sizeof self->secret) != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        return 0;
    }
    if (!PyBytes_Check(secret)) {
        PyErr_Format(PyExc_TypeError, "a secret is bytes or None, not %.200s",
                     Py_TYPE(secret)->tp_name);
        return -1;
    }
    if (PyBytes_GET_SIZE(secret) != (Py_ssize_t)sizeof self->secret) {
        PyErr_Format(PyExc_ValueError, "a secret has 16 bytes, not %zd", PyBytes_GET_SIZE(secret));
        return -1;
    }
    memcpy(&self->secret, PyBytes_AS_STRING(secret), sizeof self->secret);
    return 0;
}

static int set_on_full(sgpy_table *self, PyObject *on_full) {
    static const char *const names[] = {
        [SGPY_DENY] = "deny", [SGPY_ALLOW] = "allow", [SGPY_RAISE] = "raise"};
    for (uint8_t i = 0; on_full != NULL && PyUnicode_Check(on_full) && i < 3; i++) {
        if (PyUnicode_CompareWithASCIIString(on_full, names[i]) == 0) {
            self->on_full = i;
            return 0;
        }
    }
    if (on_full == NULL) {
        self->on_full = SGPY_DENY;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "on_full is 'deny', 'allow' or 'raise', not %R", on_full);
    return -1;
}

/* A bound: an int of at least 1; more than the table could ever hold is as much as that. */
static int bound_of(PyObject *object, const char *name, uint64_t *bound) {
    int overflow;
    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is an int, not %.200s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        return -1;
    }
    const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (value == -1 && overflow == 0 && PyErr_Occurred()) {
        return -1;
    }
    if (overflow < 0 || (overflow == 0 && value < 1)) {
        PyErr_Format(PyExc_ValueError, "%s is at least 1, not %R", name, object);
        return -1;
    }
    *bound = overflow > 0 ? (uint64_t)INT64_MAX : (uint64_t)value;
    return 0;
}

static int read_algorithms(const sgpy_state *st, PyObject *object, uint8_t *out,
                           unsigned *count) {
    if (PyUnicode_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "algorithms is a sequence of names, one a quota");
        return -1;
    }
    PyObject *names = PySequence_Tuple(object);
    if (names == NULL) {
        return -1;
    }
    int result = -1;
    if (PyTuple_GET_SIZE(names) > SG_QUOTAS_MAX) {
        PyErr_Format(PyExc_ValueError, "a limiter has at most %d quotas, not %zd", SG_QUOTAS_MAX,
                     PyTuple_GET_SIZE(names));
        goto done;
    }
    *count = (unsigned)PyTuple_GET_SIZE(names);
    for (unsigned i = 0; i < *count; i++) {
        const int which = sgpy_algorithm(st, PyTuple_GET_ITEM(names, i));
        if (which < 0) {
            goto done;
        }
        out[i] = (uint8_t)which;
    }
    result = 0;
done:
    Py_DECREF(names);
    return result;
}

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"algorithms", "max_keys", "max_bytes", "on_full",
                            "clock",      "secret",   "shared",    "name",
                            "text",       "listener", NULL};
    PyObject *algorithms, *max_keys = NULL, *max_bytes = Py_None, *on_full = NULL;
    PyObject *clock = Py_None, *secret = Py_None, *shared = Py_None, *name = NULL;
    PyObject *text = NULL, *listener = NULL;
    uint8_t which[SG_QUOTAS_MAX] = {0};
    unsigned count = 0;
    uint64_t keys = 1000000, bytes = 0;
    sgpy_state *st = sgpy_state_for(type);
    if (st == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOOOOOOO:Table", names, &algorithms,
                                     &max_keys, &max_bytes, &on_full, &clock, &secret, &shared,
                                     &name, &text, &listener) ||
        read_algorithms(st, algorithms, which, &count) < 0 ||
        (max_keys != NULL && bound_of(max_keys, "max_keys", &keys) < 0) ||
        (max_bytes != Py_None && bound_of(max_bytes, "max_bytes", &bytes) < 0)) {
        return NULL;
    }
    sgpy_table *self = (sgpy_table *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = st;
    self->id = ++st->tables;
    uint64_t seeds[2];
    if (set_on_full(self, on_full) < 0 || set_secret(self, secret) < 0 ||
        set_clock(self, clock) < 0) {
        goto fail;
    }
    if (getentropy(seeds, sizeof seeds) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto fail;
    }
    sg_blocks_init(&self->blocks);
    const sg_allocator allocator = sg_blocks_allocator(&self->blocks);
    if (sg_table_init(&self->core, &allocator, count, which, sg_min(keys, KEYS_MAX),
                      bytes) != SG_OK) {
        PyErr_NoMemory();
        goto fail;
    }
    self->made = true;
    sg_arena_init(&self->names, &sg_malloc_allocator, 0);
    sg_topk_init(&self->hot, seeds[0]);
    sg_topk_init(&self->top_refused, seeds[1]);
    if (shared != Py_None && sgpy_share(self, shared, name, text, listener, count, which) < 0) {
        goto fail;
    }
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static int table_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    const sgpy_table *self = (sgpy_table *)op;
    Py_VISIT(self->clock);
    if (self->sharing != NULL) {
        Py_VISIT(self->sharing->listener);
    }
    return 0;
}

/* The clock and the listener alone may be part of a cycle. */
static int table_clear_refs(PyObject *op) {
    sgpy_table *self = (sgpy_table *)op;
    self->clock_is_object = false;
    Py_CLEAR(self->clock);
    if (self->sharing != NULL) {
        Py_CLEAR(self->sharing->listener);
    }
    return 0;
}

static void table_dealloc(PyObject *op) {
    sgpy_table *self = (sgpy_table *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)table_clear_refs(op);
    sgpy_unshare(self);
    if (self->made) {
        sg_topk_free(&self->hot, &self->names);
        sg_topk_free(&self->top_refused, &self->names);
        sg_table_free(&self->core);
        sg_blocks_release(&self->blocks);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- methods */

static PyObject *table_now(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const double seconds = sgpy_table_time((sgpy_table *)op);
    return seconds == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(seconds);
}

static PyObject *table_clear(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_table *self = (sgpy_table *)op;
    if (self->sharing != NULL) {
        return sgpy_shared_clear(self);
    }
    self->epoch++;
    sg_table_clear(&self->core);
    Py_RETURN_NONE;
}

static PyObject *table_counters(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const sgpy_table *self = (sgpy_table *)op;
    const sg_shared_sum sum = sgpy_added_up(self);
    const sg_counts *counts = &sum.counts;
    PyObject *told = Py_BuildValue(
        "{sKsKsKsKsKsKsKsKsK}", "admitted", (unsigned long long)counts->admitted, "refused",
        (unsigned long long)counts->refused, "shadow_refused",
        (unsigned long long)counts->shadow_refused, "banned", (unsigned long long)counts->banned,
        "evictions", (unsigned long long)sum.evictions, "full", (unsigned long long)counts->full,
        "degraded", (unsigned long long)self->degraded, "keys", (unsigned long long)sum.keys,
        "bytes", (unsigned long long)sum.bytes);
    if (told == NULL || self->sharing == NULL) {
        return told;
    }
    PyObject *damages = PyLong_FromUnsignedLongLong(counts->damages);
    if (damages == NULL || PyDict_SetItemString(told, "damages", damages) < 0) {
        Py_CLEAR(told);
    }
    Py_XDECREF(damages);
    return told;
}

static PyObject *table_held(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_table *self = (sgpy_table *)op;
    uint64_t slots = 0, keys = 0;
    if (self->sharing == NULL || self->core.layout.quotas > 0) {
        PyErr_SetString(PyExc_RuntimeError, "slots are added up in shared memory alone");
        return NULL;
    }
    sgpy_shared_held(self, &slots, &keys);
    return Py_BuildValue("KK", (unsigned long long)slots, (unsigned long long)keys);
}

/* The number of a tally; -1 with an exception. */
static int tally_of(const sgpy_table *self, Py_ssize_t i) {
    if (self->sharing == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "tallies are of shared memory alone");
        return -1;
    }
    if (i < 0 || i >= (Py_ssize_t)SG_TALLIES) {
        PyErr_Format(PyExc_ValueError, "there are tallies 0 to %d, not %zd", (int)SG_TALLIES - 1,
                     i);
        return -1;
    }
    return (int)i;
}

static PyObject *table_tally(PyObject *op, PyObject *args) {
    const sgpy_table *self = (sgpy_table *)op;
    Py_ssize_t i;
    if (!PyArg_ParseTuple(args, "n:tally", &i) || tally_of(self, i) < 0) {
        return NULL;
    }
    sg_shared_tally(&self->sharing->table, (unsigned)i, 1);
    Py_RETURN_NONE;
}

static PyObject *table_tallies(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const sgpy_table *self = (sgpy_table *)op;
    PyObject *tuple = tally_of(self, 0) < 0 ? NULL : PyTuple_New(SG_TALLIES);
    for (unsigned i = 0; tuple != NULL && i < SG_TALLIES; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(sg_shared_tallied(&self->sharing->table, i));
        if (count == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, count);
    }
    return tuple;
}

static PyObject *table_top(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"count", "refused", NULL};
    sgpy_table *self = (sgpy_table *)op;
    sg_topk_entry *entries = NULL;
    PyObject *list = NULL;
    Py_ssize_t count = 10;
    int refused = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n$p:top", names, &count, &refused)) {
        return NULL;
    }
    if (count < 0) {
        PyErr_Format(PyExc_ValueError, "count is not negative, but %zd", count);
        return NULL;
    }
    const size_t most = sg_min((uint64_t)count, SG_TOPK_BUCKETS);
    entries = PyMem_Calloc(most + 1, sizeof *entries);
    if (entries == NULL) {
        return PyErr_NoMemory();
    }
    const size_t found =
        self->sharing != NULL
            ? sgpy_shared_top(self, refused, entries, most)
            : sg_topk_list(refused ? &self->top_refused : &self->hot, entries, most);
    list = PyList_New((Py_ssize_t)found);
    for (size_t i = 0; list != NULL && i < found; i++) {
        PyObject *item = Py_BuildValue("(y#OK)", entries[i].name,
                                       (Py_ssize_t)entries[i].name_length,
                                       entries[i].cut ? Py_True : Py_False,
                                       (unsigned long long)entries[i].count);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    PyMem_Free(entries);
    return list;
}

static PyObject *table_algorithms(PyObject *op, void *Py_UNUSED(closure)) {
    const sgpy_table *self = (sgpy_table *)op;
    PyObject *tuple = PyTuple_New(self->core.layout.quotas);
    for (unsigned i = 0; tuple != NULL && i < self->core.layout.quotas; i++) {
        PyObject *name = self->state->algorithms[self->core.layout.algorithm[i]];
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(name));
    }
    return tuple;
}

static PyObject *table_keys(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(sgpy_added_up((sgpy_table *)op).keys);
}

static PyObject *table_bytes(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(sgpy_added_up((sgpy_table *)op).bytes);
}

static PyObject *table_shared(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_table *)op)->sharing != NULL);
}

static PyObject *table_other_shape(PyObject *op, void *Py_UNUSED(closure)) {
    const sgpy_table *self = (sgpy_table *)op;
    return PyBool_FromLong(self->sharing != NULL && self->sharing->table.other_shape);
}

static PyMethodDef table_methods[] = {
    {"now", table_now, METH_NOARGS,
     PyDoc_STR("now($self, /)\n--\n\nThe clock of this table, in seconds.")},
    {"clear", table_clear, METH_NOARGS,
     PyDoc_STR("clear($self, /)\n--\n\nForgets every key; the counters stay.")},
    {"counters", table_counters, METH_NOARGS,
     PyDoc_STR("counters($self, /)\n--\n\nDecisions by outcome, evictions, keys, bytes.")},
    {"held", table_held, METH_NOARGS,
     PyDoc_STR("held($self, /)\n--\n\nSlots of all keys that living processes hold, and how "
               "many keys these are; in shared memory.")},
    {"tally", table_tally, METH_VARARGS,
     PyDoc_STR("tally($self, index, /)\n--\n\n"
               "Counts one more of what its users count besides decisions; in shared memory.")},
    {"tallies", table_tallies, METH_NOARGS,
     PyDoc_STR("tallies($self, /)\n--\n\nThese counts, of all processes together.")},
    {"top", (PyCFunction)(void (*)(void))table_top, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("top($self, /, count=10, *, refused=False)\n--\n\n"
               "The hottest (or most refused) keys: (first 64 bytes, cut, estimate).")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef table_getset[] = {
    {"algorithms", table_algorithms, NULL, PyDoc_STR("One name a quota."), NULL},
    {"keys", table_keys, NULL, PyDoc_STR("Keys that it holds."), NULL},
    {"shared", table_shared, NULL, PyDoc_STR("Whether other processes share it."), NULL},
    {"other_shape", table_other_shape, NULL,
     PyDoc_STR("Whether its file has a limiter of the same name and other algorithms."), NULL},
    {"bytes", table_bytes, NULL, PyDoc_STR("Bytes that its keys take."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef table_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_table, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Table(algorithms, *, max_keys=1000000, max_bytes=None, "
                                  "on_full='deny', clock=None, secret=None, shared=None, "
                                  "name=None, text=None, listener=None)\n--\n\n"
                                  "The state of one limiter name in one store.")},
    {Py_tp_new, (void *)table_new},
    {Py_tp_dealloc, (void *)table_dealloc},
    {Py_tp_traverse, (void *)table_traverse},
    {Py_tp_clear, (void *)table_clear_refs},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_getset},
    {Py_tp_members, table_members},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "sluicegate._core.Table",
    .basicsize = (int)sizeof(sgpy_table),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = table_slots,
};

int sgpy_table_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &table_spec, &st->Table_Type, true);
}
