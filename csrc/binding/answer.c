/* What becomes of a check: of a server's answer the Decision, of a failure what the limiter's policy
 * says. */
#include "server.h"

#include <string.h>

#define DENIED_RETRY SG_TICKS_PER_SECOND /* what a refusal by policy says */

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
PyObject *sgpy_ask_result(const sgpy_ask *ask, const sgpy_outcome *out, PyObject *receipt) {
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
PyObject *sgpy_ask_result_without(sgpy_ask *ask, sg_failure failure, const char *text,
                                size_t length) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_outcome out;
    sg_receipt raw;
    PyObject *receipt = NULL;
    bool raise = false;
    /* Now, for the text may be gone when the store was told (logging may run any code). */
    PyObject *why = sgpy_ask_describe(ask, failure, text, length);
    if (why == NULL) {
        return NULL;
    }
    if (failure != SG_FOREIGN && !ask->unheard) {
        sgpy_server_failed(ask->server, why);
    }
    if (by_policy(ask, &out, &raw, &raise) < 0) {
        if (raise) {
            PyErr_SetObject(sgpy_store_error(ask->state), why);
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
    return sgpy_ask_result(ask, &out, receipt);
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
    PyObject *result = sgpy_ask_result(ask, &out, receipt);
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
        sgpy_ask_deliver(ask, sgpy_ask_result_without(ask, failure, text, length));
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
