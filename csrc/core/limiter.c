#include "limiter.h"

#include <string.h>

/* In a receipt: this quota was not charged (a shadow quota that would have refused). */
#define NOT_CHARGED UINT64_MAX

/* The states of one key, copied out of its cell (or of one never seen), and what each
 * quota says of an event. */
typedef struct {
    sg_state state[SG_QUOTAS_MAX];
    sg_log *log[SG_QUOTAS_MAX];
    sg_state next[SG_QUOTAS_MAX];
    sg_verdict verdict[SG_QUOTAS_MAX];
    sg_ticks ban; /* ticks that a ban has still to run */
} view;

static void look(sg_table *table, const sg_quota *quotas, sg_cell *cell, sg_ticks now, view *v) {
    v->ban = 0;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        v->log[i] = NULL;
        if (cell == NULL) {
            v->state[i] = (sg_state){{0, 0, 0}};
            continue;
        }
        v->state[i] = sg_cell_state(table, cell, i);
        if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
            v->log[i] = sg_state_log(table, i, &v->state[i]);
            /* The longer of the periods in use: what another one counts must stay. */
            if (v->log[i] != NULL)
                sg_log_expire(v->log[i], now, sg_max(quotas[i].period, table->quotas[i].period));
        }
    }
    const sg_record *record = cell == NULL ? NULL : sg_cell_record(table, cell);
    if (record != NULL)
        v->ban = sg_min(sg_ahead(record->ban_until, now), record->ban_length);
}

/* Whether the share used by a is larger than that used by b. */
static bool fuller(const sg_quota *qa, const sg_verdict *a, const sg_quota *qb,
                   const sg_verdict *b) {
    return (sg_u128)a->level * qb->capacity > (sg_u128)b->level * qa->capacity;
}

/* What all quotas together say of an event. */
static void judge(const sg_table *table, const sg_quota *quotas, view *v,
                  const uint64_t *costs, sg_ticks now, sg_decision *out) {
    unsigned refused = SG_NONE, fullest = SG_NONE;
    sg_ticks reset = v->ban;
    *out = (sg_decision){.binding = SG_NONE};
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_quota *q = &quotas[i];
        if (q->unlimited)
            continue;
        sg_verdict *verdict = &v->verdict[i];
        *verdict = sg_decide(q, &v->state[i], v->log[i], now, costs[i], &v->next[i]);
        if (!verdict->allowed)
            out->refusals |= (uint8_t)(1u << i);
        if (q->shadow) {
            out->shadow |= !verdict->allowed;
            continue;
        }
        reset = sg_max(reset, verdict->reset);
        if (!verdict->allowed && (refused == SG_NONE || verdict->retry > v->verdict[refused].retry))
            refused = i;
        if (fullest == SG_NONE || fuller(q, verdict, &quotas[fullest], &v->verdict[fullest]))
            fullest = i;
    }
    out->allowed = refused == SG_NONE && v->ban == 0;
    if (v->ban > 0 && (refused == SG_NONE || v->ban >= v->verdict[refused].retry)) {
        out->binding = SG_BANNED;
        out->verdict = (sg_verdict){.retry = v->ban, .reset = reset};
        return;
    }
    unsigned binding = refused != SG_NONE ? refused : fullest;
    if (binding == SG_NONE) {
        out->verdict = (sg_verdict){.allowed = true};
        return;
    }
    out->binding = (uint8_t)binding;
    out->verdict = v->verdict[binding];
}

/* Whether quota i is charged for an event that was admitted. */
static inline bool is_charged(const sg_quota *quotas, const sg_decision *decision,
                              const uint64_t *costs, unsigned i) {
    return !quotas[i].unlimited && costs[i] > 0 && !((decision->refusals >> i) & 1u);
}

