"""WebSocketRateLimiter and the FastAPI door over real servers, whose counts all processes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import serving
from redis_servers.server import Server
from redis_store.public import eventually, fresh
from sluicegate import RedisStorage, RedisStore, WebSocketLimits, WebSocketRateLimiter

UNLIMITED: dict[str, Any] = {
    "connections_per_minute": None,
    "messages_per_minute": None,
    "max_concurrent_connections": None,
    "max_message_size": None,
}


def limits(**given: Any) -> WebSocketLimits:
    """Those given alone; all else is unlimited."""
    return WebSocketLimits(**{**UNLIMITED, **given})


@pytest.fixture
async def other(anywhere: str) -> AsyncIterator[RedisStore]:
    """The store of another process, as far as a server can tell."""
    async with RedisStore(anywhere, timeout=5) as store:
        yield store


Two = tuple[WebSocketRateLimiter, WebSocketRateLimiter]


@pytest.fixture
def two(store: RedisStore, other: RedisStore) -> Callable[..., Two]:
    """Two limiters of one name, of two processes; `by_client` gives each client its limits."""

    def make(given: Any) -> Two:
        name = fresh("door")
        first, second = (
            WebSocketRateLimiter(given, one, name=name, on_store_error="raise")
            for one in (store, other)
        )
        return first, second

    return make


async def test_a_client_has_its_places_once(two: Callable[..., Two]) -> None:
    here, there = two(limits(max_concurrent_connections=2))
    assert await here.check_connection("ada")
    assert await here.register_connection("c1", "ada")
    assert await there.register_connection("c2", "ada")
    assert not await here.check_connection("ada")
    assert not await there.register_connection("c3", "ada")
    assert await here.check_connection("bob")
    assert (await here.count("ada"), await there.count("ada")) == (2, 2)
    assert (here.get_client_connections("ada"), there.get_client_connections("ada")) == (1, 1)
    assert (await there.statistics())["active_connections"] == 3
    assert (await there.statistics())["unique_clients"] == 2
    await here.unregister_connection("c1")
    await here.unregister_connection("c1")
    assert await here.count("ada") == 1
    assert await there.check_connection("ada")
    assert await there.register_connection("c3", "ada")
    await there.unregister_connection("c2")
    await there.unregister_connection("c3")
    assert await there.count("ada") == 0
    assert here.get_statistics()["violations"]["concurrent_connections"] == 1


async def test_reservations_are_tasks_own_and_end_with_them(two: Callable[..., Two]) -> None:
    here, there = two(limits(max_concurrent_connections=3))

    async def reserves() -> bool:
        return await here.check_connection("ada")

    assert all(await asyncio.gather(*(asyncio.create_task(reserves()) for _ in range(3))))
    assert await there.count("ada") == await here.count("ada") == 0
    for _ in range(4):  # checking again renews it
        assert await here.check_connection("ada")
    assert await here.count("ada") == 1
    assert await here.register_connection("c", "ada")
    assert await there.count("ada") == 1


async def test_connection_rates(two: Callable[..., Two]) -> None:
    here, there = two(limits(connections_per_minute=3, max_concurrent_connections=9))
    for number, limiter in enumerate((here, there, here)):
        assert await limiter.check_connection("ada")
        assert await limiter.register_connection(number, "ada")
    refused = await there.decide_connection("ada")
    assert not refused
    assert 0 < refused.retry_after <= 60
    assert await there.count("ada") == 3  # the place of a refused one was given back


async def test_messages_and_bytes_are_one_decision(two: Callable[..., Two]) -> None:
    here, there = two(limits(messages_per_minute=5, bytes_per_minute=1000, max_message_size=900))
    assert await here.register_connection("c1", "ada")
    assert await there.register_connection("c2", "ada")
    assert (await there.check_message("nobody", 1))["reason"] == "connection_not_found"
    large = await here.check_message("c1", 901)
    assert (large["reason"], large["max_size"]) == ("message_too_large", 900)
    assert (await here.check_message("c1", 600)) == {
        "allowed": True, "reason": "ok", "remaining": 4,
    }  # fmt: skip
    refused = await there.check_message("c2", 600)
    assert (refused["reason"], refused["remaining_bytes"]) == ("bandwidth_exceeded", 400)
    assert 1 <= refused["retry_after"] <= 60
    assert (await there.check_message("c2", 400))["allowed"]
    for _ in range(3):
        assert (await here.check_message("c1", 0))["allowed"]
    refused = await here.check_message("c1", 0)
    assert (refused["reason"], refused["allowed"]) == ("rate_limit_exceeded", False)
    decision, result = await there.decide_message("c2", 0)
    assert not decision
    assert result["reason"] == "rate_limit_exceeded"
    info = here.get_connection_info("c1")
    assert info is not None
    assert (info.message_count, info.bytes_sent) == (4, 600)


async def test_rebind_moves_place_and_rates(two: Callable[..., Two]) -> None:
    here, there = two(limits(messages_per_minute=3, max_concurrent_connections=1))
    assert await here.register_connection("c1", "guest")
    assert await there.register_connection("c2", "ada")
    assert not await here.rebind("c1", "ada")
    await there.unregister_connection("c2")
    await there.count("ada")
    assert await here.rebind("c1", "ada")
    assert (await there.count("guest"), await there.count("ada")) == (0, 1)
    for _ in range(3):
        assert (await here.check_message("c1", 1))["allowed"]
    assert not (await here.check_message("c1", 1))["allowed"]
    assert await here.rebind("c1", "guest")
    assert (await here.check_message("c1", 1))["allowed"]


async def test_limits_by_client_and_rate_strings(two: Callable[..., Two]) -> None:
    def of(client: str | bytes) -> WebSocketLimits:
        if client == "premium":
            return limits(messages="9/hour using gcra; 20/day", max_concurrent_connections=5)
        return limits(messages_per_minute=2, max_concurrent_connections=1)

    here, there = two(of)
    for client, most in (("ada", 2), ("premium", 9)):
        for limiter, connection in ((here, f"{client} 1"), (there, f"{client} 2")):
            assert await limiter.register_connection(connection, client) == (
                limiter is here or client == "premium"
            )
        made = [await here.check_message(f"{client} 1", 1) for _ in range(most + 1)]
        assert [one["allowed"] for one in made] == [True] * most + [False]


async def test_a_violation_is_told(store: RedisStore) -> None:
    told: list[dict[str, Any]] = []
    limiter = WebSocketRateLimiter(
        limits(messages_per_minute=1, max_concurrent_connections=1), store, told.append,
        name=fresh(), max_refusals="2/minute", on_store_error="raise",
    )  # fmt: skip
    assert await limiter.register_connection("c", "ada")
    results = [await limiter.check_message("c", 1) for _ in range(4)]
    assert [one.get("close", False) for one in results] == [False, False, False, True]
    assert not await limiter.register_connection("d", "ada")
    assert [one["type"] for one in told] == ["message_rate"] * 3 + ["concurrent_connections"]


async def test_storage_by_its_name_in_the_source(anywhere: str) -> None:
    limiter = WebSocketRateLimiter(
        WebSocketLimits(max_concurrent_connections=1), storage=RedisStorage(anywhere)
    )
    assert await limiter.check_connection("ada")
    assert await limiter.register_connection("c", "ada")
    assert not await limiter.register_connection("d", "ada")
    assert (await limiter.check_message("c", 10))["allowed"]
    await limiter.unregister_connection("c")
    assert await limiter.count("ada") == 0
    await limiter.store.aclose()  # type: ignore[union-attr]


def test_a_loop_that_ends_gives_all_places_back(anywhere: str) -> None:
    limiter = WebSocketRateLimiter(limits(max_concurrent_connections=9), anywhere, name=fresh())

    async def opens() -> None:
        for number in range(3):
            assert await limiter.register_connection(number, "ada")
        assert await limiter.count("ada") == 3

    async def looks() -> int:
        return await limiter.count("ada")

    asyncio.run(opens())
    assert asyncio.run(looks()) == 0


# ---- the FastAPI door, in two processes


@pytest.mark.server
async def test_the_door_over_two_processes(
    redis_server: Server, serve: Callable[..., serving.Server]
) -> None:
    doors = [
        serve("door_app:app", env={"STORE": redis_server.url}, app_dir=Path(__file__).parent)
        for _ in range(2)
    ]

    async def opened(number: int) -> ClientConnection:
        return await connect(f"{doors[number % 2].ws}/echo/ada")

    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(await opened(n)) for n in range(3)]
        for number in range(2):
            with pytest.raises(ConnectionClosed) as refused:
                await (await opened(number)).recv()
            assert refused.value.rcvd is not None
            assert (refused.value.rcvd.code, refused.value.rcvd.reason) == (
                *(1008, "Rate limit exceeded"),
            )
        answers = []
        for number in range(30):
            await made[number % 3].send("hello")
            answers.append(await asyncio.wait_for(made[number % 3].recv(), 10))
        assert answers == ["ok"] * 20 + ["refused"] * 10
        await made[0].close()

        async def again() -> bool:
            connection = await stack.enter_async_context(await opened(1))
            try:
                await connection.send("hello")
                return await asyncio.wait_for(connection.recv(), 10) == "refused"
            except ConnectionClosed:
                return False

        assert await eventually(again, "a place was not given back")
