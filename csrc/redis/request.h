/* One check as a server answers it, and what it comes to here: the server decides, and the
 * client computes the same decision from the state that the server saw. Nothing is decided by the
 * client alone. csrc/redis uses csrc/core/view.h for that, the core's own judgement. */
#ifndef SG_REQUEST_H
#define SG_REQUEST_H

#include "state.h"

/* The arguments of the operations, as bytes for the scripts; see change.lua and decide.lua. */
#define SG_SETTLE_BYTES (14u + SG_QUOTAS_MAX * 14u)

/* A reservation that a server holds. All times are the server's. */
typedef struct {
    uint64_t claim; /* below 2^52; made by the client, by chance */
    uint64_t lapses_us;
    bool open;
    uint64_t cost[SG_QUOTAS_MAX];     /* UINT64_MAX: not charged */
    uint64_t mark_us[SG_QUOTAS_MAX];  /* windows: the end; logs: when it was charged */
    sg_ticks interval[SG_QUOTAS_MAX]; /* gcra */
} sg_ticket;

/* What a reply for one check of a hit (or of a peek) decides. SG_SEEN_ERROR: nothing. */
sg_seen sg_answer_hit(const sg_plan *plan, const uint64_t *costs, const char *bytes, size_t length,
                      uint64_t now_us, sg_decision *out);
sg_seen sg_answer_peek(const sg_plan *plan, const uint64_t *costs, const char *bytes,
                       size_t length, uint64_t now_us, sg_decision *out);

/* The same of a reservation by `ttl_us` under `claim`: *ticket is open if it was admitted. */
sg_seen sg_answer_reserve(const sg_plan *plan, const uint64_t *costs, uint64_t ttl_us,
                          uint64_t claim, const char *bytes, size_t length, uint64_t now_us,
                          sg_decision *out, sg_ticket *ticket);

/* The argument of op 2 of decide.lua: 14 bytes. */
size_t sg_reserve_argument(uint64_t ttl_us, uint64_t claim, uint8_t *out);

/* The argument of 'ban': 7 bytes. */
size_t sg_ban_argument(uint64_t length_us, uint8_t *out);

/* The argument of 'settle' at `costs`; up to SG_SETTLE_BYTES. The plan is that of now, with the
 * algorithms of then. */
size_t sg_settle_argument(const sg_plan *plan, const sg_ticket *ticket, const uint64_t *costs,
                          uint8_t *out);

/* One value of fetch.lua's reply; bytes NULL: nil. */
typedef struct {
    const char *bytes;
    size_t length;
} sg_text;

/* sg_project over what fetch.lua replied: the value, then plan->logs rings. The spans of the log
 * of the longest period start where the server's do, unless it is half a year; those of others may
 * not, so that where they would have to be merged what is told may be up to period/255 off.
 * SG_NO_MEMORY, or *seen is an error: nothing is told. */
sg_status sg_answer_project(const sg_plan *plan, const sg_allocator *allocator,
                            const sg_text *values, uint64_t now_us, const uint64_t *costs,
                            size_t events, sg_seen *seen, sg_ticks *wait);

#endif
