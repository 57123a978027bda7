"""The middleware's WebSockets over real servers of Redis and Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import unquote

import pytest
import redis

from calling import Dialog, call, echo
from redis_store import servers
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, StoreError
from sluicegate.asgi import RateLimitMiddleware, Rule, StoreBackend

pytestmark = pytest.mark.server


@pytest.fixture(params=servers.KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with servers.server(request.param) as client:
        yield client


def url_of(client: redis.Redis) -> str:
    return f"unix://{client.connection_pool.connection_kwargs['path']}"


@pytest.fixture
async def stores(client: redis.Redis) -> AsyncIterator[list[RedisStore]]:
    """Two, as of two processes."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(RedisStore(url_of(client))) for _ in range(2)]


async def who(scope: Any) -> tuple[str, str]:
    await asyncio.sleep(0)
    return "ada", "default"


async def echoes(client: Dialog, count: int) -> int:
    client.put(*(str(n) for n in range(count)))
    found = 0
    with suppress(asyncio.TimeoutError):
        while True:
            await asyncio.wait_for(client._sent.get(), 0.3)
            found += 1
    return found


async def test_messages_and_places_are_shared(stores: list[RedisStore]) -> None:
    rules = {
        "": [
            Rule(messages="7/minute", bytes="1KB/minute", concurrent=3, on_excess="drop"),
            Rule(key="app", messages="5/minute", on_excess="drop"),
            Rule(key="ip", connections="9/minute"),
            Rule(messages="1/minute", concurrent=1, connections="1/minute", shadow=True),
        ]
    }
    doors = [RateLimitMiddleware(echo, who, store, rules) for store in stores]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Dialog(doors[n % 2])) for n in range(5)]
        assert [one.accepted for one in clients] == [True] * 3 + [False] * 2
        assert sum(await asyncio.gather(*(echoes(one, 4) for one in clients[:3]))) == 5
        clients[0].leave()
        await clients[0].over()
        await until(lambda: is_left(doors[1]))
    for store in stores:
        places = ConcurrencyLimiter(3, store=store, name="asgi:places")
        await until(lambda places=places: none_is_held(places))  # type: ignore[misc]


async def until(check: Any) -> None:
    give_up = time.monotonic() + 10
    while not await check():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def is_left(door: Any) -> bool:
    async with Dialog(door) as client:
        return client.accepted


async def none_is_held(places: ConcurrencyLimiter) -> bool:
    return await places.count("pattern:* ada ") == 0


async def test_a_ban_reaches_what_is_open_in_every_process(
    stores: list[RedisStore], client: redis.Redis
) -> None:
    rules = {"^/": [Rule(messages="1000/second")]}
    doors = [RateLimitMiddleware(echo, who, store, rules) for store in stores]
    async with (
        Dialog(doors[0]) as one,
        Dialog(doors[1]) as two,
        RedisStore(url_of(client)) as operator,
    ):
        assert [await echoes(each, 1) for each in (one, two)] == [1, 1]
        banning = Limiter("1000/second", store=operator, name="asgi:messages:gcra")
        await banning.ban("pattern:* ada ^/", 600)
        banned_at = time.monotonic()
        for each in (one, two):
            each.put("x")
            closed = await each.next()
            assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
            assert closed["reason"] in [f"Rate limit exceeded; retry after {n}" for n in (599, 600)]
        assert time.monotonic() - banned_at < 1
        async with Dialog(doors[0]) as late:  # who comes anew is let in, and not heard
            late.put("x")
            assert (await late.next())["type"] == "websocket.close"


async def test_what_counts_by_status_is_exact(stores: list[RedisStore]) -> None:
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": statuses.pop(0), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    rule = Rule(requests="5/minute", key="ip", count_when=lambda status: status == 401)
    doors = [
        RateLimitMiddleware(app, who, store, {"": [rule, Rule(requests="99/minute")]})
        for store in stores
    ]
    statuses[:] = [200] * 5
    answers = await asyncio.gather(*(call(doors[n % 2]) for n in range(20)))
    assert sorted(one.status for one in answers) == [200] * 5 + [429] * 15
    statuses[:] = [401] * 5
    answers = await asyncio.gather(*(call(doors[n % 2]) for n in range(20)))
    assert sorted(one.status for one in answers) == [401] * 5 + [429] * 15