/* Makes the log of quota i able to take one entry more. May move cells: *cell follows. */
static sg_status prepare_log(sg_table *table, sg_fingerprint fp, unsigned i, sg_ticks now,
                             sg_cell **cell) {
    sg_state state = sg_cell_state(table, *cell, i);
    sg_log *old = sg_state_log(table, i, &state);
    if (old != NULL && !sg_log_must_grow(old))
        return SG_OK;
    unsigned capacity = old == NULL ? SG_LOG_MIN : old->capacity * 2u;
    size_t size = sg_log_bytes(capacity);
    sg_ref ref = sg_arena_alloc(&table->arena, size);
    if (ref == 0) {
        if (sg_arena_has_room(&table->arena, size))
            return SG_NO_MEMORY;
        sg_status status = sg_table_make_room(table, fp, size, now);
        if (status != SG_OK)
            return status;
        *cell = sg_table_find(table, fp);
        ref = sg_arena_alloc(&table->arena, size);
        if (ref == 0)
            return SG_NO_MEMORY;
    }
    sg_log *log = sg_arena_at(&table->arena, ref);
    sg_log_init(log, capacity);
    if (old != NULL) {
        sg_log_copy(log, old);
        sg_arena_free(&table->arena, state.log.log, sg_log_bytes(old->capacity));
    }
    state.log.log = ref;
    sg_cell_set_state(table, *cell, i, &state);
    return SG_OK;
}

/* All memory that charging needs, before anything is charged. A cell that this made and
 * that stays without a charge is forgotten again. */
static sg_status prepare(sg_table *table, sg_fingerprint fp, const bool *charged, sg_ticks now,
                         sg_cell **cell) {
    bool inserted = *cell == NULL;
    sg_status status = SG_OK;
    if (inserted)
        status = sg_table_insert(table, fp, now, cell);
    if (status != SG_OK)
        return status;
    for (unsigned i = 0; table->layout.logs && i < table->layout.quotas; i++) {
        if (charged[i] && table->layout.algorithm[i] == SG_SLIDING_LOG) {
            status = prepare_log(table, fp, i, now, cell);
            if (status != SG_OK) {
                if (inserted)
                    sg_table_remove(table, *cell);
                return status;
            }
        }
    }
    return SG_OK;
}

static void charge(sg_table *table, const sg_quota *quotas, sg_cell *cell, const view *v,
                   const sg_decision *decision, const uint64_t *costs, sg_ticks now) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (!is_charged(quotas, decision, costs, i))
            continue;
        if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
            sg_state state = sg_cell_state(table, cell, i);
            sg_log_add(sg_state_log(table, i, &state), now, quotas[i].period, costs[i]);
        } else {
            sg_cell_set_state(table, cell, i, &v->next[i]);
        }
    }
}

/* A refusal charges nothing, but a state that a clock's step left too far ahead is cut for
 * good; else it would hold until the clock is back where it was. */
static void keep_cut(sg_table *table, const sg_quota *quotas, sg_cell *cell, const view *v) {
    for (unsigned i = 0; cell != NULL && i < table->layout.quotas; i++) {
        if (!quotas[i].unlimited && !v->verdict[i].allowed)
            sg_cell_set_state(table, cell, i, &v->next[i]);
    }
}

static sg_status hit_any(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                         sg_cell *cell, const uint64_t *costs, sg_ticks now,
                         sg_decision *out) {
    view v;
    sg_table_know(table, quotas);
    if (cell != NULL)
        sg_cell_tidy(table, cell, now);
    look(table, quotas, cell, now, &v);
    judge(table, quotas, &v, costs, now, out);
    if (!out->allowed) {
        keep_cut(table, quotas, cell, &v);
        return SG_OK;
    }
    bool charged[SG_QUOTAS_MAX] = {false}, any = false;
    for (unsigned i = 0; i < table->layout.quotas; i++)
        any |= charged[i] = is_charged(quotas, out, costs, i);
    if (!any)
        return SG_OK;
    sg_status status = SG_OK;
    if (cell == NULL || table->layout.logs)
        status = prepare(table, fp, charged, now, &cell);
    if (status == SG_OK)
        charge(table, quotas, cell, &v, out, costs, now);
    return status;
}

