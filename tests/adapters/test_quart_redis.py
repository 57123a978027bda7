"""The Quart door over a real Redis, and a real Valkey: applications that share it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
import redis
from quart import Quart
from websockets.asyncio.client import connect

import serving
import sluicegate
from redis_store import servers
from sluicegate.quart import (
    RateLimiter,
    WebSocketRateLimiter,
    WebSocketRateLimitException,
    rate_limit,
)
from sluicegate.quart.redis_store import RedisStore
from sluicegate.quart.valkey_store import ValkeyStore

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
PEER = SimpleNamespace(remote_addr="192.0.2.1", endpoint="ws")


class Place(NamedTuple):
    """A server of the test."""

    url: str
    client: redis.Redis
    stack: ExitStack  # closing it ends the server


@pytest.fixture(params=servers.KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    port = serving.free_port()
    with ExitStack() as stack:
        client = stack.enter_context(
            servers.server(request.param, "--port", str(port), "--bind", "127.0.0.1")
        )
        yield Place(f"{request.param.partition('-')[0]}://127.0.0.1:{port}/0", client, stack)


@pytest.fixture
def pair(place: Place) -> Iterator[list[serving.Server]]:
    """Two processes that serve one application over one store."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serving.hypercorn("quart_app:app", app_dir=HERE, env={"STORE": place.url})
            )
            for _ in range(2)
        ]


def store_at(url: str, **settings: Any) -> Any:
    return (ValkeyStore if url.startswith("valkey") else RedisStore)(url, **settings)


async def passes(limiter: WebSocketRateLimiter) -> bool:
    try:
        await limiter(PEER)
    except WebSocketRateLimitException:
        return False
    return True


async def test_requests_to_two_processes_share_a_limit(pair: list[serving.Server]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answers = await asyncio.gather(
            *(http.get(f"{pair[n % 2].http}/five", params={"name": "ada"}) for n in range(50))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 45
    assert all(5 <= int(one.headers["Retry-After"]) <= 10 for one in answers if one.is_error)


async def test_messages_to_two_processes_share_a_limit(
    pair: list[serving.Server], place: Place
) -> None:
    async def press(server: serving.Server) -> int:
        url = f"{server.ws}/echo/10/3000?name=user:42"
        async with connect(url, open_timeout=20, proxy=None) as websocket:
            for _ in range(20):
                await websocket.send("chat:x")
            answers = [await asyncio.wait_for(websocket.recv(), 20) for _ in range(20)]
        waits = [json.loads(one)["retry_after"] for one in answers if one != "chat:x"]
        assert all(290 <= wait <= 300 for wait in waits)
        return 20 - len(waits)

    assert sum(await asyncio.gather(*(press(server) for server in pair * 2))) == 10
    assert any(b"user:42" in key for key in place.client.scan_iter())
    assert all(place.client.pttl(key) > 0 for key in place.client.scan_iter("*user:42*"))


async def test_twenty_at_once_with_a_limit_of_one(place: Place) -> None:
    store = store_at(place.url)
    limiters = [WebSocketRateLimiter(1, minutes=1, store=store) for _ in range(20)]
    assert sum(await asyncio.gather(*(passes(one) for one in limiters))) == 1
    await store.after_serving()


async def test_a_url_and_settings_of_the_client_library(place: Place) -> None:
    store = RedisStore(place.url.replace("valkey", "redis"), socket_timeout=5.0)
    assert await passes(WebSocketRateLimiter(1, minutes=1, store=store))
    by_url = WebSocketRateLimiter(1, minutes=1, store=place.url)
    assert not await passes(by_url)  # one server, one state
    await store.after_serving()
    await by_url.store.aclose()


async def test_a_store_that_was_closed_opens_again(place: Place) -> None:
    store = store_at(place.url)
    app = Quart(__name__)
    RateLimiter(app, store=store)

    @app.route("/")
    @rate_limit(1, timedelta(minutes=1))
    async def index() -> str:
        return "here"

    found = []
    for _ in range(2):
        async with app.test_app():
            found.append((await app.test_client().get("/")).status_code)
    assert found == [200, 429]


async def test_arrival_times_on_a_server(place: Place) -> None:
    store = store_at(place.url)
    now = datetime.now(timezone.utc)
    assert await store.get("a", now) is now
    await store.set("a", now + timedelta(seconds=100))
    left = (await store.get("a", now) - datetime.now(timezone.utc)).total_seconds()
    assert 90 < left <= 100
    await store.set("a", now)
    assert await store.get("a", now) is now
    await store.after_serving()


async def test_a_server_that_is_gone_is_no_limit_reached(place: Place) -> None:
    store = store_at(place.url)
    app = Quart(__name__)
    RateLimiter(app, store=store)
    app.route("/")(rate_limit(1, timedelta(minutes=1))(_view))
    async with app.test_app():
        assert (await app.test_client().get("/")).status_code == 200
        place.stack.close()
        assert (await app.test_client().get("/")).status_code == 500
        with pytest.raises(sluicegate.StoreError):
            await WebSocketRateLimiter(1, minutes=1, store=store)(PEER)


async def _view() -> str:
    return "here"
