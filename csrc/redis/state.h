/* Between what a server stores (scripts/prelude.lua says how) and what the core decides by. */
#ifndef SG_STATE_H
#define SG_STATE_H

#include "limiter.h"
#include "table.h"

/* The longest plan, and the longest row of costs, in bytes. */
#define SG_PLAN_BYTES (4u + SG_QUOTAS_MAX * 22u)
#define SG_ROW_BYTES (SG_QUOTAS_MAX * 9u)

/* What all checks of a limiter share, while its numbers stay. */
typedef struct {
    sg_quota quotas[SG_QUOTAS_MAX];
    uint64_t keep_us[SG_QUOTAS_MAX]; /* the longest period known of a quota */
    uint8_t algorithm[SG_QUOTAS_MAX];
    unsigned count;
    unsigned logs;       /* each key has this many rings */
    unsigned gcras;
    bool simple;         /* one gcra quota: gcra.lua takes its hits */
    size_t head_length;
    uint8_t head[3];     /* how values of this shape begin */
    size_t length;
    uint8_t bytes[SG_PLAN_BYTES]; /* the scripts' first ARGV */
    size_t row_length;   /* of a row of costs */
    sg_table shape;      /* never filled: it tells sg_judge how many quotas there are */
} sg_plan;

/* keep_us: at least the periods in use; of a hole, that of the numbers it had. */
void sg_plan_init(sg_plan *plan, unsigned count, const uint8_t *algorithms,
                  const sg_quota *quotas, const uint64_t *keep_us);

/* A row of costs for a decision, and one for penalize and reward. Returns plan->row_length. */
size_t sg_row_of_costs(const sg_plan *plan, const uint64_t *costs, uint8_t *out);
size_t sg_row_of_change(const sg_plan *plan, const uint64_t *costs, uint8_t *out);

/* Which ticks the server's microseconds are; any origin will do. */
typedef struct {
    uint64_t now_us;
    sg_ticks now;
} sg_server_time;

sg_ticks sg_ticks_at(sg_server_time time, uint64_t us, uint32_t frac);

typedef enum {
    SG_SEEN = 0,
    SG_SEEN_OTHER, /* the key had state of another shape, and was taken for a new one */
    SG_SEEN_ERROR, /* nothing was decided: the key holds what is not ours, or the reply is none */
} sg_seen;

/* The logs that a reply tells of: two entries stand for all of them. */
typedef struct {
    uint64_t words[(sizeof(sg_log) + 4 * sizeof(sg_log_entry)) / sizeof(uint64_t)];
} sg_short_log;

typedef struct {
    sg_state state[SG_QUOTAS_MAX];
    sg_log *log[SG_QUOTAS_MAX]; /* into `logs`, or NULL */
    sg_short_log logs[SG_QUOTAS_MAX];
    sg_ticks ban_until, ban_length;
} sg_sight;

/* Reads what gcra.lua, decide.lua or all.lua replied for one check. bytes NULL: nil. `costs` are
 * those of the check. On SG_SEEN_ERROR *sight is not to be used. */
sg_seen sg_sight_read(const sg_plan *plan, const char *bytes, size_t length, sg_server_time time,
                      const uint64_t *costs, sg_sight *sight);

/* Bytes that are read one number after another; `bad` once there were too few. */
typedef struct {
    const uint8_t *at;
    size_t left;
    bool bad;
} sg_bytes;

/* The next number, little endian, of so many bytes. */
uint64_t sg_bytes_take(sg_bytes *bytes, unsigned size);

/* Writes one; returns what follows it. */
uint8_t *sg_bytes_put(uint8_t *out, uint64_t number, unsigned size);

/* Writes ticks as I7I2. */
uint8_t *sg_bytes_put_ticks(uint8_t *out, sg_ticks ticks);

#endif
