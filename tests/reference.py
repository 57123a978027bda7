"""The rule in pure Python: what every engine must decide, to the last bit.

Written from section 1 of the contract and from docs/how-it-works.md, not from the C. It is slow
and plain on purpose: whole integers, one key a dict entry, time given as an argument.

`Limiter` is one limiter over one store; its methods take the time in nanoseconds of a clock that
showed `start_ns` when the store was made. The algorithms are in reference_algorithms.py.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, inf
from typing import NamedTuple

from reference_algorithms import (
    ALGORITHMS,
    STATES,
    TICKS_PER_NS,
    Gcra,
    Judged,
    Quota,
    SlidingLog,
    State,
    Verdict,
    seconds_of,
)

__all__ = ["ALGORITHMS", "COST_MAX", "TICKS_PER_NS", "Decision", "Limiter", "Quota", "hit_all"]

SECOND = 10**9 * TICKS_PER_NS
COST_MAX = LIMIT_MAX = 2**40
ORIGIN = 2 * 366 * 86400 * SECOND  # where a clock stands when its store is made
CLOCK_MAX = 6 * 10**18  # ticks; no clock goes further


class Decision(NamedTuple):
    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float
    quota: int | None  # the place of the quota that binds
    shadow: bool


UNLIMITED = Decision(True, LIMIT_MAX, COST_MAX, 0.0, 0.0, None, False)


@dataclass(eq=False)
class Receipt:
    key: object
    lapses: int
    costs: list[int | None]  # None: not charged
    marks: list[int]  # gcra: where its interval ends; windows: their end; log: the time
    intervals: list[int]
    open: bool = True


@dataclass
class Subject:
    """All that is known of one key."""

    states: list[State]
    ban_until: int = 0
    ban_length: int = 0
    claims: list[Receipt] = field(default_factory=list)  # open reservations, oldest first
    pinned_until: int = 0  # when the last of them lapses

    def counts(self, now: int) -> bool:
        """Whether a ban or an open reservation still counts."""
        return self.ban_until > now or (bool(self.claims) and self.pinned_until > now)

    def move(self, first: int, place: int, ticks: int) -> None:
        """What was given back to a gcra quota moves the intervals of all later charges."""
        for claim in self.claims[first:]:
            claim.marks[place] = max(claim.marks[place] - ticks, 0)


class Limiter:
    """Quotas over one store: all admit an event, or none is charged. A quota of None limits
    nothing. `costs` is one number for all quotas, or one a quota."""

    def __init__(
        self,
        quotas: list[Quota | None],
        *,
        kinds: list[str] | None = None,  # the algorithms, where a quota may be None
        start_ns: int = 0,
        shadow: bool = False,
        enabled: bool = True,
    ) -> None:
        self.quotas = quotas
        self.start_ns = start_ns
        self.shadow = shadow
        self.enabled = enabled
        self.subjects: dict[object, Subject] = {}
        self.kinds = kinds or [q.algorithm for q in quotas if q]
        self.longest: list[int] = [0] * len(quotas)

    def ticks(self, now_ns: int) -> int:
        ticks = (now_ns - self.start_ns) * TICKS_PER_NS + ORIGIN
        return min(max(ticks, 0), CLOCK_MAX)

    # ---- what is known of a key

    def know(self, quotas: list[Quota | None]) -> None:
        self.longest = [
            max(known, q.period if q else 0) for known, q in zip(self.longest, quotas, strict=True)
        ]

    def fresh(self) -> Subject:
        return Subject([STATES[kind]() for kind in self.kinds])

    def made(self, key: object) -> Subject:
        return self.subjects.setdefault(key, self.fresh())

    def look(self, subject: Subject, quotas: list[Quota | None], now: int) -> None:
        for i, state in enumerate(subject.states):
            if isinstance(state, SlidingLog):
                quota = quotas[i]
                state.look(max(self.longest[i], quota.period if quota else 0), now)

    def tidy(self, subject: Subject, now: int) -> None:
        """Drops a ban and reservations when none of either counts any more."""
        subject.ban_until = min(subject.ban_until, now + subject.ban_length)
        if not subject.counts(now):
            subject.ban_until = subject.pinned_until = 0
            subject.claims = []

    def lapsed(self, key: object, now_ns: int) -> bool:
        """Whether one of the quotas counts nothing of the key at that time, whatever a ban or
        a claim keeps."""
        now, subject = self.ticks(now_ns), self.subjects.get(key)
        return subject is None or any(
            q is not None and state.expired(q, now)
            for q, state in zip(self.quotas, subject.states, strict=True)
        )

    def row(self, costs: int | list[int]) -> list[int]:
        return [costs] * len(self.kinds) if isinstance(costs, int) else costs

    # ---- the decision

    def judge(
        self, subject: Subject, quotas: list[Quota | None], costs: list[int], now: int
    ) -> Judged:
        ban = min(max(subject.ban_until - now, 0), subject.ban_length)
        verdicts = {
            i: subject.states[i].decide(q, now, costs[i]) for i, q in enumerate(quotas) if q
        }
        shadows = {i for i in verdicts if quotas[i].shadow}  # type: ignore[union-attr]
        holding = [i for i in verdicts if i not in shadows]
        refusing = [i for i in holding if not verdicts[i].allowed]
        shadow = any(not verdicts[i].allowed for i in shadows)

        def wait(i: int) -> float:
            retry = verdicts[i].retry
            return inf if retry is None else retry

        def used(i: int) -> Fraction:
            return Fraction(verdicts[i].level, quotas[i].capacity)  # type: ignore[union-attr]

        if ban and all(wait(i) <= ban for i in refusing):
            reset = max([ban, *(verdicts[i].reset for i in holding)])
            return Judged(False, shadow, None, True, Verdict(False, 0, ban, reset), verdicts)
        if not holding:
            return Judged(True, shadow, None, False, Verdict(True, 0, 0, 0), verdicts)
        # max() returns the first of equals.
        binding = max(refusing, key=wait) if refusing else max(holding, key=used)
        return Judged(not refusing, shadow, binding, False, verdicts[binding], verdicts)

    def decision(self, judged: Judged, quotas: list[Quota | None]) -> Decision:
        allowed, shadow, verdict = judged.allowed, judged.shadow, judged.verdict
        retry = verdict.retry
        if not allowed and self.shadow:
            allowed, shadow, retry = True, True, 0
        limit = remaining = 0
        if judged.binding is not None:
            quota = quotas[judged.binding]
            assert quota is not None
            limit = quota.limit
            remaining = max(quota.capacity - verdict.level, 0) // (quota.interval or 1)
        elif not judged.banned:
            limit, remaining = LIMIT_MAX, COST_MAX
        return Decision(
            allowed,
            limit,
            remaining,
            seconds_of(retry),
            seconds_of(verdict.reset),
            judged.binding,
            shadow,
        )

    def peek(self, key: object, costs: int | list[int], now_ns: int) -> Decision:
        if not self.enabled:
            return UNLIMITED
        now = self.ticks(now_ns)
        self.know(self.quotas)
        subject = self.subjects.get(key) or self.fresh()
        self.tidy(subject, now)
        self.look(subject, self.quotas, now)
        row = self.row(costs)
        judged = self.judge(subject, self.quotas, row, now)
        for i, verdict in judged.verdicts.items():
            quota, state = self.quotas[i], subject.states[i]
            assert quota is not None
            standing = judged.allowed or not (verdict.allowed and row[i])
            if standing and not isinstance(state, SlidingLog):
                state.look(quota, now)  # cut for good, as by a hit
        if judged.allowed:  # nothing is charged, so what remains is what there is
            stands = self.judge(subject, self.quotas, self.row(0), now)
            judged = judged._replace(binding=stands.binding, verdict=stands.verdict)
        return self.decision(judged, self.quotas)

    def hit(
        self,
        key: object,
        costs: int | list[int],
        now_ns: int,
        quotas: list[Quota | None] | None = None,
    ) -> Decision:
        if not self.enabled:
            return UNLIMITED
        quotas = self.quotas if quotas is None else quotas
        return self.decision(self.charge(key, self.row(costs), self.ticks(now_ns), quotas), quotas)

    def charge(self, key: object, costs: list[int], now: int, quotas: list[Quota | None]) -> Judged:
        self.know(quotas)
        known = key in self.subjects
        subject = self.subjects[key] if known else self.fresh()
        self.tidy(subject, now)
        self.look(subject, quotas, now)
        judged = self.judge(subject, quotas, costs, now)
        for i, verdict in judged.verdicts.items():
            quota, state = quotas[i], subject.states[i]
            assert quota is not None
            if judged.allowed and verdict.allowed and costs[i]:
                state.charge(quota, now, costs[i])
                self.subjects[key] = subject
            elif known and not isinstance(state, SlidingLog) and not (verdict.allowed and costs[i]):
                state.look(quota, now)  # what a clock's step left too far ahead is cut for good
        return judged

    def project(self, key: object, events: list[int | list[int]], now_ns: int) -> float:
        """Seconds until the last of them is admitted, each made as soon as it can be."""
        if not self.enabled or self.shadow:
            return 0.0
        now = at = self.ticks(now_ns)
        self.know(self.quotas)
        subject = deepcopy(self.subjects.get(key) or self.fresh())
        at += min(max(subject.ban_until - now, 0), subject.ban_length)
        subject.ban_until = 0
        for costs in events:
            row = self.row(costs)
            while at <= CLOCK_MAX:
                self.look(subject, self.quotas, at)
                judged = self.judge(subject, self.quotas, row, at)
                for i, verdict in judged.verdicts.items():
                    quota, state = self.quotas[i], subject.states[i]
                    if (
                        quota
                        and not isinstance(state, SlidingLog)
                        and not (verdict.allowed and row[i])
                    ):
                        state.look(quota, at)  # cut once, as by a hit; else it is never reached
                if judged.allowed:
                    break
                if judged.verdict.retry is None:
                    return inf
                at += judged.verdict.retry
            else:
                return inf
            for i, verdict in judged.verdicts.items():
                quota = self.quotas[i]
                if quota and verdict.allowed:
                    subject.states[i].charge(quota, at, row[i])
        return seconds_of(at - now)

    # ---- the other operations

    def penalize(self, key: object, costs: int | list[int], now_ns: int) -> None:
        now = self.ticks(now_ns)
        self.exceed(key, self.row(costs), now)

    def exceed(self, key: object, costs: list[int], now: int) -> None:
        """Charges past the limit, by at most one burst."""
        self.know(self.quotas)
        subject = self.made(key)
        self.look(subject, self.quotas, now)
        for quota, state, cost in zip(self.quotas, subject.states, costs, strict=True):
            if quota and cost:
                state.penalize(quota, now, cost)

    def reward(self, key: object, costs: int | list[int], now_ns: int) -> None:
        now, subject = self.ticks(now_ns), self.subjects.get(key)
        if subject is None:
            return
        self.look(subject, self.quotas, now)
        for i, cost in enumerate(self.row(costs)):
            quota, state = self.quotas[i], subject.states[i]
            if quota is None:
                continue
            if not isinstance(state, Gcra):
                state.reward(quota, now, cost)
                continue
            subject.move(0, i, state.give(quota, now, cost * quota.interval))

    def reset(self, key: object) -> None:
        self.subjects.pop(key, None)

    def ban(self, key: object, seconds: float, now_ns: int) -> None:
        subject = self.made(key)
        subject.ban_length = ceil(seconds * 1e9) * TICKS_PER_NS
        subject.ban_until = self.ticks(now_ns) + subject.ban_length

    def unban(self, key: object, now_ns: int) -> None:
        subject = self.subjects.get(key)
        if subject is not None:
            subject.ban_until = 0
            self.tidy(subject, self.ticks(now_ns))

    def reserve(
        self, key: object, costs: int | list[int], ttl: float, now_ns: int
    ) -> tuple[Decision, Receipt | None]:
        now, row = self.ticks(now_ns), self.row(costs)
        judged = self.charge(key, row, now, self.quotas)
        decision = self.decision(judged, self.quotas)
        if not judged.allowed:
            return decision, None
        subject = self.made(key)
        lapses = now + ceil(ttl * 1e9) * TICKS_PER_NS
        subject.pinned_until = max(subject.pinned_until, lapses)
        receipt = Receipt(key, lapses, [], [], [])
        subject.claims.append(receipt)
        for i, state in enumerate(subject.states):
            quota, verdict = self.quotas[i], judged.verdicts.get(i)
            charged = quota is not None and verdict is not None and verdict.allowed
            mark = state.tat if isinstance(state, Gcra) else getattr(state, "end", now)
            receipt.costs.append(row[i] if charged else None)
            receipt.marks.append(mark)
            receipt.intervals.append(quota.interval if quota else 0)
        return decision, receipt

    def settle(self, receipt: Receipt, costs: int | list[int], now_ns: int) -> None:
        """Gives back what is still counted of the rest, or charges what is more."""
        if not receipt.open:
            return
        receipt.open = False
        now, row = self.ticks(now_ns), self.row(costs)
        over = [
            0 if reserved is None else max(cost - reserved, 0)
            for cost, reserved in zip(row, receipt.costs, strict=True)
        ]
        if any(over):
            self.exceed(receipt.key, over, now)
        subject = self.subjects.get(receipt.key)
        if subject is None or receipt not in subject.claims:
            return  # reset, lapsed and dropped
        self.look(subject, self.quotas, now)
        place = subject.claims.index(receipt)
        for i, reserved in enumerate(receipt.costs):
            if reserved is not None and row[i] < reserved and now < receipt.lapses:
                self.refund(subject, place, i, now, reserved - row[i])
        del subject.claims[place]
        self.tidy(subject, now)

    def refund(self, subject: Subject, place: int, i: int, now: int, units: int) -> None:
        receipt = subject.claims[place]
        quota, state, mark = self.quotas[i], subject.states[i], receipt.marks[i]
        if quota is None:
            return
        if not isinstance(state, Gcra):
            state.refund(quota, now, mark, units)
            return
        # Of its own interval, wherever that lies now, the part that is still ahead. By the
        # smaller of the intervals then and now, should the numbers have changed.
        amount = units * min(quota.interval, receipt.intervals[i])
        given = state.give(quota, now, min(amount, max(mark - now, 0)))
        subject.move(place + 1, i, given)


def hit_all(
    triples: list[tuple[Limiter, object, int | list[int]]], now_ns: int
) -> tuple[Decision, int]:
    """All or none: the decision that binds, and which of the triples it is of. The events of
    one limiter and key are one."""
    rows: dict[tuple[int, object], tuple[int, list[int]]] = {}
    for i, (limiter, key, costs) in enumerate(triples):
        at, row = rows.get((id(limiter), key), (i, [0] * len(limiter.kinds)))
        rows[id(limiter), key] = at, [a + b for a, b in zip(row, limiter.row(costs), strict=True)]
    seen: list[tuple[int, Decision, Fraction]] = []
    for at, row in rows.values():
        limiter, key, _ = triples[at]
        now = limiter.ticks(now_ns)
        limiter.peek(key, row, now_ns)  # which also cuts what is too far ahead
        subject = limiter.subjects.get(key) or limiter.fresh()
        judged = limiter.judge(subject, limiter.quotas, row, now)
        quota = None if judged.binding is None else limiter.quotas[judged.binding]
        share = Fraction(judged.verdict.level, quota.capacity) if quota else Fraction(-1)
        seen.append((at, limiter.decision(judged, limiter.quotas), share))
    refused = [one for one in seen if not one[1].allowed]
    if refused:
        at, decision, _ = max(refused, key=lambda one: one[1].retry_after)
    else:
        for first, row in rows.values():
            limiter, key, _ = triples[first]
            limiter.hit(key, row, now_ns)
        at, decision, _ = max(seen, key=lambda one: one[2])
    return decision._replace(shadow=any(one[1].shadow for one in seen)), at
