"""Quotas and the four algorithms of the reference (see reference.py), in whole numbers.

A state has `look` (cut to its reach, rolled on), `decide`, `charge` and what undoes a charge.
Times are in ticks of 1/16 ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, inf, nextafter
from typing import NamedTuple

TICKS_PER_NS = 16
LOG_MAX = 256
SPANS = 255
ALGORITHMS = ("gcra", "fixed-window", "sliding-window", "sliding-log")


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def microseconds(seconds: float) -> int:
    """Whole microseconds, rounded up, but for the noise of a binary fraction."""
    exact = Fraction(seconds) * 10**6
    whole = round(exact)
    return whole if abs(exact - whole) <= exact / 10**12 else ceil(exact)


def seconds_of(ticks: int | None) -> float:
    """Ticks (None: never) as seconds that, turned back to nanoseconds, are not too few."""
    if ticks is None:
        return inf
    ns = ceil_div(ticks, TICKS_PER_NS)
    seconds = float(ns) / 1e9
    while round(seconds * 1e9) < ns:
        seconds = nextafter(seconds, inf)
    return seconds


@dataclass(frozen=True)
class Quota:
    limit: int
    seconds: float
    burst: int = 0  # 0: the limit
    algorithm: str = "gcra"
    name: str | None = None
    shadow: bool = False
    period: int = field(init=False)  # ticks
    interval: int = field(init=False)  # gcra: ticks a unit, rounded up, so as to admit no more
    capacity: int = field(init=False)  # what "full" is: gcra in ticks, else in units

    def __post_init__(self) -> None:
        burst = self.burst or self.limit
        period = microseconds(self.seconds) * 1000 * TICKS_PER_NS
        interval = ceil_div(period, self.limit) if self.algorithm == "gcra" else 0
        object.__setattr__(self, "burst", burst)
        object.__setattr__(self, "period", period)
        object.__setattr__(self, "interval", interval)
        object.__setattr__(self, "capacity", interval * burst if interval else self.limit)


class Verdict(NamedTuple):
    allowed: bool
    level: int  # what is used, in the unit of Quota.capacity: after the event, if it is admitted
    retry: int | None  # ticks until it would be admitted; 0 if it is; None: never
    reset: int  # ticks until nothing is used


class Judged(NamedTuple):
    allowed: bool
    shadow: bool
    binding: int | None  # the place of a quota
    banned: bool
    verdict: Verdict  # of the one that binds; retry is that of the whole event
    verdicts: dict[int, Verdict]


class Gcra:
    """`tat`: when the bucket is full again."""

    def __init__(self) -> None:
        self.tat = 0

    def level(self, q: Quota, now: int) -> int:
        return min(max(self.tat - now, 0), 2 * q.capacity)

    def look(self, q: Quota, now: int) -> None:
        self.tat = min(self.tat, now + self.level(q, now))

    def decide(self, q: Quota, now: int, cost: int) -> Verdict:
        level = self.level(q, now)
        after = level + cost * q.interval
        if cost == 0 or (cost <= q.burst and after <= q.capacity):
            return Verdict(True, after, 0, after)
        return Verdict(False, level, None if cost > q.burst else after - q.capacity, level)

    def charge(self, q: Quota, now: int, cost: int) -> None:
        self.tat = now + self.level(q, now) + cost * q.interval

    def penalize(self, q: Quota, now: int, cost: int) -> None:
        self.tat = now + min(self.level(q, now) + cost * q.interval, 2 * q.capacity)

    def give(self, q: Quota, now: int, ticks: int) -> int:
        given = min(ticks, self.level(q, now))
        self.tat = now + self.level(q, now) - given
        return given

    def expired(self, q: Quota, now: int) -> bool:
        return self.tat <= now


class FixedWindow:
    """A window starts at the first event of a key that has none."""

    def __init__(self) -> None:
        self.end = self.count = 0

    def look(self, q: Quota, now: int) -> None:
        if now >= self.end:
            self.count = 0
        self.end = now + q.period if self.count == 0 else min(self.end, now + q.period)

    def decide(self, q: Quota, now: int, cost: int) -> Verdict:
        live = self.count if now < self.end else 0
        left = min(self.end - now, q.period) if live else q.period
        if cost == 0 or live + cost <= q.limit:
            return Verdict(True, live + cost, 0, left if live + cost else 0)
        return Verdict(False, live, None if cost > q.limit else left, left if live else 0)

    def charge(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        self.count += cost

    def penalize(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        self.count += min(cost, max(2 * q.limit - self.count, 0))

    def reward(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        self.count = max(self.count - cost, 0)

    def refund(self, q: Quota, now: int, mark: int, units: int) -> None:
        self.look(q, now)
        if self.end == mark:
            self.count = max(self.count - units, 0)

    def expired(self, q: Quota, now: int) -> bool:
        return self.count == 0 or self.end <= now


class SlidingWindow:
    """Two counts; what is left of the previous one fades as the current window passes."""

    def __init__(self) -> None:
        self.end = self.current = self.previous = 0

    def look(self, q: Quota, now: int) -> None:
        if now >= self.end:
            if now - self.end < q.period:
                self.previous = self.current
                self.end += q.period
            else:
                self.previous = 0
            self.current = 0
        if self.current == self.previous == 0:
            self.end = now + q.period
        self.end = min(self.end, now + q.period)

    def copy(self) -> SlidingWindow:
        other = SlidingWindow()
        other.__dict__.update(self.__dict__)
        return other

    def level(self, q: Quota, now: int) -> int:
        return self.current + ceil_div(self.previous * (self.end - now), q.period)

    def decide(self, q: Quota, now: int, cost: int) -> Verdict:
        s = self.copy()
        s.look(q, now)
        allowed = cost == 0 or s.level(q, now) + cost <= q.limit
        retry: int | None = 0
        if not allowed:
            retry = None if cost > q.limit else s.wait(q, now, cost)
        s.current += cost if allowed else 0
        left = s.end - now
        reset = left + q.period if s.current else left if s.previous else 0
        return Verdict(allowed, s.level(q, now), retry, reset)

    def wait(self, q: Quota, now: int, cost: int) -> int:
        """Ticks until the two counts leave room: the least t with level(t) + cost <= limit."""
        room = q.limit - cost - self.current
        if room >= 0:  # in this window: previous * (end - t) / period <= room
            return self.end - room * q.period // self.previous - now
        # In the next one, where the current count is the one that fades.
        return self.end + q.period - (q.limit - cost) * q.period // self.current - now

    def charge(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        self.current += cost

    def penalize(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        self.current += min(cost, max(2 * q.limit - self.level(q, now), 0))

    def reward(self, q: Quota, now: int, cost: int) -> None:
        self.look(q, now)
        of_current = min(cost, self.current)
        self.current -= of_current
        self.previous = max(self.previous - (cost - of_current), 0)

    def refund(self, q: Quota, now: int, mark: int, units: int) -> None:
        self.look(q, now)
        if self.end == mark:
            self.current = max(self.current - units, 0)
        elif self.end == mark + q.period:
            self.previous = max(self.previous - units, 0)

    def expired(self, q: Quota, now: int) -> bool:
        return (self.current == 0 or self.end + q.period <= now) and (
            self.previous == 0 or self.end <= now
        )


class SlidingLog:
    """Entries [time, count], one a time; past 256 of them, those of one span of period/255 are
    merged."""

    def __init__(self) -> None:
        self.entries: list[list[int]] = []
        self.merged = 0  # the first so many share no span

    @property
    def total(self) -> int:
        return sum(count for _, count in self.entries)

    def look(self, period: int, now: int) -> None:
        if self.entries and self.entries[-1][0] > now:  # those ahead are one of now
            kept = [entry for entry in self.entries if entry[0] < now]
            self.entries = [*kept, [now, sum(n for _, n in self.entries[len(kept) :])]]
            self.merged = min(self.merged, len(kept))
        while self.entries and now - self.entries[0][0] >= period:
            del self.entries[0]
            self.merged = max(self.merged - 1, 0)

    def decide(self, q: Quota, now: int, cost: int) -> Verdict:
        live = [(min(at, now), n) for at, n in self.entries if now - at < q.period]
        used = sum(n for _, n in live)
        reset = live[-1][0] + q.period - now if used else 0
        if cost == 0 or used + cost <= q.limit:
            return Verdict(True, used + cost, 0, q.period if cost else reset)
        if cost > q.limit:
            return Verdict(False, used, None, reset)
        excess = used + cost - q.limit
        for at, n in live:
            excess -= n
            if excess <= 0:
                return Verdict(False, used, at + q.period - now, reset)
        raise AssertionError("what is used must end")

    def charge(self, q: Quota, now: int, cost: int) -> None:
        def span(at: int) -> int:
            return at * SPANS // q.period

        if cost == 0:
            return
        full = len(self.entries) == LOG_MAX
        if self.entries:
            last, count = self.entries[-1]
            if last == now or (full and span(last) == span(now)):
                self.entries[-1] = [now, count + cost]
                return
        if full:
            self.merge(max(self.merged - 1, 0), q.period)
            if len(self.entries) == LOG_MAX:  # it was kept and merged by a longer period
                self.look(q.period, now)
                self.merge(0, q.period)
        self.entries.append([now, cost])

    def merge(self, start: int, period: int) -> None:
        """Joins the entries of one span, from the first that may not be merged yet."""
        kept = self.entries[: start + 1]
        for at, n in self.entries[start + 1 :]:
            if kept[-1][0] * SPANS // period == at * SPANS // period:
                kept[-1] = [at, kept[-1][1] + n]
            else:
                kept.append([at, n])
        self.entries, self.merged = kept, len(kept)

    def penalize(self, q: Quota, now: int, cost: int) -> None:
        self.charge(q, now, min(cost, max(2 * q.limit - self.total, 0)))

    def reward(self, q: Quota, now: int, cost: int) -> None:
        while cost > 0 and self.entries:
            cost -= self.take(len(self.entries) - 1, cost)
            self.trim()

    def refund(self, q: Quota, now: int, mark: int, units: int) -> None:
        mark = min(mark, now)
        if now - mark < q.period:
            # That of the very time; where there is none, the one that it was merged into.
            place = sum(at < mark for at, _ in self.entries)
            if place < len(self.entries):
                self.take(place, units)
            self.trim()

    def take(self, i: int, units: int) -> int:
        taken = min(self.entries[i][1], units)
        self.entries[i][1] -= taken
        return taken

    def trim(self) -> None:
        while self.entries and self.entries[-1][1] == 0:
            del self.entries[-1]
        self.merged = min(self.merged, len(self.entries))

    def expired(self, q: Quota, now: int) -> bool:
        return not self.entries or now - self.entries[-1][0] >= q.period


State = Gcra | FixedWindow | SlidingWindow | SlidingLog
STATES: dict[str, type[State]] = dict(
    zip(ALGORITHMS, (Gcra, FixedWindow, SlidingWindow, SlidingLog), strict=True)
)
