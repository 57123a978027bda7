"""Floods on a clock that stands until it is moved: what section 1 promises, and no less."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator

import pytest

from model.pair import core_quota
from reference import ALGORITHMS, Quota
from sluicegate import _core
from stress.promises import NS, at_most, least_rate, longest_wait

MB = 1024 * 1024
YEARS_10 = 316_224_000.0
NUMBERS: list[tuple[int, float]] = [
    (7, 60),
    (MB, 60),
    (10 * MB, 1),
    (1, 86400),
    (10_000_000, 1),
    (9_999_991, 1),  # its interval is the one that rounding moves most
    (1000, 0.001),
    (3, 0.001),
    (1000, YEARS_10),
    (1, 1),
    (1000, 60),
    (60, 3600),
    (997, 7.000001),
    (100_000, 86400),
]


def quotas() -> Iterator[Quota]:
    for algorithm in ALGORITHMS:
        for limit, period in NUMBERS:
            yield Quota(limit, period, 0, algorithm)
    for limit, period, burst in [(5, 1, 20), (MB, 60, 65536), (7, 60, 1), (1000, 3600, 3)]:
        yield Quota(limit, period, burst)


def name(quota: Quota) -> str:
    return f"{quota.algorithm}-{quota.limit}-{quota.seconds:g}-{quota.burst}"


every = pytest.mark.parametrize("quota", list(quotas()), ids=name)


class Flood:
    """A limiter of one key on a clock, and what it admitted."""

    def __init__(self, *quotas: Quota) -> None:
        self.clock = _core.Clock()
        table = _core.Table([q.algorithm for q in quotas], clock=self.clock)
        limiter = _core.Limiter(table, [core_quota(q) for q in quotas])
        self.quotas = quotas
        self.try_one = limiter.hit_nowait
        self.peek = limiter.peek_nowait
        self.admitted: list[tuple[int, int]] = []
        self.last_ns = int(9.5 * 365 * 86400 * 10**9)  # a clock ends some 10 years from its start

    def hit(self, cost: int = 1) -> _core.Decision:
        decision = self.try_one("key", cost)
        if decision and cost:
            self.admitted.append((self.clock.ns, cost))
        return decision

    def move(self, ns: int) -> bool:
        self.clock.ns += ns
        return self.clock.ns < self.last_ns

    def check(self) -> None:
        for quota in self.quotas:
            if not quota.shadow:
                at_most(quota, self.admitted)


def unit_of(quota: Quota) -> int:
    """A cost so that a few hundred fill the quota."""
    return max(min(quota.burst, quota.limit) // 300, 1)


@every
def test_a_burst_passes_at_once_and_no_unit_more(quota: Quota) -> None:
    flood = Flood(quota)
    assert flood.hit(quota.burst)
    assert not flood.hit(1)
    flood = Flood(quota)
    unit = unit_of(quota)
    for _ in range(quota.burst // unit):
        assert flood.hit(unit)
    assert flood.hit(quota.burst % unit)
    refused = flood.hit(1)
    assert not refused
    assert refused.remaining == 0
    assert sum(cost for _, cost in flood.admitted) == quota.burst


@every
def test_a_flood_that_waits_as_told_gets_the_rate_and_not_more(quota: Quota) -> None:
    """Each refused event comes again 1 ns too early, which is refused, and in time, which is
    admitted: so this is the most that can pass."""
    flood, unit = Flood(quota), unit_of(quota)
    flood.hit(quota.burst)  # from here on what comes back is all there is
    start, events, longest = flood.clock.ns, 0, 0
    while events < 6000:
        decision = flood.hit(unit)
        if decision:
            events += 1
            continue
        wait = round(decision.retry_after * 1e9)
        longest = max(longest, wait)
        if flood.clock.ns + wait >= flood.last_ns:
            break
        flood.clock.ns += wait - 1
        assert not flood.peek("key", unit), "admitted 1 ns before it was told"
        flood.clock.ns += 1
        assert flood.peek("key", unit), "refused when it was told to come"
    flood.check()
    periods = (flood.clock.ns - start) / (quota.period / NS)
    passed = sum(cost for _, cost in flood.admitted[1:])
    if events >= 600 and unit == 1:
        assert longest <= longest_wait(quota)
    if periods * quota.limit >= 1000 * unit:
        assert passed >= (periods - 1) * least_rate(quota)
        if quota.algorithm == "gcra":
            assert passed >= periods * least_rate(quota) - unit
    elif events == 0:
        assert quota.seconds == YEARS_10


@every
def test_no_window_sees_more_whatever_comes(quota: Quota, request: pytest.FixtureRequest) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng, flood = random.Random(seed), Flood(quota)
    unit, period = unit_of(quota), quota.period // NS
    refused = 0
    for _ in range(60):
        # A mode for a while: trickle, press, idle and burst.
        gap = rng.choice([0, 1, period // 100_000, period // 1000, period // 90, period // 7])
        most = rng.choice([1, unit, 4 * unit, quota.burst])
        for _ in range(rng.choice([20, 700])):
            refused += not flood.hit(rng.randint(1, most))
            if not flood.move(rng.randint(0, 2 * gap)):
                break
        if not flood.move(rng.choice([0, period // 3, period - 1, period, 3 * period])):
            break
    flood.check()
    assert flood.admitted


def test_an_hour_of_messages_at_fifty_a_second() -> None:
    """What a chat sees: 180,000 messages; each algorithm, 7 a minute."""
    for algorithm in ALGORITHMS:
        quota = Quota(7, 60, 0, algorithm)
        flood = Flood(quota)
        for _ in range(180_000):
            flood.hit()
            flood.clock.ns += 20_000_000
        flood.check()
        passed = len(flood.admitted)
        # Windows start anew at the first message that comes, 20 ms late at most.
        least = {"gcra": 7 + 419, "sliding-window": 6 * 60}.get(algorithm, 7 * 59)
        assert least <= passed <= 7 * 61, algorithm


def test_ten_megabytes_a_second_for_a_minute() -> None:
    quota = Quota(10 * MB, 1, 64 * 1024)
    flood, rng = Flood(quota), random.Random(1)
    while flood.clock.ns < 60 * 10**9:
        flood.hit(rng.randint(1, 16384))
        flood.clock.ns += 200_000
    flood.check()
    passed = sum(cost for _, cost in flood.admitted)
    assert passed >= 0.999 * 600 * MB


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_several_quotas_hold_together(algorithm: str) -> None:
    rows = (
        Quota(5, 1, 20),
        Quota(200, 60, 0, algorithm),
        Quota(3000, 3600, 0, "sliding-log"),
        Quota(1, 3600, shadow=True),
    )
    flood = Flood(*rows)
    rng = random.Random(2)
    for _ in range(60_000):
        flood.hit(rng.choice([1, 1, 1, 2, 5]))
        flood.clock.ns += rng.randint(0, 300_000_000)
    flood.check()
    # Nothing but the tightest holds back: three hours at 3000 an hour.
    hours = flood.clock.ns / 3.6e12
    assert sum(cost for _, cost in flood.admitted) >= 0.98 * 3000 * (hours - 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_flood_at_one_key_starves_no_other(algorithm: str) -> None:
    clock = _core.Clock()
    table = _core.Table([algorithm], clock=clock)
    limiter = _core.Limiter(table, [_core.Quota(50, 60, algorithm=algorithm)])
    for _ in range(30):
        for _ in range(2000):
            limiter.hit_nowait("flood")
        for key in range(20):
            assert limiter.hit_nowait(f"quiet {key}")
        clock.ns += 2_000_000_000


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_that_steps_back_neither_refills_nor_locks_out(algorithm: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    quota = Quota(10, 60, 0, algorithm)
    flood, period = Flood(quota), quota.period // NS
    forward = last = 0
    for _ in range(20_000):
        if rng.random() < 0.003:
            flood.clock.ns -= rng.choice([1, period // 5, 3 * period, 1000 * period])
            last = forward
        step = rng.randint(0, period // 20)
        forward += step
        flood.clock.ns += step
        if flood.hit():
            # Not locked out: a state reaches at most two bursts ahead.
            assert forward - last <= 2 * period + period // 10
            last = forward
    assert len(flood.admitted) <= 10 + 10 * (forward / period + 1)


@every
def test_what_is_refused_charges_nothing(quota: Quota) -> None:
    flood = Flood(quota)
    flood.hit(quota.burst)
    first = flood.hit(1)
    for _ in range(100):
        assert flood.hit(1) == first
        assert flood.hit(quota.burst + 1).retry_after == float("inf")
    assert flood.peek("key", 1) == first


@every
def test_the_wait_as_a_float_is_enough(quota: Quota) -> None:
    """advance(decision.retry_after) is what a user does."""
    from sluicegate.testing import Clock

    clock = Clock()
    table = _core.Table([quota.algorithm], clock=clock)
    limiter = _core.Limiter(table, [core_quota(quota)])
    limiter.hit_nowait("key", quota.burst)
    for _ in range(20):
        decision = limiter.hit_nowait("key", quota.burst)
        assert not decision
        if clock.ns + decision.retry_after * 1e9 > 9.5 * 365 * 86400 * 1e9:
            break
        clock.advance(decision.retry_after)
        assert limiter.hit_nowait("key", quota.burst)


@pytest.mark.parametrize("limit", [5, 200, 1000, 3000])
def test_a_log_refuses_longer_by_no_more_than_a_span(limit: int) -> None:
    """Against the exact log of what was admitted: up to 256 events there is no difference, and
    above it a wait is longer by at most period/255, never shorter."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    quota = Quota(limit, 60, 0, "sliding-log")
    flood, period, told, late = Flood(quota), quota.period // NS, 0, 0
    for _ in range(30):
        gap = rng.choice([1, 1000, period // 5000, period // 900, period // 100])
        for _ in range(600):
            flood.clock.ns += rng.randint(0, 2 * gap)
            cost = rng.choice([1, 1, 1 + limit // 400])
            decision = flood.hit(cost)
            if decision or rng.random() < 0.7:
                continue
            now, told = flood.clock.ns, told + 1
            live = [(at, n) for at, n in flood.admitted[-limit:] if now - at < period]
            excess = sum(n for _, n in live) + cost - limit
            # Groups may be left of all events that came while their last one counts.
            since = now - 2 * period - period // 255
            grouped = len(flood.admitted) - bisect_left(flood.admitted, (since, 0)) > 256
            assert excess > 0 or grouped, "refused what fits"
            exact = 0
            for at, n in live:
                if excess <= 0:
                    break
                excess -= n
                exact = at + period - now
            wait = round(decision.retry_after * 1e9)
            assert exact <= wait <= exact + -(-period // 255)
            assert wait == exact or grouped
            late += wait - exact
    flood.check()
    assert told > 100
    assert late > 0 or limit <= 256


@every
def test_a_penalty_reaches_one_burst_past_the_limit_and_a_reward_to_full(quota: Quota) -> None:
    clock = _core.Clock()
    table = _core.Table([quota.algorithm], clock=clock)
    limiter = _core.Limiter(table, [core_quota(quota)])
    for _ in range(3):
        limiter.penalize_nowait("key", quota.burst)
    assert not limiter.hit_nowait("key")
    limiter.reward_nowait("key", quota.burst)
    assert limiter.peek_nowait("key", 0).remaining == 0
    limiter.reward_nowait("key", 1)
    assert limiter.peek_nowait("key", 0).remaining == 1
    limiter.reward_nowait("key", 2**40)
    assert limiter.peek_nowait("key", 0).remaining == quota.burst
    assert not limiter.hit_nowait("key", quota.burst + 1)
    assert limiter.hit_nowait("key", quota.burst)
