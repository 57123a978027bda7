/* A key object, str or bytes, as bytes. A str and the bytes of its UTF-8 are one key. */
#include "binding.h"

static int key_of_text(PyObject *object, sgpy_key *key) {
    Py_ssize_t length;
    const char *data = PyUnicode_AsUTF8AndSize(object, &length);
    if (data != NULL) {
        key->data = data; /* kept by the str itself */
        key->length = (size_t)length;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        return -1;
    }
    /* A lone surrogate has no UTF-8; any spelling that keeps keys apart will do. */
    PyErr_Clear();
    key->owned = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
    if (key->owned == NULL) {
        return -1;
    }
    key->data = PyBytes_AS_STRING(key->owned);
    key->length = (size_t)PyBytes_GET_SIZE(key->owned);
    return 0;
}

int sgpy_key_read(PyObject *object, sgpy_key *key) {
    key->owned = NULL;
    if (SG_LIKELY(PyUnicode_Check(object))) {
        if (SG_LIKELY(PyUnicode_IS_COMPACT_ASCII(object))) {
            key->data = (const char *)PyUnicode_1BYTE_DATA(object);
            key->length = (size_t)PyUnicode_GET_LENGTH(object);
            return 0;
        }
        return key_of_text(object, key);
    }
    if (PyBytes_Check(object)) {
        key->data = PyBytes_AS_STRING(object);
        key->length = (size_t)PyBytes_GET_SIZE(object);
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "a key is a str or bytes, not %.200s",
                 Py_TYPE(object)->tp_name);
    return -1;
}

int sgpy_prepare(sgpy_prepared *prepared, PyObject *object) {
    sgpy_key key;
    if (sgpy_key_read(object, &key) < 0) {
        return -1;
    }
    PyObject *old = prepared->object, *old_bytes = prepared->key.owned;
    Py_INCREF(object);
    prepared->object = object;
    prepared->key = key;
    prepared->table = 0;
    Py_XDECREF(old_bytes);
    Py_XDECREF(old);
    return 0;
}

void sgpy_prepared_clear(sgpy_prepared *prepared) {
    prepared->table = 0;
    prepared->key.data = NULL;
    prepared->key.length = 0;
    Py_CLEAR(prepared->key.owned);
    Py_CLEAR(prepared->object);
}
