"""`deny_cache`: who is refused is refused here for a while, without a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from redis_servers import faults
from redis_servers.server import Server
from redis_store.watching import watched
from sluicegate import Decision, Limiter, RateLimitExceeded, RedisStore

pytestmark = pytest.mark.server

TIMEOUT = 5.0
LONG = 30.0  # longer than a test takes


@pytest.fixture
async def store(redis_server: Server) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url)
    async with watched(store):
        yield store


@pytest.fixture
def asked(redis_server: Server) -> Callable[[], int]:
    """How many commands of ours the server has had since the last look."""
    before = 0

    def look() -> int:
        nonlocal before
        with redis_server.client() as client:
            stats = client.info("commandstats")
        # each is one of these; what the server does not know is sent once more, as EVAL
        now = stats.get("cmdstat_evalsha", {}).get("calls", 0)
        since, before = now - before, now
        return since

    return look


def limiter_over(store: RedisStore, quotas: Any = "10/hour", **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "denied", "timeout": TIMEOUT, "deny_cache": LONG} | options
    return Limiter(quotas, store=store, **given)


@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
async def test_who_is_refused_is_not_asked_for(
    store: RedisStore, asked: Callable[[], int], algorithm: str
) -> None:
    limiter = limiter_over(store, f"10/hour using {algorithm}")
    assert await limiter.hit("k", 9)
    first = await limiter.hit("k", 2)
    assert not first
    asked()
    found = [await limiter.hit("k", 2) for _ in range(100)]
    found += [await limiter.hit("k", 3), await limiter.hit("k", 10)]
    found += await limiter.hit_many([("k", 2), ("k", 5)])
    assert asked() == 0
    assert not any(found) and not any(one.degraded for one in found)
    assert found[0].quota == first.quota and found[0].limit == first.limit
    assert found[0].remaining == first.remaining
    with pytest.raises(RateLimitExceeded):
        await limiter.check("k", 2)
    # what may well be admitted is asked for, and so are other keys and other operations
    assert await limiter.hit("k", 1)
    assert await limiter.hit("other", 2)
    assert (await limiter.peek("k", 2)).allowed is False
    assert asked() == 3


async def test_retry_after_counts_down(store: RedisStore, asked: Callable[[], int]) -> None:
    limiter = limiter_over(store, "10/hour")
    assert await limiter.hit("k", 10)
    first = await limiter.hit("k")
    asked()
    await asyncio.sleep(0.3)
    then = await limiter.hit("k")
    assert asked() == 0
    assert 0.29 <= first.retry_after - then.retry_after < 10
    assert 0.29 <= first.reset_after - then.reset_after < 10
    # as the server would have said
    sure = await limiter.peek("k")
    assert 0 <= then.retry_after - sure.retry_after < 5


async def test_not_longer_than_the_refusal_holds(
    store: RedisStore, asked: Callable[[], int]
) -> None:
    """A hit at the time it named is asked for, and admitted."""
    limiter = limiter_over(store, "5/second")  # one each 0.2 s
    assert await limiter.hit("k", 5)
    refused = await limiter.hit("k")
    assert not refused and refused.retry_after <= 0.2
    await asyncio.sleep(refused.retry_after + 0.01)
    asked()
    assert await limiter.hit("k")
    assert asked() == 1


async def test_not_longer_than_it_was_asked_to(store: RedisStore, asked: Callable[[], int]) -> None:
    """What changes elsewhere is seen within the time."""
    limiter = limiter_over(store, deny_cache=0.4)
    elsewhere = limiter_over(RedisStore(store.settings.where()), deny_cache=None)
    assert await limiter.hit("k", 10)
    assert not await limiter.hit("k")
    await elsewhere.reset("k")
    asked()
    assert not await limiter.hit("k")  # not yet
    assert asked() == 0
    await asyncio.sleep(0.45)
    assert await limiter.hit("k")
    assert asked() == 1
    await elsewhere.store.aclose()


CHANGES: dict[str, Callable[[Limiter], Any]] = {
    "reward": lambda limiter: limiter.reward("k", 5),
    "reset": lambda limiter: limiter.reset("k"),
    "unban": lambda limiter: limiter.unban("k"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_is_given_back_here_is_seen_at_once(store: RedisStore, name: str) -> None:
    limiter = limiter_over(store)
    if name == "unban":
        await limiter.ban("k", 3600)
    else:
        assert await limiter.hit("k", 10)
    assert not await limiter.hit("k")
    await CHANGES[name](limiter)
    assert await limiter.hit("k")


@pytest.mark.parametrize("name", CHANGES)
async def test_also_where_the_refusal_was_on_its_way(store: RedisStore, name: str) -> None:
    """Asked before the change and answered after that was asked for."""
    limiter = limiter_over(store)
    if name == "unban":
        # scripts that the server does not know yet would be sent again, behind the change
        assert await limiter.hit("other")
        await limiter.ban("k", 3600)
    else:
        await limiter.penalize("other", 1)
        assert await limiter.hit("k", 10)
    refused, _ = await asyncio.gather(limiter.hit("k"), CHANGES[name](limiter))
    assert isinstance(refused, Decision) and not refused
    assert await limiter.hit("k")


async def test_a_reservation_that_is_given_back(store: RedisStore) -> None:
    limiter = limiter_over(store)
    reservation = await limiter.reserve("k", 10)
    assert reservation
    assert not await limiter.hit("k")
    refused, _ = await asyncio.gather(limiter.hit("k"), reservation.settle(4))
    assert not refused
    assert await limiter.hit("k", 6)


async def test_other_numbers_are_asked_for(store: RedisStore, asked: Callable[[], int]) -> None:
    limiter = limiter_over(store, "10/hour using fixed-window")
    assert await limiter.hit("k", 10)
    assert not await limiter.hit("k")
    asked()
    assert await limiter.hit("k", quotas="100/hour using fixed-window")
    limiter.update("200/hour using fixed-window")
    assert await limiter.hit("k")
    assert asked() == 2


async def test_a_ban_counts_down(store: RedisStore, asked: Callable[[], int]) -> None:
    limiter = limiter_over(store)
    await limiter.ban("k", 60)
    first = await limiter.hit("k", 0)
    asked()
    await asyncio.sleep(0.1)
    then = await limiter.hit("k", 0)
    assert asked() == 0
    assert 55 < then.retry_after < first.retry_after <= 60


async def test_costs_of_several_quotas(store: RedisStore, asked: Callable[[], int]) -> None:
    """No smaller means none of them smaller."""
    limiter = limiter_over(store, "messages: 100/hour; bytes: 1000/hour")
    assert await limiter.hit("k", {"bytes": 900})
    assert not await limiter.hit("k", {"messages": 2, "bytes": 200})
    asked()
    assert not await limiter.hit("k", {"messages": 2, "bytes": 200})
    assert not await limiter.hit("k", {"messages": 3, "bytes": 500})
    assert asked() == 0
    assert not await limiter.hit("k", {"messages": 1, "bytes": 300})  # asked: fewer messages
    assert await limiter.hit("k", {"messages": 2, "bytes": 100})
    assert asked() == 2


async def test_a_flood_of_keys_is_bounded_and_right(
    store: RedisStore, asked: Callable[[], int]
) -> None:
    """More keys than it has places for: each is refused all the same."""
    limiter = limiter_over(store, "1/hour")
    keys = [(f"k{number}", 1) for number in range(6000)]
    assert all(await limiter.hit_many(keys))
    for _ in range(2):
        assert not any(await limiter.hit_many(keys))
    asked()
    await limiter.hit_many(keys[-50:])
    assert asked() <= 1  # the latest are all remembered


async def test_without_it_all_are_asked_for(store: RedisStore, asked: Callable[[], int]) -> None:
    limiter = limiter_over(store, deny_cache=None)
    assert await limiter.hit("k", 10)
    asked()
    for _ in range(5):
        assert not await limiter.hit("k")
    assert asked() == 5


@pytest.mark.parametrize("policy", ["raise", "allow", "deny", "local"])
async def test_a_refusal_of_a_failure_is_not_remembered(redis_server: Server, policy: Any) -> None:
    """A policy's refusal is no limit that was reached; a remembered one outlives the server."""
    store = RedisStore(redis_server.url, timeout=0.3)
    async with watched(store):
        limiter = limiter_over(store, on_store_error=policy, timeout=0.3)
        assert await limiter.hit("full", 10)
        known = await limiter.hit("full")
        with faults.out_of_memory(redis_server):
            for _ in range(3):
                found = (await asyncio.gather(limiter.hit("k"), return_exceptions=True))[0]
                assert isinstance(found, Exception) == (policy == "raise")
            still = await limiter.hit("full")
            assert not still and not still.degraded and still.quota == known.quota
        decision = await limiter.hit("k")
        assert decision and not decision.degraded
