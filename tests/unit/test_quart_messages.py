"""WebSocketRateLimiter of sluicegate.quart: what it counts together, and what it says."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from quart import Quart, websocket

import sluicegate
from sluicegate.quart import (
    MemoryStore,
    RateLimiter,
    WebSocketRateLimiter,
    WebSocketRateLimitException,
)
from sluicegate.testing import Clock

PEER = SimpleNamespace(remote_addr="192.0.2.1", endpoint="ws")


async def passes(limiter: WebSocketRateLimiter, *arguments: Any, peer: Any = PEER) -> bool:
    try:
        await limiter(peer, *arguments)
    except WebSocketRateLimitException:
        return False
    return True


async def count(limiter: WebSocketRateLimiter, calls: int, *arguments: Any) -> int:
    return sum([await passes(limiter, *arguments) for _ in range(calls)])


@pytest.mark.parametrize(
    ("given", "period"),
    [
        ({"seconds": 5}, 5),
        ({"minutes": 1}, 60),
        ({"hours": 1}, 3600),
        ({"hours": 1, "minutes": 30, "seconds": 30}, 5430),
        ({"seconds": 0.5}, 0.5),
        ({"minutes": 1, "seconds": -30}, 30),
    ],
)
async def test_units_of_time_add_up_and_all_pass_at_once(given: Any, period: float) -> None:
    clock = Clock()
    limiter = WebSocketRateLimiter(3, **given, store=MemoryStore(clock=clock))
    assert (limiter.quota.limit, limiter.quota.period) == (3, period)
    assert await count(limiter, 5) == 3
    clock.advance(period / 3 - 1e-6)
    assert await count(limiter, 2) == 0
    clock.advance(2e-6)
    assert await count(limiter, 2) == 1
    clock.advance(period)
    assert await count(limiter, 5) == 3


@pytest.mark.parametrize(
    "given",
    [{}, {"seconds": 0}, {"seconds": -1}, {"hours": -1, "minutes": 60}, {"seconds": float("nan")}],
)
def test_no_time_at_all(given: Any) -> None:
    with pytest.raises(ValueError) as error:
        WebSocketRateLimiter(1, **given)
    assert str(error.value) == (
        "At least one of seconds, minutes, or hours must be provided and positive"
    )


@pytest.mark.parametrize("times", [0, -1])
def test_no_messages_at_all(times: int) -> None:
    with pytest.raises(ValueError):
        WebSocketRateLimiter(times, seconds=5)


@pytest.mark.parametrize("times", [True, 1.0, "1", None])
def test_what_is_no_number_of_messages(times: Any) -> None:
    WebSocketRateLimiter(1, seconds=5)  # equal numbers of another type are not taken for it
    with pytest.raises(TypeError):
        WebSocketRateLimiter(times, seconds=5)


def test_an_endless_period() -> None:
    with pytest.raises(ValueError):
        WebSocketRateLimiter(1, seconds=float("inf"))


async def test_twenty_at_once_with_a_limit_of_one() -> None:
    limiter = WebSocketRateLimiter(times=1, seconds=60)
    passed = await asyncio.gather(*(passes(limiter) for _ in range(20)))
    assert sum(passed) == 1


async def test_twenty_at_once_with_a_slow_key_function() -> None:
    async def key() -> str:
        await asyncio.sleep(0)
        return "user"

    limiter = WebSocketRateLimiter(times=1, seconds=60, key_function=key)
    passed = await asyncio.gather(*(passes(limiter) for _ in range(20)))
    assert sum(passed) == 1


@pytest.mark.parametrize(
    ("passed", "retry_after"),
    [(0.0, 60), (0.5, 60), (1.0, 59), (47.25, 13), (59.0, 1), (59.5, 1), (59.999, 1)],
)
async def test_retry_after_is_the_true_remainder(passed: float, retry_after: int) -> None:
    clock = Clock()
    limiter = WebSocketRateLimiter(1, minutes=1, store=MemoryStore(clock=clock))
    await limiter(PEER)
    clock.advance(passed)
    with pytest.raises(WebSocketRateLimitException) as refused:
        await limiter(PEER)
    error = refused.value
    assert type(error.retry_after) is int
    assert error.retry_after == retry_after
    assert str(error) == f"WebSocket rate limit exceeded. Retry after {retry_after} seconds."
    assert error.context_key == ""
    assert error.decision.retry_after == pytest.approx(60 - passed)
    assert error.decision.quota == limiter.quota


async def test_a_refused_message_charges_nothing() -> None:
    clock = Clock()
    limiter = WebSocketRateLimiter(1, minutes=1, store=MemoryStore(clock=clock))
    for _ in range(10):
        await passes(limiter)
    clock.advance(60)
    assert await passes(limiter)


async def test_contexts_count_apart_and_are_named() -> None:
    limiter = WebSocketRateLimiter(times=1, seconds=5)
    for context in ("chat", "command", None):
        assert await count(limiter, 3, context) == 1
    for context in ("chat", "command"):
        with pytest.raises(WebSocketRateLimitException) as refused:
            await limiter(PEER, context_key=context)
        assert ("command" in str(refused.value)) is (context == "command")
        assert str(refused.value) == (
            f"WebSocket rate limit exceeded. Retry after 5 seconds. Context: {context}"
        )
        assert refused.value.context_key == context


async def test_no_context_is_the_empty_one() -> None:
    limiter = WebSocketRateLimiter(times=1, seconds=5)
    assert [await passes(limiter, context) for context in (None, "", b"")] == [True, False, False]


async def test_a_context_cannot_be_taken_for_a_key() -> None:
    store = MemoryStore()

    async def say(key: str, context: str) -> bool:
        limiter = WebSocketRateLimiter(1, seconds=60, key_function=lambda: key, store=store)
        return await passes(limiter, context)

    asked = [
        ("c", "a:b"), ("b:c", "a"), ("a:b:c", ""), ("c", "a%3Ab"), (":c", "a:b"), ("b:c", "a:"),
    ]  # fmt: skip
    assert [await say(*one) for one in asked] == [True] * 6
    assert [await say(*one) for one in asked] == [False] * 6


async def test_many_contexts_take_bounded_memory() -> None:
    native = sluicegate.MemoryStore(max_keys=1000)
    limiter = WebSocketRateLimiter(times=1, seconds=60, store=native)
    for n in range(20_000):
        await passes(limiter, f"context {n}")
    assert len(native.tables()) == 1
    assert native.tables()[0][1].keys <= 1000


async def test_many_limits_take_bounded_memory() -> None:
    native = sluicegate.MemoryStore(max_keys=1000)
    for n in range(5000):
        await passes(WebSocketRateLimiter(times=n + 1, seconds=60, store=native))
    assert len(native.tables()) == 1
    assert native.tables()[0][1].keys <= 1000


async def test_limiters_made_anew_share_where_all_is_the_same() -> None:
    store = MemoryStore()

    async def say(times: int = 1, peer: Any = PEER, **more: Any) -> bool:
        return await passes(WebSocketRateLimiter(times, seconds=60, store=store, **more), peer=peer)

    assert [await say(), await say()] == [True, False]
    assert [await say(2), await say(2), await say(2)] == [True, True, False]  # another quota
    other = SimpleNamespace(remote_addr="192.0.2.1", endpoint="other")
    assert [await say(peer=other), await say(peer=other)] == [True, False]
    other = SimpleNamespace(remote_addr="192.0.2.2", endpoint="ws")
    assert [await say(peer=other), await say(peer=other)] == [True, False]
    assert not await say(key_function=lambda: "192.0.2.1")  # the same key, however found


async def test_outside_of_applications_each_has_its_own_memory() -> None:
    one, two = WebSocketRateLimiter(1, seconds=60), WebSocketRateLimiter(1, seconds=60)
    assert isinstance(one.store, MemoryStore)
    assert one.store is one.store
    assert one.store is not two.store
    assert [await passes(one), await passes(two), await passes(one)] == [True, True, False]


async def test_the_store_of_the_application() -> None:
    app = Quart(__name__)
    limiter = WebSocketRateLimiter(times=1, seconds=60)
    outside = limiter.store
    async with app.app_context():
        fallback = limiter.store
        assert isinstance(fallback, MemoryStore)
        assert fallback is not outside
        assert WebSocketRateLimiter(times=1, seconds=60).store is fallback  # one for the app
        assert await passes(limiter)
        assert not await passes(WebSocketRateLimiter(times=1, seconds=60))
    async with Quart(__name__).app_context():
        assert limiter.store is not fallback
        assert await passes(limiter)


@pytest.mark.parametrize(
    "store", [MemoryStore(), sluicegate.MemoryStore(), "memory://?max_keys=1234", None]
)
async def test_the_store_of_the_rate_limiter_is_found(store: Any) -> None:
    app = Quart(__name__)
    guard = RateLimiter(app, store=store)
    assert app.config["QUART_RATE_LIMITER_STORE"] is guard.store
    async with app.app_context():
        limiter = WebSocketRateLimiter(times=1, seconds=60)
        assert limiter.store is guard.store
        explicit = MemoryStore()
        assert WebSocketRateLimiter(1, seconds=60, store=explicit).store is explicit
        assert await passes(limiter)
        assert not await passes(limiter)


async def test_a_store_in_the_configuration_is_found() -> None:
    app = Quart(__name__)
    app.config["QUART_RATE_LIMITER_STORE"] = "memory://?max_keys=4321"
    guard = RateLimiter(app)
    expected = sluicegate.open_store("memory://?max_keys=4321")
    assert guard.store is expected
    async with app.app_context():
        assert WebSocketRateLimiter(1, seconds=60).store is expected


@pytest.mark.parametrize("store", [1, object(), b"memory://"])
def test_what_is_no_store(store: Any) -> None:
    for make in (
        lambda: WebSocketRateLimiter(1, seconds=1, store=store),
        lambda: RateLimiter(store=store),
    ):
        with pytest.raises(TypeError):
            make()


async def test_what_is_turned_off_lets_all_pass() -> None:
    app = Quart(__name__)
    RateLimiter(app, enabled=False)
    async with app.app_context():
        limiter = WebSocketRateLimiter(times=1, seconds=60)
        assert await count(limiter, 3) == 3
        app.config["QUART_RATE_LIMITER_ENABLED"] = True
        assert await count(limiter, 3) == 1


@pytest.mark.parametrize("key", [None, 1.5, object(), ["a"], True])
async def test_a_key_that_tells_nobody_apart(key: Any) -> None:
    limiter = WebSocketRateLimiter(1, seconds=60, key_function=lambda: key)
    with pytest.raises(TypeError, match="key function"):
        await limiter(PEER)


async def test_with_a_key_function_any_object_is_a_websocket() -> None:
    """As in tests of an application that has a stand-in for it."""
    limiter = WebSocketRateLimiter(1, seconds=60, key_function=lambda: "user")
    assert [await passes(limiter, peer=object()) for _ in range(2)] == [True, False]


async def test_the_decision_says_what_is_left() -> None:
    limiter = WebSocketRateLimiter(times=3, seconds=60)
    assert [(await limiter(PEER)).remaining for _ in range(3)] == [2, 1, 0]


async def test_a_store_that_fails_is_no_limit_reached() -> None:
    store = sluicegate.MemoryStore(max_keys=1, on_full="raise")
    limiter = WebSocketRateLimiter(1, seconds=60, store=store, key_function=lambda: "user")
    bans = sluicegate.Limiter("1/minute", store=store, name="quart::ws:messages")
    with pytest.raises(sluicegate.StoreFullError):
        for n in range(1000):  # what is banned is never evicted
            await bans.ban(f"{n}", 3600)
    with pytest.raises(sluicegate.StoreFullError):
        await limiter(PEER)


def test_the_error_is_one_of_the_package_and_survives_pickling() -> None:
    error = WebSocketRateLimitException(5, "command")
    assert isinstance(error, sluicegate.RateLimitExceeded)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.retry_after, copy.context_key) == (str(error), 5, "command")


async def test_inside_a_handler_made_anew_for_each_connection() -> None:
    """The programs of the document make theirs in the handler."""
    app = Quart(__name__)

    @app.websocket("/ws")
    async def ws() -> None:
        limiter = WebSocketRateLimiter(times=2, seconds=60)
        while True:
            await websocket.receive()
            try:
                await limiter(websocket)
                await websocket.send("ok")
            except WebSocketRateLimitException:
                await websocket.send("limited")

    answers = []
    for _ in range(3):
        async with app.test_client().websocket("/ws") as client:
            await client.send("x")
            answers.append(await client.receive())
    assert answers == ["ok", "ok", "limited"]
