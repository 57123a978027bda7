/* Checks that a server decides: from Python's objects to a request, and from its answer (or its
 * failure, by the limiter's policy) to the Decision that the asker awaits. */
#include "server.h"

#include <string.h>

#define DENIED_RETRY SG_TICKS_PER_SECOND /* what a refusal by policy says */

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

static void many_release(sgpy_many *many) {
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
    many_release(ask->many);
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
        Py_VISIT(ask->many->list);
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
static PyObject *take_exception(void) {
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
        resolve(st, many->future, st->str_set_result, many->list);
    }
}

void sgpy_ask_deliver(sgpy_ask *ask, PyObject *result) {
    sgpy_state *st = ask->state;
    PyObject *error = result == NULL ? take_exception() : NULL;
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
static PyObject *describe(const sgpy_ask *ask, sg_failure failure, const char *text,
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
static PyObject *store_error(const sgpy_state *st) {
    return st->StoreError == NULL ? PyExc_RuntimeError : st->StoreError;
}

void sgpy_ask_raise(sgpy_ask *ask, sg_failure failure, const char *text, size_t length) {
    PyObject *message = describe(ask, failure, text, length);
    if (message != NULL) {
        PyErr_SetObject(store_error(ask->state), message);
        Py_DECREF(message);
    }
}

/* The whole quotas in the memory of this process; NULL with an exception. */
static int decide_locally(sgpy_ask *ask, sgpy_outcome *out, sg_receipt *receipt) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_table *table = ask->server->table;
    const sg_request *r = &ask->request;
    /* the whole quotas, where the plan is by those that lease */
    const sg_quota *rows = ask->leases ? limiter->rows : ask->plan->plan.quotas;
    sg_ticks now;
    (void)sgpy_table_now(table, &now); /* the real clock: it cannot fail */
    sg_table_know(&table->core, rows);
    sg_status status = SG_OK;
    if (r->op == SG_PEEK) {
        sg_peek(&table->core, rows, ask->fp, r->costs, now, &out->decision);
    } else if (r->op == SG_RESERVE) {
        status = sg_reserve(&table->core, rows, ask->fp, r->costs,
                            r->ttl_us * SG_TICKS_PER_US, now, &out->decision, receipt);
    } else {
        status = sg_hit(&table->core, rows, ask->fp, r->costs, now, &out->decision);
    }
    if (status != SG_OK) {
        PyErr_SetString(limiter->state->StoreError,
                        status == SG_FULL ? "the local limits that stand in for the store are full "
                                            "of reservations" : "no memory for a local limit");
        return -1;
    }
    sgpy_set_flags(limiter, out);
    return 0;
}

/* A decision made without the server; -1 where the policy is to raise: with an exception, or
 * *raise. */
static int by_policy(sgpy_ask *ask, sgpy_outcome *out, sg_receipt *receipt, bool *raise) {
    sgpy_limiter *limiter = ask->limiter;
    memset(out, 0, sizeof *out);
    memset(receipt, 0, sizeof *receipt);
    switch (limiter->policy) {
    case SGPY_POLICY_ALLOW:
        sgpy_admit(out);
        break;
    case SGPY_POLICY_DENY:
        out->decision.binding = SG_NONE;
        out->decision.verdict.retry = out->decision.verdict.reset = DENIED_RETRY;
        break;
    case SGPY_POLICY_LOCAL:
        if (decide_locally(ask, out, receipt) < 0) {
            return -1;
        }
        break;
    default:
        *raise = true;
        return -1;
    }
    out->flags |= SGPY_DEGRADED;
    ask->server->table->degraded++;
    return 0;
}

/* ---- results */

/* (Decision, which quotas refuse, what remains of each quota) */
static PyObject *detailed(const sgpy_ask *ask, PyObject *decision, const sgpy_outcome *out) {
    const sg_plan *plan = &ask->plan->plan;
    PyObject *remaining = PyTuple_New((Py_ssize_t)plan->count);
    unsigned refusals = 0;
    for (unsigned i = 0; remaining != NULL && i < plan->count; i++) {
        const sg_quota *q = &plan->quotas[i];
        const sg_verdict verdict = {.allowed = out->decision.allowed,
                                    .level = out->decision.level[i]};
        PyObject *left = q->unlimited || q->shadow
                             ? Py_NewRef(Py_None)
                             : PyLong_FromUnsignedLongLong(sg_remaining(q, &verdict));
        if (left == NULL) {
            Py_CLEAR(remaining);
            break;
        }
        PyTuple_SET_ITEM(remaining, (Py_ssize_t)i, left);
        refusals |= ((out->decision.refusals >> i) & 1u) && !q->shadow ? 1u << i : 0u;
    }
    if (remaining == NULL) {
        Py_DECREF(decision);
        return NULL;
    }
    return Py_BuildValue("(NIN)", decision, refusals, remaining);
}

/* The result of a check: a Decision, (Decision, ticket or None), or the detailed one. */
static PyObject *result_of(const sgpy_ask *ask, const sgpy_outcome *out, PyObject *receipt) {
    sgpy_limiter *limiter = ask->limiter;
    PyObject *decision = sgpy_outcome_decision(ask->state, ask->quotas, out);
    if (ask->request.op != SG_PEEK) {
        decision = sgpy_observed(limiter, ask->key, decision);
    }
    if (decision == NULL) {
        Py_XDECREF(receipt);
        return NULL;
    }
    if (ask->request.op == SG_RESERVE) {
        return Py_BuildValue("(NN)", decision, receipt == NULL ? Py_NewRef(Py_None) : receipt);
    }
    return ask->detailed ? detailed(ask, decision, out) : decision;
}

/* The result of a check that the server did not decide; NULL with an exception. */
static PyObject *result_without(sgpy_ask *ask, sg_failure failure, const char *text,
                                size_t length) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_outcome out;
    sg_receipt raw;
    PyObject *receipt = NULL;
    bool raise = false;
    /* Now, for the text may be gone when the store was told (logging may run any code). */
    PyObject *why = describe(ask, failure, text, length);
    if (why == NULL) {
        return NULL;
    }
    if (failure != SG_FOREIGN && !ask->unheard) {
        sgpy_server_failed(ask->server, why);
    }
    if (by_policy(ask, &out, &raw, &raise) < 0) {
        if (raise) {
            PyErr_SetObject(store_error(ask->state), why);
        }
        Py_DECREF(why);
        return NULL;
    }
    Py_DECREF(why);
    if (ask->request.op == SG_RESERVE && out.decision.allowed) {
        receipt = sgpy_receipt_new(limiter, ask->server->table, ask->quotas,
                                   ask->plan->plan.quotas, &raw);
        if (receipt == NULL) {
            return NULL;
        }
    }
    return result_of(ask, &out, receipt);
}