async def test_what_others_refuse_costs_an_address_nothing(stores: list[RedisStore]) -> None:
    rules = {"": [Rule(requests="5/minute", key="ip"), Rule(requests="2/minute")]}
    users = iter(["ada", "ada", "ada", "eve", "eve", "eve", "bob", "bob"])

    async def next_user(scope: Any) -> tuple[str, str]:
        return next(users), "default"

    door = RateLimitMiddleware(_hello, next_user, stores[0], rules)
    found = [(await call(door)).status for _ in range(8)]
    assert found == [200, 200, 429, 200, 200, 429, 200, 429]


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_a_delayed_message_comes_in_time(stores: list[RedisStore]) -> None:
    rules = {"": [Rule(messages="4/second burst 1", on_excess="delay")]}
    door = RateLimitMiddleware(echo, who, stores[0], rules)
    async with Dialog(door) as client:
        began = time.monotonic()
        client.put("a", "b", "c")
        texts = [(await client.next())["text"] for _ in range(3)]
    assert texts == ["a", "b", "c"]
    assert 0.45 <= time.monotonic() - began < 5


@pytest.mark.parametrize("when", range(0, 60, 3))
async def test_a_cancellation_at_any_time_gives_all_back(when: int) -> None:
    with servers.server(servers.KINDS[0]) as client:
        async with RedisStore(url_of(client)) as store:
            rules = {
                "": [
                    Rule(concurrent=2, connections="99/minute", messages="99/minute"),
                    Rule(key="ip", requests="99/minute", count_when=lambda status: False),
                ]
            }
            door = RateLimitMiddleware(echo, who, store, rules)
            dialog = Dialog(door)
            dialog.put({"type": "websocket.connect"}, "a", "b")
            task = asyncio.ensure_future(door(dialog.scope, dialog.receive, dialog.send))
            for _ in range(when):
                await asyncio.sleep(0.0005 if when > 30 else 0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            places = ConcurrencyLimiter(2, store=store, name="asgi:places", ttl=3)
            held = store.held("asgi:places", 30)
            await held.given_back()
            # a reply that was not waited for is put right by the heartbeat, which is asked for here
            await held._renew()
            assert await places.count("pattern:* ada ") == 0


@pytest.mark.parametrize("policy", [None, "local", "allow", "deny", "raise"])
async def test_a_server_that_has_gone(policy: Any) -> None:
    with servers.server(servers.KINDS[0]) as client:
        backend = StoreBackend(url_of(client), on_store_error=policy)
        rules = {"": [Rule(connections="9/minute", concurrent=2, messages="2/minute")]}
        door = RateLimitMiddleware(echo, who, backend, rules)
        async with Dialog(door) as dialog:
            assert dialog.accepted
    try:
        if policy == "raise":
            with pytest.raises(StoreError):
                await is_left(door)
            return
        async with AsyncExitStack() as stack:
            dialogs = [await stack.enter_async_context(Dialog(door)) for _ in range(3)]
            expected = {None: 2, "local": 2, "allow": 3, "deny": 0}[policy]
            assert sum(dialog.accepted for dialog in dialogs) == expected
            if expected:
                dialogs[0].put("a", "b", "c")
                sent = [await dialogs[0].next() for _ in range(3)]
                assert sent[:2] == [{"type": "websocket.send", "text": text} for text in "ab"]
                assert (sent[2]["type"] == "websocket.close") is (expected == 2)
    finally:
        await backend.store.aclose()


async def test_keys_can_be_read(client: redis.Redis, stores: list[RedisStore]) -> None:
    rules = {"^/ws": [Rule(messages="7/minute", connections="9/minute", key="ip")]}
    door = RateLimitMiddleware(echo, who, stores[0], rules)
    async with Dialog(door) as dialog:
        assert await echoes(dialog, 1) == 1
    keys = [unquote(key.decode()) for key in client.scan_iter()]
    assert any("asgi:messages:ip:gcra" in key and "203.0.113.9" in key for key in keys)
    assert all(client.ttl(key) > 0 for key in client.scan_iter())
    limiter = Limiter("7/minute", store=stores[0], name="asgi:messages:ip:gcra")
    assert (await limiter.peek("pattern:* 203.0.113.9 ^/ws")).remaining == 6
