"""Limits on routes over real servers of Redis and Valkey: two processes are two applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from fastapi import Depends, FastAPI, HTTPException, WebSocket

from calling import call, handshake
from redis_store import servers
from sluicegate import RedisStore
from sluicegate.fastapi import RateLimit, install, limit

pytestmark = pytest.mark.server


@pytest.fixture(params=servers.KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with servers.server(request.param) as client:
        yield client


def made(store: Any) -> FastAPI:
    app = FastAPI()
    install(app, store=store, default="default: 4/hour")

    @app.get("/search")
    @limit("6/hour")
    async def search() -> str:
        return "found"

    @app.get("/both", dependencies=[Depends(RateLimit("narrow: 1/hour", key="app"))])
    @limit("wide: 6/hour")
    def both() -> str:
        return "both"

    @app.get("/login")
    @limit("5/hour", count_when=lambda status: status == 401)
    async def log_in(password: str) -> str:
        await asyncio.sleep(0)
        if password != "right":
            raise HTTPException(401)
        return "in"

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    return app


@pytest.fixture
async def apps(client: redis.Redis) -> AsyncIterator[list[FastAPI]]:
    path = client.connection_pool.connection_kwargs["path"]
    stores = [RedisStore(f"unix://{path}") for _ in range(2)]
    yield [made(store) for store in stores]
    for store in stores:
        await store.aclose()


async def at_once(apps: list[FastAPI], path: str, count: int, **more: Any) -> list[int]:
    """Of that many requests to each of them at the same time, in order of number."""
    asked = [call(app, path, **more) for _ in range(count) for app in apps]
    return sorted(answer.status for answer in await asyncio.gather(*asked))


async def test_routes_are_exact_over_two_applications(apps: list[FastAPI]) -> None:
    assert await at_once(apps, "/search", 8) == [200] * 6 + [429] * 10
    assert await at_once(apps, "/openapi.json", 4) == [200] * 4 + [429] * 4
    sent = await asyncio.gather(*(handshake(app, "/ws") for app in apps * 4))
    assert sorted(messages[0]["type"] for messages in sent) == (
        ["websocket.accept"] * 4 + ["websocket.http.response.start"] * 4
    )


async def test_what_does_not_count_is_given_back(apps: list[FastAPI]) -> None:
    for _ in range(3):
        statuses = await at_once(apps, "/login", 2, query_string=b"password=right")
        assert statuses == [200] * 4
    guesses = await at_once(apps, "/login", 10, query_string=b"password=wrong")
    assert guesses == [401] * 5 + [429] * 15


async def test_what_one_limit_refuses_is_not_charged_to_another(apps: list[FastAPI]) -> None:
    assert await at_once(apps, "/both", 1) == [200, 429]
    assert await at_once(apps, "/both", 3) == [429] * 6
    answer = await call(apps[0], "/both")
    assert answer.headers["ratelimit"].startswith('"narrow"')
