#include "view.h"

/* The view's logs, copied so that a projection can add to them. */
static sg_status copy_logs(sg_table *table, sg_view *v, sg_ref copies[SG_QUOTAS_MAX]) {
    for (unsigned i = 0; i < table->layout.quotas; i++) {
        if (table->layout.algorithm[i] != SG_SLIDING_LOG)
            continue;
        size_t size = sg_log_bytes(SG_LOG_MAX);
        void *memory = table->scratch.alloc(table->scratch.context, size);
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
            table->scratch.free(table->scratch.context, (void *)(uintptr_t)copies[i],
                                sg_log_bytes(SG_LOG_MAX));
    }
}

/* Charges the view itself. */
static void charge_view(const sg_quota *quotas, sg_view *v, const uint64_t *costs, sg_ticks at) {
    for (unsigned left = v->charging; left != 0; left &= left - 1) {
        const unsigned i = (unsigned)__builtin_ctz(left);
        if (v->log[i] != NULL)
            sg_log_add(v->log[i], at, quotas[i].period, costs[i]);
        else
            v->state[i] = v->next[i];
    }
}

/* As sg_keep_cut does: a state that a clock's step left too far ahead is cut once, when it
 * is looked at. Cut anew at each later time it would never be reached. */
static void keep_cut(sg_view *v) {
    for (unsigned left = v->standing; left != 0; left &= left - 1) {
        const unsigned i = (unsigned)__builtin_ctz(left);
        v->state[i] = v->next[i];
    }
}

sg_status sg_project(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, size_t events, sg_ticks now, sg_ticks *wait) {
    sg_view v;
    sg_ref copies[SG_QUOTAS_MAX] = {0};
    sg_table_know(table, quotas);
    sg_look(table, quotas, sg_table_find(table, fp), now, &v);
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
            sg_judge(table, quotas, &v, row, at, &decision);
            keep_cut(&v);
            if (decision.allowed)
                break;
            if (decision.verdict.retry == SG_NEVER)
                goto done;
            at += decision.verdict.retry;
        }
        charge_view(quotas, &v, row, at);
    }
    if (status == SG_OK)
        *wait = at - now;
done:
    free_copies(table, copies);
    return status;
}
