/* Receipt: an open reservation, settled once, by the limiter's numbers of then: the core's
 * receipt knows what was taken. The numbers of the reserve count only where the limiter
 * has gone on over another table. */
#include "shared.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    sgpy_limiter *limiter;
    sgpy_table *table;
    PyObject *quotas;
    uint64_t epoch; /* of the table: a cleared one has nothing to give back */
    sg_receipt receipt;
    uint64_t reserved[SG_QUOTAS_MAX];
    sg_quota rows[SG_QUOTAS_MAX];
} sgpy_receipt;

PyObject *sgpy_receipt_new(sgpy_limiter *limiter, sgpy_table *table, PyObject *quotas,
                           const sg_quota *rows, const sg_receipt *receipt) {
    sgpy_receipt *self = PyObject_GC_New(sgpy_receipt, limiter->state->Receipt_Type);
    if (self == NULL) {
        return NULL;
    }
    self->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    self->table = (sgpy_table *)Py_NewRef((PyObject *)table);
    self->quotas = Py_NewRef(quotas);
    self->epoch = sgpy_epoch(table);
    self->receipt = *receipt;
    memcpy(self->rows, rows, sizeof self->rows);
    for (unsigned i = 0; i < SG_QUOTAS_MAX; i++) {
        /* More than any cost: the core's word for a quota that was not charged. */
        self->reserved[i] =
            receipt->open && receipt->cost[i] <= SG_COST_MAX ? receipt->cost[i] : 0;
    }
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int receipt_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_receipt *self = (sgpy_receipt *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->limiter);
    Py_VISIT(self->table);
    Py_VISIT(self->quotas);
    return 0;
}

static int receipt_clear(PyObject *op) {
    sgpy_receipt *self = (sgpy_receipt *)op;
    self->receipt.open = false;
    Py_CLEAR(self->limiter);
    Py_CLEAR(self->table);
    Py_CLEAR(self->quotas);
    return 0;
}

static void receipt_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)receipt_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyObject *receipt_settle(PyObject *op, PyObject *actual) {
    sgpy_receipt *self = (sgpy_receipt *)op;
    uint64_t costs[SG_QUOTAS_MAX];
    sg_ticks now;
    if (self->table == NULL) {
        Py_RETURN_NONE;
    }
    if (sgpy_cost_row(self->limiter->state, actual, self->quotas, costs) < 0) {
        return NULL;
    }
    if (!self->receipt.open || self->table == NULL) {
        Py_RETURN_NONE;
    }
    sgpy_table *table = (sgpy_table *)Py_NewRef((PyObject *)self->table);
    PyObject *result = NULL;
    if (sgpy_table_now(table, &now) < 0) {
        goto done;
    }
    if (self->epoch != sgpy_epoch(table)) {
        self->receipt.open = false;
    }
    const sg_quota *rows =
        self->limiter != NULL && self->limiter->table == table ? self->limiter->rows : self->rows;
    sg_table *core = sgpy_enter_at(table, self->receipt.fp, &now);
    if (core == NULL) {
        sgpy_raise_stalled(table);
        goto done;
    }
    const sg_status status = sg_settle(core, rows, &self->receipt, costs, now);
    sgpy_leave(table);
    if (status == SG_OK) {
        result = Py_NewRef(Py_None);
    } else if (!sgpy_is_full(table, status)) {
        PyErr_NoMemory();
    } else {
        PyErr_SetString(table->state->StoreFullError,
                        "the store is full of bans, reservations or held slots, so the rest of "
                        "this reservation cannot be charged: raise its max_keys, max_bytes or size");
    }
done:
    Py_DECREF(table);
    return result;
}

static PyObject *receipt_open(PyObject *op, void *Py_UNUSED(closure)) {
    const sgpy_receipt *self = (sgpy_receipt *)op;
    return PyBool_FromLong(self->receipt.open && self->table != NULL &&
                           self->epoch == sgpy_epoch(self->table));
}

static PyObject *receipt_reserved(PyObject *op, void *Py_UNUSED(closure)) {
    const sgpy_receipt *self = (sgpy_receipt *)op;
    const Py_ssize_t count = self->quotas == NULL ? 0 : PyTuple_GET_SIZE(self->quotas);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *units = PyLong_FromUnsignedLongLong(self->reserved[i]);
        if (units == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, units);
    }
    return tuple;
}

static PyMethodDef receipt_methods[] = {
    {"settle_nowait", receipt_settle, METH_O,
     PyDoc_STR("settle_nowait($self, actual, /)\n--\n\n"
               "Charges `actual` in place of what was reserved; 0 cancels. Once.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef receipt_getset[] = {
    {"open", receipt_open, NULL, PyDoc_STR("Whether it is still to be settled."), NULL},
    {"reserved", receipt_reserved, NULL, PyDoc_STR("The units charged of each quota."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot receipt_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An open reservation. Settling twice is harmless.")},
    {Py_tp_dealloc, (void *)receipt_dealloc},
    {Py_tp_traverse, (void *)receipt_traverse},
    {Py_tp_clear, (void *)receipt_clear},
    {Py_tp_methods, receipt_methods},
    {Py_tp_getset, receipt_getset},
    {0, NULL},
};

static PyType_Spec receipt_spec = {
    .name = "sluicegate._core.Receipt",
    .basicsize = (int)sizeof(sgpy_receipt),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = receipt_slots,
};

int sgpy_receipt_init_type(PyObject *module, sgpy_state *st) {
    return sgpy_add_type(module, &receipt_spec, &st->Receipt_Type, true);
}
