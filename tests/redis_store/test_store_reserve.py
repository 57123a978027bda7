"""Reservations over servers: settled, cancelled, forgotten; in no order is a unit made."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from redis_store.public import ALGORITHMS, fresh, left
from sluicegate import Limiter, RedisStore, sync


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_less_gives_back_more_charges(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"10/hour using {algorithm}", store=store, name=fresh())
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
    await limiter.reward("a", 4)
    assert await left(limiter) == 0
    await limiter.reward("a", 1)
    assert await left(limiter) == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_second_call_is_harmless(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"10/hour using {algorithm}", store=store, name=fresh())
    reservation = await limiter.reserve("a", 6)
    await asyncio.gather(reservation.cancel(), reservation.cancel(), reservation.settle(1))
    for again in (reservation.cancel(), reservation.settle(0), reservation.settle(9)):
        await again
    assert await left(limiter) == 10
    refused = await limiter.reserve("a", 11)
    assert not refused
    assert refused.decision.retry_after == math.inf
    assert not refused.open
    await refused.settle(3)
    await refused.cancel()
    async with refused:
        pass
    assert await left(limiter) == 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_never_settled_means_charged(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"10/hour using {algorithm}", store=store, name=fresh())
    await limiter.reserve("a", 6)
    assert await left(limiter) == 4
    late = await limiter.reserve("a", 2, ttl=0.05)
    await asyncio.sleep(0.08)
    await late.cancel()
    assert await left(limiter) == 2
    late = await limiter.reserve("a", 1, ttl=0.05)
    await asyncio.sleep(0.08)
    await late.settle(2)  # what was spent beyond it is charged all the same
    assert await left(limiter) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_refund_is_only_of_what_still_counts(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"10/0.1 seconds using {algorithm}", store=store, name=fresh())
    reservation = await limiter.reserve("a", 10)
    await asyncio.sleep(0.22)  # all of it has passed
    assert await limiter.hit("a", 10)
    await reservation.cancel()
    assert await left(limiter) < 9  # of its own it gets back one in 10 ms


async def test_a_reset_forgets_open_reservations(store: RedisStore) -> None:
    limiter = Limiter("10/hour", store=store, name=fresh())
    reservation = await limiter.reserve("a", 6)
    await limiter.reset("a")
    assert await limiter.hit("a", 10)
    await reservation.cancel()
    assert await left(limiter) == 0


async def test_as_a_context(store: RedisStore) -> None:
    limiter = Limiter("10/hour", store=store, name=fresh())
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
    inside = asyncio.Event()

    async def cancelled() -> None:
        async with await limiter.reserve("a", 2):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(cancelled())
    await asyncio.wait_for(inside.wait(), 10)
    assert await left(limiter) == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await left(limiter) == 2


async def test_several_quotas_and_a_mapping(store: RedisStore) -> None:
    limiter = Limiter(
        "messages: 5/hour using sliding-log; bytes: 1000/hour", store=store, name=fresh()
    )
    async with await limiter.reserve("a", {"bytes": 600}) as reservation:
        assert not await limiter.reserve("a", {"bytes": 600})
        await reservation.settle({"bytes": 100})
    assert (await limiter.peek("a", {"messages": 4, "bytes": 900})).allowed
    assert not (await limiter.peek("a", {"messages": 4, "bytes": 901})).allowed
    with pytest.raises(ValueError):
        await limiter.reserve("a", {"byte": 1})
    reservation = await limiter.reserve("a")
    with pytest.raises(ValueError):
        await reservation.settle({"byte": 1})
    assert reservation.open


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf])
async def test_a_ttl_is_a_time(store: RedisStore, ttl: float) -> None:
    with pytest.raises(ValueError):
        await Limiter("1/s", store=store, name=fresh()).reserve("a", ttl=ttl)


async def test_it_waits_its_turn_where_asked(store: RedisStore) -> None:
    limiter = Limiter("1/0.2 seconds", store=store, name=fresh())
    assert await limiter.hit("a")
    assert not await limiter.reserve("a")
    assert not await limiter.reserve("a", timeout=0.01)
    order: list[int] = []

    async def one(number: int) -> None:
        async with await limiter.reserve("a", timeout=20) as reservation:
            assert reservation
            order.append(number)

    await asyncio.gather(*(one(number) for number in range(3)))
    assert order == [0, 1, 2]


async def test_many_at_once_are_settled_each_by_its_own(store: RedisStore) -> None:
    limiter = Limiter("100/hour using fixed-window", store=store, name=fresh())
    made = await asyncio.gather(*(limiter.reserve("a", 2) for _ in range(60)))
    assert sum(map(bool, made)) == 50
    await asyncio.gather(*(one.settle(number % 3) for number, one in enumerate(made)))
    assert await left(limiter) == 100 - sum(
        number % 3 for number, one in enumerate(made) if one.decision.allowed
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_more_of_one_moment_than_a_log_has_entries(store: RedisStore, algorithm: str) -> None:
    """All checks of one command have one time."""
    limiter = Limiter(f"10000/30 days using {algorithm}", store=store, name=fresh())
    made = await asyncio.gather(*(limiter.reserve("a", 1 + n % 5) for n in range(700)))
    assert all(made)
    actual = [1 if n >= 690 else 0 for n in range(700)]
    pairs = [*zip(made, actual, strict=True)]
    random.Random(7).shuffle(pairs)
    await asyncio.gather(*(one.settle(units) for one, units in pairs))
    assert await left(limiter) == 10000 - sum(actual)


def test_by_threads(anywhere: str) -> None:
    limiter = sync.Limiter("10/hour", store=RedisStore(anywhere, timeout=5), name=fresh())
    with limiter.reserve("a", 4) as reservation:
        reservation.settle(1)
    with pytest.raises(KeyError), limiter.reserve("a", 4):
        raise KeyError
    with limiter.reserve("a", 3, timeout=1):
        pass
    assert limiter.peek("a", 0).remaining == 6
    reservation = limiter.reserve("a", 6)
    reservation.cancel()
    reservation.cancel()
    assert limiter.peek("a", 0).remaining == 6
