/* Leased quota: units that were drawn at once and are spent without a question.
 *
 * A draw lapses a second after it was asked for, or with its window. gcra draws with its burst
 * lowered by what a second refills: units drawn within x + 1 seconds are at most the lowered burst
 * and what x + 1 seconds refill, so those spent within x seconds are at most the burst and what x
 * seconds refill. A key that has no place in the purse is asked about as any other. */
#ifndef SG_PURSE_H
#define SG_PURSE_H

#include "fingerprint.h"
#include "request.h"

#define SG_LEASE_NS INT64_C(1000000000)

typedef struct sg_purse sg_purse;

typedef enum {
    SG_PURSE_NONE = 0, /* nothing is drawn: draw */
    SG_PURSE_TAKEN,    /* charged here; *out is the decision */
    SG_PURSE_DRY,      /* a draw was refused a moment ago: ask for the event itself */
} sg_purse_state;

sg_purse *sg_purse_new(void); /* NULL: no memory */
void sg_purse_free(sg_purse *purse); /* may be NULL */

/* The quotas by which a limiter that leases asks: gcra with its burst lowered. */
void sg_lease_lower(sg_quota *quotas, unsigned count);

/* The ticks by which sg_lease_lower lowers the capacity of a gcra quota. */
sg_ticks sg_lease_lowered(const sg_quota *quota);

/* Spends `costs`. The plan is that by which was drawn. */
sg_purse_state sg_purse_take(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan,
                             const uint64_t *costs, int64_t now_ns, sg_decision *out);

/* What is to be drawn for an event: of each quota that has too little left the lease, or what the
 * event costs if that is more; else 0. */
void sg_purse_lack(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, uint64_t lease, int64_t now_ns, uint64_t *draw);

/* Puts what was drawn beside what is left. asked_ns: when it was asked for.
 * `bytes` is the server's reply of the draw. False: it has no place, and is lost. */
bool sg_purse_put(sg_purse *purse, sg_fingerprint fp, const sg_plan *plan, const uint64_t *drawn,
                  const sg_decision *decision, const char *bytes, size_t length,
                  uint64_t server_us, int64_t asked_ns, int64_t now_ns);

/* A draw was refused: until then no other is tried, and what is not there already is asked about as
 * of any other key. */
void sg_purse_dry(sg_purse *purse, sg_fingerprint fp, int64_t now_ns, int64_t until_ns);

/* Whether a place is there for a new key. */
bool sg_purse_room(sg_purse *purse, sg_fingerprint fp, int64_t now_ns);

/* Forgets what is drawn of a key: it was banned, reset, or changed otherwise. */
void sg_purse_forget(sg_purse *purse, sg_fingerprint fp);

#endif
