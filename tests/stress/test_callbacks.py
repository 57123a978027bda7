"""A clock, a cost or an observer that raises, blocks or reenters."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from reference import ALGORITHMS
from sluicegate import Limiter, MemoryStore, Quota, _core
from sluicegate.testing import Clock

DAY = 86400
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Calls:
    """Counts, and does harm when told to."""

    def __init__(self, harm: Any) -> None:
        self.harm, self.count = harm, 0

    def __call__(self, *arguments: Any) -> float:
        self.count += 1
        if self.count > 1:  # a table asks its clock once when it is made
            self.harm()
        return 0.0


def fail() -> None:
    raise ZeroDivisionError("on purpose")


@algorithms
def test_a_clock_that_raises_charges_nothing(algorithm: str) -> None:
    harm = [lambda: None]
    limiter = Limiter(
        Quota(3, DAY, algorithm=algorithm), store=MemoryStore(clock=Calls(lambda: harm[0]()))
    )
    assert limiter.hit_nowait("key")
    harm[0] = fail
    for call in (limiter.hit_nowait, limiter.peek_nowait, limiter.reserve_nowait):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                call("key")
    harm[0] = lambda: None
    assert limiter.peek_nowait("key").remaining == 2


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -float("inf"), "noon", None, 1j])
def test_a_clock_that_tells_no_time(answer: Any) -> None:
    answers = [0.0]
    limiter = Limiter(Quota(3, DAY), store=MemoryStore(clock=lambda: answers[0]))
    limiter.hit_nowait("key")
    answers[0] = answer
    with pytest.raises((ValueError, TypeError)):
        limiter.hit_nowait("key")
    answers[0] = 0.0
    assert limiter.peek_nowait("key").remaining == 2


@pytest.mark.parametrize("time", [1e300, -1e300, 1e19, -1e19, 3.2e8, -3.2e8])
@algorithms
def test_a_clock_that_tells_any_time(algorithm: str, time: float) -> None:
    now = [0.0]
    limiter = Limiter(Quota(3, 60, algorithm=algorithm), store=MemoryStore(clock=lambda: now[0]))
    for there in (time, 0.0, time, -time, 0.0):
        now[0] = there
        passed = sum(bool(limiter.hit_nowait("key")) for _ in range(10))
        assert passed <= 3


@algorithms
def test_a_clock_that_reenters(algorithm: str) -> None:
    """The clock hits, resets, clears and rebinds the very limiter that asks it."""
    limiters: list[Limiter] = []
    deep = [0]

    def harm() -> None:
        if not limiters or deep[0] > 0:
            return
        deep[0] += 1
        limiter = limiters[0]
        limiter.hit_nowait("key")
        limiter.reset_nowait("other")
        limiter.hit_many_nowait([(f"{i}", 1) for i in range(50)])
        limiter.table.clear()
        limiter._rebind(limiter.table, limiter.quotas)
        deep[0] -= 1

    limiter = Limiter(
        Quota(10, DAY, algorithm=algorithm), store=MemoryStore(max_keys=20, clock=Calls(harm))
    )
    limiters.append(limiter)
    for call in (limiter.hit_nowait, limiter.peek_nowait, limiter.reserve_nowait) * 3:
        try:
            call("key")
        except RuntimeError as error:  # it changed each time it was asked
            assert "each time" in str(error)
        gc.collect()
    limiters.clear()
    limiter.reset_nowait("key")
    assert sum(bool(limiter.hit_nowait("key")) for _ in range(20)) == 10


class Hostile(Mapping[str, int]):
    """A cost that runs code while it is read."""

    def __init__(self, harm: Any, cost: Any = 1) -> None:
        self.harm, self.cost = harm, cost

    def __getitem__(self, name: str) -> int:
        self.harm()
        return self.cost  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(["n"])

    def __len__(self) -> int:
        return 1


@algorithms
def test_a_cost_that_raises_or_reenters(algorithm: str) -> None:
    limiter = Limiter(Quota(10, DAY, algorithm=algorithm, name="n"))
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            limiter.hit_nowait("key", Hostile(fail))
    assert limiter.peek_nowait("key").remaining == 10
    assert limiter.hit_nowait("key", Hostile(lambda: limiter.hit_nowait("key", 4), 3))
    assert limiter.peek_nowait("key").remaining == 3
    assert limiter.hit_nowait("key", Hostile(lambda: limiter.reset_nowait("key"), 3))
    assert limiter.peek_nowait("key").remaining == 7
    receipt = limiter.reserve_nowait("key", 2)[1]
    assert receipt is not None
    receipt.settle_nowait(Hostile(lambda: receipt.settle_nowait(0), 2))
    assert limiter.peek_nowait("key").remaining == 7, "settled once, by the inner call"


def test_an_observer_that_raises_or_reenters() -> None:
    limiter = Limiter(Quota(10, DAY))
    depth = [0]

    def observe(*arguments: Any) -> None:
        if depth[0] < 3:
            depth[0] += 1
            limiter.hit_nowait("key")
            _core.set_observer(None)
            _core.set_observer(observe)

    try:
        _core.set_observer(observe)
        limiter.hit_nowait("key")
        assert depth == [3]
        _core.set_observer(lambda *arguments: fail())
        with pytest.raises(ZeroDivisionError):
            limiter.hit_nowait("key")
    finally:
        _core.set_observer(None)
    # What raised was told of a decision: that was made, and charged.
    assert limiter.peek_nowait("key").remaining == 5


def test_a_callback_that_blocks_holds_up_nobody_else() -> None:
    """A thread inside its clock holds no lock of the limiter."""
    inside, leave = threading.Event(), threading.Event()
    blocked = threading.local()

    def clock() -> float:
        if getattr(blocked, "now", False):
            inside.set()
            assert leave.wait(20)
        return 0.0

    limiter = Limiter(Quota(10, DAY), store=MemoryStore(clock=clock))

    def run() -> None:
        blocked.now = True
        limiter.hit_nowait("key")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert inside.wait(20)
        assert sum(bool(limiter.hit_nowait("key")) for _ in range(9)) == 9
    finally:
        leave.set()
        thread.join(20)
    assert not thread.is_alive()
    assert not limiter.hit_nowait("key"), "the blocked one had its unit"


async def test_many_that_wait_and_are_cancelled_leave_nothing() -> None:
    clock = Clock()
    limiter = Limiter(Quota(1, 60), store=MemoryStore(clock=clock))
    assert await limiter.hit("key")
    tasks = [asyncio.create_task(limiter.wait("key", timeout=1e6)) for _ in range(500)]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    started = time.monotonic()
    clock.advance(60)
    assert await asyncio.wait_for(tasks[0], 10)
    assert time.monotonic() - started < 5
    assert clock.waiting == 0
    assert not await limiter.hit("key")
