/* One key under several quotas: its states copied out of the cell, what each quota says of
 * an event, and the charge. What limiter.c, project.c and reserve.c share, and
 * csrc/redis/request.c, which judges what a server saw; nothing else includes it. */
#ifndef SG_VIEW_H
#define SG_VIEW_H

#include "limiter.h"

/* The states of one key, copied out of its cell (or of one never seen), and what each
 * quota says of an event. */
typedef struct {
    sg_state state[SG_QUOTAS_MAX];
    sg_log *log[SG_QUOTAS_MAX];
    sg_state next[SG_QUOTAS_MAX];
    sg_verdict verdict[SG_QUOTAS_MAX];
    sg_ticks ban;      /* ticks that a ban has still to run */
    unsigned charging; /* bit i: quota i is charged if the event is admitted */
    unsigned standing; /* bit i: next[i] is its state as it stands, cut and rolled on */
} sg_view;

/* Copies the states of a cell (NULL: of a key never seen), and expires its logs. */
void sg_look(sg_table *table, const sg_quota *quotas, sg_cell *cell, sg_ticks now, sg_view *v);

/* Before entries of a log are changed wherever they lie. */
static inline void sg_log_touch(const sg_arena *arena, const sg_log *log) {
    sg_touch(arena, log, sg_log_bytes(log->capacity));
}

/* Adds to a log of the table, which is expired and need not grow. */
void sg_charge_log(sg_table *table, sg_log *log, sg_ticks now, sg_ticks period, uint64_t count);

/* What all quotas together say of an event. */
void sg_judge(const sg_table *table, const sg_quota *quotas, sg_view *v, const uint64_t *costs,
              sg_ticks now, sg_decision *out);

/* All memory that charging needs, before anything is charged. A cell that this made and
 * that stays without a charge is forgotten again. Cells may move: *cell follows. */
sg_status sg_prepare(sg_table *table, sg_fingerprint fp, unsigned charging, sg_ticks now,
                     sg_cell **cell);

/* Charges an event that was admitted. */
void sg_charge(sg_table *table, const sg_quota *quotas, sg_cell *cell, const sg_view *v,
               const uint64_t *costs, sg_ticks now);

/* What is not charged is still cut for good where a clock's step left it too far ahead; else
 * it would hold until the clock is back where it was. */
void sg_keep_cut(sg_table *table, sg_cell *cell, const sg_view *v);

/* The key's cell, with memory for a charge of `costs` to each limited quota. */
sg_status sg_cell_for(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                      const uint64_t *costs, sg_ticks now, sg_cell **cell);

/* Charges one quota past its limit, by at most one burst; its log has room. */
void sg_penalize_one(sg_table *table, const sg_quota *q, sg_cell *cell, unsigned i, sg_ticks now,
                     uint64_t cost);

/* The record of a key, made with its cell where there is none. */
sg_status sg_record_of(sg_table *table, sg_fingerprint fp, sg_ticks now, sg_cell **cell,
                       sg_record **record);

#endif
