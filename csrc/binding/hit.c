/* The hit: the one path that everything else is measured by. */
#include "shared.h"

#include <string.h>

static void admit_or_refuse(sgpy_outcome *out, bool admit) {
    memset(&out->decision, 0, sizeof out->decision);
    out->decision.binding = SG_NONE;
    out->flags = SGPY_DEGRADED;
    if (admit) {
        out->decision.allowed = true;
        out->flags |= SGPY_ALLOWED;
    } else {
        out->decision.verdict.retry = out->decision.verdict.reset = SG_TICKS_PER_SECOND;
    }
}

/* What on_full says. The table was left. */
static int full(sgpy_table *table, sg_status status, sgpy_outcome *out) {
    if (!sgpy_is_full(table, status)) {
        PyErr_NoMemory();
        return -1;
    }
    if (table->on_full == SGPY_RAISE) {
        PyErr_SetString(table->state->StoreFullError,
                        "the store is full of bans, reservations or held slots: raise its "
                        "max_keys, max_bytes or size, or set on_full");
        return -1;
    }
    admit_or_refuse(out, table->on_full == SGPY_ALLOW);
    return 0;
}

/* Leaves an entered table after a status other than SG_OK. */
static int leave_full(sgpy_table *table, sg_status status, sgpy_outcome *out) {
    if (sgpy_is_full(table, status)) {
        sg_count(&sgpy_counts(table)->full, 1);
    }
    sgpy_leave(table);
    return full(table, status, out);
}

/* What a check comes to whose shard a stopped process has: on_store_error. */
static int stalled(sgpy_limiter *limiter, const sg_quota *rows, sg_fingerprint fp,
                   const uint64_t *costs, sg_ticks now, bool charge, sgpy_outcome *out) {
    sgpy_table *local = limiter->local;
    sg_status status = SG_OK;
    if (limiter->policy == SGPY_POLICY_RAISE) {
        sgpy_raise_stalled(limiter->table);
        return -1;
    }
    if (limiter->policy != SGPY_POLICY_LOCAL || local == NULL) {
        admit_or_refuse(out, limiter->policy == SGPY_POLICY_ALLOW);
        return 0;
    }
    if (charge) {
        status = sg_hit(&local->core, rows, fp, costs, now, &out->decision);
    } else {
        sg_peek(&local->core, rows, fp, costs, now, &out->decision);
    }
    if (status != SG_OK) {
        return full(local, status, out);
    }
    sgpy_set_flags(limiter, out);
    out->flags |= SGPY_DEGRADED;
    return 0;
}

static int stalled_event(const sgpy_event *event, bool charge, sgpy_outcome *out) {
    return stalled(event->limiter, event->rows, event->fp, event->costs, event->now, charge, out);
}

/* The flags of a decision; that of a shadow limiter is turned to an admission. */
void sgpy_set_flags(const sgpy_limiter *limiter, sgpy_outcome *out) {
    sg_decision *decision = &out->decision;
    const bool turned = !decision->allowed && limiter->shadow;
    if (turned) {
        decision->allowed = true;
        decision->verdict.allowed = true;
        decision->verdict.retry = 0;
    }
    out->flags = (decision->allowed ? SGPY_ALLOWED : 0u) | (turned ? SGPY_TURNED : 0u) |
                 (turned || decision->shadow ? SGPY_SHADOW : 0u) |
                 (decision->binding == SG_NONE ? SGPY_UNLIMITED : 0u);
}

/* A disabled limiter admits all. */
void sgpy_admit(sgpy_outcome *out) {
    memset(&out->decision, 0, sizeof out->decision);
    out->decision.allowed = true;
    out->decision.binding = SG_NONE;
    out->flags = SGPY_ALLOWED | SGPY_UNLIMITED;
}

/* Counts what the flags say, of an entered table; `hot` is counted apart. */
static void tally(sgpy_table *table, sg_fingerprint fp, const char *name, size_t length,
                  sg_ticks now, const sgpy_outcome *out) {
    sg_counts *counts = sgpy_counts(table);
    sg_count(&counts->shadow_refused, (out->flags & SGPY_SHADOW) != 0);
    if (out->flags & SGPY_ALLOWED) {
        sg_count(&counts->admitted, 1);
        return;
    }
    sg_count(&counts->refused, 1);
    sg_count(&counts->banned, out->decision.binding == SG_BANNED);
    sgpy_count_key(table, true, fp, name, length, now);
}

