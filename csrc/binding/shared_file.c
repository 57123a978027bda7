/* SharedFile: a file in which the workers of a machine keep one state. */
#include "shared.h"

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

void sgpy_raise_shared(const sgpy_state *st, const sgpy_file *file, sg_shared_error error) {
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
        sgpy_raise_shared(st, self, result);
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
            sgpy_raise_shared(st, (sgpy_file *)op, SG_SHARED_STALLED);
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
