/* An ask: its life, how its result reaches who waits, and how it is sent. */
#include "server.h"

#include <stdlib.h>
#include <string.h>

/* ---- an ask's life */

sgpy_ask *sgpy_ask_new(sgpy_state *st, size_t name_room) {
    sgpy_ask *ask = PyMem_Malloc(sizeof *ask + name_room);
    if (ask == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(ask, 0, sizeof *ask);
    ask->state = st;
    ask->request.name = ask->name;
    ask->request.script = -1;
    return ask;
}

void sgpy_many_release(sgpy_many *many) {
    if (many != NULL && --many->users == 0) {
        Py_XDECREF(many->list);
        Py_XDECREF(many->future);
        Py_XDECREF(many->error);
        PyMem_Free(many);
    }
}

static void members_free(sgpy_member *members, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        sgpy_key_done(&members[i].bytes);
        sgpy_plan_release(members[i].plan);
        Py_XDECREF((PyObject *)members[i].limiter);
        Py_XDECREF((PyObject *)members[i].server);
        Py_XDECREF(members[i].quotas);
        Py_XDECREF(members[i].key);
    }
    PyMem_Free(members);
}

void sgpy_ask_free(sgpy_ask *ask) {
    if (ask->request.command != NULL) {
        sg_command_free(ask->request.command);
        free(ask->request.command);
    }
    members_free(ask->members, ask->member_count);
    if (ask->many != NULL && ask->many->visitor == ask) {
        ask->many->visitor = NULL;
    }
    sgpy_many_release(ask->many);
    sgpy_key_done(&ask->bytes);
    sgpy_plan_release(ask->plan);
    Py_XDECREF(ask->future);
    Py_XDECREF(ask->quotas);
    Py_XDECREF(ask->key);
    Py_XDECREF((PyObject *)ask->limiter);
    Py_XDECREF((PyObject *)ask->server);
    PyMem_Free(ask);
}

int sgpy_ask_traverse(sgpy_ask *ask, visitproc visit, void *arg) {
    Py_VISIT(ask->future);
    Py_VISIT(ask->limiter);
    Py_VISIT((PyObject *)ask->server);
    Py_VISIT(ask->quotas);
    Py_VISIT(ask->key);
    for (unsigned i = 0; i < ask->member_count; i++) {
        Py_VISIT(ask->members[i].limiter);
        Py_VISIT((PyObject *)ask->members[i].server);
        Py_VISIT(ask->members[i].quotas);
        Py_VISIT(ask->members[i].key);
    }
    if (ask->many != NULL && ask->many->visitor == NULL) {
        ask->many->visitor = ask;
    }
    if (ask->many != NULL && ask->many->visitor == ask) { /* of all that share it, one does */
        Py_VISIT(ask->many->future);
        Py_VISIT(ask->many->error);
    }
    return 0;
}

/* ---- giving results */

/* Resolves a future unless it is done (cancelled). Leaves no exception. */
static void resolve(sgpy_state *st, PyObject *future, PyObject *method, PyObject *value) {
    PyObject *args[2] = {future, value};
    if (st->closed) { /* the interpreter ends, and so did all loops */
        return;
    }
    PyObject *result = PyObject_VectorcallMethod(method, args,
                                                 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result != NULL) {
        Py_DECREF(result);
        return;
    }
    /* InvalidStateError: it was cancelled. RuntimeError: its loop is closed. Nobody waits. */
    PyErr_Clear();
}

/* The exception that is set, as an object; the error indicator is clear then. */
PyObject *sgpy_take_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static void many_done(sgpy_state *st, sgpy_many *many) {
    if (--many->left > 0 || many->future == NULL) {
        return;
    }
    if (many->error != NULL) {
        resolve(st, many->future, st->str_set_exception, many->error);
    } else {
        PyObject_GC_Track(many->list);
        resolve(st, many->future, st->str_set_result, many->list);
    }
}