void sgpy_count(const sgpy_event *event, const sgpy_outcome *out) {
    sgpy_table *table = event->table;
    if (!event->limiter->enabled || (out->flags & SGPY_DEGRADED) ||
        sgpy_enter(table, event->fp) == NULL) {
        return; /* counts nothing; was counted as full, or as degraded */
    }
    sgpy_count_key(table, false, event->fp, event->key.data, event->key.length, event->now);
    tally(table, event->fp, event->key.data, event->key.length, event->now, out);
    sgpy_leave(table);
}

void sgpy_count_elsewhere(sgpy_table *table, sg_fingerprint fp, const char *name, size_t length,
                          const sgpy_outcome *out) {
    sg_ticks now;
    (void)sgpy_table_now(table, &now); /* the real clock: it cannot fail */
    sgpy_count_key(table, false, fp, name, length, now);
    tally(table, fp, name, length, now, out);
}

static inline int charge(sgpy_limiter *limiter, const sg_quota *rows, sg_fingerprint fp,
                         const char *name, size_t length, const uint64_t *costs, sg_ticks now,
                         sgpy_outcome *out) {
    sgpy_table *table = limiter->table;
    if (SG_UNLIKELY(!limiter->enabled)) {
        sgpy_admit(out);
        return 0;
    }
    sg_table *core = sgpy_enter_at(table, fp, &now);
    if (SG_UNLIKELY(core == NULL)) {
        return stalled(limiter, rows, fp, costs, now, true, out);
    }
    const sg_status status = sg_hit(core, rows, fp, costs, now, &out->decision);
    if (SG_UNLIKELY(status != SG_OK)) {
        return leave_full(table, status, out);
    }
    sgpy_count_key(table, false, fp, name, length, now);
    if (SG_LIKELY(out->decision.allowed && !out->decision.shadow &&
                  out->decision.binding < SG_QUOTAS_MAX)) {
        sg_count(&sgpy_counts(table)->admitted, 1);
        out->flags = SGPY_ALLOWED;
    } else {
        sgpy_set_flags(limiter, out);
        tally(table, fp, name, length, now, out);
    }
    sgpy_leave(table);
    return 0;
}

int sgpy_charge(sgpy_limiter *limiter, const sg_quota *rows, sg_fingerprint fp, const char *name,
                size_t length, const uint64_t *costs, sg_ticks now, sgpy_outcome *out) {
    return charge(limiter, rows, fp, name, length, costs, now, out);
}

int sgpy_look(const sgpy_event *event, sgpy_outcome *out) {
    if (!event->limiter->enabled) {
        sgpy_admit(out);
        return 0;
    }
    sg_ticks now = event->now;
    sg_table *core = sgpy_enter_at(event->table, event->fp, &now);
    if (SG_UNLIKELY(core == NULL)) {
        return stalled_event(event, false, out);
    }
    sg_peek(core, event->rows, event->fp, event->costs, now, &out->decision);
    sgpy_leave(event->table);
    sgpy_set_flags(event->limiter, out);
    return 0;
}

int sgpy_reserve_uncounted(const sgpy_event *event, sg_ticks ttl, sgpy_outcome *out,
                           sg_receipt *receipt) {
    memset(receipt, 0, sizeof *receipt);
    if (!event->limiter->enabled) {
        sgpy_admit(out);
        return 0;
    }
    sg_ticks now = event->now;
    sg_table *core = sgpy_enter_at(event->table, event->fp, &now);
    if (SG_UNLIKELY(core == NULL)) {
        return stalled_event(event, true, out); /* charged like a hit, with nothing to settle */
    }
    const sg_status status = sg_reserve(core, event->rows, event->fp, event->costs, ttl,
                                        now, &out->decision, receipt);
    if (status != SG_OK) {
        return leave_full(event->table, status, out);
    }
    sgpy_leave(event->table);
    sgpy_set_flags(event->limiter, out);
    return 0;
}