sg_status sg_hit(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                 const uint64_t *costs, sg_ticks now, sg_decision *out) {
    sg_cell *cell = sg_table_find(table, fp);
    /* The usual case, on the same rule: one gcra quota, a key that is known and unmarked. */
    if (SG_LIKELY(table->layout.quotas == 1 && quotas[0].algorithm == SG_GCRA && cell != NULL &&
                  !(cell->hi & SG_CELL_MARKED) && !quotas[0].shadow && !quotas[0].unlimited)) {
        sg_state state, next;
        state.gcra.tat = cell->words[0];
        out->verdict = sg_decide_gcra(&quotas[0], &state, now, costs[0], &next);
        out->allowed = out->verdict.allowed;
        out->shadow = false;
        out->binding = 0;
        out->refusals = !out->allowed;
        cell->words[0] = next.gcra.tat;
        return SG_OK;
    }
    return hit_any(table, quotas, fp, cell, costs, now, out);
}

void sg_peek(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
             const uint64_t *costs, sg_ticks now, sg_decision *out) {
    view v;
    sg_table_know(table, quotas);
    look(table, quotas, sg_table_find(table, fp), now, &v);
    judge(table, quotas, &v, costs, now, out);
}

/* ---- what would be ---- */

/* The view's logs, copied so that a projection can add to them. */
static sg_status copy_logs(sg_table *table, view *v, sg_ref copies[SG_QUOTAS_MAX]) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (table->layout.algorithm[i] != SG_SLIDING_LOG)
            continue;
        size_t size = sg_log_bytes(SG_LOG_MAX);
        void *memory = table->arena.allocator.alloc(table->arena.allocator.context, size);
        if (memory == NULL)
            return SG_NO_MEMORY;
        sg_log *copy = memory;
        copies[i] = (sg_ref)(uintptr_t)memory;
        sg_log_init(copy, SG_LOG_MAX);
        if (v->log[i] != NULL)
            sg_log_copy(copy, v->log[i]);
        v->log[i] = copy;
    }
    return SG_OK;
}

static void free_copies(sg_table *table, const sg_ref copies[SG_QUOTAS_MAX]) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (copies[i] != 0)
            table->arena.allocator.free(table->arena.allocator.context,
                                        (void *)(uintptr_t)copies[i], sg_log_bytes(SG_LOG_MAX));
    }
}

/* Charges the view itself. */
static void charge_view(const sg_table *table, const sg_quota *quotas, view *v,
                        const sg_decision *decision, const uint64_t *costs, sg_ticks at) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (!is_charged(quotas, decision, costs, i))
            continue;
        if (v->log[i] != NULL)
            sg_log_add(v->log[i], at, quotas[i].period, costs[i]);
        else
            v->state[i] = v->next[i];
    }
}

sg_status sg_project(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, size_t events, sg_ticks now, sg_ticks *wait) {
    view v;
    sg_ref copies[SG_QUOTAS_MAX] = {0};
    sg_table_know(table, quotas);
    look(table, quotas, sg_table_find(table, fp), now, &v);
    sg_status status = copy_logs(table, &v, copies);
    sg_ticks at = now + v.ban;
    v.ban = 0;
    *wait = SG_NEVER;
    for (size_t event = 0; status == SG_OK && event < events; event++) {
        const uint64_t *row = costs + event * table->layout.quotas;
        sg_decision decision;
        for (;;) {
            if (at > SG_CLOCK_MAX)
                goto done;
            for (unsigned i = 0; i < table->layout.quotas; i++) {
                if (v.log[i] != NULL)
                    sg_log_expire(v.log[i], at, quotas[i].period);
            }
            judge(table, quotas, &v, row, at, &decision);
            if (decision.allowed)
                break;
            if (decision.verdict.retry == SG_NEVER)
                goto done;
            at += decision.verdict.retry;
        }
        charge_view(table, quotas, &v, &decision, row, at);
    }
    if (status == SG_OK)
        *wait = at - now;
done:
    free_copies(table, copies);
    return status;
}