void sgpy_ask_deliver(sgpy_ask *ask, PyObject *result) {
    sgpy_state *st = ask->state;
    PyObject *error = result == NULL ? sgpy_take_exception() : NULL;
    if (ask->many != NULL) {
        sgpy_many *many = ask->many;
        if (result != NULL) {
            PyList_SET_ITEM(many->list, ask->index, Py_NewRef(result));
        } else if (many->error == NULL) {
            many->error = Py_XNewRef(error);
        }
        many_done(st, many);
    } else if (ask->future != NULL) {
        if (result != NULL) {
            resolve(st, ask->future, st->str_set_result, result);
        } else if (error != NULL) {
            resolve(st, ask->future, st->str_set_exception, error);
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(error);
}

/* ---- failures */

/* What happened, as text; NULL with an exception. */
PyObject *sgpy_ask_describe(const sgpy_ask *ask, sg_failure failure, const char *text,
                          size_t length) {
    PyObject *where = ask->link != NULL ? ask->link->where : NULL;
    PyObject *said = text == NULL || length == 0
                         ? NULL
                         : PyUnicode_DecodeUTF8(text, (Py_ssize_t)sg_min(length, 300), "replace");
    PyObject *known = where == NULL ? PyUnicode_FromString("the store") : Py_NewRef(where);
    PyObject *message = NULL;
    if (known == NULL || (said == NULL && PyErr_Occurred())) {
        goto done;
    }
    switch (failure) {
    case SG_TIMED_OUT:
        message = PyUnicode_FromFormat("%U did not answer in time; whether it has charged this "
                                       "is not known", known);
        break;
    case SG_LOST:
        message = said == NULL
                      ? PyUnicode_FromFormat("the connection to %U ended before its reply; whether "
                                             "it has charged this is not known", known)
                      : PyUnicode_FromFormat("the connection to %U ended before its reply (%U); "
                                             "whether it has charged this is not known", known,
                                             said);
        break;
    case SG_UNSENT:
        message = said == NULL ? PyUnicode_FromFormat("%U could not be asked in time", known)
                               : PyUnicode_FromFormat("%U could not be asked: %U", known, said);
        break;
    case SG_REFUSED:
        message = PyUnicode_FromFormat("%U refused: %R", known, said == NULL ? Py_None : said);
        break;
    case SG_FOREIGN:
        message = PyUnicode_FromFormat("%U holds something that is not sluicegate's at the key of "
                                       "%R: delete it, or use another prefix", known,
                                       ask->key == NULL ? Py_None : ask->key);
        break;
    default:
        PyErr_NoMemory();
    }
done:
    Py_XDECREF(known);
    Py_XDECREF(said);
    return message;
}

/* The module's StoreError, while there is one. */
PyObject *sgpy_store_error(const sgpy_state *st) {
    return st->StoreError == NULL ? PyExc_RuntimeError : st->StoreError;
}

void sgpy_ask_raise(sgpy_ask *ask, sg_failure failure, const char *text, size_t length) {
    PyObject *message = sgpy_ask_describe(ask, failure, text, length);
    if (message != NULL) {
        PyErr_SetObject(sgpy_store_error(ask->state), message);
        Py_DECREF(message);
    }
}

/* ---- asking */

void sgpy_ask_write_name(sgpy_ask *ask, const sgpy_server *server, const sgpy_key *key) {
    ask->request.name_length = sg_name_write(server->head, server->head_length, &server->digests,
                                             key->data, key->length, ask->name);
}

/* The link for an ask whose name is written, and its slot; NULL with an exception. */
sgpy_link *sgpy_ask_link(sgpy_ask *ask, sgpy_router *router) {
    ask->request.slot = router->slots != NULL || router->single == NULL
                            ? sg_slot_of(ask->request.name, ask->request.name_length)
                            : 0;
    sgpy_link *link = sgpy_router_link(router, ask->request.slot);
    if (SG_UNLIKELY(link != NULL && link->create_future == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, SGPY_NO_LINK);
        return NULL;
    }
    return link;
}

/* Why a link is down; it hears that somebody asked. */
const char *sgpy_link_why_down(sgpy_link *link, size_t *length) {
    Py_ssize_t size = 0;
    link->asked = true;
    const char *text = PyUnicode_AsUTF8AndSize(link->down, &size);
    if (text == NULL) {
        PyErr_Clear();
    }
    *length = text == NULL ? 0 : (size_t)size;
    return text;
}

void sgpy_ask_set_deadline(sgpy_ask *ask, sgpy_link *link, int64_t timeout_ns) {
    ask->request.deadline_ns = sgpy_now_ns(ask->state) + timeout_ns;
    if (timeout_ns > link->patience_ns) {
        link->patience_ns = timeout_ns;
    }
}

PyObject *sgpy_ask_send(sgpy_ask *ask, sgpy_router *router, int64_t timeout_ns) {
    sgpy_link *link = sgpy_ask_link(ask, router);
    if (link == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    ask->link = link;
    if (link->down != NULL) {
        size_t length;
        const char *text = sgpy_link_why_down(link, &length);
        sgpy_ask_raise(ask, SG_UNSENT, text, length);
        sgpy_ask_free(ask);
        return NULL;
    }
    Py_INCREF(link);
    PyObject *future = PyObject_CallNoArgs(link->create_future);
    if (future != NULL) {
        ask->future = Py_NewRef(future);
        sgpy_ask_set_deadline(ask, link, timeout_ns);
        if (sgpy_link_add(link, ask) < 0) {
            Py_CLEAR(future);
        }
    }
    if (future == NULL) {
        sgpy_ask_free(ask);
    }
    Py_DECREF(link);
    return future;
}
