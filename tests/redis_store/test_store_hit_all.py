"""hit_all over servers: all or none, of one store, of two, of a cluster, and beside memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from redis_store.public import ALGORITHMS, fresh, left
from sluicegate import Limiter, MemoryStore, Quota, RedisStore, hit_all, sync


@pytest.fixture(params=["one store", "two stores", "beside memory"])
async def two(
    request: pytest.FixtureRequest, store: RedisStore, anywhere: str
) -> AsyncIterator[tuple[RedisStore, RedisStore | MemoryStore]]:
    """Two stores, which may be the same one."""
    if request.param == "one store":
        yield store, store
    elif request.param == "beside memory":
        yield store, MemoryStore()
    else:
        async with RedisStore(anywhere, prefix="second", timeout=5) as second:
            yield store, second


Two = tuple[RedisStore, RedisStore | MemoryStore]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_all_or_none(two: Two, algorithm: str) -> None:
    user = Limiter(f"5/hour using {algorithm}", store=two[0], name=fresh())
    room = Limiter(f"3/day using {algorithm}", store=two[1], name=fresh())
    decision = await hit_all((user, "ada", 1), (room, "lobby", 2))
    assert (decision.allowed, decision.remaining, decision.quota) == (True, 1, room.quotas[0])
    refused = await hit_all((user, "ada", 1), (room, "lobby", 2))
    assert (refused.allowed, refused.remaining, refused.quota) == (False, 1, room.quotas[0])
    assert (await left(user, "ada"), await left(room, "lobby")) == (4, 1)
    # whichever comes first
    assert not await hit_all((room, "lobby", 2), (user, "ada", 1))
    assert (await left(user, "ada"), await left(room, "lobby")) == (4, 1)
    assert await Limiter.hit_all((user, "ada", 4), (room, "lobby", 1))
    assert (await left(user, "ada"), await left(room, "lobby")) == (0, 0)
    # of several that refuse the longest binds
    refused = await hit_all((user, "ada", 1), (room, "lobby", 1))
    assert refused.quota == room.quotas[0]


async def test_one_key_twice_is_charged_for_both(two: Two) -> None:
    first = Limiter("5/hour", store=two[0], name=fresh())
    other = Limiter("9/hour", store=two[1], name=fresh())
    assert not await hit_all((first, "a", 3), (other, "a", 1), (first, "a", 3))
    assert (await left(first), await left(other)) == (5, 9)
    assert await hit_all((first, "a", 3), (other, "a", 1), (first, "a", 2))
    assert (await left(first), await left(other)) == (0, 8)


async def test_costs_by_name_and_several_quotas(two: Two) -> None:
    quotas = "m: 5/hour; b: 100/hour using sliding-log"
    first = Limiter(quotas, store=two[0], name=fresh())
    other = Limiter(quotas, store=two[1], name=fresh())
    assert await hit_all((first, "a", {"b": 60}), (other, "a", {"b": 0}))
    refused = await hit_all((first, "a", {"b": 60}), (other, "a", 1))
    assert refused.quota == Quota(100, 3600, algorithm="sliding-log", name="b")
    assert (await other.peek("a", {"m": 4, "b": 100})).allowed
    with pytest.raises(ValueError):
        await hit_all((first, "a", 1), (other, "a", {"x": 1}))
    assert (await first.peek("a", {"m": 4, "b": 40})).allowed


async def test_shadow_and_disabled_hold_nothing_back(two: Two) -> None:
    full = Limiter("1/hour", store=two[0], name=fresh())
    shadow = Limiter("1/hour", store=two[1], name=fresh(), shadow=True)
    off = Limiter("1/hour", store=two[0], name=fresh(), enabled=False)
    for expected in (True, False):
        decision = await hit_all((full, "a", 1), (shadow, "a", 1), (off, "a", 5))
        assert decision.allowed == expected
    await full.reset("a")
    assert (await hit_all((full, "a", 1), (shadow, "a", 1), (off, "a", 5))).allowed
    assert await hit_all((off, "a", 5), (shadow, "a", 5))
    quiet = Limiter([Quota(1, 3600, shadow=True), Quota(9, 3600)], store=two[1], name=fresh())
    for expected in (False, True):
        await full.reset("a")
        assert (await hit_all((full, "a", 1), (quiet, "a", 1))).shadow == expected


async def test_a_ban_refuses_all(two: Two) -> None:
    first = Limiter("5/hour", store=two[0], name=fresh())
    other = Limiter("5/hour", store=two[1], name=fresh())
    await other.ban("a", 600)
    refused = await hit_all((first, "a", 1), (other, "a", 1))
    assert not refused
    assert 590 < refused.retry_after <= 600
    assert await left(first) == 5


async def test_many_at_once_admit_exactly_the_smaller_limit(two: Two) -> None:
    """Also where each is reserved and given back: of those that come at once one may be refused
    for what another only holds for a moment, so each tries until both have told it no."""
    first = Limiter("20/day using fixed-window", store=two[0], name=fresh())
    other = Limiter("12/day using fixed-window", store=two[1], name=fresh())
    decisions = await asyncio.gather(
        *(hit_all((first, "a", 1), (other, "b", 1)) for _ in range(40))
    )
    count = sum(map(bool, decisions))
    while await hit_all((first, "a", 1), (other, "b", 1)):
        count += 1
    assert count == 12
    assert (await left(first), await left(other, "b")) == (8, 0)


async def test_wrong_arguments(store: RedisStore) -> None:
    limiter = Limiter("5/hour", store=store, name=fresh())
    with pytest.raises(TypeError):
        await hit_all((limiter, "a"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await hit_all((limiter, 5, 1))  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        await hit_all()
    assert await left(limiter) == 5


def test_by_threads(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    first = sync.Limiter("5/hour", store=store, name=fresh())
    memory = sync.Limiter("2/hour")
    assert sync.hit_all((first, "a", 1), (memory, "a", 2))
    assert not sync.hit_all((first, "a", 1), (memory, "a", 1))
    assert first.peek("a", 0).remaining == 4
