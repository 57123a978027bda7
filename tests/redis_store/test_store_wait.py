"""Waiting over servers: first come first served in a process, refused at once where it is vain."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest

from redis_store.public import fresh, left
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, sync, waiting


@pytest.fixture(autouse=True)
def _nobody_is_left() -> object:
    yield
    assert not waiting._queues


async def test_what_is_there_is_had_at_once(store: RedisStore) -> None:
    limiter = Limiter("2/hour", store=store, name=fresh())
    assert (await limiter.wait("a")).remaining == 1
    assert await limiter.wait("a", timeout=0)


async def test_first_come_first_served(store: RedisStore) -> None:
    limiter = Limiter("1/0.1 seconds", store=store, name=fresh())
    assert await limiter.hit("a")
    order: list[int] = []

    async def one(number: int) -> None:
        assert await limiter.wait("a")
        order.append(number)

    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, 4, 5]


async def test_small_costs_do_not_overtake_a_large_one(store: RedisStore) -> None:
    limiter = Limiter("10/second burst 5", store=store, name=fresh())
    assert await limiter.hit("a", 5)
    order: list[int] = []

    async def one(cost: int) -> None:
        assert await limiter.wait("a", cost)
        order.append(cost)

    tasks = [asyncio.create_task(one(5))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(one(1)))
    await asyncio.gather(*tasks)
    assert order == [5, 1]


async def test_refused_at_once_where_its_turn_cannot_come_in_time(store: RedisStore) -> None:
    limiter = Limiter("1/hour", store=store, name=fresh())
    assert await limiter.hit("a")
    refused = await asyncio.wait_for(limiter.wait("a", timeout=60), 10)
    assert not refused
    assert 3500 < refused.retry_after <= 3600
    waits = asyncio.create_task(limiter.wait("a"))
    await asyncio.sleep(0)
    refused = await asyncio.wait_for(limiter.wait("a", timeout=3700), 10)
    assert not refused
    assert 7100 < refused.retry_after <= 7200  # behind the one that waits
    never = await asyncio.wait_for(limiter.wait("a", 2), 10)
    assert (never.allowed, never.retry_after) == (False, math.inf)
    assert not waits.done()
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    assert await left(limiter) == 0


async def test_too_many_wait(store: RedisStore) -> None:
    limiter = Limiter("1/hour", store=store, name=fresh())
    assert await limiter.hit("a")
    tasks = [asyncio.create_task(limiter.wait("a", max_waiters=3)) for _ in range(5)]
    done, pending = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    done, pending = await asyncio.wait(tasks, timeout=0.1)
    assert [task in pending for task in tasks] == [True] * 3 + [False] * 2
    assert not any(task.result() for task in done)
    refused = await asyncio.wait_for(limiter.wait("a", max_waiters=0), 10)
    assert not refused
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_comes_back_early_wakes_the_head(store: RedisStore) -> None:
    limiter = Limiter("1/hour", store=store, name=fresh())
    reservation = await limiter.reserve("a")
    for number, bring in enumerate(
        (
            lambda: reservation.cancel(),
            lambda: limiter.reset("a"),
            lambda: limiter.reward("a"),
            lambda: limiter.unban("a"),
            lambda: limiter.update("1/0.01 seconds"),
        )
    ):
        waits = asyncio.create_task(limiter.wait("a"))
        await asyncio.sleep(0.05)
        assert not waits.done(), number
        await bring()
        assert await asyncio.wait_for(waits, 10), number
        if number == 2:  # to lift a ban
            await limiter.reset("a")
            await limiter.ban("a", 3600)


async def test_waiting_is_no_refusal(store: RedisStore) -> None:
    limiter = Limiter("1/0.3 seconds", store=store, name=fresh())
    assert await limiter.hit("a")
    assert all(await asyncio.gather(*(limiter.wait("a") for _ in range(2))))
    counted = limiter.table.counters()
    assert (counted["admitted"], counted["refused"]) == (3, 0)


async def test_several_loops_in_threads_wait_in_one_queue(store: RedisStore) -> None:
    limiter = Limiter("20/second burst 1", store=store, name=fresh())
    admitted: list[float] = []

    async def one() -> None:
        for _ in range(3):
            assert await limiter.wait("a", timeout=60)
            admitted.append(time.monotonic())

    def run() -> None:
        asyncio.run(one())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    await one()
    await asyncio.to_thread(lambda: [thread.join(60) for thread in threads])
    assert len(admitted) == 12


def test_by_threads(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    limiter = sync.Limiter("20/second burst 1", store=store, name=fresh())
    done: list[bool] = []

    def one() -> None:
        done.append(bool(limiter.wait("a", timeout=60)))

    threads = [threading.Thread(target=one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [True] * 5
    limiter.update("20/hour burst 1")
    limiter.penalize("a", 2)
    assert not limiter.wait("a", timeout=1)


async def test_a_slot_is_waited_for_too(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store, name=fresh())
    held = await limiter.acquire("a")
    assert held is not None
    order: list[int] = []

    async def one(number: int) -> None:
        async with limiter.hold("a", timeout=20):
            order.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0)
    assert await limiter.acquire("a", timeout=0.05) is None
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert order == []
    await limiter.release(held)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2, 3]
    assert await limiter.count("a") == 0


async def test_who_may_not_wait_is_not_refused_for_those_who_only_ask(store: RedisStore) -> None:
    limiter = Limiter("20/hour using fixed-window", store=store, name=fresh())
    costs = [1, 3, 1, 2, 1, 1, 4, 1]
    made = await asyncio.gather(*(limiter.wait("a", cost, timeout=0) for cost in costs))
    assert [one.allowed for one in made] == [True] * len(costs)
    assert await left(limiter) == 20 - sum(costs)
    made = await asyncio.gather(*(limiter.wait("a", cost, timeout=0) for cost in [5, 2, 1]))
    # one of them cannot be met: who comes behind it does not overtake it
    assert [one.allowed for one in made] == [True, False, False]
    slots = ConcurrencyLimiter(20, store=store, name=fresh())
    held = await asyncio.gather(*(slots.acquire("a", timeout=0) for _ in range(30)))
    assert [slot is not None for slot in held] == [True] * 20 + [False] * 10
    for slot in held:
        if slot is not None:
            await slots.release(slot)
