#include "log.h"

#define SPANS 255u

/* The first time of a later span than that of `at`, which is floor(at * 255 / period). Split
 * at the period, so that 64 bits hold it for all periods below 52 days. */
static sg_ticks span_end(sg_ticks at, sg_ticks period) {
    uint64_t rest = at % period;
    if (SG_LIKELY(period < UINT64_C(1) << 56)) {
        uint64_t next = rest * SPANS / period + 1;
        return at - rest + (next * period + SPANS - 1) / SPANS;
    }
    uint64_t next = sg_muldiv(rest, SPANS, period) + 1;
    return at - rest + sg_muldiv_up(next, period, SPANS);
}

static inline sg_log_entry *entry(sg_log *log, unsigned i) {
    return &log->entries[sg_log_index(log, i)];
}

void sg_log_init(sg_log *log, unsigned capacity) {
    *log = (sg_log){.capacity = (uint16_t)capacity};
}

void sg_log_copy(sg_log *to, const sg_log *from) {
    const unsigned length = (unsigned)sg_min(from->length, to->capacity);
    for (unsigned i = 0; i < length; i++)
        to->entries[i] = *sg_log_at(from, i);
    to->head = 0;
    to->length = (uint16_t)length;
    to->merged = (uint16_t)sg_min(from->merged, length);
    to->total = from->total;
}

static void drop_oldest(sg_log *log) {
    log->total -= entry(log, 0)->count;
    log->head = (uint16_t)((log->head + 1u) & (log->capacity - 1u));
    log->length--;
    if (log->merged > 0)
        log->merged--;
}

/* What is ahead of now becomes one entry of now. */
static void cut(sg_log *log, sg_ticks now) {
    unsigned first = log->length; /* of those that do */
    uint64_t count = 0;
    while (first > 0 && entry(log, first - 1)->at >= now)
        count += entry(log, --first)->count;
    *entry(log, first) = (sg_log_entry){.at = now, .count = count};
    log->length = (uint16_t)(first + 1);
    log->merged = (uint16_t)sg_min(log->merged, first);
}

void sg_log_expire(sg_log *log, sg_ticks now, sg_ticks period) {
    if (SG_UNLIKELY(log->length > 0 && entry(log, log->length - 1u)->at > now))
        cut(log, now);
    while (log->length > 0 && now - entry(log, 0)->at >= period)
        drop_oldest(log);
    if (log->length == 0)
        log->total = 0; /* as it is, but where it was damaged: that must not refuse for ever */
}

/* Joins the entries of one span from the first that may not be merged yet. */
static void merge(sg_log *log, sg_ticks period) {
    if (log->length == 0)
        return;
    unsigned to = log->merged > 0 ? log->merged - 1u : 0, from = to + 1;
    sg_ticks end = span_end(entry(log, to)->at, period);
    for (; from < log->length; from++) {
        sg_log_entry *e = entry(log, from);
        if (e->at < end) {
            entry(log, to)->count += e->count;
            entry(log, to)->at = e->at;
        } else {
            end = span_end(e->at, period);
            *entry(log, ++to) = *e;
        }
    }
    log->length = (uint16_t)(to + 1);
    log->merged = log->length;
}

void sg_log_add(sg_log *log, sg_ticks now, sg_ticks period, uint64_t count) {
    if (count == 0)
        return;
    log->total += count;
    if (log->length > 0) {
        sg_log_entry *last = entry(log, log->length - 1u);
        if (last->at == now ||
            (log->length == log->capacity && now < span_end(last->at, period))) {
            last->at = now;
            last->count += count;
            return;
        }
    }
    if (log->length == log->capacity) {
        merge(log, period);
        if (log->length == log->capacity) {
            /* Kept by a longer period, and merged by its spans: what this one no longer
             * counts goes, and the rest is merged by its own. Then there is room. */
            sg_log_expire(log, now, period);
            log->merged = 0;
            merge(log, period);
            if (log->length == log->capacity)
                drop_oldest(log); /* its times are damaged */
        }
    }
    *entry(log, log->length) = (sg_log_entry){.at = now, .count = count};
    log->length++;
}

/* Entries that a refund emptied count for nothing; at the end they would only make the
 * log look used for longer. */
static void trim(sg_log *log) {
    while (log->length > 0 && entry(log, log->length - 1u)->count == 0)
        log->length--;
    log->merged = (uint16_t)sg_min(log->merged, log->length);
}

uint64_t sg_log_take_newest(sg_log *log, uint64_t units) {
    uint64_t left = units;
    while (left > 0 && log->length > 0) {
        sg_log_entry *e = entry(log, log->length - 1u);
        uint64_t taken = sg_min(e->count, left);
        e->count -= taken;
        log->total -= taken;
        left -= taken;
        trim(log);
    }
    return units - left;
}

uint64_t sg_log_take_at(sg_log *log, sg_ticks now, sg_ticks period, sg_ticks at, uint64_t units) {
    at = sg_min(at, now); /* as sg_log_expire cut the entry */
    if (now - at >= period)
        return 0;
    unsigned low = 0, high = log->length; /* the first entry not before `at` */
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (entry(log, middle)->at < at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == log->length)
        return 0;
    /* That of the very time, or else the one that the event was merged into. */
    sg_log_entry *e = entry(log, low);
    const uint64_t taken = sg_min(e->count, units);
    e->count -= taken;
    log->total -= taken;
    trim(log);
    return taken;
}
