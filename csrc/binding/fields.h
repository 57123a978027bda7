/* Header fields of HTTP: those that tell of a decision, and those of a response. */
#ifndef SGPY_FIELDS_H
#define SGPY_FIELDS_H

#include "binding.h"

/* The styles, as a set. */
enum { SGPY_IETF = 1, SGPY_X = 2 };

/* The set that "ietf", "x" or (where `both` will do) "both" names; -1 with TypeError or
 * ValueError. */
int sgpy_styles(PyObject *name, bool both);

/* The fields that tell of it as ASGI has them: a list of (name in small letters, value), bytes. */
PyObject *sgpy_fields_raw(sgpy_state *st, PyObject *decision, unsigned styles);

/* The same as a dict of str, by the names as they are written. */
PyObject *sgpy_fields_dict(sgpy_state *st, PyObject *decision, unsigned styles);

/* `own`, any iterable of (name, value) or NULL, and of the list `more` those whose names it does
 * not have. A new list. May run Python code. */
PyObject *sgpy_fields_completed(PyObject *own, PyObject *more);

/* module functions */
PyObject *sgpy_raw_headers(PyObject *module, PyObject *args);
PyObject *sgpy_completed(PyObject *module, PyObject *args);

/* The names, kept by the state. */
int sgpy_fields_init(sgpy_state *st);

/* ---- sending.c */

int sgpy_sending_init_type(PyObject *module, sgpy_state *st);

/* `send` for responses that are to have these fields, a list as of sgpy_fields_raw. */
PyObject *sgpy_sender_new(sgpy_state *st, PyObject *send, PyObject *fields);

#endif
