/* Link: one connection's questions and answers. Its Python subclass has the transport: it writes
 * what take() gives it, and hands what comes to feed(). */
#include "server.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* What round trips are counted by, in microseconds. */
static const int64_t trip_bounds_us[SGPY_TRIP_BOUNDS] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
};

/* That many replies came: one of them may end the round trip that is timed. */
static void time_trip(sgpy_link *link, size_t replies) {
    if (replies < link->timed) {
        link->timed -= replies;
        return;
    }
    const int64_t took_ns = link->progress_ns - link->timed_ns;
    unsigned i = 0;
    while (i < SGPY_TRIP_BOUNDS && took_ns > trip_bounds_us[i] * 1000) {
        i++;
    }
    link->trips[i]++;
    link->trips_ns += took_ns > 0 ? (uint64_t)took_ns : 0;
    link->timed = 0;
}

/* Has what waits sent, with all else of this turn of the loop. -1 with an exception. */
static int schedule(sgpy_link *link) {
    if (SG_UNLIKELY(link->call_soon == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, SGPY_NO_LINK);
        return -1;
    }
    if (!link->scheduled) {
        PyObject *handle = PyObject_CallOneArg(link->call_soon, link->flush);
        if (handle == NULL) {
            return -1;
        }
        Py_DECREF(handle);
        link->scheduled = true;
    }
    return 0;
}

static void enqueue(sgpy_link *link, sgpy_ask *ask) {
    ask->link = link;
    link->hurry |= ask->request.deadline_ns < link->armed_ns;
    sg_pipeline_add(&link->pipeline, &ask->request);
}

int sgpy_link_add(sgpy_link *link, sgpy_ask *ask) {
    if (schedule(link) < 0) {
        return -1;
    }
    enqueue(link, ask);
    return 0;
}

/* Has what waits sent now. A flush that was due stays so: it finds what has come since. 1 with an
 * exception that is no Exception: what a signal's handler raised meanwhile is for who asks. */
