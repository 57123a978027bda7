#include "limiter.h"

#include "claims.h"
#include "view.h"

static sg_status hit_any(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                         sg_cell *cell, const uint64_t *costs, sg_ticks now,
                         sg_decision *out) {
    sg_view v;
    sg_table_know(table, quotas);
    if (cell != NULL)
        sg_cell_tidy(table, cell, now);
    sg_look(table, quotas, cell, now, &v);
    sg_judge(table, quotas, &v, costs, now, out);
    sg_keep_cut(table, cell, &v);
    sg_commit(&table->arena); /* what only cut and forgot stands, so that notes do not pile up */
    if (!out->allowed || v.charging == 0)
        return SG_OK;
    if (cell == NULL || table->layout.logs) {
        sg_status status = sg_prepare(table, fp, v.charging, now, &cell);
        if (status != SG_OK)
            return status;
    }
    sg_charge(table, quotas, cell, &v, costs, now);
    return SG_OK;
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
        out->level[0] = out->verdict.level;
        cell->words[0] = next.gcra.tat;
        return SG_OK;
    }
    return hit_any(table, quotas, fp, cell, costs, now, out);
}

void sg_peek(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
             const uint64_t *costs, sg_ticks now, sg_decision *out) {
    static const uint64_t nothing[SG_QUOTAS_MAX];
    sg_view v;
    sg_decision as_it_stands;
    sg_table_know(table, quotas);
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        sg_cell_tidy(table, cell, now);
    sg_look(table, quotas, cell, now, &v);
    sg_judge(table, quotas, &v, costs, now, out);
    if (!out->allowed) {
        /* Or who only looks until it is admitted would be told the same wait each time. */
        sg_keep_cut(table, cell, &v);
        return;
    }
    /* Nothing is charged, so what remains is what there is. */
    sg_judge(table, quotas, &v, nothing, now, &as_it_stands);
    sg_keep_cut(table, cell, &v);
    out->binding = as_it_stands.binding;
    out->verdict = as_it_stands.verdict;
}

sg_status sg_limiter_penalize(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                              const uint64_t *costs, sg_ticks now) {
    sg_cell *cell;
    sg_status status = sg_cell_for(table, quotas, fp, costs, now, &cell);
    for (unsigned i = 0; status == SG_OK && i < table->layout.quotas; i++) {
        if (!quotas[i].unlimited && costs[i] > 0)
            sg_penalize_one(table, &quotas[i], cell, i, now, costs[i]);
    }
    return status;
}

void sg_limiter_reward(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                       const uint64_t *costs, sg_ticks now) {
    sg_cell *cell = sg_table_find(table, fp);
    sg_view v;
    bool touched = false;
    if (cell == NULL)
        return;
    sg_look(table, quotas, cell, now, &v);
    sg_commit(&table->arena);
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (quotas[i].unlimited)
            continue;
        if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
            if (v.log[i] != NULL) {
                sg_log_touch(&table->arena, v.log[i]);
                sg_log_take_newest(v.log[i], costs[i]);
            }
            continue;
        }
        uint64_t given = sg_reward(&quotas[i], &v.state[i], now, costs[i]);
        sg_cell_set_state(table, cell, i, &v.state[i]);
        sg_record *record = sg_cell_record(table, cell);
        if (record != NULL && table->layout.algorithm[i] == SG_GCRA) {
            if (!touched)
                sg_claims_touch(table, record);
            touched = true;
            sg_claims_move(table, record, 0, i, given);
        }
    }
}

void sg_limiter_reset(sg_table *table, sg_fingerprint fp) {
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        sg_table_remove(table, cell);
}

sg_status sg_limiter_ban(sg_table *table, sg_fingerprint fp, sg_ticks length, sg_ticks now) {
    sg_record *record;
    sg_cell *cell = sg_table_find(table, fp);
    sg_status status = sg_record_of(table, fp, now, &cell, &record);
    if (status == SG_OK) {
        sg_touch(&table->arena, record, sizeof *record);
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