int sgpy_charge_uncounted(const sgpy_event *event, sgpy_outcome *out) {
    if (!event->limiter->enabled) {
        sgpy_admit(out);
        return 0;
    }
    sg_ticks now = event->now;
    sg_table *core = sgpy_enter_at(event->table, event->fp, &now);
    if (SG_UNLIKELY(core == NULL)) {
        return stalled_event(event, true, out);
    }
    const sg_status status = sg_hit(core, event->rows, event->fp, event->costs, now,
                                    &out->decision);
    if (status != SG_OK) {
        return leave_full(event->table, status, out);
    }
    sgpy_leave(event->table);
    sgpy_set_flags(event->limiter, out);
    return 0;
}

static void settle(const sgpy_event *event, sg_receipt *receipt, const uint64_t *costs) {
    sg_ticks now = event->now;
    sg_table *core = sgpy_enter_at(event->table, event->fp, &now);
    if (core != NULL) {
        (void)sg_settle(core, event->rows, receipt, costs, now);
        sgpy_leave(event->table);
    }
}

void sgpy_refund(const sgpy_event *event, sg_receipt *receipt) {
    const uint64_t none[SG_QUOTAS_MAX] = {0};
    settle(event, receipt, none);
}

void sgpy_keep(const sgpy_event *event, sg_receipt *receipt) {
    settle(event, receipt, event->costs);
}

int sgpy_reserve(const sgpy_event *event, sg_ticks ttl, sgpy_outcome *out, sg_receipt *receipt) {
    if (sgpy_reserve_uncounted(event, ttl, out, receipt) < 0) {
        return -1;
    }
    sgpy_count(event, out);
    return 0;
}

static inline PyObject *make(sgpy_state *st, PyObject *quotas, const sgpy_outcome *out) {
    const unsigned binding = out->decision.binding;
    PyObject *quota = binding < SG_QUOTAS_MAX ? PyTuple_GET_ITEM(quotas, binding) : NULL;
    return sgpy_decision_new(st, out->flags, quota, out->decision.verdict.level,
                             out->decision.verdict.retry, out->decision.verdict.reset);
}

PyObject *sgpy_outcome_decision(sgpy_state *st, PyObject *quotas, const sgpy_outcome *outcome) {
    return make(st, quotas, outcome);
}

PyObject *sgpy_observed(sgpy_limiter *limiter, PyObject *key, PyObject *decision) {
    PyObject *observer = limiter->state->observer;
    if (SG_LIKELY(observer == NULL) || decision == NULL) {
        return decision;
    }
    Py_INCREF(observer);
    PyObject *result = PyObject_CallFunctionObjArgs(observer, (PyObject *)limiter, key, decision,
                                                    NULL);
    Py_DECREF(observer);
    if (result == NULL) {
        Py_CLEAR(decision);
    }
    Py_XDECREF(result);
    return decision;
}

