"""Reservations: settled, cancelled, forgotten; in no order is a unit made."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate import Limiter, MemoryStore, RateLimitExceeded, sync, waiting
from sluicegate.testing import Clock

ALGORITHMS = ["gcra", "fixed-window", "sliding-window", "sliding-log"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def left(limiter: Limiter) -> int:
    return (await limiter.peek("a", 0)).remaining


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_less_gives_back_more_charges(store: MemoryStore, algorithm: str) -> None:
    limiter = Limiter(f"10/minute using {algorithm}", store=store)
    reservation = await limiter.reserve("a", 6)
    assert reservation
    assert reservation.open
    assert reservation.decision.remaining == await left(limiter) == 4
    await reservation.settle(2)
    assert not reservation.open
    assert await left(limiter) == 8
    await (await limiter.reserve("a", 1)).settle(5)
    assert await left(limiter) == 3
    await (await limiter.reserve("a", 3)).settle(7)  # past the limit, since it is spent
    assert await left(limiter) == 0
    assert not await limiter.hit("a")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_second_call_is_harmless(store: MemoryStore, algorithm: str) -> None:
    limiter = Limiter(f"10/minute using {algorithm}", store=store)
    reservation = await limiter.reserve("a", 6)
    await reservation.cancel()
    await reservation.cancel()
    await reservation.settle(0)
    await reservation.settle(9)
    assert await left(limiter) == 10
    refused = await limiter.reserve("a", 11)
    assert not refused
    assert refused.decision.retry_after == float("inf")
    await refused.settle(3)
    await refused.cancel()
    async with refused:
        pass
    assert await left(limiter) == 10


async def test_never_settled_means_charged(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("10/hour", store=store)
    reservation = await limiter.reserve("a", 6, ttl=60)
    del reservation
    assert await left(limiter) == 4
    reservation = await limiter.reserve("a", 2, ttl=60)
    clock.advance(61)
    await reservation.cancel()  # too late
    assert await left(limiter) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_refund_is_only_of_what_still_counts(
    store: MemoryStore, clock: Clock, algorithm: str
) -> None:
    limiter = Limiter(f"10/second using {algorithm}", store=store)
    reservation = await limiter.reserve("a", 10)
    clock.advance(2)  # all of it has passed
    assert await limiter.hit("a", 10)
    await reservation.cancel()
    assert await left(limiter) == 0


async def test_as_a_context(store: MemoryStore) -> None:
    limiter = Limiter("10/hour", store=store)
    async with await limiter.reserve("a", 4) as reservation:
        assert reservation
    assert await left(limiter) == 6
    assert not reservation.open
    async with await limiter.reserve("a", 4) as reservation:
        await reservation.settle(1)
    assert await left(limiter) == 5
    async with await limiter.reserve("a", 4) as reservation:
        await reservation.cancel()
    assert await left(limiter) == 5
    with pytest.raises(KeyError):
        async with await limiter.reserve("a", 4):
            raise KeyError
    assert await left(limiter) == 5
    with pytest.raises(KeyError):
        async with await limiter.reserve("a", 4) as reservation:
            await reservation.settle(3)
            raise KeyError
    assert await left(limiter) == 2

    async def cancelled() -> None:
        async with await limiter.reserve("a", 2):
            await asyncio.sleep(60)

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    assert await left(limiter) == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await left(limiter) == 2


async def test_several_quotas_and_a_mapping(store: MemoryStore) -> None:
    limiter = Limiter("messages: 5/hour; bytes: 1000/hour", store=store)
    async with await limiter.reserve("a", {"bytes": 600}) as reservation:
        assert not await limiter.reserve("a", {"bytes": 600})
        await reservation.settle({"bytes": 100})
    assert (await limiter.peek("a", {"messages": 4, "bytes": 900})).allowed
    assert not (await limiter.peek("a", {"messages": 4, "bytes": 901})).allowed
    with pytest.raises(ValueError):
        await limiter.reserve("a", {"byte": 1})
    with pytest.raises(ValueError):
        await (await limiter.reserve("a")).settle({"byte": 1})


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
async def test_a_ttl_is_a_time(store: MemoryStore, ttl: float) -> None:
    with pytest.raises(ValueError):
        await Limiter("1/s", store=store).reserve("a", ttl=ttl)


async def test_it_waits_its_turn_where_asked(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    assert await limiter.hit("a")
    assert not await limiter.reserve("a")
    assert not await limiter.reserve("a", timeout=0.5)
    waits = asyncio.create_task(limiter.wait("a"))
    await asyncio.sleep(0)
    task = asyncio.create_task(limiter.reserve("a", timeout=2))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not await limiter.reserve("a", timeout=2)  # two are before it
    for _ in range(2):
        clock.advance(1)
        for _ in range(10):
            await asyncio.sleep(0)
    assert await waits
    reservation = await asyncio.wait_for(task, 5)
    assert reservation.open
    await reservation.cancel()
    assert await limiter.hit("a")
    assert not waiting._queues


def test_of_a_thread(store: MemoryStore) -> None:
    limiter = sync.Limiter("10/hour", store=store)
    with limiter.reserve("a", 4) as reservation:
        reservation.settle(1)
        reservation.settle(9)
    with pytest.raises(KeyError), limiter.reserve("a", 4):
        raise KeyError
    with limiter.reserve("a", 4):
        pass
    assert limiter.peek("a", 5)
    assert not limiter.peek("a", 6)
    refused = limiter.reserve("a", 6, timeout=0)
    assert not refused
    refused.cancel()
    with pytest.raises(RateLimitExceeded):
        limiter.check("a", 6)


ACTIONS = ["reserve", "settle", "cancel", "hit", "wait", "cancel wait", "advance", "forget"]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["gcra", "fixed-window", "sliding-log"]),
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 8)), max_size=50),
)
def test_in_any_order_no_unit_is_made(algorithm: str, steps: list[tuple[str, int]]) -> None:
    """Whatever is finally spent is within the promise, as if it had been spent when reserved."""
    limit, period = 6, 2.0

    async def run() -> None:
        clock = Clock()
        text = f"{limit}/{period:g} seconds using {algorithm}"
        limiter = Limiter(text, store=MemoryStore(clock=clock))
        spent: list[list[float]] = []  # when, how much
        open_ones = []
        tasks: list[asyncio.Task[None]] = []

        async def wait(cost: int) -> None:
            if await limiter.wait("a", cost):
                spent.append([clock.time(), cost])

        for action, size in steps:
            if action == "reserve":
                reservation = await limiter.reserve("a", size)
                if reservation:
                    entry = [clock.time(), size]
                    spent.append(entry)
                    open_ones.append((reservation, entry))
            elif action in ("settle", "cancel", "forget") and open_ones:
                reservation, entry = open_ones.pop(size % len(open_ones))
                if action == "settle":
                    actual = min(size, entry[1])  # never above: no debt, so the bound is plain
                    await reservation.settle(int(actual))
                    entry[1] = actual
                elif action == "cancel":
                    await reservation.cancel()
                    entry[1] = 0
            elif action == "hit":
                if limiter.hit_nowait("a", size):
                    spent.append([clock.time(), size])
            elif action == "wait":
                tasks.append(asyncio.create_task(wait(size)))
            elif action == "cancel wait" and tasks:
                tasks[size % len(tasks)].cancel()
            elif action == "advance":
                clock.advance(size / 8)
            for _ in range(8):
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        check(algorithm, limit, period, spent)
        assert not waiting._queues

    asyncio.run(run())


def check(algorithm: str, limit: int, period: float, spent: list[list[float]]) -> None:
    """What was truly spent, against section 1. (A window's start moves with its first event,
    so of fixed windows two in a row are the bound of any period.)"""
    bound = {"gcra": limit, "fixed-window": 2 * limit, "sliding-log": limit}[algorithm]
    for first, (start, _) in enumerate(spent):
        total = 0.0
        for end, cost in spent[first:]:
            if algorithm != "gcra" and end >= start + period:
                break
            total += cost
            refilled = limit * (end - start) / period if algorithm == "gcra" else 0
            assert total <= bound + refilled + 1e-6