/* ---- what the pipeline calls */

bool sgpy_ask_wanted(const sgpy_ask *ask) {
    if (ask->future == NULL || ask->many != NULL || ask->state->closed) {
        return true;
    }
    PyObject *done = PyObject_CallMethodNoArgs(ask->future, ask->state->str_done);
    const bool wanted = done != Py_True;
    if (done == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(done);
    return wanted;
}

static bool ask_wanted(void *owner, sg_request *request) {
    (void)owner;
    return sgpy_ask_wanted((sgpy_ask *)request);
}

static void remember_refusal(sgpy_ask *ask, const sg_answer *answer) {
    sgpy_server *server = ask->server;
    if (server->denied == NULL) {
        server->denied = sg_denied_new();
        if (server->denied == NULL) {
            return; /* it only saves questions */
        }
    }
    const int64_t now_ns = sgpy_now_ns(ask->state);
    const sg_ticks retry = answer->decision.verdict.retry;
    const int64_t length_ns = (int64_t)sg_min(retry / SG_TICKS_PER_NS,
                                              (uint64_t)ask->limiter->deny_ns);
    sg_denied_put(server->denied, ask->fp, &ask->plan->plan, ask->request.costs, answer->bytes,
                  answer->length, answer->now_us, now_ns, now_ns + length_ns);
}

/* A limiter that leases asks by a lowered burst: what it tells is by its own. */
static void raise_levels(const sgpy_limiter *limiter, const sg_plan *plan, sgpy_outcome *out) {
    const sg_quota *rows = limiter->rows;
    for (unsigned i = 0; i < plan->count; i++) {
        /* not where the numbers were those of one call */
        const sg_ticks lowered = plan->quotas[i].capacity < rows[i].capacity
                                     ? sg_lease_lowered(&rows[i]) : 0;
        out->decision.level[i] += lowered;
        if (out->decision.binding == i) {
            out->decision.verdict.level += lowered;
        }
    }
}

PyObject *sgpy_spend(sgpy_limiter *limiter, sgpy_server *server, PyObject *quotas,
                     const sg_plan *plan, PyObject *key, const sgpy_key *bytes, sg_fingerprint fp,
                     const uint64_t *costs, sg_purse_state *state) {
    sgpy_outcome out;
    *state = sgpy_lease_take(server, fp, plan, costs, &out.decision);
    if (*state != SG_PURSE_TAKEN) {
        return NULL;
    }
    raise_levels(limiter, plan, &out);
    sgpy_set_flags(limiter, &out);
    sgpy_count_elsewhere(server->table, fp, bytes->data, bytes->length, &out);
    return sgpy_observed(limiter, key, sgpy_outcome_decision(limiter->state, quotas, &out));
}

static void ask_decided(void *owner, sg_request *request, const sg_answer *answer) {
    sgpy_ask *ask = (sgpy_ask *)request;
    sgpy_limiter *limiter = ask->limiter;
    sgpy_server *server = ask->server; /* the limiter may have moved on, or do so in the midst */
    sgpy_outcome out = {.decision = answer->decision};
    PyObject *receipt = NULL;
    (void)owner;
    if (SG_UNLIKELY(ask->kind == SGPY_ASK_DRAW)) {
        sgpy_lease_drawn(ask, answer);
        return;
    }
    if (SG_UNLIKELY(limiter->lease > 0)) {
        raise_levels(limiter, &ask->plan->plan, &out);
    }
    if (SG_UNLIKELY(!answer->decision.allowed && limiter->deny_ns > 0 && request->op == SG_HIT)) {
        remember_refusal(ask, answer);
    }
    sgpy_set_flags(limiter, &out);
    if (request->op != SG_PEEK && (out.decision.allowed || !ask->quiet)) {
        sgpy_count_elsewhere(server->table, ask->fp, ask->bytes.data, ask->bytes.length, &out);
    }
    if (request->op == SG_RESERVE && (answer->ticket.open || out.decision.allowed)) {
        receipt = sgpy_ticket_new(limiter, server, ask->quotas, ask->key, &answer->ticket);
        if (receipt == NULL) {
            sgpy_ask_deliver(ask, NULL);
            return;
        }
    }
    PyObject *result = result_of(ask, &out, receipt);
    sgpy_ask_deliver(ask, result);
    if (SG_LIKELY(!server->degraded && answer->seen == SG_SEEN)) {
        return;
    }
    if (server->degraded) {
        sgpy_server_recovered(server);
    }
    if (answer->seen == SG_SEEN_OTHER) {
        sgpy_server_other_shape(server);
    }
}

static void ask_replied(void *owner, sg_request *request, const sg_reply *reply) {
    (void)owner;
    sgpy_words_replied((sgpy_ask *)request, reply);
}

/* How the failure is told to who waits. */
static void give_failure(sgpy_ask *ask, sg_failure failure, const char *text, size_t length) {
    if (ask->kind == SGPY_ASK_DRAW) {
        sgpy_lease_failed(ask, failure, text, length);
    } else if (ask->kind == SGPY_ASK_CHECK) {
        sgpy_ask_deliver(ask, result_without(ask, failure, text, length));
    } else {
        if (ask->kind == SGPY_ASK_CHANGE) {
            sgpy_forget_known(ask);
        }
        sgpy_ask_raise(ask, failure, text, length);
        sgpy_ask_deliver(ask, NULL);
    }
}

/* Errors that tell of the server, not of what was asked. */
static bool is_unfit(const char *text, size_t length) {
    static const char *const words[] = {"LOADING ", "BUSY ", "READONLY ", "MASTERDOWN ",
                                        "CLUSTERDOWN ", "NOAUTH "};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t size = strlen(words[i]);
        if (length >= size && memcmp(text, words[i], size) == 0) {
            return true;
        }
    }
    return false;
}

