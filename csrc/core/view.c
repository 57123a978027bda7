#include "view.h"

static void expire_log(sg_table *table, sg_log *log, sg_ticks now, sg_ticks period) {
    /* Of a clock that went on, entries are dropped at the head; else times may be cut. */
    if (log->length > 0 && sg_log_at(log, log->length - 1u)->at > now)
        sg_log_touch(&table->arena, log);
    else
        sg_touch(&table->arena, log, sizeof *log);
    sg_log_expire(log, now, period);
}

void sg_charge_log(sg_table *table, sg_log *log, sg_ticks now, sg_ticks period, uint64_t count) {
    if (log == NULL)
        return; /* of a damaged mapping */
    /* One entry more, behind those that count, or more in the last; a full log merges its own. */
    if (log->length == log->capacity) {
        sg_log_touch(&table->arena, log);
    } else {
        sg_touch(&table->arena, log, sizeof *log);
        if (log->length > 0)
            sg_touch(&table->arena, sg_log_at(log, log->length - 1u), sizeof(sg_log_entry));
    }
    sg_log_add(log, now, period, count);
}

void sg_look(sg_table *table, const sg_quota *quotas, sg_cell *cell, sg_ticks now, sg_view *v) {
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
                expire_log(table, v->log[i], now,
                           sg_max(quotas[i].period, table->quotas[i].period));
        }
    }
    const sg_record *record = cell == NULL ? NULL : sg_cell_record(table, cell);
    if (record != NULL)
        v->ban = sg_min(sg_ahead(record->ban_until, now), record->ban_length);
}

/* Field by field: a copy by wide loads would wait for the narrow stores just made. */
static inline void copy_verdict(sg_verdict *to, sg_verdict from) {
    to->allowed = from.allowed;
    to->level = from.level;
    to->retry = from.retry;
    to->reset = from.reset;
}

/* Whether the share used by a is larger than that used by b. */
static bool fuller(const sg_quota *qa, const sg_verdict *a, const sg_quota *qb,
                   const sg_verdict *b) {
    return (sg_u128)a->level * qb->capacity > (sg_u128)b->level * qa->capacity;
}

void sg_judge(const sg_table *table, const sg_quota *quotas, sg_view *v,
                  const uint64_t *costs, sg_ticks now, sg_decision *out) {
    unsigned refused = SG_NONE, fullest = SG_NONE;
    sg_ticks reset = v->ban;
    out->shadow = false;
    out->refusals = 0;
    out->binding = SG_NONE;
    v->charging = v->standing = 0;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        const sg_quota *q = &quotas[i];
        if (q->unlimited)
            continue;
        sg_verdict *verdict = &v->verdict[i];
        copy_verdict(verdict, sg_decide(q, &v->state[i], v->log[i], now, costs[i], &v->next[i]));
        out->level[i] = verdict->level;
        const unsigned bit = 1u << i;
        if (!verdict->allowed)
            out->refusals |= (uint8_t)bit;
        if (verdict->allowed && costs[i] > 0)
            v->charging |= bit;
        else
            v->standing |= bit;
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
    copy_verdict(&out->verdict, v->verdict[binding]);
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
    sg_ref ref;
    sg_status status = sg_table_alloc(table, fp, size, now, cell, &ref);
    if (status != SG_OK)
        return status;
    sg_log *log = sg_arena_at(&table->arena, ref);
    sg_log_init(log, capacity);
    if (old != NULL) {
        sg_log_copy(log, old);
        sg_arena_free(&table->arena, state.log.log, sg_log_bytes(old->capacity));
    }
    state.log.log = ref;
    sg_cell_set_state(table, *cell, i, &state);
    sg_commit(&table->arena);
    return SG_OK;
}

sg_status sg_prepare(sg_table *table, sg_fingerprint fp, unsigned charging, sg_ticks now,
                         sg_cell **cell) {
    bool inserted = *cell == NULL;
    sg_status status = SG_OK;
    if (inserted)
        status = sg_table_insert(table, fp, now, cell);
    if (status != SG_OK)
        return status;
    for (unsigned i = 0; table->layout.logs && i < table->layout.quotas; i++) {
        if ((charging >> i & 1u) && table->layout.algorithm[i] == SG_SLIDING_LOG) {
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

void sg_charge(sg_table *table, const sg_quota *quotas, sg_cell *cell, const sg_view *v,
               const uint64_t *costs, sg_ticks now) {
    for (unsigned left = v->charging; left != 0; left &= left - 1) {
        const unsigned i = (unsigned)__builtin_ctz(left);
        if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
            sg_state state = sg_cell_state(table, cell, i);
            sg_charge_log(table, sg_state_log(table, i, &state), now, quotas[i].period, costs[i]);
        } else {
            sg_cell_set_state(table, cell, i, &v->next[i]);
        }
    }
}

void sg_keep_cut(sg_table *table, sg_cell *cell, const sg_view *v) {
    for (unsigned left = cell == NULL ? 0 : v->standing; left != 0; left &= left - 1) {
        const unsigned i = (unsigned)__builtin_ctz(left);
        sg_cell_set_state(table, cell, i, &v->next[i]);
    }
}

sg_status sg_cell_for(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                          const uint64_t *costs, sg_ticks now, sg_cell **cell) {
    unsigned charging = 0;
    sg_table_know(table, quotas);
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (!quotas[i].unlimited && costs[i] > 0)
            charging |= 1u << i;
    }
    *cell = sg_table_find(table, fp);
    if (*cell != NULL) {
        sg_view v;
        sg_look(table, quotas, *cell, now, &v); /* expires the logs, so that they have room */
        sg_commit(&table->arena);
    }
    return sg_prepare(table, fp, charging, now, cell);
}

void sg_penalize_one(sg_table *table, const sg_quota *q, sg_cell *cell, unsigned i,
                         sg_ticks now, uint64_t cost) {
    sg_state state = sg_cell_state(table, cell, i);
    if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
        sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_charge_log(table, log, now, q->period,
                          sg_min(cost, sg_ahead(2 * q->limit, log->total)));
        return;
    }
    sg_penalize(q, &state, now, cost);
    sg_cell_set_state(table, cell, i, &state);
}

sg_status sg_record_of(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **cell,
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
        if (SG_UNLIKELY(*cell == NULL))
            return SG_NO_MEMORY; /* of a damaged mapping */
        if (status == SG_OK)
            status = sg_cell_mark(table, *cell, record);
    }
    if (status != SG_OK && inserted)
        sg_table_remove(table, *cell);
    return status;
}
