"""RateLimiter and ConnectionLimiter of sluicegate.app, over memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import warnings
from typing import Any

import pytest
import redis.asyncio

import sluicegate
from sluicegate import Limiter, MemoryStore, StoreFullError
from sluicegate.app import ConnectionLimiter, RateLimiter
from sluicegate.testing import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def full_store(on_full: Any = "raise") -> MemoryStore:
    """One that fails: of a single place, which a ban and a slot hold."""
    store = MemoryStore(max_keys=1, on_full=on_full)
    await Limiter("1/minute using sliding-log", store=store, name="app").ban("x", 1000)
    return store


# ---- RateLimiter


async def test_five_and_a_burst_of_two(store: MemoryStore, clock: Clock) -> None:
    limiter = RateLimiter(store)
    results = [await limiter.check_rate_limit("user:1", 5, 60, burst=2) for _ in range(9)]
    assert results == [(True, n) for n in range(6, -1, -1)] + [(False, 0)] * 2
    assert await limiter.check_rate_limit("user:2", 5, 60, burst=2) == (True, 6)
    clock.advance(60)
    assert await limiter.check_rate_limit("user:1", 5, 60, burst=2) == (True, 6)


async def test_no_window_has_more_than_the_limit(store: MemoryStore, clock: Clock) -> None:
    limiter = RateLimiter(store)
    chance = random.Random(5)
    admitted: list[float] = []
    for _ in range(400):
        clock.advance(chance.uniform(0, 1.5))
        if (await limiter.check_rate_limit("k", 8, 10))[0]:
            admitted.append(clock.time())
    assert len(admitted) > 100
    for first, ninth in zip(admitted, admitted[8:], strict=False):
        assert ninth - first >= 10


async def test_a_refused_event_is_not_counted(store: MemoryStore, clock: Clock) -> None:
    limiter = RateLimiter(store)
    assert (await limiter.check_rate_limit("k", 1, 10))[0]
    for _ in range(9):
        clock.advance(1)
        assert not (await limiter.check_rate_limit("k", 1, 10))[0]
    clock.advance(1)
    assert (await limiter.check_rate_limit("k", 1, 10))[0]


async def test_of_many_at_once_the_limit_passes(store: MemoryStore) -> None:
    limiter = RateLimiter(store)
    results = await asyncio.gather(*(limiter.check_rate_limit("k", 10, 60) for _ in range(50)))
    assert sum(allowed for allowed, _ in results) == 10


async def test_numbers_and_windows_come_with_each_call(store: MemoryStore, clock: Clock) -> None:
    limiter = RateLimiter(store)
    for _ in range(3):
        await limiter.check_rate_limit("k", 3, 60)
    assert await limiter.check_rate_limit("k", 3, 60) == (False, 0)
    assert await limiter.check_rate_limit("k", 5, 60) == (True, 1)
    assert await limiter.check_rate_limit("other", 1, 1) == (True, 0)
    clock.advance(1)
    assert await limiter.check_rate_limit("other", 1, 1) == (True, 0)


async def test_limiters_over_one_store_share_unless_named(store: MemoryStore) -> None:
    assert await RateLimiter(store).check_rate_limit("k", 1, 60) == (True, 0)
    assert await RateLimiter(store).check_rate_limit("k", 1, 60) == (False, 0)
    assert await RateLimiter(store, name="other").check_rate_limit("k", 1, 60) == (True, 0)


async def test_a_url_is_a_store() -> None:
    limiter = RateLimiter("memory://?max_keys=77")
    assert await limiter.check_rate_limit("k", 1, 60) == (True, 0)
    again = RateLimiter("memory://?max_keys=77")
    assert await again.check_rate_limit("k", 1, 60) == (False, 0)


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ((0, 60), ValueError),
        ((-1, 60, 5), ValueError),
        ((1, 60, -1), ValueError),
        ((1, 0), ValueError),
        ((1, float("nan")), ValueError),
        ((1.5, 60), TypeError),
        (("5", 60), TypeError),
    ],
)
async def test_numbers_that_make_no_sense(
    store: MemoryStore, numbers: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await RateLimiter(store).check_rate_limit("k", *numbers)


def test_a_client_lends_its_settings_to_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def redis_store(client: Any) -> MemoryStore:
        made.append(client)
        return MemoryStore()

    monkeypatch.setattr(sluicegate, "RedisStore", redis_store, raising=False)

    class Valkey:
        __module__ = "valkey.asyncio.client"

    class Ours(Valkey):
        """An application's own, made of it."""

    clients = [redis.Redis(), redis.asyncio.Redis(), Valkey(), Ours()]
    for client in clients:
        RateLimiter(client)
        ConnectionLimiter(client)
    assert made == clients


def test_wrong_stores() -> None:
    for wrong in (5, object()):
        with pytest.raises(TypeError):
            RateLimiter(wrong)
        with pytest.raises(TypeError):
            ConnectionLimiter(wrong)


async def test_a_store_that_fails_raises(caplog: pytest.LogCaptureFixture) -> None:
    limiter = RateLimiter(await full_store())
    with pytest.raises(StoreFullError):
        await limiter.check_rate_limit("k", 5, 60)


