#include "quota.h"

#include <math.h>

sg_quota_error sg_quota_init(sg_quota *quota, sg_algorithm algorithm, uint64_t limit,
                             uint64_t period_us, uint64_t burst, bool shadow) {
    if ((unsigned)algorithm >= SG_ALGORITHMS)
        return SG_QUOTA_BAD_ALGORITHM;
    if (limit < 1 || limit > SG_LIMIT_MAX)
        return SG_QUOTA_BAD_LIMIT;
    if (period_us < SG_PERIOD_MIN_US || period_us > SG_PERIOD_MAX_US)
        return SG_QUOTA_BAD_PERIOD;
    if (burst == 0)
        burst = limit;
    if (burst > SG_LIMIT_MAX)
        return SG_QUOTA_BAD_BURST;
    if (algorithm != SG_GCRA && burst != limit)
        return SG_QUOTA_BURST_UNUSED;
    if ((sg_u128)limit * 1000000 > (sg_u128)SG_RATE_MAX * period_us)
        return SG_QUOTA_BAD_RATE;

    sg_quota q = {
        .algorithm = (uint8_t)algorithm,
        .shadow = shadow,
        .limit = limit,
        .burst = burst,
        .period = period_us * SG_TICKS_PER_US,
    };
    if (algorithm == SG_GCRA) {
        q.interval = (q.period + limit - 1) / limit;
        if ((sg_u128)q.interval * burst > SG_CAPACITY_MAX)
            return SG_QUOTA_BAD_FILL;
        q.capacity = q.interval * burst;
    } else {
        q.capacity = limit;
    }
    *quota = q;
    return SG_QUOTA_OK;
}

bool sg_period_us(double seconds, uint64_t *us) {
    double exact = seconds * 1e6;
    if (!(exact > 0.0 && exact < 9e15)) /* also NaN and infinity */
        return false;
    double whole = rint(exact);
    /* A product of two doubles is off by parts in 1e16; more than parts in 1e12 is meant. */
    if (fabs(exact - whole) > exact * 1e-12)
        whole = ceil(exact);
    if (whole < (double)SG_PERIOD_MIN_US || whole > (double)SG_PERIOD_MAX_US)
        return false;
    *us = (uint64_t)whole;
    return true;
}