/* ---- charges and gifts without a decision ---- */

/* The key's cell, with memory for a charge of `costs` to each limited quota. */
static sg_status cell_for(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                          const uint64_t *costs, sg_ticks now, sg_cell **cell) {
    bool charged[SG_QUOTAS_MAX] = {false};
    sg_table_know(table, quotas);
    for (unsigned i = 0; i < table->layout.quotas; i++)
        charged[i] = !quotas[i].unlimited && costs[i] > 0;
    *cell = sg_table_find(table, fp);
    if (*cell != NULL) {
        view v;
        look(table, quotas, *cell, now, &v); /* expires the logs, so that they have room */
    }
    return prepare(table, fp, charged, now, cell);
}

static void penalize_one(sg_table *table, const sg_quota *q, sg_cell *cell, unsigned i,
                         sg_ticks now, uint64_t cost) {
    sg_state state = sg_cell_state(table, cell, i);
    if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
        sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_log_add(log, now, q->period, sg_min(cost, sg_ahead(2 * q->limit, log->total)));
        return;
    }
    sg_penalize(q, &state, now, cost);
    sg_cell_set_state(table, cell, i, &state);
}

sg_status sg_limiter_penalize(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                              const uint64_t *costs, sg_ticks now) {
    sg_cell *cell;
    sg_status status = cell_for(table, quotas, fp, costs, now, &cell);
    for (unsigned i = 0; status == SG_OK && i < table->layout.quotas; i++) {
        if (!quotas[i].unlimited && costs[i] > 0)
            penalize_one(table, &quotas[i], cell, i, now, costs[i]);
    }
    return status;
}

void sg_limiter_reward(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                       const uint64_t *costs, sg_ticks now) {
    sg_cell *cell = sg_table_find(table, fp);
    view v;
    if (cell == NULL)
        return;
    look(table, quotas, cell, now, &v);
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (quotas[i].unlimited)
            continue;
        if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
            if (v.log[i] != NULL)
                sg_log_take_newest(v.log[i], costs[i]);
            continue;
        }
        sg_reward(&quotas[i], &v.state[i], now, costs[i]);
        sg_cell_set_state(table, cell, i, &v.state[i]);
    }
}

void sg_limiter_reset(sg_table *table, sg_fingerprint fp) {
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        sg_table_remove(table, cell);
}

/* ---- bans ---- */

/* The record of a key, made with its cell where there is none. */
static sg_status record_of(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **cell,
                           sg_record **record) {
    const size_t size = sizeof(sg_record);
    bool inserted = *cell == NULL;
    if (inserted) {
        sg_status status = sg_table_insert(table, fp, now, cell);
        if (status != SG_OK)
            return status;
    }
    sg_status status = sg_cell_mark(table, *cell, record);
    if (status == SG_FULL) {
        status = sg_table_make_room(table, fp, size, now);
        *cell = sg_table_find(table, fp);
        if (status == SG_OK)
            status = sg_cell_mark(table, *cell, record);
    }
    if (status != SG_OK && inserted)
        sg_table_remove(table, *cell);
    return status;
}

sg_status sg_limiter_ban(sg_table *table, sg_fingerprint fp, sg_ticks length, sg_ticks now) {
    sg_record *record;
    sg_cell *cell = sg_table_find(table, fp);
    sg_status status = record_of(table, fp, now, &cell, &record);
    if (status == SG_OK) {
        record->ban_until = now + length;
        record->ban_length = length;
    }
    return status;
}

void sg_limiter_unban(sg_table *table, sg_fingerprint fp, sg_ticks now) {
    sg_cell *cell = sg_table_find(table, fp);
    sg_record *record = cell == NULL ? NULL : sg_cell_record(table, cell);
    if (record == NULL)
        return;
    record->ban_until = 0;
    sg_cell_tidy(table, cell, now);
}