@pytest.mark.parametrize("on_full", ["raise", "deny"])
async def test_the_policies_of_the_doors(on_full: str, caplog: pytest.LogCaptureFixture) -> None:
    store = await full_store(on_full)
    limiter = RateLimiter(store)
    for _ in range(3):
        decision = await limiter.decide("k", 2, 60, on_store_error="allow")
        assert decision.allowed and decision.degraded
    local = [await limiter.decide("k", 2, 60, 1, on_store_error="local") for _ in range(5)]
    assert [one.allowed for one in local] == [True] * 3 + [False] * 2
    assert 0 < local[-1].retry_after <= 60
    # said once, and once when it is over
    assert [one for one in caplog.messages if "fails" in one] == [caplog.messages[0]]
    await store.clear()
    decision = await limiter.decide("k", 2, 60, on_store_error="allow")
    assert decision.allowed and not decision.degraded and decision.remaining == 1
    assert caplog.messages[1:] == ["the store of RateLimiter 'app' decides again"]


# ---- ConnectionLimiter


async def test_places_are_by_user(store: MemoryStore) -> None:
    limiter = ConnectionLimiter(store, max_connections=2)
    assert limiter.max_connections == 2
    assert limiter.store is RateLimiter(store).store is store
    added = [await limiter.add_connection("ada", name) for name in ("a", "b", "c")]
    assert added == [True, True, False]
    assert await limiter.get_connection_count("ada") == 2
    assert await limiter.add_connection("eve", "a")
    await limiter.remove_connection("ada", "a")
    assert await limiter.add_connection("ada", "c")
    assert await limiter.get_connection_count("ada") == 2


async def test_the_default_is_five(store: MemoryStore) -> None:
    limiter = ConnectionLimiter(store)
    assert [await limiter.add_connection("ada", str(n)) for n in range(6)] == [True] * 5 + [False]


async def test_the_same_connection_twice_is_one(store: MemoryStore) -> None:
    limiter = ConnectionLimiter(store, 2)
    assert [await limiter.add_connection("ada", "a") for _ in range(3)] == [True] * 3
    assert await limiter.get_connection_count("ada") == 1
    assert all(await asyncio.gather(*(limiter.add_connection("ada", "b") for _ in range(5))))
    assert await limiter.get_connection_count("ada") == 2
    assert await limiter.add_connection("ada", "a")  # also when there is no place left
    await limiter.remove_connection("ada", "a")
    await limiter.remove_connection("ada", "a")
    await limiter.remove_connection("ada", "never")
    assert await limiter.get_connection_count("ada") == 1


async def test_the_same_connection_at_once_over_a_store_that_takes_its_time(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a server two adds of one id are both asked before either is answered."""
    from sluicegate import ConcurrencyLimiter

    acquire = ConcurrencyLimiter.acquire

    async def slow(self: ConcurrencyLimiter, key: str, timeout: float | None = 0) -> Any:
        slot = await acquire(self, key, timeout)
        await asyncio.sleep(0)
        return slot

    monkeypatch.setattr(ConcurrencyLimiter, "acquire", slow)
    for places, ids in ((2, "aa"), (1, "aa"), (2, "aaab")):
        limiter = ConnectionLimiter(store, places, name=f"{places}{ids}")
        await asyncio.gather(*(limiter.add_connection("ada", one) for one in ids))
        await limiter.add_connection("ada", "a")
        assert await limiter.get_connection_count("ada") <= len(set(ids))
        await limiter.remove_connection("ada", "a")
        await limiter.remove_connection("ada", "b")
        assert await limiter.get_connection_count("ada") == 0


async def test_limiters_over_one_store_share_their_places(store: MemoryStore) -> None:
    one, other = ConnectionLimiter(store, 1), ConnectionLimiter(store, 1)
    assert await one.add_connection("ada", "a")
    assert not await other.add_connection("ada", "b")
    assert await other.get_connection_count("ada") == 1


async def test_when_the_store_fails_connections_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = ConnectionLimiter(MemoryStore(max_keys=1, on_full="raise"))
    assert await limiter.add_connection("ada", "a")
    for _ in range(2):
        decision = await limiter.decide_connection("eve", "b")
        assert not decision.allowed and decision.degraded
    await limiter.remove_connection("ada", "a")
    assert await limiter.add_connection("eve", "b")
    assert ["fails" in one for one in caplog.messages] == [True, False]


async def test_what_a_process_holds_is_bounded(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = ConnectionLimiter(store, max_held=2)
    users = ("ada", "eve", "joe", "sue")
    added = [await limiter.add_connection(user, "a") for user in users]
    assert added == [True, True, False, False]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await limiter.remove_connection("ada", "a")
    assert await limiter.add_connection("joe", "a")
    for wrong in (0, -1, True, 1.5):
        with pytest.raises((TypeError, ValueError)):
            ConnectionLimiter(store, max_held=wrong)


async def test_a_limiter_that_nobody_has_any_more_gives_its_places_back(
    store: MemoryStore,
) -> None:
    limiter, other = ConnectionLimiter(store, 1), ConnectionLimiter(store, 1)
    assert await limiter.add_connection("ada", "a")
    circle: list[Any] = [limiter]  # of which the collector may take the parts in any order
    circle.append(circle)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del limiter, circle
        gc.collect()
    assert await other.get_connection_count("ada") == 0
    assert await other.add_connection("ada", "b")


def test_the_modules_that_an_application_has_them_in() -> None:
    import sluicegate.app
    from sluicegate.app.middlewares import rate_limit
    from sluicegate.app.utils import rate_limiter

    assert rate_limiter.RateLimiter is RateLimiter
    assert rate_limiter.ConnectionLimiter is ConnectionLimiter
    assert rate_limit.RateLimitMiddleware is sluicegate.app.RateLimitMiddleware
    assert set(sluicegate.app.__all__) <= set(dir(sluicegate.app))
    with pytest.raises(AttributeError):
        _ = sluicegate.app.nothing  # type: ignore[attr-defined]