static void ask_failed(void *owner, sg_request *request, sg_failure failure, const char *text,
                       size_t length) {
    sgpy_link *link = owner;
    if (failure == SG_REFUSED && !link->unfit && text != NULL && is_unfit(text, length)) {
        link->unfit = true; /* until something is sent again */
        PyObject *result = PyObject_CallMethod((PyObject *)link, "_unfit", "s#", text,
                                               (Py_ssize_t)length);
        if (result == NULL) {
            PyErr_Clear(); /* its loop is closed */
        }
        Py_XDECREF(result);
    }
    give_failure((sgpy_ask *)request, failure, text, length);
}

static void ask_forget(void *owner, sg_request *request) {
    (void)owner;
    sgpy_ask_free((sgpy_ask *)request);
}

static void ask_redirected(void *owner, sg_request *request, sg_redirect how, unsigned slot,
                           const char *node, size_t length) {
    sgpy_link *link = owner;
    sgpy_ask *ask = (sgpy_ask *)request;
    if (link->router == NULL) {
        static const char text[] = "it is a node of a cluster: give its store as redis+cluster://";
        sgpy_ask_give_up(ask, SG_REFUSED, text, sizeof text - 1);
        return;
    }
    sgpy_router_redirect((sgpy_router *)link->router, ask, how, slot, node, length);
}

