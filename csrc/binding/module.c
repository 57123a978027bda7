/* The module: its state, its types, its functions. Multi-phase init, no globals, so that
 * several interpreters of one process each have their own. */
#include "fields.h"
#include "shared.h"
#ifdef SG_REDIS
#include "server.h"
#endif

#include <string.h>

sgpy_state *sgpy_state_of_type(PyTypeObject *type) {
    PyObject *module = ((PyHeapTypeObject *)type)->ht_module;
    return module == NULL ? NULL : sgpy_state_of_module(module);
}

/* Defined below; the state of a subclass is found by it. */
static struct PyModuleDef core_module;

/* The state of the first type in the line of bases that is ours. (PyType_GetModuleByDef is
 * of 3.11.) */
sgpy_state *sgpy_state_for(PyTypeObject *type) {
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro != NULL && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) {
            continue;
        }
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module != NULL && PyModule_Check(module) &&
            PyModule_GetDef(module) == &core_module) {
            return sgpy_state_of_module(module);
        }
    }
    PyErr_SetString(PyExc_RuntimeError, "sluicegate._core is being unloaded");
    return NULL;
}

int sgpy_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, bool exported) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) {
        return -1;
    }
    *slot = (PyTypeObject *)type;
    return exported ? PyModule_AddType(module, *slot) : 0;
}

int sgpy_set_match_args(PyTypeObject *type, const char *names) {
    int result = -1;
    PyObject *tuple = NULL, *words = NULL, *text = PyUnicode_FromString(names);
    if (text == NULL || (words = PyUnicode_Split(text, NULL, -1)) == NULL ||
        (tuple = PyList_AsTuple(words)) == NULL) {
        goto done;
    }
    result = PyObject_SetAttrString((PyObject *)type, "__match_args__", tuple);
done:
    Py_XDECREF(text);
    Py_XDECREF(words);
    Py_XDECREF(tuple);
    return result;
}

/* ---- functions */

static PyObject *core_set_released(PyObject *module, PyObject *released) {
    sgpy_state *st = sgpy_state_of_module(module);
    if (!PyCallable_Check(released)) {
        PyErr_Format(PyExc_TypeError, "set_released takes a callable, not %.200s",
                     Py_TYPE(released)->tp_name);
        return NULL;
    }
    Py_XSETREF(st->released, Py_NewRef(released));
    Py_RETURN_NONE;
}

static PyObject *core_set_observer(PyObject *module, PyObject *observer) {
    sgpy_state *st = sgpy_state_of_module(module);
    if (observer != Py_None && !PyCallable_Check(observer)) {
        PyErr_Format(PyExc_TypeError, "an observer is a callable or None, not %.200s",
                     Py_TYPE(observer)->tp_name);
        return NULL;
    }
    PyObject *next = observer == Py_None ? NULL : observer;
    Py_XINCREF(next);
    Py_XSETREF(st->observer, next);
    Py_RETURN_NONE;
}

#ifdef SG_REDIS
/* asyncio's own, which this module does not import: a program may never need it. */
static PyObject *core_set_running_loop(PyObject *module, PyObject *running_loop) {
    sgpy_state *st = sgpy_state_of_module(module);
    if (!PyCallable_Check(running_loop)) {
        PyErr_SetString(PyExc_TypeError, "set_running_loop takes a callable");
        return NULL;
    }
    Py_XSETREF(st->running_loop, Py_NewRef(running_loop));
    Py_RETURN_NONE;
}
#endif

static void put_le64(unsigned char *to, uint64_t value) {
    for (unsigned i = 0; i < 8; i++) {
        to[i] = (unsigned char)(value >> (8 * i));
    }
}

