"""Reserve, wait, spend, settle, cancel, in every order: no unit is ever made.

The rule's own code is not used to judge: what was really spent (a reservation counts at the time
it was made, by what it was settled at) must keep the promise of its algorithm.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from model.pair import core_quota
from reference import ALGORITHMS, Quota
from sluicegate import _core
from stress.promises import NS, gcra, sliding_log

PERIOD = 10  # seconds, so that a gcra unit of limit 10 takes one


class Ledger:
    """A limiter of one key; what was spent, when, and in which window."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.clock = _core.Clock()
        table = _core.Table([quota.algorithm], clock=self.clock)
        self.limiter = _core.Limiter(table, [core_quota(quota)])
        self.open: list[tuple[_core.Receipt, int]] = []
        self.spent: list[list[int]] = []  # time, units, end of its window

    def note(self, units: int) -> None:
        self.spent.append([self.clock.ns, units, self.window_end()])

    def window_end(self) -> int:
        """When the current window ends, as its decisions tell."""
        seconds = self.limiter.peek_nowait("key", 0).reset_after
        end = self.clock.ns + round(seconds * 1e9)
        return end - (self.quota.period // NS if self.quota.algorithm == "sliding-window" else 0)

    def hit(self, units: int) -> None:
        if self.limiter.hit_nowait("key", units) and units:
            self.note(units)

    def reserve(self, units: int) -> None:
        decision, receipt = self.limiter.reserve_nowait("key", units, 1e6)
        assert bool(decision) is (receipt is not None)
        if receipt is not None:
            self.note(units)
            self.open.append((receipt, len(self.spent) - 1))

    def settle(self, which: int, share: int) -> None:
        if self.open:
            receipt, at = self.open.pop(which % len(self.open))
            actual = min(share, self.spent[at][1])
            receipt.settle_nowait(actual)
            self.spent[at][1] = actual

    def check(self) -> None:
        """Open reservations count in full."""
        limit, period = self.quota.limit, self.quota.period // NS
        spent = [(at, units) for at, units, _ in self.spent if units]
        if self.quota.algorithm == "gcra":
            gcra(self.quota, spent)
        elif self.quota.algorithm == "sliding-log":
            sliding_log(self.quota, spent)
        windows: dict[int, int] = {}
        for at, units, end in self.spent:
            if not units:
                continue
            windows[end] = windows.get(end, 0) + units
            if self.quota.algorithm == "fixed-window":
                assert windows[end] <= limit
            elif self.quota.algorithm == "sliding-window":
                previous = windows.get(end - period, 0)
                assert windows[end] * period + previous * (end - at) <= limit * period


units = st.sampled_from([1, 2, 3, 5, 5, 10])
operation = st.one_of(
    st.tuples(st.just("hit"), units),
    st.tuples(st.just("reserve"), units),
    st.tuples(st.just("settle"), st.integers(0, 5), st.sampled_from([0, 0, 0, 1, 3])),
    st.tuples(st.just("wait"), st.sampled_from([1, 10**9, 2 * 10**9, 3 * 10**9, 10**10])),
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(
    max_examples=600,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(operation, min_size=6, max_size=40))
def test_no_order_makes_a_unit(algorithm: str, operations: list[Any]) -> None:
    ledger = Ledger(Quota(10, PERIOD, 0, algorithm))
    for what, *arguments in operations:
        if what == "wait":
            ledger.clock.ns += arguments[0]
        else:
            getattr(ledger, what)(*arguments)
    while ledger.open:
        ledger.settle(0, 0)
    for _ in range(10):  # spend what there is
        ledger.hit(1)
    ledger.check()
    event(f"{sum(1 for _, units, _ in ledger.spent if units) // 5 * 5} spent")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_short_order_makes_a_unit(algorithm: str) -> None:
    """All orders of five steps from these."""
    steps: list[tuple[Any, ...]] = [
        ("reserve", 5),
        ("settle", 0, 0),
        ("settle", 1, 0),
        ("hit", 5),
        ("wait", 3 * 10**9),
        ("wait", 5 * 10**9),
    ]
    for order in itertools.product(steps, repeat=5):
        ledger = Ledger(Quota(10, PERIOD, 0, algorithm))
        for what, *arguments in (("reserve", 5), *order, ("settle", 0, 0), ("hit", 10), ("hit", 5)):
            if what == "wait":
                ledger.clock.ns += arguments[0]
            else:
                getattr(ledger, what)(*arguments)
        ledger.check()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_reservation_cancelled_at_once_is_as_if_never_made(algorithm: str) -> None:
    ledger = Ledger(Quota(10, PERIOD, 0, algorithm))
    ledger.hit(3)
    before = ledger.limiter.peek_nowait("key")
    for _ in range(1000):
        ledger.reserve(7)
        ledger.settle(0, 0)
    assert ledger.limiter.peek_nowait("key").remaining == before.remaining
    # Newest first and oldest first, too.
    for order in ((2, 1, 0), (0, 0, 0), (1, 0, 0)):
        for units in (2, 3, 2):
            ledger.reserve(units)
        for which in order:
            ledger.settle(which, 0)
        assert ledger.limiter.peek_nowait("key").remaining == before.remaining


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_lapsed_or_was_reset_gives_nothing_back(algorithm: str) -> None:
    quota = Quota(10, PERIOD, 0, algorithm)
    clock = _core.Clock()
    limiter = _core.Limiter(_core.Table([algorithm], clock=clock), [core_quota(quota)])
    _, receipt = limiter.reserve_nowait("key", 5, 1.0)
    assert receipt is not None
    clock.ns += 10**9  # its ttl
    left = limiter.peek_nowait("key").remaining
    receipt.settle_nowait(0)
    assert limiter.peek_nowait("key").remaining == left
    limiter.reset_nowait("key")
    _, receipt = limiter.reserve_nowait("key", 5)
    limiter.reset_nowait("key")
    limiter.hit_nowait("key", 10)
    assert receipt is not None
    receipt.settle_nowait(0)
    assert not limiter.hit_nowait("key")
    limiter.reset_nowait("key")
    _, receipt = limiter.reserve_nowait("key", 5)
    limiter.table.clear()
    limiter.hit_nowait("key", 10)
    assert receipt is not None
    receipt.settle_nowait(0)
    assert not limiter.hit_nowait("key")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_than_reserved_is_charged_past_the_limit_but_by_one_burst(algorithm: str) -> None:
    ledger = Ledger(Quota(10, PERIOD, 0, algorithm))
    _, receipt = ledger.limiter.reserve_nowait("key", 10)
    assert receipt is not None
    receipt.settle_nowait(2**40)
    refused = ledger.limiter.hit_nowait("key")
    assert not refused
    assert refused.remaining == 0
    assert refused.retry_after <= 2 * PERIOD
    ledger.clock.ns += round(refused.retry_after * 1e9)
    assert ledger.limiter.hit_nowait("key")


def test_numbers_that_change_make_no_unit() -> None:
    """A reservation made by small numbers, settled after `update` to large ones."""
    clock = _core.Clock()
    table = _core.Table(["gcra"], clock=clock)
    limiter = _core.Limiter(table, [_core.Quota(10, 1)])
    _, receipt = limiter.reserve_nowait("key", 1)
    limiter._rebind(table, [_core.Quota(1000, 3600)])
    left = limiter.peek_nowait("key").remaining
    assert limiter.hit_nowait("key", left)
    assert receipt is not None
    receipt.settle_nowait(0)
    assert limiter.peek_nowait("key").remaining <= 1
