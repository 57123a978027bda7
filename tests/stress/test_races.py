"""Many tasks and threads at one key, in runs too short to refill: exactly the limit passes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest

import sluicegate.sync
from reference import ALGORITHMS
from sluicegate import Limiter, Quota, WebSocketLimits, WebSocketRateLimiter, _core

DAY = 86400
LIMIT = 300

algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def by_threads(work: object, threads: int = 8) -> list[int]:
    """Runs work() in threads that start together; what each returned."""
    barrier, results, errors = threading.Barrier(threads), [], []

    def run() -> None:
        try:
            barrier.wait(10)
            results.append(work())  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors
    return results


@algorithms
@pytest.mark.parametrize("cost", [1, 7])
async def test_tasks(algorithm: str, cost: int) -> None:
    limiter = Limiter(Quota(LIMIT, DAY, algorithm=algorithm))

    async def work() -> int:
        passed = 0
        for _ in range(30):
            passed += bool(await limiter.hit("key", cost))
            await asyncio.sleep(0)
        return passed

    passed = await asyncio.gather(*(work() for _ in range(64)))
    assert sum(passed) == LIMIT // cost


@algorithms
@pytest.mark.parametrize("cost", [1, 7])
def test_threads(algorithm: str, cost: int) -> None:
    limiter = sluicegate.sync.Limiter(Quota(LIMIT, DAY, algorithm=algorithm))

    def work() -> int:
        return sum(bool(limiter.hit("key", cost)) for _ in range(3000))

    assert sum(by_threads(work)) == LIMIT // cost


@algorithms
def test_threads_of_several_quotas_and_of_mixed_weights(algorithm: str) -> None:
    limiter = sluicegate.sync.Limiter(
        [
            Quota(LIMIT, DAY, algorithm=algorithm, name="messages"),
            Quota(1000, DAY, algorithm=algorithm, name="bytes"),
            Quota(5, DAY, name="shadow", shadow=True),
        ]
    )

    def work() -> int:
        spent = 0
        for size in range(3000):
            cost = {"bytes": size % 10, "shadow": 1}
            spent += (1 << 32) + size % 10 if limiter.hit("key", cost) else 0
        return spent

    spent = sum(by_threads(work))
    messages, units = spent >> 32, spent & 0xFFFFFFFF
    assert messages <= LIMIT
    assert units <= 1000
    # Nothing is lost either: what is told to remain is what was not spent.
    last = limiter.peek("key", {"bytes": 1001, "messages": 0})
    assert 1000 - last.remaining == units
    last = limiter.peek("key", {"bytes": 0, "messages": LIMIT + 1})
    assert LIMIT - last.remaining == messages
    # A message of no bytes is limited by messages alone, so these were used up.
    assert messages == LIMIT or units == 1000


@algorithms
def test_threads_through_every_entrance(algorithm: str) -> None:
    """hit, hit_many, hit_all, reserve, a bound handle and the awaitable, all at once."""
    limiter = Limiter(Quota(LIMIT, DAY, algorithm=algorithm))
    handle = limiter.bind("key")

    def await_one() -> bool:
        call = limiter.hit("key")
        try:
            call.send(None)
        except StopIteration as stop:
            return bool(stop.value)
        raise AssertionError("a hit waits for nothing")

    def reserve() -> bool:
        _, receipt = limiter.reserve_nowait("key", 1)
        if receipt is not None:
            receipt.settle_nowait(1)
        return receipt is not None

    def work() -> int:
        passed = 0
        for _ in range(300):
            passed += bool(limiter.hit_nowait("key"))
            passed += bool(handle.hit_nowait())
            passed += sum(map(bool, limiter.hit_many_nowait([("key", 1), (b"key", 1)])))
            passed += bool(_core.hit_all_nowait([(limiter, "key", 1)])[0])
            passed += reserve()
            passed += await_one()
        return passed

    assert sum(by_threads(work)) == LIMIT


@algorithms
def test_all_or_none_over_two_limiters(algorithm: str) -> None:
    """Hits of both, and of each alone, from many threads: no unit is lost or given twice."""
    one = Limiter(Quota(LIMIT, DAY, algorithm=algorithm))
    two = Limiter(Quota(2 * LIMIT, DAY, algorithm=algorithm))

    def work() -> int:
        both = alone = 0
        for _ in range(300):
            both += bool(_core.hit_all_nowait([(one, "a", 1), (two, b"b", 2)])[0])
            alone += bool(two.hit_nowait("b"))
        return (both << 32) + alone

    spent = sum(by_threads(work))
    both, alone = spent >> 32, spent & 0xFFFFFFFF
    assert 2 * both + alone == 2 * LIMIT
    assert one.peek_nowait("a").remaining == LIMIT - both


@algorithms
def test_threads_that_reserve_and_cancel_leave_it_whole(algorithm: str) -> None:
    limiter = Limiter(Quota(LIMIT, DAY, algorithm=algorithm))

    def work() -> int:
        kept = 0
        for i in range(1000):
            _, receipt = limiter.reserve_nowait("key", 1 + i % 5)
            if receipt is not None:
                keep = i % 97 == 0
                receipt.settle_nowait(1 if keep else 0)
                kept += keep
        return kept

    kept = sum(by_threads(work))
    remaining = limiter.peek_nowait("key").remaining
    if algorithm == "gcra":  # the part of an interval that has passed does not come back
        assert LIMIT - kept - 1 <= remaining <= LIMIT - kept + 1
    else:
        assert remaining == LIMIT - kept


@pytest.mark.parametrize("store", [None, "memory://"])
async def test_check_then_register_in_one_task(store: str | None) -> None:
    """64 tasks each set up a connection, with turns of the loop between the steps."""
    limits = WebSocketLimits(connections_per_minute=10_000, max_concurrent_connections=5)
    limiter = WebSocketRateLimiter(limits, store, name=f"race {store}")
    registered = []

    async def connect(i: int) -> None:
        await asyncio.sleep(0)
        if not await limiter.check_connection("client"):
            return
        for _ in range(i % 7):
            await asyncio.sleep(0)
        if await limiter.register_connection(f"connection {i}", "client"):
            registered.append(i)
        await asyncio.sleep(0.05)  # the task still runs, its place is still its own

    for _ in range(3):
        await asyncio.gather(*(connect(i) for i in range(64)))
        assert len(registered) == 5
        assert limiter.get_client_connections("client") == 5
        for i in registered:
            await limiter.unregister_connection(f"connection {i}")
        registered.clear()


async def test_register_alone_admits_exactly_the_limit() -> None:
    limiter = WebSocketRateLimiter(WebSocketLimits(max_concurrent_connections=5))

    async def connect(i: int) -> bool:
        await asyncio.sleep(0)
        return bool(await limiter.register_connection(f"connection {i}", "client"))

    passed = await asyncio.gather(*(connect(i) for i in range(64)))
    assert sum(passed) == 5
    for connection in list(limiter.active_connections):
        await limiter.unregister_connection(connection)


async def test_tasks_of_one_client_share_messages_and_bytes() -> None:
    limits = WebSocketLimits(messages_per_minute=100, bytes_per_minute=100_000)
    limiter = WebSocketRateLimiter(limits)
    for i in range(8):
        assert await limiter.register_connection(f"connection {i}", "client")

    async def send(i: int) -> int:
        passed = 0
        for _ in range(20):
            result = await limiter.check_message(f"connection {i % 8}", 10)
            passed += result["allowed"]
            await asyncio.sleep(0)
        return passed

    passed = await asyncio.gather(*(send(i) for i in range(64)))
    assert sum(passed) == 100
    for i in range(8):
        await limiter.unregister_connection(f"connection {i}")
