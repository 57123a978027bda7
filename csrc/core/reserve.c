#include <string.h>

#include "claims.h"
#include "view.h"

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
    sg_commit(&table->arena);
    if (!out->allowed)
        return SG_OK;
    bool known = cell != NULL;
    sg_status status = sg_prepare(table, fp, v.charging, now, &cell);
    if (status != SG_OK)
        return status;
    status = sg_record_of(table, fp, now, &cell, &record);
    if (status == SG_OK)
        status = sg_claims_make_room(table, fp, record, now, &cell);
    if (status != SG_OK) {
        if (known && SG_LIKELY(cell != NULL))
            sg_cell_tidy(table, cell, now);
        else
            sg_table_remove(table, cell);
        return status;
    }
    sg_charge(table, quotas, cell, &v, costs, now);
    sg_claim *claim = sg_claims_add(table, record);
    if (SG_UNLIKELY(claim == NULL))
        return SG_NO_MEMORY; /* of a damaged mapping */
    claim->lapses = now + ttl;
    record->pinned_until = sg_max(record->pinned_until, claim->lapses);
    receipt->fp = fp;
    receipt->claim = claim->id;
    receipt->lapses = claim->lapses;
    receipt->open = true;
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        bool refused = (out->refusals >> i) & 1u;
        receipt->cost[i] = quotas[i].unlimited || refused ? NOT_CHARGED : costs[i];
        if (receipt->cost[i] == NOT_CHARGED)
            continue;
        if (table->layout.algorithm[i] == SG_GCRA)
            claim->end[i] = sg_mark(&quotas[i], &v.next[i]);
        else
            receipt->mark[i] = table->layout.algorithm[i] == SG_SLIDING_LOG
                                   ? now
                                   : sg_mark(&quotas[i], &v.next[i]);
        receipt->interval[i] = quotas[i].interval;
    }
    return SG_OK;
}

/* Gives back `units` of what the receipt charged to quota i; its claim is at `index`. */
static void refund_one(sg_table *table, const sg_quota *q, sg_cell *cell, sg_record *record,
                       uint32_t index, const sg_receipt *receipt, unsigned i, sg_ticks now,
                       uint64_t units) {
    sg_state state = sg_cell_state(table, cell, i);
    switch (table->layout.algorithm[i]) {
    case SG_SLIDING_LOG: {
        sg_log *log = sg_state_log(table, i, &state);
        if (log != NULL) {
            sg_log_touch(&table->arena, log);
            sg_log_take_at(log, now, q->period, receipt->mark[i], units);
        }
        return;
    }
    case SG_GCRA: {
        /* The smaller interval: numbers that changed meanwhile must not make it more. */
        const sg_ticks amount = units * sg_min(q->interval, receipt->interval[i]);
        const sg_ticks end = sg_claims_end(table, record, index, i);
        const sg_ticks given = sg_refund(q, &state, now, end, amount);
        sg_claims_move(table, record, index + 1, i, given);
        break;
    }
    default:
        sg_refund(q, &state, now, receipt->mark[i], units);
        break;
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
    sg_commit(&table->arena);
    sg_record *record = sg_cell_record(table, cell);
    int64_t index = record == NULL ? -1 : sg_claims_find(table, record, receipt->claim);
    bool held = index >= 0 && now < receipt->lapses;
    if (index >= 0)
        sg_claims_touch(table, record);
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (quotas[i].unlimited || receipt->cost[i] == NOT_CHARGED)
            continue;
        if (more[i] > 0)
            sg_penalize_one(table, &quotas[i], cell, i, now, more[i]);
        else if (held && costs[i] < receipt->cost[i])
            refund_one(table, &quotas[i], cell, record, (uint32_t)index, receipt, i, now,
                       receipt->cost[i] - costs[i]);
    }
    if (index >= 0) {
        sg_claims_remove(table, record, (uint32_t)index);
        sg_cell_tidy(table, cell, now);
    }
    return SG_OK;
}
