/* Arguments of fast calls. */
#include "binding.h"

static Py_ssize_t index_of(const char *const *names, PyObject *name) {
    for (Py_ssize_t i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

int sgpy_args(const char *function, const char *const *names, Py_ssize_t positional,
              Py_ssize_t required, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              PyObject **out) {
    if (nargs > positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments, not %zd",
                     function, positional, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; names[i] != NULL; i++) {
        out[i] = i < nargs ? args[i] : NULL;
    }
    const Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < keywords; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        const Py_ssize_t i = index_of(names, name);
        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "%s() has no argument %R", function, name);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got argument '%s' twice", function, names[i]);
            return -1;
        }
        out[i] = args[nargs + k];
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() needs argument '%s'", function, names[i]);
            return -1;
        }
    }
    return 0;
}