/* Any key, any cost, any clock; over a server, what the limiter's class makes of it. */
static PyObject *hit_any(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas) {
    if (limiter->server != NULL) {
        PyObject *method = PyObject_GetAttrString((PyObject *)limiter, "_hit_elsewhere");
        if (method != NULL) {
            PyObject *one = cost == NULL ? PyLong_FromLong(1) : Py_NewRef(cost);
            PyObject *made = one == NULL ? NULL
                                         : PyObject_CallFunctionObjArgs(
                                               method, key, one, quotas == NULL ? Py_None : quotas,
                                               NULL);
            Py_XDECREF(one);
            Py_DECREF(method);
            return made;
        }
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    sg_quota rows[SG_QUOTAS_MAX];
    sgpy_event event;
    sgpy_outcome out;
    PyObject *decision = NULL;
    if (sgpy_event_begin_with(&event, limiter, key, cost, quotas, rows) < 0) {
        return NULL;
    }
    if (charge(limiter, event.rows, event.fp, event.key.data, event.key.length, event.costs,
               event.now, &out) == 0) {
        decision = make(limiter->state, event.quotas, &out);
    }
    sgpy_tell(event.table);
    sgpy_event_end(&event);
    return sgpy_observed(limiter, key, decision);
}

/* The cost of a usual call, none or an int, as a row; 0 for another, which may run Python
 * code, and -1 with an exception for an int that is no cost. */
static inline int usual_cost(const sgpy_limiter *limiter, PyObject *cost, uint64_t *row,
                             const uint64_t **costs) {
    if (SG_LIKELY(cost == NULL)) {
        *costs = sgpy_ones;
        return 1;
    }
    if (!PyLong_CheckExact(cost)) {
        return 0;
    }
    if (sgpy_cost_one(cost, row) < 0) {
        return -1;
    }
    for (unsigned i = 1; i < limiter->count; i++) {
        row[i] = row[0];
    }
    *costs = row;
    return 1;
}

/* A hit by a key whose bytes and fingerprint are known; runs Python code only in the end. */
static inline PyObject *hit_known(sgpy_limiter *limiter, PyObject *key, sg_fingerprint fp,
                                  const char *name, size_t length, const uint64_t *costs) {
    sgpy_outcome out;
    sg_ticks now;
    (void)sgpy_table_now(limiter->table, &now);
    if (SG_UNLIKELY(charge(limiter, limiter->rows, fp, name, length, costs, now, &out) < 0)) {
        sgpy_tell(limiter->table);
        return NULL;
    }
    PyObject *decision = make(limiter->state, limiter->quotas, &out);
    sgpy_tell(limiter->table);
    return SG_LIKELY(limiter->state->observer == NULL) ? decision
                                                       : sgpy_observed(limiter, key, decision);
}

/* Makes `key` the limiter's hot one: who sends much sends one object again and again, and
 * it is hashed once. False for what is not worth it, or no key. Runs no Python code. */
static bool remember(sgpy_limiter *limiter, PyObject *key) {
    sgpy_key bytes;
    if (!PyUnicode_CheckExact(key) && !PyBytes_CheckExact(key)) {
        return false;
    }
    if (sgpy_key_read(key, &bytes) < 0) {
        PyErr_Clear();
        return false;
    }
    if (bytes.length > SGPY_HOT_MAX || bytes.owned != NULL) {
        sgpy_key_done(&bytes);
        return false;
    }
    PyObject *old = limiter->hot_key;
    limiter->hot_fp = sg_fingerprint_of(&limiter->table->secret, bytes.data, bytes.length);
    limiter->hot_name = bytes.data;
    limiter->hot_length = bytes.length;
    limiter->hot_key = Py_NewRef(key);
    Py_XDECREF(old); /* an exact str or bytes, whose end runs no Python code */
    return true;
}

PyObject *sgpy_hit(sgpy_limiter *limiter, PyObject *key, PyObject *cost, PyObject *quotas) {
    uint64_t row[SG_QUOTAS_MAX];
    const uint64_t *costs;
    if (SG_UNLIKELY(!sgpy_is_usual(limiter) || quotas != NULL)) {
        return hit_any(limiter, key, cost, quotas);
    }
    const int usual = usual_cost(limiter, cost, row, &costs);
    if (SG_UNLIKELY(usual < 0)) {
        return NULL;
    }
    if (SG_UNLIKELY(!usual || (key != limiter->hot_key && !remember(limiter, key)))) {
        return hit_any(limiter, key, cost, quotas);
    }
    return hit_known(limiter, key, limiter->hot_fp, limiter->hot_name, limiter->hot_length, costs);
}

PyObject *sgpy_hit_prepared(sgpy_limiter *limiter, sgpy_prepared *prepared, PyObject *cost) {
    uint64_t row[SG_QUOTAS_MAX];
    const uint64_t *costs;
    if (SG_UNLIKELY(!sgpy_is_usual(limiter))) {
        return hit_any(limiter, prepared->object, cost, NULL);
    }
    const int usual = usual_cost(limiter, cost, row, &costs);
    if (SG_UNLIKELY(usual < 0)) {
        return NULL;
    }
    if (SG_UNLIKELY(!usual)) {
        return hit_any(limiter, prepared->object, cost, NULL);
    }
    return hit_known(limiter, prepared->object, sgpy_prepared_fp(prepared, limiter->table),
                     prepared->key.data, prepared->key.length, costs);
}
