"""The Channels door behind daphne and uvicorn, in processes of their own, met by real clients;
its channel layer in memory and in a Redis server of the test."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import serving
from adapters.raw import Raw
from redis_store import servers

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture(
    scope="module", params=["uvicorn", "daphne", "uvicorn and Redis", "daphne and Redis"]
)
def server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    kind, _, with_redis = request.param.partition(" and ")
    with ExitStack() as stack:
        env = {}
        if with_redis:
            redis = stack.enter_context(servers.server(servers.KINDS[0]))
            env["CHANNELS_REDIS"] = redis.connection_pool.connection_kwargs["path"]
        yield stack.enter_context(_serving(kind, env))


def _serving(kind: str, env: dict[str, str]) -> Any:
    app = "channels_app:application"
    if kind == "uvicorn":
        pings = ("--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5", "--lifespan", "off")
        return serving.uvicorn(app, *pings, app_dir=HERE, env=env)
    port = serving.free_port()
    command = [
        *(sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port)),
        *("-v", "0", "--ping-interval", "1", "--ping-timeout", "1", app),
    ]
    return serving.serving(command, port, env=env, cwd=HERE)


@asynccontextmanager
async def client(
    server: serving.Server, path: str, **options: Any
) -> AsyncIterator[ClientConnection]:
    async with connect(server.ws + path, open_timeout=20, **options) as websocket:
        yield websocket


async def answer(websocket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(websocket.recv(), 20)


async def held(server: serving.Server, name: str, client: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{server.http}/held/{name}/{client}", timeout=20)
        found: dict[str, Any] = answer.json()
        return found


async def until(server: serving.Server, name: str, client: str, places: int) -> None:
    give_up = time.monotonic() + 20
    while (await held(server, name, client))["places"] != places:
        assert time.monotonic() < give_up, "it did not come in time"
        await asyncio.sleep(0.02)


async def closed(websocket: ClientConnection) -> int | None:
    """The close code that the client sees; daphne's 4008 is 1008."""
    with pytest.raises(ConnectionClosed):
        while True:
            await answer(websocket)
    code = websocket.close_code or 0
    return code - 3000 if websocket.response.headers["Server"] == "daphne" else code


async def answers(websocket: ClientConnection) -> list[str]:
    """All that comes, until nothing has come for a while."""
    found = []
    with suppress(asyncio.TimeoutError):
        while True:
            found.append(str(await asyncio.wait_for(websocket.recv(), 1)))
    return found


async def press(websocket: ClientConnection, count: int) -> list[str]:
    for _ in range(count):
        await websocket.send("x")
    return await answers(websocket)


async def test_connections_of_one_client_share_its_quota(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "/echo/shared")) for _ in range(3)
        ]
        found = await asyncio.gather(*(press(one, 40) for one in clients))
        assert sum(got.count("x") for got in found) == 100
        notices = [json.loads(one) for got in found for one in got if one != "x"]
        assert 1 <= len(notices) <= 3  # each is told once
        assert {one["reason"] for one in notices} == {"rate_limit_exceeded"}
        assert all(1 <= one["retry_after"] <= 60 and one["limit"] == 100 for one in notices)
        assert (await held(server, "echo", "shared"))["registered"] == 3
        other = await stack.enter_async_context(client(server, "/echo/other"))
        assert (await press(other, 5)).count("x") == 5
    await until(server, "echo", "shared", 0)


