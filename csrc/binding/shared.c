/* A table in a SharedFile: entered under the lock of a key's shard. */
#include "shared.h"

#include <string.h>

void sgpy_raise_stalled(const sgpy_table *table) {
    sgpy_raise_shared(table->state, table->sharing->file, SG_SHARED_STALLED);
}

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
        sgpy_raise_shared(table->state, shared, error);
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
