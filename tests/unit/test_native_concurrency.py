"""ConcurrencyLimiter: never more at once than its limit, and none is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate import (
    ConcurrencyLimiter,
    Limiter,
    MemoryStore,
    RateLimitExceeded,
    _core,
    sync,
    waiting,
)
from sluicegate.testing import Clock

needs_hiredis = pytest.mark.skipif(not hasattr(_core, "HIREDIS"), reason="built without hiredis")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_at_most_its_limit_at_once(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(2, store=store)
    first, second = await limiter.acquire("a"), await limiter.acquire("a")
    assert first is not None
    assert second is not None
    assert await limiter.acquire("a") is None
    assert await limiter.count("a") == 2
    other = await limiter.acquire("b")
    assert other is not None
    assert await limiter.release(first) is True
    assert await limiter.release(first) is False  # harmless
    assert await limiter.count("a") == 1
    third = await limiter.acquire(b"a")
    assert third is not None
    for slot in (second, third, other):
        await limiter.release(slot)
    assert await limiter.count("a") == 0


async def test_hold_gives_back_however_it_ends(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store)
    async with limiter.hold("a") as slot:
        assert slot.held
        with pytest.raises(RateLimitExceeded, match="1 slot held at once") as error:
            async with limiter.hold("a"):
                pytest.fail("held twice")
        assert error.value.decision.limit == 1
        assert error.value.retry_after == float("inf")
    assert await limiter.count("a") == 0
    with pytest.raises(KeyError):
        async with limiter.hold("a"):
            raise KeyError
    assert await limiter.count("a") == 0

    async def held() -> None:
        async with limiter.hold("a"):
            await asyncio.sleep(60)

    task = asyncio.create_task(held())
    await turn()
    assert await limiter.count("a") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await limiter.count("a") == 0


async def test_one_hold_entered_by_several_tasks(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(3, store=store)
    hold = limiter.hold("a")

    async def held() -> None:
        async with hold:
            await turn()

    await asyncio.gather(held(), held(), held())
    assert await limiter.count("a") == 0


async def test_first_come_first_served(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store)
    held = await limiter.acquire("a")
    assert held is not None
    order: list[int] = []

    async def one(number: int) -> None:
        async with limiter.hold("a", timeout=10):
            order.append(number)
            await turn()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(one(number)))
        await turn()
    tasks[2].cancel()
    tasks[0].cancel()
    await turn()
    assert order == []
    await limiter.release(held)
    # free, but others wait for it: who cannot wait does not overtake
    assert await limiter.acquire("a") is None
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 3, 4]
    assert await limiter.count("a") == 0
    assert not waiting._queues


async def test_its_time_is_up(store: MemoryStore) -> None:
    clock = Clock()
    limiter = ConcurrencyLimiter(1, store=MemoryStore(clock=clock))
    held = await limiter.acquire("a")
    assert held is not None
    first = asyncio.create_task(limiter.acquire("a", timeout=2))
    second = asyncio.create_task(limiter.acquire("a", timeout=5))
    await turn()
    clock.advance(2)
    await turn()
    assert first.done()
    assert first.result() is None
    assert not second.done()
    await limiter.release(held)
    slot = await asyncio.wait_for(second, 5)
    assert slot is not None
    assert await limiter.acquire("a") is None
    await limiter.release(slot)
    real = ConcurrencyLimiter(1, store=store)
    slot = await real.acquire("a")
    began = time.monotonic()
    assert await real.acquire("a", timeout=0.05) is None
    assert 0.04 <= time.monotonic() - began < 2
    assert slot is not None
    await real.release(slot)


async def test_a_forgotten_slot_is_given_back_with_a_warning(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store)
    slot = await limiter.acquire("a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del slot
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert await limiter.count("a") == 0


async def test_one_name_shares_and_a_limiter_may_have_it_too(store: MemoryStore) -> None:
    first = ConcurrencyLimiter(1, store=store, name="chat")
    second = sync.ConcurrencyLimiter(2, store=store, name="chat")
    Limiter("5/second", store=store, name="chat")
    slot = await first.acquire("a")
    assert slot is not None
    assert second.count("a") == 1
    other = second.acquire("a")
    assert other is not None
    assert second.acquire("a") is None
    waits = asyncio.create_task(first.acquire("a", timeout=5))
    await turn()
    assert second.release(other)
    await turn()
    assert not waits.done()  # by its own limit of 1
    assert second.release(slot)
    last = await waits
    assert last is not None
    await first.release(last)
    assert await ConcurrencyLimiter(1, store=store).count("a") == 0


@pytest.mark.parametrize("limit", [0, -1, 2**70])
def test_a_limit_is_positive(store: MemoryStore, limit: int) -> None:
    with pytest.raises(ValueError):
        ConcurrencyLimiter(limit, store=store)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": 0}, ValueError),
        ({"ttl": "1"}, TypeError),
        ({"name": ""}, ValueError),
        pytest.param({"store": "redis://h"}, ValueError, marks=needs_hiredis),  # and a name=
        ({"store": 5}, TypeError),
    ],
)
def test_wrong_arguments(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ConcurrencyLimiter(1, **options)  # type: ignore[arg-type]


async def test_wrong_calls(store: MemoryStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store)
    with pytest.raises(ValueError):
        await limiter.acquire("a", timeout=-1)
    with pytest.raises(TypeError):
        await limiter.acquire(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ConcurrencyLimiter("1", store=store)  # type: ignore[arg-type]


def test_threads_hold_no_more_than_the_limit(store: MemoryStore) -> None:
    limiter = sync.ConcurrencyLimiter(3, store=store)
    lock, now, most, done = threading.Lock(), 0, 0, 0

    def work() -> None:
        nonlocal now, most, done
        for _ in range(20):
            with limiter.hold("a", timeout=20):
                with lock:
                    now += 1
                    most = max(most, now)
                time.sleep(0.0002)
                with lock:
                    now -= 1
                    done += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (done, most, limiter.count("a")) == (160, 3, 0)
    slot = limiter.acquire("a")
    assert slot is not None
    assert limiter.release(slot)
    with limiter.hold("a"), limiter.hold("a"), limiter.hold("a"), pytest.raises(RateLimitExceeded):
        limiter.hold("a").__enter__()


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "wait", "release", "cancel", "advance"]),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
def test_in_any_order_none_is_lost_and_none_too_many(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        clock = Clock()
        limiter = ConcurrencyLimiter(2, store=MemoryStore(clock=clock))
        held = []
        tasks: list[asyncio.Task[None]] = []

        async def wait(timeout: float) -> None:
            slot = await limiter.acquire("a", timeout=timeout)
            if slot is not None:
                held.append(slot)

        for action, size in steps:
            if action == "acquire":
                slot = await limiter.acquire("a")
                if slot is not None:
                    held.append(slot)
            elif action == "wait":
                tasks.append(asyncio.create_task(wait(size)))
            elif action == "release" and held:
                await limiter.release(held.pop(size % len(held)))
            elif action == "cancel" and tasks:
                tasks[size % len(tasks)].cancel()
            elif action == "advance":
                clock.advance(size / 2)
            if size % 2:
                await turn()
            assert len(held) <= 2
            assert await limiter.count("a") >= len(held)
        await turn()
        clock.advance(100)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert await limiter.count("a") == len(held) <= 2
        for slot in held:
            await limiter.release(slot)
        assert await limiter.count("a") == 0
        assert not waiting._queues

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore:a slot of:ResourceWarning")
@pytest.mark.parametrize("way", ["forgotten", "released by itself", "by another limiter"])
async def test_a_waiter_gets_a_slot_however_it_was_given_back(way: str) -> None:
    store = MemoryStore()
    limiter = ConcurrencyLimiter(1, store=store, name="jobs")
    slots = [await limiter.acquire("k")]
    waiter = asyncio.create_task(limiter.acquire("k", timeout=None))
    await asyncio.sleep(0)
    assert not waiter.done()
    slot = slots.pop()
    assert slot is not None
    if way == "released by itself":
        assert slot.release_nowait()
    elif way == "by another limiter":
        assert await ConcurrencyLimiter(5, name="others").release(slot)
    del slot
    second = await asyncio.wait_for(waiter, 5)
    assert second is not None
    await limiter.release(second)
