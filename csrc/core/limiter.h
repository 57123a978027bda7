/* Several quotas over one table: all of them admit an event or none is charged. */
#ifndef SG_LIMITER_H
#define SG_LIMITER_H

#include "decide.h"
#include "fingerprint.h"
#include "quota.h"
#include "sg.h"
#include "table.h"

#define SG_BANNED 0xFEu /* as `binding`: a ban holds the event back */
#define SG_NONE 0xFFu   /* as `binding`: no quota holds (all are unlimited) */

typedef struct {
    bool allowed;
    bool shadow;       /* a shadow quota would have refused */
    uint8_t binding;   /* index of the quota that binds, SG_BANNED or SG_NONE */
    uint8_t refusals;  /* bit i: quota i refuses (shadow ones among them) */
    sg_verdict verdict; /* of the binding quota; `retry` is that of the whole event */
    uint64_t level[SG_QUOTAS_MAX]; /* of each limited quota, as its own verdict has it */
} sg_decision;

/* Every operation takes the numbers of the quotas apart from the table, so that they can
 * change from one call to the next; their algorithms are those of the table's layout.
 * `costs` has one cost a quota. Nothing is changed unless SG_OK is returned. */

/* Decides and charges. */
sg_status sg_hit(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                 const uint64_t *costs, sg_ticks now, sg_decision *out);

/* Decides and charges nothing; levels are as they stand, without the event. What is further
 * ahead than its quota can reach is cut for good, as by a hit. */
void sg_peek(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
             const uint64_t *costs, sg_ticks now, sg_decision *out);

/* Ticks until the last of `events` would be admitted if they were made one after another,
 * each as soon as it can be, and nothing else happened. costs: one row of the quotas'
 * costs an event. SG_NEVER where one never can be. */
sg_status sg_project(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, size_t events, sg_ticks now, sg_ticks *wait);

/* Charges past the limit, by at most one burst. */
sg_status sg_limiter_penalize(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                              const uint64_t *costs, sg_ticks now);

/* Gives back, at most to full. */
void sg_limiter_reward(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                       const uint64_t *costs, sg_ticks now);

/* Forgets the key: its charges, its ban, and what its open reservations could refund. */
void sg_limiter_reset(sg_table *table, sg_fingerprint fp);

/* Refuses every event for `length` ticks from now (a later ban replaces an earlier one). */
sg_status sg_limiter_ban(sg_table *table, sg_fingerprint fp, sg_ticks length, sg_ticks now);
void sg_limiter_unban(sg_table *table, sg_fingerprint fp, sg_ticks now);

/* What settling a reservation needs. */
typedef struct {
    sg_fingerprint fp;
    uint64_t claim; /* its id */
    sg_ticks lapses;
    bool open;
    uint64_t cost[SG_QUOTAS_MAX]; /* what was charged of each quota */
    uint64_t mark[SG_QUOTAS_MAX]; /* windows and log; that of gcra is in the claim, and moves */
    sg_ticks interval[SG_QUOTAS_MAX]; /* gcra: ticks a unit when it was charged */
} sg_receipt;

/* Like sg_hit; when allowed, *receipt is open and the state is kept for `ttl` ticks. */
sg_status sg_reserve(sg_table *table, const sg_quota *quotas, sg_fingerprint fp,
                     const uint64_t *costs, sg_ticks ttl, sg_ticks now, sg_decision *out,
                     sg_receipt *receipt);

/* Settles at `costs`: less than reserved is given back as far as it is still counted,
 * more is charged, past the limit if need be. Closes the receipt; of a closed one it does
 * nothing. */
sg_status sg_settle(sg_table *table, const sg_quota *quotas, sg_receipt *receipt,
                    const uint64_t *costs, sg_ticks now);

#endif