static PyObject *core_fingerprint(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *bytes;
    Py_ssize_t length;
    PyObject *object;
    sg_secret secret;
    sgpy_key key;
    uint64_t hash[2];
    unsigned char out[16];
    if (!PyArg_ParseTuple(args, "y#O:fingerprint", &bytes, &length, &object)) {
        return NULL;
    }
    if (length != sizeof secret) {
        PyErr_Format(PyExc_ValueError, "a secret has 16 bytes, not %zd", length);
        return NULL;
    }
    if (sgpy_key_read(object, &key) < 0) {
        return NULL;
    }
    memcpy(&secret, bytes, sizeof secret);
    sg_siphash13_128(&secret, key.data, key.length, hash);
    sgpy_key_done(&key);
    put_le64(out, hash[0]);
    put_le64(out + 8, hash[1]);
    return PyBytes_FromStringAndSize((const char *)out, sizeof out);
}

/* CPython calls a method of a C type by a shorter way where the object is of the very type
 * that the method's descriptor names. A subclass gets that with a descriptor of its own. */
static PyObject *core_own_method(PyObject *Py_UNUSED(module), PyObject *args) {
    PyTypeObject *type;
    PyObject *method;
    if (!PyArg_ParseTuple(args, "O!O:own_method", &PyType_Type, &type, &method)) {
        return NULL;
    }
    if (!Py_IS_TYPE(method, &PyMethodDescr_Type)) {
        PyErr_Format(PyExc_TypeError, "own_method takes a method of a C type, not %.200s",
                     Py_TYPE(method)->tp_name);
        return NULL;
    }
    if (!PyType_IsSubtype(type, PyDescr_TYPE(method))) {
        PyErr_Format(PyExc_TypeError, "%.200s is no subclass of %.200s", type->tp_name,
                     PyDescr_TYPE(method)->tp_name);
        return NULL;
    }
    return PyDescr_NewMethod(type, ((PyMethodDescrObject *)method)->d_method);
}

static PyMethodDef core_functions[] = {
    {"own_method", core_own_method, METH_VARARGS,
     PyDoc_STR("own_method($module, cls, method, /)\n--\n\n"
               "A method of a C type again, as one of its subclass cls: quicker to call.")},
    {"hit_all_nowait", sgpy_hit_all_nowait, METH_O,
     PyDoc_STR("hit_all_nowait($module, triples, /)\n--\n\n"
               "Charges every (limiter, key, cost) or none: the decision that binds, and the\n"
               "index of its triple.")},
    {"set_released", core_set_released, METH_O,
     PyDoc_STR("set_released($module, released, /)\n--\n\n"
               "Calls released(table, key) whenever a slot was given back or forgotten.")},
    {"set_observer", core_set_observer, METH_O,
     PyDoc_STR("set_observer($module, observer, /)\n--\n\n"
               "Calls observer(limiter, key, decision) after each decision; None: no more.")},
#ifdef SG_REDIS
    {"set_running_loop", core_set_running_loop, METH_O,
     PyDoc_STR("set_running_loop($module, running_loop, /)\n--\n\n"
               "What returns the loop that runs in this thread, or raises.")},
    {"ask_all", sgpy_ask_all, METH_O,
     PyDoc_STR("ask_all($module, triples, /)\n--\n\n"
               "Charges every (limiter, key, cost) of one store, or none: (decision, index), or a "
               "future of it.")},
#endif
    {"raw_headers", sgpy_raw_headers, METH_VARARGS,
     PyDoc_STR("raw_headers($module, decision, style, /)\n--\n\n"
               "The headers of a decision as ASGI has them; the style is ietf, x or both.")},
    {"completed", sgpy_completed, METH_VARARGS,
     PyDoc_STR("completed($module, own, more, /)\n--\n\n"
               "Headers, and those of more (in small letters) that they do not have.")},
    {"fingerprint", core_fingerprint, METH_VARARGS,
     PyDoc_STR("fingerprint($module, secret, key, /)\n--\n\n"
               "SipHash-1-3 with 128 bits of a key, under a secret of 16 bytes.")},
    {NULL, NULL, 0, NULL},
};

/* ---- life */

static int add_error(PyObject *module, const char *name, const char *doc, PyObject *base,
                     PyObject **slot) {
    *slot = PyErr_NewExceptionWithDoc(name, doc, base, NULL);
    return *slot == NULL ? -1 : PyModule_AddObjectRef(module, strrchr(name, '.') + 1, *slot);
}