const sg_owner_calls sgpy_ask_calls = {
    .wanted = ask_wanted,
    .decided = ask_decided,
    .replied = ask_replied,
    .failed = ask_failed,
    .forget = ask_forget,
    .redirected = ask_redirected,
};

void sgpy_ask_give_up(sgpy_ask *ask, sg_failure failure, const char *text, size_t length) {
    if (!ask->request.over) {
        ask->request.over = true;
        give_failure(ask, failure, text, length);
    }
    sgpy_ask_free(ask);
}

/* ---- asking */

void sgpy_ask_write_name(sgpy_ask *ask, const sgpy_server *server, const sgpy_key *key) {
    ask->request.name_length = sg_name_write(server->head, server->head_length, &server->digests,
                                             key->data, key->length, ask->name);
}

/* The link for an ask whose name is written, and its slot; NULL with an exception. */
static sgpy_link *find_link(sgpy_ask *ask, sgpy_router *router) {
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
static const char *why_down(sgpy_link *link, size_t *length) {
    Py_ssize_t size = 0;
    link->asked = true;
    const char *text = PyUnicode_AsUTF8AndSize(link->down, &size);
    if (text == NULL) {
        PyErr_Clear();
    }
    *length = text == NULL ? 0 : (size_t)size;
    return text;
}

static void set_deadline(sgpy_ask *ask, sgpy_link *link, int64_t timeout_ns) {
    ask->request.deadline_ns = sgpy_now_ns(ask->state) + timeout_ns;
    if (timeout_ns > link->patience_ns) {
        link->patience_ns = timeout_ns;
    }
}

PyObject *sgpy_ask_send(sgpy_ask *ask, sgpy_router *router, int64_t timeout_ns) {
    sgpy_link *link = find_link(ask, router);
    if (link == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    ask->link = link;
    if (link->down != NULL) {
        size_t length;
        const char *text = why_down(link, &length);
        sgpy_ask_raise(ask, SG_UNSENT, text, length);
        sgpy_ask_free(ask);
        return NULL;
    }
    Py_INCREF(link);
    PyObject *future = PyObject_CallNoArgs(link->create_future);
    if (future != NULL) {
        ask->future = Py_NewRef(future);
        set_deadline(ask, link, timeout_ns);
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

/* A check from Python's objects: all that may run Python code but for the router. NULL with an
 * exception. */
static sgpy_ask *check_new(sgpy_limiter *limiter, sg_check_op op, PyObject *key, PyObject *cost,
                           PyObject *quotas) {
    sgpy_server *server = limiter->server;
    sgpy_state *st = limiter->state;
    const uint64_t version = limiter->version;
    sgpy_ask *ask = sgpy_ask_new(st, server->head_length + SG_NAME_ROOM);
    if (ask == NULL) {
        return NULL;
    }
    ask->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    ask->server = (sgpy_server *)Py_NewRef((PyObject *)server);
    ask->request.kind = SG_CHECK;
    ask->request.op = (uint8_t)op;
    ask->request.repeatable = op == SG_PEEK;
    if (SG_LIKELY(cost == NULL)) {
        memcpy(ask->request.costs, sgpy_ones, sizeof ask->request.costs);
    } else if (sgpy_cost_row(st, cost, limiter->quotas, ask->request.costs) < 0) {
        goto fail;
    }
    if (SG_UNLIKELY(limiter->version != version)) {
        goto changed;
    }
    if (SG_LIKELY(quotas == NULL)) {
        ask->plan = sgpy_plan_of(limiter);
        ask->quotas = Py_NewRef(limiter->quotas);
        ask->leases = true;
        if (ask->plan != NULL) {
            (void)sgpy_plan_hold(ask->plan);
        }
    } else {
        sg_quota rows[SG_QUOTAS_MAX];
        if (sgpy_other_rows(limiter, server->table, quotas, rows, &ask->quotas) < 0) {
            goto fail;
        }
        if (limiter->version != version) {
            goto changed;
        }
        ask->plan = sgpy_plan_of_rows(server, ask->quotas, rows);
    }
    if (ask->plan == NULL) {
        goto fail;
    }
    if (sgpy_key_read(key, &ask->bytes) < 0) {
        goto fail;
    }
    ask->key = Py_NewRef(key);
    ask->request.plan = &ask->plan->plan;
    ask->request.order = &server->order;
    ask->fp = sg_fingerprint_of(&server->table->secret, ask->bytes.data, ask->bytes.length);
    sgpy_ask_write_name(ask, server, &ask->bytes);
    return ask;
changed:
    PyErr_SetString(PyExc_RuntimeError, "a cost, or what quotas= gave, changed the limiter");
fail:
    sgpy_ask_free(ask);
    return NULL;
}

/* A refusal that is remembered, as the result; NULL: there is none, or an exception. */
static PyObject *remembered(sgpy_ask *ask) {
    sgpy_server *server = ask->server;
    sgpy_outcome out;
    if (server->denied == NULL ||
        !sg_denied_get(server->denied, ask->fp, &ask->plan->plan, ask->request.costs,
                       sgpy_now_ns(ask->state), &out.decision)) {
        return NULL;
    }
    sgpy_set_flags(ask->limiter, &out);
    sgpy_count_elsewhere(server->table, ask->fp, ask->bytes.data, ask->bytes.length, &out);
    return result_of(ask, &out, NULL);
}

/* Hands a check on, to the lease or to the link. Where it is decided at once it is freed, and *result
 * is what it came to, NULL with an exception. -1 with an exception: it is still the caller's. */
static int add(sgpy_link *link, sgpy_ask *ask, PyObject **result) {
    sgpy_leased leased = SGPY_LEASE_ASK;
    *result = NULL;
    if (SG_UNLIKELY(ask->limiter->lease > 0 && ask->request.op == SG_HIT && ask->leases)) {
        *result = sgpy_lease_hit(ask, link, &leased);
        if (leased == SGPY_LEASE_DONE) {
            sgpy_ask_free(ask);
            return 0;
        }
    }
    return leased == SGPY_LEASE_WAITS ? 0 : sgpy_link_add(link, ask);
}

/* Sends a check; *result is what is known at once (NULL with an exception: a failure), or NULL
 * and *future is set. The ask is gone in any case. */
static PyObject *begin(sgpy_ask *ask, PyObject **future) {
    sgpy_limiter *limiter = ask->limiter;
    PyObject *result = NULL;
    if (limiter->deny_ns > 0 && ask->request.op == SG_HIT) {
        result = remembered(ask);
        if (result != NULL || PyErr_Occurred()) {
            sgpy_ask_free(ask);
            return result;
        }
    }
    sgpy_router *router = sgpy_server_router(limiter->server);
    sgpy_link *link = router == NULL ? NULL : find_link(ask, router);
    if (link == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    if (link->down != NULL) {
        size_t length;
        const char *text = why_down(link, &length);
        Py_INCREF(link);
        ask->link = link;
        result = result_without(ask, SG_UNSENT, text, length);
        sgpy_ask_free(ask);
        Py_DECREF(link);
        return result;
    }
    Py_INCREF(link);
    PyObject *made = PyObject_CallNoArgs(link->create_future);
    if (made != NULL) {
        ask->future = Py_NewRef(made);
        set_deadline(ask, link, limiter->timeout_ns);
        if (add(link, ask, &result) < 0) {
            sgpy_ask_free(ask);
            Py_CLEAR(made);
        } else if (result != NULL || PyErr_Occurred()) {
            Py_CLEAR(made); /* units had come meanwhile */
        }
    } else {
        sgpy_ask_free(ask);
    }
    Py_DECREF(link);
    *future = made;
    return result;
}

/* The decision of a disabled limiter, in the form that the operation has. */
static PyObject *disabled(sgpy_limiter *limiter, sg_check_op op, PyObject *key, bool details) {
    sgpy_outcome out;
    sgpy_admit(&out);
    PyObject *decision = sgpy_outcome_decision(limiter->state, limiter->quotas, &out);
    if (op == SG_HIT) {
        decision = sgpy_observed(limiter, key, decision);
    }
    if (decision == NULL || (op != SG_RESERVE && !details)) {
        return decision;
    }
    if (op == SG_RESERVE) {
        return Py_BuildValue("(NO)", decision, Py_None);
    }
    PyObject *remaining = PyTuple_New((Py_ssize_t)limiter->count);
    for (unsigned i = 0; remaining != NULL && i < limiter->count; i++) {
        PyTuple_SET_ITEM(remaining, (Py_ssize_t)i, Py_NewRef(Py_None));
    }
    if (remaining == NULL) {
        Py_DECREF(decision);
        return NULL;
    }
    return Py_BuildValue("(NIN)", decision, 0u, remaining);
}

/* What is drawn is spent without an ask being made of it. NULL: there is too little, or an
 * exception. */
static PyObject *spend_at_once(sgpy_limiter *limiter, PyObject *key, PyObject *cost) {
    uint64_t costs[SG_QUOTAS_MAX];
    sg_purse_state state;
    sgpy_key bytes;
    sgpy_plan *plan = sgpy_plan_of(limiter);
    if (plan == NULL || (cost != NULL && !PyLong_CheckExact(cost))) {
        return NULL; /* a mapping may run code: as any other */
    }
    costs[0] = 1;
    if ((cost != NULL && sgpy_cost_one(cost, costs) < 0) || sgpy_key_read(key, &bytes) < 0) {
        return NULL;
    }
    for (unsigned i = 1; i < limiter->count; i++) {
        costs[i] = costs[0];
    }
    (void)sgpy_plan_hold(plan);
    PyObject *quotas = Py_NewRef(limiter->quotas);
    const sg_fingerprint fp = sg_fingerprint_of(&limiter->server->table->secret, bytes.data,
                                                bytes.length);
    PyObject *decision = sgpy_spend(limiter, limiter->server, quotas, &plan->plan, key, &bytes, fp,
                                    costs, &state);
    Py_DECREF(quotas);
    sgpy_plan_release(plan);
    sgpy_key_done(&bytes);
    return decision;
}

PyObject *sgpy_ask_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas,
                       PyObject **delegate) {
    if (SG_UNLIKELY(!limiter->enabled)) {
        return disabled(limiter, SG_HIT, key, false);
    }
    if (limiter->lease > 0 && quotas == NULL) {
        PyObject *decision = spend_at_once(limiter, key, cost);
        if (decision != NULL || PyErr_Occurred()) {
            return decision;
        }
    }
    sgpy_ask *ask = check_new(limiter, SG_HIT, key, cost, quotas);
    return ask == NULL ? NULL : begin(ask, delegate);
}

/* 0, or -1 and RuntimeError where the limiter has no server. */
static int over_server(const sgpy_limiter *limiter) {
    if (limiter->server != NULL && limiter->table != NULL) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "this limiter has no server to ask");
    return -1;
}

PyObject *sgpy_limiter_ask(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"operation", "key", "cost", "quotas", "ttl", "detailed", NULL};
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *key, *cost = NULL, *quotas = NULL, *ttl = NULL, *future = NULL;
    int which, details = 0;
    sg_ticks ttl_ticks = 60 * SG_TICKS_PER_SECOND;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO|OOOi:_ask", names, &which, &key, &cost,
                                     &quotas, &ttl, &details) ||
        over_server(limiter) < 0 || (ttl != NULL && sgpy_seconds(ttl, "ttl", &ttl_ticks) < 0)) {
        return NULL;
    }
    if (which < SG_PEEK || which > SG_RESERVE) {
        PyErr_SetString(PyExc_ValueError, "an operation is 0 (peek), 1 (hit) or 2 (reserve)");
        return NULL;
    }
    const sg_check_op operation = (sg_check_op)which;
    if (!limiter->enabled) {
        return disabled(limiter, operation, key, (details & 1) != 0);
    }
    sgpy_ask *ask = check_new(limiter, operation, key, cost,
                              quotas == Py_None ? NULL : quotas);
    if (ask == NULL) {
        return NULL;
    }
    ask->request.ttl_us = operation == SG_RESERVE
                              ? (ttl_ticks + SG_TICKS_PER_US - 1) / SG_TICKS_PER_US : 0;
    ask->detailed = (details & 1) != 0;
    ask->quiet = (details & 2) != 0;
    PyObject *result = begin(ask, &future);
    return future != NULL ? future : result;
}