/* ---- reservations ---- */

sg_status sg_reserve(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, sg_ticks ttl, sg_ticks now, sg_decision *out,
                     sg_receipt *receipt) {
    view v;
    sg_record *record;
    bool charged[SG_QUOTAS_MAX] = {false};
    sg_table_know(table, quotas);
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        sg_cell_tidy(table, cell, now);
    look(table, quotas, cell, now, &v);
    judge(table, quotas, &v, costs, now, out);
    memset(receipt, 0, sizeof *receipt);
    if (!out->allowed) {
        keep_cut(table, quotas, cell, &v);
        return SG_OK;
    }
    for (unsigned i = 0; i < table->layout.quotas; i++)
        charged[i] = is_charged(quotas, out, costs, i);
    bool known = cell != NULL;
    sg_status status = prepare(table, fp, charged, now, &cell);
    if (status != SG_OK)
        return status;
    status = record_of(table, fp, now, &cell, &record);
    if (status != SG_OK) {
        if (!known)
            sg_table_remove(table, cell);
        return status;
    }
    charge(table, quotas, cell, &v, out, costs, now);
    if (record->open++ == 0) {
        record->generation = ++table->generation;
        record->pinned_until = 0;
    }
    record->pinned_until = sg_max(record->pinned_until, now + ttl);
    receipt->fp = fp;
    receipt->generation = record->generation;
    receipt->lapses = now + ttl;
    receipt->open = true;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        bool refused = (out->refusals >> i) & 1u;
        receipt->cost[i] = quotas[i].unlimited || refused ? NOT_CHARGED : costs[i];
        receipt->mark[i] =
            table->layout.algorithm[i] == SG_SLIDING_LOG ? now : sg_mark(&quotas[i], &v.next[i]);
    }
    return SG_OK;
}

static void refund_one(sg_table *table, const sg_quota *q, sg_cell *cell, unsigned i,
                       sg_ticks now, uint64_t mark, uint64_t units) {
    sg_state state = sg_cell_state(table, cell, i);
    if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
        sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_log_take_at(log, now, q->period, mark, units);
        return;
    }
    sg_refund(q, &state, now, mark, units);
    sg_cell_set_state(table, cell, i, &state);
}

sg_status sg_settle(sg_table *table, const sg_quota *quotas, sg_receipt *receipt,
                    const uint64_t *costs, sg_ticks now) {
    uint64_t more[SG_QUOTAS_MAX] = {0};
    bool any = false;
    if (!receipt->open)
        return SG_OK;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (receipt->cost[i] != NOT_CHARGED && costs[i] > receipt->cost[i]) {
            more[i] = costs[i] - receipt->cost[i];
            any = true;
        }
    }
    sg_cell *cell = sg_table_find(table, receipt->fp);
    if (any) {
        sg_status status = cell_for(table, quotas, receipt->fp, more, now, &cell);
        if (status != SG_OK)
            return status;
    }
    receipt->open = false;
    if (cell == NULL)
        return SG_OK;
    view v;
    look(table, quotas, cell, now, &v); /* cuts and expires the logs */
    sg_record *record = sg_cell_record(table, cell);
    bool held = record != NULL && record->open > 0 && record->generation == receipt->generation;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (quotas[i].unlimited || receipt->cost[i] == NOT_CHARGED)
            continue;
        if (more[i] > 0)
            penalize_one(table, &quotas[i], cell, i, now, more[i]);
        else if (held && now < receipt->lapses && costs[i] < receipt->cost[i])
            refund_one(table, &quotas[i], cell, i, now, receipt->mark[i],
                       receipt->cost[i] - costs[i]);
    }
    if (held) {
        record->open--;
        sg_cell_tidy(table, cell, now);
    }
    return SG_OK;
}