static int add_strings(sgpy_state *st) {
    static const char *const algorithms[SG_ALGORITHMS] = {
        [SG_GCRA] = "gcra",
        [SG_FIXED_WINDOW] = "fixed-window",
        [SG_SLIDING_WINDOW] = "sliding-window",
        [SG_SLIDING_LOG] = "sliding-log",
    };
    for (unsigned i = 0; i < SG_ALGORITHMS; i++) {
        st->algorithms[i] = PyUnicode_InternFromString(algorithms[i]);
        if (st->algorithms[i] == NULL) {
            return -1;
        }
    }
    st->str_throw = PyUnicode_InternFromString("throw");
    st->str_close = PyUnicode_InternFromString("close");
    st->str_quotas_of = PyUnicode_InternFromString("_quotas_of");
    st->str_set_result = PyUnicode_InternFromString("set_result");
    st->str_set_exception = PyUnicode_InternFromString("set_exception");
    st->str_done = PyUnicode_InternFromString("done");
    st->str_type = PyUnicode_InternFromString("type");
    st->str_headers = PyUnicode_InternFromString("headers");
    st->str_response_start = PyUnicode_InternFromString("http.response.start");
    st->str_path = PyUnicode_InternFromString("path");
    st->str_root_path = PyUnicode_InternFromString("root_path");
    st->str_client = PyUnicode_InternFromString("client");
    st->str_text = PyUnicode_InternFromString("text");
    st->str_bytes = PyUnicode_InternFromString("bytes");
    st->str_empty = PyUnicode_InternFromString("");
    st->str_websocket_send = PyUnicode_InternFromString("websocket.send");
    st->str_websocket_receive = PyUnicode_InternFromString("websocket.receive");
    return st->str_throw == NULL || st->str_close == NULL || st->str_quotas_of == NULL ||
                   st->str_set_result == NULL || st->str_set_exception == NULL ||
                   st->str_done == NULL || st->str_type == NULL || st->str_headers == NULL ||
                   st->str_response_start == NULL || st->str_path == NULL || st->str_root_path == NULL ||
                   st->str_client == NULL || st->str_text == NULL || st->str_bytes == NULL ||
                   st->str_empty == NULL || st->str_websocket_send == NULL ||
                   st->str_websocket_receive == NULL
               ? -1 : 0;
}

static int add_constant(PyObject *module, const char *name, unsigned long long value) {
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    const int result = number == NULL ? -1 : PyModule_AddObjectRef(module, name, number);
    Py_XDECREF(number);
    return result;
}

/* The names of types that annotations use: Key = str | bytes, Cost = int | Mapping[str, int]. */
static int add_type_names(PyObject *module) {
    int result = -1;
    PyObject *abc = NULL, *mapping = NULL, *pair = NULL, *of_names = NULL, *cost = NULL;
    PyObject *key = PyNumber_Or((PyObject *)&PyUnicode_Type, (PyObject *)&PyBytes_Type);
    if (key == NULL || PyModule_AddObjectRef(module, "Key", key) < 0 ||
        (abc = PyImport_ImportModule("collections.abc")) == NULL ||
        (mapping = PyObject_GetAttrString(abc, "Mapping")) == NULL ||
        (pair = PyTuple_Pack(2, &PyUnicode_Type, &PyLong_Type)) == NULL ||
        (of_names = PyObject_GetItem(mapping, pair)) == NULL ||
        (cost = PyNumber_Or((PyObject *)&PyLong_Type, of_names)) == NULL) {
        goto done;
    }
    result = PyModule_AddObjectRef(module, "Cost", cost);
done:
    Py_XDECREF(key);
    Py_XDECREF(abc);
    Py_XDECREF(mapping);
    Py_XDECREF(pair);
    Py_XDECREF(of_names);
    Py_XDECREF(cost);
    return result;
}