static int flush_now(sgpy_link *link) {
    const bool due = link->scheduled;
    Py_INCREF(link);
    PyObject *result = PyObject_CallNoArgs(link->flush);
    const bool interrupted = result == NULL && !PyErr_ExceptionMatches(PyExc_Exception);
    link->scheduled |= due;
    if (result == NULL) {
        PyObject *type = NULL, *value = NULL, *traceback = NULL;
        if (interrupted) {
            PyErr_Fetch(&type, &value, &traceback);
        } else {
            PyErr_WriteUnraisable(link->flush);
        }
        if (schedule(link) < 0) { /* once more: what is not sent is at least given up in time */
            PyErr_Clear();
        }
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(result);
    Py_DECREF(link);
    return interrupted;
}

/* Whether who asks now asks one after the other, as it was for a while: then there is nothing that
 * could leave together with this. */
static bool is_alone(const sgpy_link *link) {
    return link->alone == SGPY_ALONE && !link->scheduled && link->pipeline.waiting.count == 0 &&
           link->pipeline.flying == 0;
}

int sgpy_link_ask(sgpy_link *link, sgpy_ask *ask) {
    /* While it writes, a transport is in no state to be written to by what a finalizer asks. */
    const bool busy = link->writing || link->pipeline.handling;
    const bool now = !busy && is_alone(link) && link->call_soon != NULL;
    if (!now && schedule(link) < 0) {
        return -1;
    }
    enqueue(link, ask);
    if (now || (!busy && link->pipeline.waiting.count % SG_BATCH_MAX == 0)) {
        return flush_now(link);
    }
    return 0;
}

/* ---- what the Python side drives it by */

static bool is_made(const sgpy_link *link) {
    if (!link->made) {
        PyErr_SetString(PyExc_RuntimeError, SGPY_NO_LINK);
    }
    return link->made;
}

static PyObject *link_take(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_link *self = (sgpy_link *)op;
    const bool idle = self->pipeline.flying == 0;
    if (!is_made(self)) {
        return NULL;
    }
    if (self->pipeline.waiting.count > 1 || !idle) {
        self->alone = 0;
    } else if (self->pipeline.waiting.count == 1 && self->alone < SGPY_ALONE) {
        self->alone++;
    }
    self->scheduled = false;
    self->unfit = false;
    self->writing = true;
    sg_pipeline_write(&self->pipeline);
    if (self->pipeline.out_used == 0) {
        self->writing = false;
        Py_RETURN_NONE;
    }
    if (idle) {
        self->progress_ns = sgpy_now_ns(self->state);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(self->pipeline.out,
                                                (Py_ssize_t)self->pipeline.out_used);
    if (bytes != NULL) {
        sg_pipeline_sent(&self->pipeline);
        if (self->timed == 0) {
            self->timed = self->pipeline.flying;
            self->timed_ns = idle ? self->progress_ns : sgpy_now_ns(self->state);
        }
    }
    return bytes; /* without it they leave with the next */
}

static PyObject *link_wrote(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    ((sgpy_link *)op)->writing = false;
    Py_RETURN_NONE;
}

static PyObject *link_wait(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    ((sgpy_link *)op)->scheduled = false;
    Py_RETURN_NONE;
}

static PyObject *link_feed(PyObject *op, PyObject *data) {
    sgpy_link *self = (sgpy_link *)op;
    Py_buffer view;
    if (!is_made(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_INCREF(op);
    self->progress_ns = sgpy_now_ns(self->state);
    const size_t flying = self->pipeline.flying;
    const bool good = !self->pipeline.handling &&
                      sg_pipeline_feed(&self->pipeline, view.buf, (size_t)view.len);
    if (self->timed > 0) {
        time_trip(self, flying - self->pipeline.flying);
    }
    PyBuffer_Release(&view);
    PyObject *result = NULL;
    if (!good) {
        result = PyObject_CallMethod(op, "_broken", NULL);
    } else if (self->pipeline.waiting.first == NULL || schedule(self) == 0) {
        /* what waits is to be sent once more */
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(op);
    return result;
}

/* Fails what is past its deadline: (how many, whether the server has been silent for as long as
 * anybody waits, seconds to the next deadline or None). */
static PyObject *link_expire(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_link *self = (sgpy_link *)op;
    int64_t next;
    if (!is_made(self)) {
        return NULL;
    }
    const int64_t now_ns = sgpy_now_ns(self->state);
    Py_INCREF(op);
    self->hurry = false;
    const size_t expired = sg_pipeline_expire(&self->pipeline, now_ns, &next);
    self->armed_ns = next;
    /* What was asked a little before it was sent is due a little before the server was silent for
     * all that time. */
    const bool silent = self->pipeline.flying > 0 &&
                        now_ns - self->progress_ns >= self->patience_ns / 4 * 3;
    Py_DECREF(op);
    if (next == INT64_MAX) {
        return Py_BuildValue("(nOO)", (Py_ssize_t)expired, silent ? Py_True : Py_False, Py_None);
    }
    return Py_BuildValue("(nOd)", (Py_ssize_t)expired, silent ? Py_True : Py_False,
                         next <= now_ns ? 0.0 : (double)(next - now_ns) / 1e9);
}

/* The reason as UTF-8; "" where it is none. */
static const char *text_of(PyObject *why, size_t *length) {
    Py_ssize_t size = 0;
    const char *text = PyUnicode_Check(why) ? PyUnicode_AsUTF8AndSize(why, &size) : NULL;
    if (text == NULL) {
        PyErr_Clear();
    }
    *length = text == NULL ? 0 : (size_t)size;
    return text;
}

static PyObject *link_lost(PyObject *op, PyObject *why) {
    sgpy_link *self = (sgpy_link *)op;
    size_t length;
    if (!is_made(self)) {
        return NULL;
    }
    const char *text = text_of(why, &length);
    Py_INCREF(op);
    self->timed = 0;
    sg_pipeline_lost(&self->pipeline, text, length);
    Py_DECREF(op);
    return PyLong_FromSize_t(self->pipeline.waiting.count);
}

static PyObject *link_drop(PyObject *op, PyObject *why) {
    sgpy_link *self = (sgpy_link *)op;
    size_t length;
    if (!is_made(self)) {
        return NULL;
    }
    const char *text = text_of(why, &length);
    Py_INCREF(op);
    self->timed = 0;
    sg_pipeline_drop(&self->pipeline, SG_UNSENT, text, length);
    Py_DECREF(op);
    Py_RETURN_NONE;
}

/* What waits and is about keys: any node of a cluster answers that, if only with where to go. What
 * was sent may be done already. */
static PyObject *link_pass_on(PyObject *op, PyObject *other) {
    sgpy_link *self = (sgpy_link *)op, *to = (sgpy_link *)other;
    if (!PyObject_TypeCheck(other, self->state->Link_Type) || to == self || !to->made) {
        PyErr_SetString(PyExc_TypeError, "it is passed on to another Link");
        return NULL;
    }
    if (self->patience_ns > to->patience_ns) {
        to->patience_ns = self->patience_ns;
    }
    sg_request *r = sg_pipeline_take_waiting(&self->pipeline), *next;
    for (; r != NULL; r = next) {
        next = r->next;
        if ((r->kind != SG_CHECK && r->script < 0) || sgpy_link_add(to, (sgpy_ask *)r) < 0) {
            PyErr_Clear(); /* the other's loop is closed */
            sg_pipeline_add(&self->pipeline, r);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *link_down(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *down = ((sgpy_link *)op)->down;
    return Py_NewRef(down == NULL ? Py_None : down);
}

static int link_set_down(PyObject *op, PyObject *value, void *Py_UNUSED(closure)) {
    sgpy_link *self = (sgpy_link *)op;
    if (value == NULL || (value != Py_None && !PyUnicode_Check(value))) {
        PyErr_SetString(PyExc_TypeError, "down is a str, or None");
        return -1;
    }
    PyObject *old = self->down;
    self->down = value == Py_None ? NULL : Py_NewRef(value);
    Py_XDECREF(old);
    return 0;
}

static PyObject *link_asked(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    sgpy_link *self = (sgpy_link *)op;
    const bool asked = self->asked;
    self->asked = false;
    return PyBool_FromLong(asked);
}

static PyObject *link_hurry(PyObject *op, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((sgpy_link *)op)->hurry);
}

static PyObject *link_waiting(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(((sgpy_link *)op)->pipeline.waiting.count);
}

static PyObject *link_flying(PyObject *op, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(((sgpy_link *)op)->pipeline.flying);
}

/* (seconds of all, how many took up to each bound and longer than the last). */
static PyObject *link_trips(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    const sgpy_link *self = (sgpy_link *)op;
    PyObject *counts = PyTuple_New(SGPY_TRIP_BOUNDS + 1);
    for (unsigned i = 0; counts != NULL && i <= SGPY_TRIP_BOUNDS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(self->trips[i]);
        if (count == NULL) {
            Py_CLEAR(counts);
        } else {
            PyTuple_SET_ITEM(counts, i, count);
        }
    }
    return counts == NULL ? NULL : Py_BuildValue("(dN)", (double)self->trips_ns / 1e9, counts);
}

/* ---- the type */

static int take_attribute(PyObject **place, PyObject *object, const char *name) {
    Py_XSETREF(*place, PyObject_GetAttrString(object, name));
    return *place == NULL ? -1 : 0;
}

static int link_init(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"loop", "where", "router", NULL};
    sgpy_link *self = (sgpy_link *)op;
    PyObject *loop, *where, *router = Py_None;
    uint64_t seed;
    sgpy_state *st = sgpy_state_for(Py_TYPE(op));
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OU|O:Link", names, &loop,
                                                   &where, &router)) {
        return -1;
    }
    if (self->made) {
        PyErr_SetString(PyExc_RuntimeError, "a Link is made once");
        return -1;
    }
    if (router != Py_None && !PyObject_TypeCheck(router, st->Router_Type)) {
        PyErr_SetString(PyExc_TypeError, "router is a Router or None");
        return -1;
    }
    if (getentropy(&seed, sizeof seed) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->state = st;
    if (take_attribute(&self->call_soon, loop, "call_soon") < 0 ||
        take_attribute(&self->create_future, loop, "create_future") < 0 ||
        take_attribute(&self->flush, op, "_flush") < 0) {
        return -1;
    }
    Py_XSETREF(self->where, Py_NewRef(where));
    Py_XSETREF(self->router, router == Py_None ? NULL : Py_NewRef(router));
    if (!sg_pipeline_init(&self->pipeline, &sgpy_ask_calls, self, seed)) {
        PyErr_NoMemory();
        return -1;
    }
    self->armed_ns = INT64_MIN;
    self->made = true;
    return 0;
}

typedef struct {
    visitproc visit;
    void *arg;
    int found;
} visiting;

static void visit_request(void *context, sg_request *request) {
    visiting *v = context;
    if (v->found == 0) {
        v->found = sgpy_ask_traverse((sgpy_ask *)request, v->visit, v->arg);
    }
}

static int link_traverse(PyObject *op, visitproc visit, void *arg) {
    sgpy_link *self = (sgpy_link *)op;
    visiting v = {visit, arg, 0};
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->router);
    Py_VISIT(self->call_soon);
    Py_VISIT(self->create_future);
    Py_VISIT(self->flush);
    if (self->made) {
        sg_pipeline_each(&self->pipeline, visit_request, &v);
    }
    return v.found;
}

static void unhear(void *context, sg_request *request) {
    (void)context;
    ((sgpy_ask *)request)->unheard = true;
}

static int link_clear(PyObject *op) {
    sgpy_link *self = (sgpy_link *)op;
    /* First, so that nothing is added by who hears of the failures. */
    Py_CLEAR(self->flush);
    Py_CLEAR(self->call_soon);
    Py_CLEAR(self->create_future);
    Py_CLEAR(self->router);
    if (self->made) {
        sg_pipeline_each(&self->pipeline, unhear, NULL);
        sg_pipeline_drop(&self->pipeline, SG_UNSENT, "its loop is gone", 16);
    }
    return 0;
}

static void link_dealloc(PyObject *op) {
    sgpy_link *self = (sgpy_link *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    PyObject *type_of, *value, *traceback; /* this may be in the midst of an exception */
    PyErr_Fetch(&type_of, &value, &traceback);
    (void)link_clear(op);
    PyErr_Restore(type_of, value, traceback);
    if (self->made) {
        self->made = false;
        sg_pipeline_free(&self->pipeline);
    }
    Py_CLEAR(self->where);
    Py_CLEAR(self->down);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef link_methods[] = {
    {"take", link_take, METH_NOARGS,
     PyDoc_STR("take($self, /)\n--\n\nWhat is to be written now, or None.")},
    {"wrote", link_wrote, METH_NOARGS,
     PyDoc_STR("wrote($self, /)\n--\n\nWhat take() gave is with the transport.")},
    {"_wait", link_wait, METH_NOARGS,
     PyDoc_STR("_wait($self, /)\n--\n\nIn place of take(): nothing can be written now.")},
    {"feed", link_feed, METH_O,
     PyDoc_STR("feed($self, data, /)\n--\n\nBytes that came; calls _broken() if they make no "
               "sense.")},
    {"expire", link_expire, METH_NOARGS,
     PyDoc_STR("expire($self, /)\n--\n\nFails what is past its deadline: (how many, whether the "
               "server is silent, seconds to the next).")},
    {"lost", link_lost, METH_O,
     PyDoc_STR("lost($self, why, /)\n--\n\nThe connection has ended; how many wait to be sent.")},
    {"drop", link_drop, METH_O,
     PyDoc_STR("drop($self, why, /)\n--\n\nFails all that waits and flies.")},
    {"pass_on", link_pass_on, METH_O,
     PyDoc_STR("pass_on($self, link, /)\n--\n\nHas another ask what waits and is about keys.")},
    {"trips", link_trips, METH_NOARGS,
     PyDoc_STR("trips($self, /)\n--\n\nRound trips that were timed: (seconds of all, how many "
               "took up to each of TRIP_BOUNDS, and longer).")},
    {"asked", link_asked, METH_NOARGS,
     PyDoc_STR("asked($self, /)\n--\n\nWhether anybody asked while it was down, since last.")},
    {"command", sgpy_link_command, METH_VARARGS,
     PyDoc_STR("command($self, words, timeout, repeatable=False, /)\n--\n\n"
               "A future of the reply to any command.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef link_getset[] = {
    {"down", link_down, link_set_down,
     PyDoc_STR("Why nothing is sent at present, or None."), NULL},
    {"hurry", link_hurry, NULL, PyDoc_STR("Whether expire() is due earlier than it said."), NULL},
    {"waiting", link_waiting, NULL, PyDoc_STR("Requests that are not sent yet."), NULL},
    {"flying", link_flying, NULL, PyDoc_STR("Requests that are sent and not answered."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef link_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(sgpy_link, weakrefs), READONLY, NULL},
    {"where", T_OBJECT, offsetof(sgpy_link, where), READONLY, PyDoc_STR("Its server.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot link_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Link(loop, where, router=None)\n--\n\n"
                                  "What waits and flies on one connection.")},
    {Py_tp_init, (void *)link_init},
    {Py_tp_dealloc, (void *)link_dealloc},
    {Py_tp_traverse, (void *)link_traverse},
    {Py_tp_clear, (void *)link_clear},
    {Py_tp_methods, link_methods},
    {Py_tp_getset, link_getset},
    {Py_tp_members, link_members},
    {0, NULL},
};

static PyType_Spec link_spec = {
    .name = "sluicegate._core.Link",
    .basicsize = (int)sizeof(sgpy_link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = link_slots,
};

int sgpy_link_init_type(PyObject *module, sgpy_state *st) {
    PyObject *bounds = PyTuple_New(SGPY_TRIP_BOUNDS);
    for (unsigned i = 0; bounds != NULL && i < SGPY_TRIP_BOUNDS; i++) {
        PyObject *bound = PyFloat_FromDouble((double)trip_bounds_us[i] / 1e6);
        if (bound == NULL) {
            Py_CLEAR(bounds);
        } else {
            PyTuple_SET_ITEM(bounds, i, bound);
        }
    }
    const int added = bounds == NULL ? -1 : PyModule_AddObjectRef(module, "TRIP_BOUNDS", bounds);
    Py_XDECREF(bounds);
    return added < 0 ? -1 : sgpy_add_type(module, &link_spec, &st->Link_Type, true);
}
