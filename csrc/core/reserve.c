#include "view.h"

#include <string.h>

/* In a receipt: this quota was not charged (a shadow quota that would have refused). */
#define NOT_CHARGED UINT64_MAX

sg_status sg_reserve(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, sg_ticks ttl, sg_ticks now, sg_decision *out,
                     sg_receipt *receipt) {
    sg_view v;
    sg_record *record;
    sg_table_know(table, quotas);
    sg_cell *cell = sg_table_find(table, fp);
    if (cell != NULL)
        sg_cell_tidy(table, cell, now);
    sg_look(table, quotas, cell, now, &v);
    sg_judge(table, quotas, &v, costs, now, out);
    memset(receipt, 0, sizeof *receipt);
    sg_keep_cut(table, cell, &v);
    if (!out->allowed)
        return SG_OK;
    bool known = cell != NULL;
    sg_status status = sg_prepare(table, fp, v.charging, now, &cell);
    if (status != SG_OK)
        return status;
    status = sg_record_of(table, fp, now, &cell, &record);
    if (status != SG_OK) {
        if (!known)
            sg_table_remove(table, cell);
        return status;
    }
    sg_charge(table, quotas, cell, &v, costs, now);
    if (record->open++ == 0) {
        record->generation = ++table->generation;
        record->pinned_until = 0;
        for (unsigned i = 0; i < table->layout.quotas; i++)
            record->gifts[i] = (sg_gifts){.lowest = SG_NEVER};
    }
    record->pinned_until = sg_max(record->pinned_until, now + ttl);
    receipt->fp = fp;
    receipt->generation = record->generation;
    receipt->lapses = now + ttl;
    receipt->open = true;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        bool refused = (out->refusals >> i) & 1u;
        receipt->cost[i] = quotas[i].unlimited || refused ? NOT_CHARGED : costs[i];
        if (receipt->cost[i] == NOT_CHARGED)
            continue;
        receipt->mark[i] =
            table->layout.algorithm[i] == SG_SLIDING_LOG ? now : sg_mark(&quotas[i], &v.next[i]);
        receipt->interval[i] = quotas[i].interval;
        receipt->given[i] = record->gifts[i].given;
    }
    return SG_OK;
}

/* Gives back `units` of what the receipt charged to quota i. */
static void refund_one(sg_table *table, const sg_quota *q, sg_cell *cell, sg_record *record,
                       const sg_receipt *receipt, unsigned i, sg_ticks now, uint64_t units) {
    sg_state state = sg_cell_state(table, cell, i);
    sg_ticks mark = receipt->mark[i];
    if (table->layout.algorithm[i] == SG_SLIDING_LOG) {
        sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL)
            sg_log_take_at(log, now, q->period, mark, units);
        return;
    }
    if (table->layout.algorithm[i] == SG_GCRA) {
        /* Where its interval lies now: what was given back since moved it, unless all of
         * that lay above. Some of it may have; then this is too low a mark, and gives less,
         * never more. */
        sg_gifts *gifts = &record->gifts[i];
        if (mark > gifts->lowest)
            mark = sg_ahead(mark, gifts->given - receipt->given[i]);
        gifts->given += sg_refund(q, &state, now, mark,
                                  units * sg_min(q->interval, receipt->interval[i]));
        gifts->lowest = sg_min(gifts->lowest, mark);
    } else {
        sg_refund(q, &state, now, mark, units);
    }
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
        sg_status status = sg_cell_for(table, quotas, receipt->fp, more, now, &cell);
        if (status != SG_OK)
            return status;
    }
    receipt->open = false;
    if (cell == NULL)
        return SG_OK;
    sg_view v;
    sg_look(table, quotas, cell, now, &v); /* cuts and expires the logs */
    sg_record *record = sg_cell_record(table, cell);
    bool held = record != NULL && record->open > 0 && record->generation == receipt->generation;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (quotas[i].unlimited || receipt->cost[i] == NOT_CHARGED)
            continue;
        if (more[i] > 0)
            sg_penalize_one(table, &quotas[i], cell, i, now, more[i]);
        else if (held && now < receipt->lapses && costs[i] < receipt->cost[i])
            refund_one(table, &quotas[i], cell, record, receipt, i, now,
                       receipt->cost[i] - costs[i]);
    }
    if (held) {
        record->open--;
        sg_cell_tidy(table, cell, now);
    }
    return SG_OK;
}