/* ---- hit_many */

static sgpy_many *many_new(Py_ssize_t count) {
    sgpy_many *many = PyMem_Calloc(1, sizeof *many);
    if (many == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    many->users = 1;
    many->left = count;
    many->list = PyList_New(count);
    if (many->list == NULL) {
        many_release(many);
        return NULL;
    }
    return many;
}

/* One of many that is known at once (stolen; NULL: an exception is set). */
static void keep_result(sgpy_many *many, Py_ssize_t index, PyObject *result) {
    PyObject *error = result == NULL ? take_exception() : NULL;
    many->left--;
    if (result != NULL) {
        PyList_SET_ITEM(many->list, index, result);
    } else if (many->error == NULL) {
        many->error = error;
    } else {
        Py_XDECREF(error);
    }
}

/* Begins one of many; -1 with an exception. */
static int begin_one(sgpy_many *many, Py_ssize_t index, sgpy_ask *ask, sgpy_router *router) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_link *link;
    PyObject *result = NULL;
    if (limiter->deny_ns > 0) {
        result = remembered(ask);
    }
    if (result == NULL && !PyErr_Occurred()) {
        link = find_link(ask, router);
        if (link == NULL) {
            sgpy_ask_free(ask);
            return -1;
        }
        Py_INCREF(link);
        ask->link = link;
        if (link->down == NULL) {
            set_deadline(ask, link, limiter->timeout_ns);
            ask->many = many;
            ask->index = index;
            many->users++;
            const int added = add(link, ask, &result);
            if (added < 0) {
                sgpy_ask_free(ask);
            }
            Py_DECREF(link);
            if (result != NULL || (added == 0 && PyErr_Occurred())) {
                keep_result(many, index, result);
            }
            return added;
        }
        size_t length;
        const char *text = why_down(link, &length);
        result = result_without(ask, SG_UNSENT, text, length);
        Py_DECREF(link);
    }
    sgpy_ask_free(ask);
    keep_result(many, index, result);
    return 0;
}