async def test_a_refused_client_sees_1008_and_its_consumer_nothing(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(client(server, "/echo/places"))
        for _ in range(2):
            await stack.enter_async_context(client(server, "/echo/places"))
        before = (await held(server, "echo", "places"))["events"]
        for _ in range(2):
            async with client(server, "/echo/places", subprotocols=["chat"]) as refused:
                assert await closed(refused) == 1008
        found = await held(server, "echo", "places")
        assert (found["places"], found["events"]) == (3, before)
        await first.close()
        await until(server, "echo", "places", 2)
        again = await stack.enter_async_context(client(server, "/echo/places"))
        await again.send("x")
        assert await answer(again) == "x"
    await until(server, "echo", "places", 0)


async def test_the_room_hears_what_was_admitted(server: serving.Server) -> None:
    async with client(server, "/echo/room") as one, client(server, "/echo/room") as two:
        await one.send("all")
        assert await answer(one) == await answer(two) == "to all"


async def test_sizes_are_raw_bytes_before_json_is_parsed(server: serving.Server) -> None:
    async with client(server, "/json/sizes") as websocket:
        spaced = '{"a": "é"' + " " * 53 + "}"
        assert len(spaced.encode()) == 64
        before = len((await held(server, "json", "sizes"))["events"])
        await websocket.send(spaced)
        assert json.loads(await answer(websocket)) == {"got": {"a": "é"}}
        await websocket.send(spaced + " ")
        await websocket.send("{" * 65)  # that is no JSON: nobody looks
        await websocket.send("1")
        assert json.loads(await answer(websocket)) == {"got": 1}
        assert len((await held(server, "json", "sizes"))["events"]) == before + 2
    async with client(server, "/echo/binary") as websocket:
        await websocket.send(bytes(64))
        assert await answer(websocket) == bytes(64)
        await websocket.send(bytes(65))
        assert json.loads(await answer(websocket)) == {
            "error": "rate_limited",
            "reason": "message_too_large",
            "retry_after": None,
            "limit": 64,
        }


@pytest.mark.parametrize(("message", "code"), [("x", 1008), ("x" * 11, 1009)])
async def test_on_excess_close(server: serving.Server, message: str, code: int) -> None:
    who = f"{code}"
    async with client(server, f"/closing/{who}") as websocket:
        for _ in range(2):
            await websocket.send("x")
            assert await answer(websocket) == "x"
        await websocket.send(message)
        assert await closed(websocket) == code
    await until(server, "closing", who, 0)


async def test_too_many_refusals_close(server: serving.Server) -> None:
    async with client(server, "/refusing/much") as websocket:
        for _ in range(4):
            await websocket.send("x" * 11)
        assert await answer(websocket) == "refused: message_too_large"
        assert await closed(websocket) == 1009
    await until(server, "refusing", "much", 0)


async def test_a_synchronous_consumer(server: serving.Server) -> None:
    async with client(server, "/sync/ada") as one, client(server, "/sync/ada") as two:
        assert sum([(await press(ws, 4)).count("x") for ws in (one, two)]) == 5
        async with client(server, "/sync/ada") as refused:
            assert await closed(refused) == 1008
    await until(server, "sync", "ada", 0)


async def test_the_default_client_is_the_peers_address(server: serving.Server) -> None:
    async with client(server, "/peer/x"):
        assert (await held(server, "peer", "127.0.0.1"))["places"] == 1
        async with client(server, "/peer/y") as refused:
            assert await closed(refused) == 1008
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.2", 0))
            except OSError:
                pytest.skip("this system has no 127.0.0.2")
        async with client(server, "/peer/y", local_addr=("127.0.0.2", 0)):
            assert (await held(server, "peer", "127.0.0.2"))["places"] == 1


@pytest.mark.parametrize("name", ["echo", "by-hand"])
async def test_a_consumer_that_fails_gives_its_place_back(
    server: serving.Server, name: str
) -> None:
    for _ in range(4):
        async with client(server, f"/{name}/failing") as websocket:
            await websocket.send("x")
            assert await answer(websocket) in ("x", "True")
            await websocket.send("boom")
            await closed(websocket)
    await until(server, name, "failing", 0)
    assert (await held(server, name, "failing"))["registered"] == 0


@pytest.mark.parametrize("how", ["reset", "close", "silent"])
@pytest.mark.parametrize("name", ["echo", "by-hand"])
async def test_a_client_that_vanishes_gives_its_place_back(
    server: serving.Server, name: str, how: str
) -> None:
    who = f"vanish-{how}"
    raws = [await Raw.connect(server.port, f"/{name}/{who}") for _ in range(2)]
    await until(server, name, who, 2)
    for raw in raws:
        await raw.send_text("x")
        if how != "silent":
            getattr(raw, how)()
    await until(server, name, who, 0)
    for raw in raws:
        raw.close()


async def test_by_hand_a_refused_handshake_is_403(server: serving.Server) -> None:
    async with client(server, "/by-hand/full") as one, client(server, "/by-hand/full"):
        with pytest.raises(InvalidStatus) as refused:
            async with client(server, "/by-hand/full"):
                pass
        assert refused.value.response.status_code == 403
        await one.send("x")
        assert await answer(one) == "True"


async def test_500_connections_opened_and_dropped_leave_nothing(server: serving.Server) -> None:
    async def one(n: int) -> None:
        raw = await Raw.connect(server.port, f"/{('echo', 'by-hand')[n % 2]}/many{n}")
        if n % 3:
            await raw.send_text(("x", "boom")[n % 5 == 0])
        (raw.reset if n % 2 else raw.close)()

    for start in range(0, 500, 50):
        await asyncio.gather(*(one(n) for n in range(start, start + 50)))
    for n in range(0, 500, 23):
        await until(server, ("echo", "by-hand")[n % 2], f"many{n}", 0)
    give_up = time.monotonic() + 20
    for name in ("echo", "by-hand"):
        while (found := await held(server, name, "x"))["statistics"]["active_connections"]:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)
        assert found["watches"] == 0