static int core_exec(PyObject *module) {
    sgpy_state *st = sgpy_state_of_module(module);
    sgpy_monotonic_init(&st->monotonic);
    if (add_strings(st) < 0 || sgpy_fields_init(st) < 0 || add_type_names(module) < 0 ||
        add_error(module, "sluicegate.errors.StoreError",
                  "A store failed, or could not be reached; not a limit that was reached.",
                  PyExc_Exception, &st->StoreError) < 0 ||
        add_error(module, "sluicegate.errors.StoreFullError",
                  "A store holds nothing but what may not be evicted: raise its bounds.",
                  st->StoreError, &st->StoreFullError) < 0 ||
        sgpy_quota_init_type(module, st) < 0 || sgpy_decision_init_type(module, st) < 0 ||
        sgpy_clock_init_type(module, st) < 0 || sgpy_table_init_type(module, st) < 0 ||
        sgpy_limiter_init_type(module, st) < 0 || sgpy_handle_init_type(module, st) < 0 ||
        sgpy_receipt_init_type(module, st) < 0 || sgpy_slots_init_types(module, st) < 0 ||
        sgpy_call_init_type(module, st) < 0 || sgpy_connections_init(module, st) < 0 ||
        sgpy_sending_init_type(module, st) < 0 || sgpy_http_gate_init_type(module, st) < 0 ||
        sgpy_message_gate_init_type(module, st) < 0 || sgpy_frame_send_init_type(module, st) < 0 ||
        sgpy_file_init_type(module, st) < 0 ||
#ifdef SG_REDIS
        sgpy_server_init_types(module, st) < 0 ||
        PyModule_AddStringConstant(module, "HIREDIS", sg_resp_version()) < 0 ||
#endif
        add_constant(module, "COST_MAX", SG_COST_MAX) < 0 ||
        add_constant(module, "LIMIT_MAX", SG_LIMIT_MAX) < 0 ||
        add_constant(module, "QUOTAS_MAX", SG_QUOTAS_MAX) < 0) {
        return -1;
    }
    return 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    sgpy_state *st = sgpy_state_of_module(module);
    if (st == NULL) {
        return 0;
    }
    /* Dead objects on the free lists still own a reference to their type. */
    for (unsigned i = 0; i < st->free_decisions_count; i++) {
        Py_VISIT(st->Decision_Type);
    }
    for (unsigned i = 0; i < st->free_calls_count; i++) {
        Py_VISIT(st->Call_Type);
    }
#define X(name) Py_VISIT(st->name);
    SGPY_STATE_TYPES(X)
    SGPY_STATE_OBJECTS(X)
#undef X
    for (unsigned i = 0; i < SG_ALGORITHMS; i++) {
        Py_VISIT(st->algorithms[i]);
    }
    for (unsigned i = 0; i < SGPY_STRINGS; i++) {
        Py_VISIT(st->strings[i]);
    }
    for (unsigned i = 0; i < SGPY_FIELDS; i++) {
        Py_VISIT(st->field_titles[i]);
        Py_VISIT(st->field_names[i]);
    }
    return 0;
}

static int core_clear(PyObject *module) {
    sgpy_state *st = sgpy_state_of_module(module);
    if (st == NULL) {
        return 0;
    }
    st->closed = true;
    sgpy_decision_free_all(st);
    sgpy_call_free_all(st);
#define X(name) Py_CLEAR(st->name);
    SGPY_STATE_TYPES(X)
    SGPY_STATE_OBJECTS(X)
#undef X
    for (unsigned i = 0; i < SG_ALGORITHMS; i++) {
        Py_CLEAR(st->algorithms[i]);
    }
    for (unsigned i = 0; i < SGPY_STRINGS; i++) {
        Py_CLEAR(st->strings[i]);
    }
    for (unsigned i = 0; i < SGPY_FIELDS; i++) {
        Py_CLEAR(st->field_titles[i]);
        Py_CLEAR(st->field_names[i]);
    }
    return 0;
}

static void core_free(void *module) { (void)core_clear((PyObject *)module); }

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, (void *)core_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sluicegate._core",
    .m_doc = PyDoc_STR("The native core of sluicegate."),
    .m_size = (Py_ssize_t)sizeof(sgpy_state),
    .m_methods = core_functions,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
