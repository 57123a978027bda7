"""sluicegate.app behind uvicorn in a process of its own, met by real clients: over memory, and
over a Redis that goes down and comes back."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import serving
from adapters.raw import Raw
from adapters.redis_process import redis_server

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
NUMBERS = {
    "RATE_LIMIT_PER_MINUTE": "5",
    "RATE_LIMIT_BURST": "2",
    "WS_MAX_CONNECTIONS_PER_USER": "2",
    "WS_MESSAGE_RATE_LIMIT": "10",
}


@contextmanager
def limited(store: str = "memory://", app: str = "app") -> Iterator[serving.Server]:
    # pings soon, so that a client that is silently gone is noticed within the test
    with serving.uvicorn(
        *(f"limited_app:{app}", "--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5"),
        app_dir=HERE,
        env={**NUMBERS, "LIMITED_STORE": store},
    ) as server:
        yield server


@pytest.fixture(scope="module", params=["app", "fast"], ids=["starlette", "fastapi"])
def server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    with limited(app=request.param) as server:
        yield server


@asynccontextmanager
async def client(
    server: serving.Server, user: str, **options: Any
) -> AsyncIterator[ClientConnection]:
    url = f"{server.ws}/chat?user={user}"
    async with connect(url, open_timeout=20, **options) as websocket:
        yield websocket


async def answer(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), 20))


async def welcomed(websocket: ClientConnection) -> ClientConnection:
    assert await answer(websocket) == "welcome"
    return websocket


async def refused(websocket: ClientConnection) -> tuple[int | None, str]:
    """Code and reason of the close, which is all that the client sees."""
    with pytest.raises(ConnectionClosed) as closed:
        await answer(websocket)
    frame = closed.value.rcvd
    return (frame.code, frame.reason) if frame else (None, "")


async def get(server: serving.Server, path: str, user: str | None = None) -> httpx.Response:
    headers = {"x-user": user} if user else {}
    async with httpx.AsyncClient() as http:
        return await http.get(server.http + path, headers=headers, timeout=20)


async def held(server: serving.Server, user: str) -> dict[str, int]:
    found: dict[str, int] = (await get(server, f"/held/{user}")).json()
    return found


async def hits(server: serving.Server) -> dict[str, float]:
    text = (await get(server, "/metrics/")).text
    return {
        sample.labels["limit_type"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "rate_limit_hits_total"
    }


async def until(check: Callable[[], Any], seconds: float = 20) -> None:
    """Waits until an async check holds."""
    give_up = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < give_up, "it did not come in time"
        await asyncio.sleep(0.05)


# ---- over memory


async def test_http(server: serving.Server) -> None:
    before = await hits(server)
    for remaining in range(6, -1, -1):
        response = await get(server, "/" if remaining % 2 else "/nothing", "ann")
        assert response.status_code == (200 if remaining % 2 else 404)
        assert response.headers["x-ratelimit-limit"] == "7"
        assert response.headers["x-ratelimit-remaining"] == str(remaining)
        assert 55 < int(response.headers["x-ratelimit-reset"]) - time.time() <= 61
    response = await get(server, "/", "ann")
    assert response.status_code == 429
    assert response.headers["x-ratelimit-remaining"] == "0"
    assert 30 < int(response.headers["retry-after"]) <= 60
    assert response.json()["retry_after"] == int(response.headers["retry-after"])
    assert response.json()["error"] == "rate_limited"
    assert (await hits(server))["http"] == before["http"] + 1

    for path in ("/docs", "/redoc", "/health", "/metrics/"):
        response = await get(server, path, "ann")
        assert response.status_code == 200
        assert "x-ratelimit-limit" not in response.headers
    logins = [(await get(server, "/login", "ann")).status_code for _ in range(3)]
    assert logins == [200, 200, 429]
    # somebody else, and nobody in particular
    assert (await get(server, "/", "bea")).headers["x-ratelimit-remaining"] == "6"
    assert (await get(server, "/")).headers["x-ratelimit-remaining"] == "6"
    assert "Rate limit exceeded for user ann" in server.log()


async def test_http_requests_at_once(server: serving.Server) -> None:
    answers = await asyncio.gather(*(get(server, "/", "cleo") for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [200] * 7 + [429] * 13


async def test_a_client_sees_1008_over_the_connection_limit(server: serving.Server) -> None:
    before = await hits(server)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first, _ = [await welcomed(await enter(client(server, "dora"))) for _ in range(2)]
        for offered in (None, ["chat"]):
            websocket = await enter(client(server, "dora", subprotocols=offered))
            assert await refused(websocket) == (1008, "Rate limit exceeded")
            assert websocket.subprotocol == (offered and offered[0])
        assert (await hits(server))["ws_connection"] == before["ws_connection"] + 2
        await welcomed(await enter(client(server, "dana")))
        await first.close()
        await until(lambda: has(server, "dora", 1))
        await welcomed(await enter(client(server, "dora")))
    await until(lambda: has(server, "dora", 0))


async def has(server: serving.Server, user: str, count: int) -> bool:
    return (await held(server, user))["count"] == count


async def test_connections_at_once_get_exactly_the_places(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *(stack.enter_async_context(client(server, "ella")) for _ in range(10))
        )

        async def is_in(websocket: ClientConnection) -> bool:
            try:
                return await answer(websocket) == "welcome"
            except ConnectionClosed:
                return False

        assert sum(await asyncio.gather(*(is_in(one) for one in clients))) == 2
    await until(lambda: has(server, "ella", 0))


async def test_messages_over_the_limit(server: serving.Server) -> None:
    before = await hits(server)
    handled = (await held(server, "fay"))["handled"]
    async with client(server, "fay") as one, client(server, "fay") as other:
        await welcomed(one)
        await welcomed(other)
        for websocket in (one, other):  # a user's messages, over all connections
            for n in range(8):
                await websocket.send(str(n))
        first = [await answer(one) for _ in range(8)]
        second = [await answer(other) for _ in range(8)]
    told = [text for text in first + second if text.startswith("{")]
    assert len(told) == 6
    for text in told:
        error = json.loads(text)
        assert error["error"] == "rate_limited" and error["limit"] == 10
        assert 30 < error["retry_after"] <= 60
    assert (await held(server, "fay"))["handled"] == handled + 10
    assert (await hits(server))["ws_message"] == before["ws_message"] + 6


@pytest.mark.parametrize("how", ["reset", "close", "silent", "boom"])
async def test_the_place_of_a_client_that_vanishes_is_given_back(
    server: serving.Server, how: str
) -> None:
    raw = await Raw.connect(server.port, f"/chat?user=gone-{how}")
    try:
        await until(lambda: has(server, f"gone-{how}", 1))
        if how == "boom":
            await raw.send_text("boom")
        elif how != "silent":
            getattr(raw, how)()
        await until(lambda: has(server, f"gone-{how}", 0))
    finally:
        raw.socket.close()


# ---- over Redis


def keys(port: int) -> list[str]:
    with redis.Redis(port=port, decode_responses=True) as found:
        return sorted(found.scan_iter())


needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="there is no redis-server"
)


@needs_redis
async def test_processes_share_what_stands_readable_in_redis() -> None:
    port = serving.free_port()
    url = f"redis://127.0.0.1:{port}"
    with redis_server(port), limited(url) as one, limited(url) as other:
        for n, server in enumerate((one, other, one, other)):
            response = await get(server, "/", "ann")
            assert response.headers["x-ratelimit-remaining"] == str(6 - n)
        async with client(one, "ann") as first, client(other, "ann") as second:
            await welcomed(first)
            await welcomed(second)
            async with client(one, "ann") as third:
                assert await refused(third) == (1008, "Rate limit exceeded")
            found = keys(port)
            assert any("user:ann" in key for key in found)
            assert any("ws:connections:ann" in key for key in found)
            # every key expires
            with redis.Redis(port=port) as server_client:
                assert all(server_client.pttl(key) > 0 for key in found)
            # the places of a server that dies lapse
            other.process.kill()
            await until(lambda: has(one, "ann", 1))
            async with client(one, "ann") as fourth:
                await welcomed(fourth)


@needs_redis
async def test_redis_goes_down_and_comes_back() -> None:
    port = serving.free_port()
    with limited_over(port) as (server, stop):
        for _ in range(7):
            await get(server, "/", "ann")
        assert (await get(server, "/", "ann")).status_code == 429
        async with client(server, "ann") as websocket:
            await welcomed(websocket)
            await websocket.send("before")
            assert await answer(websocket) == "before"
            before = await hits(server)
            stop()

            # requests are let through, connections refused, messages limited in the process
            for _ in range(10):
                response = await get(server, "/", "ann")
                assert response.status_code == 200
                assert response.headers["x-ratelimit-remaining"] == "7"
            async with client(server, "bea") as other:
                code, reason = await refused(other)
                assert code == 1008 and reason != "Rate limit exceeded"
            for _ in range(12):
                await websocket.send("x")
            answers = [await answer(websocket) for _ in range(12)]
            assert answers[:10] == ["x"] * 10
            assert [json.loads(text)["error"] for text in answers[10:]] == ["rate_limited"] * 2
            after = await hits(server)
            assert after == {**before, "ws_message": before["ws_message"] + 2}

            with redis_server(port):  # empty, as after a restart without persistence

                async def counts() -> bool:
                    response = await get(server, "/", "cleo")
                    return response.headers["x-ratelimit-remaining"] != "7"

                await until(counts)
                answers = await asyncio.gather(*(get(server, "/", "dora") for _ in range(20)))
                assert sorted(one.status_code for one in answers) == [200] * 7 + [429] * 13

                async def is_in() -> bool:
                    async with client(server, "bea") as other:
                        try:
                            return await answer(other) == "welcome"
                        except ConnectionClosed:
                            return False

                await until(is_in)


@contextmanager
def limited_over(port: int) -> Iterator[tuple[serving.Server, Callable[[], None]]]:
    """The application over a Redis on that port, and what kills that Redis."""
    with redis_server(port) as database, limited(f"redis://127.0.0.1:{port}") as server:

        def stop() -> None:
            database.process.kill()
            database.process.wait(serving.STOP_SECONDS)

        yield server, stop
