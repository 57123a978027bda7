"""Section 1 of the contract as checks of what was admitted, without any of the rule's code.

`admitted` is a list of (time in ns, cost), in order of time. All arithmetic is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference import Quota

Admitted = Sequence[tuple[int, int]]

NS = 16  # ticks


def at_most(quota: Quota, admitted: Admitted) -> None:
    """Asserts the promise of the quota's algorithm over every window of any length."""
    CHECKS[quota.algorithm](quota, admitted)


def gcra(quota: Quota, admitted: Admitted) -> None:
    """Any x seconds see at most burst + limit * x / period.

    With S the units before an event, the condition for events i..j is
    (S_j + cost_j) * period - limit * t_j <= burst * period + S_i * period - limit * t_i,
    so it is enough to know the least right side so far.
    """
    period, before, least = quota.period // NS, 0, None
    for at, cost in admitted:
        here = before * period - quota.limit * at
        least = here if least is None else min(least, here)
        before += cost
        over = before * period - quota.limit * at - least - quota.burst * period
        assert over <= 0, f"{over / period} units too many at {at} ns: {quota}"


def fixed_window(quota: Quota, admitted: Admitted) -> None:
    """At most `limit` in a window, which starts at the first event after the last one."""
    period, end, count = quota.period // NS, None, 0
    for at, cost in admitted:
        if end is None or at >= end:
            end, count = at + period, 0
        count += cost
        assert count <= quota.limit, f"{count} in the window until {end} ns: {quota}"


def sliding_window(quota: Quota, admitted: Admitted) -> None:
    """current + previous * (what is left of the window) never above `limit`."""
    period, end, current, previous = quota.period // NS, 0, 0, 0
    for at, cost in admitted:
        while at >= end and (current or previous):
            end, current, previous = end + period, 0, current
        if not current and not previous:
            end = at + period
        current += cost
        weighted = current * period + previous * (end - at)
        assert weighted <= quota.limit * period, f"{weighted / period} at {at} ns: {quota}"


def sliding_log(quota: Quota, admitted: Admitted) -> None:
    """At most `limit` in any period."""
    period, oldest, used = quota.period // NS, 0, 0
    for at, cost in admitted:
        used += cost
        while at - admitted[oldest][0] >= period:
            used -= admitted[oldest][1]
            oldest += 1
        assert used <= quota.limit, f"{used} in the period until {at} ns: {quota}"


CHECKS = {
    "gcra": gcra,
    "fixed-window": fixed_window,
    "sliding-window": sliding_window,
    "sliding-log": sliding_log,
}


def longest_wait(quota: Quota) -> int:
    """Nanoseconds in which a flood of single units sees at least one admitted."""
    period = quota.period // NS
    return {
        "gcra": -(-quota.interval // NS),
        "fixed-window": period,
        "sliding-window": 2 * period,
        # a group of its entries counts until its last event is a period old
        "sliding-log": period + -(-period // 255),
    }[quota.algorithm]


def least_rate(quota: Quota) -> float:
    """Units a period that a flood of single units gets in the long run, at least."""
    if quota.algorithm == "sliding-window":
        # By its own rule: while any of the previous window counts, the last unit is not free.
        return max(quota.limit - 1, quota.limit / 2) * 0.999
    return quota.limit * 0.999