PyObject *sgpy_limiter_ask_many(PyObject *op, PyObject *given) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *pairs = NULL, *result = NULL;
    sgpy_ask **asks = NULL;
    sgpy_many *many = NULL;
    Py_ssize_t made = 0, begun = 0, count = 0;
    if (over_server(limiter) < 0 || (pairs = PySequence_Tuple(given)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(pairs);
    asks = PyMem_Calloc((size_t)count + 1, sizeof *asks);
    many = many_new(count);
    if (asks == NULL || many == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        goto done;
    }
    /* All are made before any is asked: a bad one charges nothing. */
    for (; made < count; made++) {
        PyObject *pair = PyTuple_GET_ITEM(pairs, made);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "hit_many takes tuples (key, cost)");
            goto done;
        }
        PyObject *key = PyTuple_GET_ITEM(pair, 0);
        if (!limiter->enabled) {
            PyObject *decision = disabled(limiter, SG_HIT, key, false);
            if (decision == NULL) {
                goto done;
            }
            PyList_SET_ITEM(many->list, made, decision);
            many->left--;
            continue;
        }
        asks[made] = check_new(limiter, SG_HIT, key, PyTuple_GET_ITEM(pair, 1), NULL);
        if (asks[made] == NULL) {
            goto done;
        }
    }
    sgpy_router *router = many->left == 0 ? NULL : sgpy_server_router(limiter->server);
    if (router == NULL && many->left > 0) {
        goto done;
    }
    Py_XINCREF(router);
    for (; begun < count; begun++) {
        sgpy_ask *ask = asks[begun];
        asks[begun] = NULL;
        if (ask != NULL && begin_one(many, begun, ask, router) < 0) {
            Py_XDECREF(router);
            goto done; /* those that were begun have a list, and nobody who waits for it */
        }
    }
    if (many->left == 0) {
        if (many->error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(many->error), many->error);
        } else {
            result = Py_NewRef(many->list);
        }
    } else {
        many->future = PyObject_CallMethod(router->loop, "create_future", NULL);
        result = Py_XNewRef(many->future);
    }
    Py_XDECREF(router);
done:
    for (Py_ssize_t i = 0; asks != NULL && i < count; i++) {
        if (asks[i] != NULL) {
            sgpy_ask_free(asks[i]);
        }
    }
    PyMem_Free(asks);
    many_release(many);
    Py_DECREF(pairs);
    return result;
}
