"""The FastAPI door behind uvicorn in a process of its own, met by real clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import serving
from adapters.raw import Raw

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server() -> Iterator[serving.Server]:
    # pings soon, so that a client that is silently gone is noticed within the test
    with serving.uvicorn(
        *("door_app:app", "--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5"), app_dir=HERE
    ) as server:
        yield server


@pytest.fixture(scope="module")
def bare_server() -> Iterator[serving.Server]:
    with serving.uvicorn("door_app:bare", app_dir=HERE) as server:
        yield server


@asynccontextmanager
async def client(server: serving.Server, path: str) -> AsyncIterator[ClientConnection]:
    async with connect(server.ws + path, open_timeout=20, ping_interval=None) as websocket:
        yield websocket


async def answer(websocket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(websocket.recv(), 20)


async def held(server: serving.Server, path: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        found: dict[str, Any] = (await http.get(f"{server.http}/held/{path}", timeout=20)).json()
        return found


async def until(check: Callable[[], Any], seconds: float = 20) -> None:
    """Waits until an async check holds."""
    give_up = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < give_up, "it did not come in time"
        await asyncio.sleep(0.02)


async def closed(websocket: ClientConnection) -> tuple[int | None, str]:
    """Code and reason of the close that the client sees."""
    with pytest.raises(ConnectionClosed):
        while True:
            await answer(websocket)
    return websocket.close_code, websocket.close_reason or ""


async def burst(websocket: ClientConnection, count: int, text: str = "x") -> int:
    """Sends at once, and says how many came back as sent."""
    for _ in range(count):
        await websocket.send(text)
    return sum([await answer(websocket) == text for _ in range(count)])


async def test_twenty_connections_of_one_client_share_its_quota(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "/echo/hundred/shared"))
            for _ in range(20)
        ]
        for expected in (100, 0, 0):
            assert sum(await asyncio.gather(*(burst(one, 25) for one in clients))) == expected
        assert (await held(server, "doors/hundred/shared"))["registered"] == 20


async def test_twenty_clients_have_each_their_quota(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, f"/echo/hundred/own{n}"))
            for n in range(20)
        ]
        assert await asyncio.gather(*(burst(one, 130) for one in clients)) == [100] * 20


async def test_over_a_longer_run_it_is_the_quota_to_the_message(server: serving.Server) -> None:
    """50 in any 2 seconds, pressed for 7: at 0, 2, 4 and 6 seconds, and no more."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "/echo/fifty/long")) for _ in range(20)
        ]
        end = time.monotonic() + 7

        async def press(websocket: ClientConnection) -> list[float]:
            admitted = []
            while time.monotonic() < end:
                await websocket.send("x")
                if await answer(websocket) == "x":
                    admitted.append(time.monotonic())
                await asyncio.sleep(0.02)
            return admitted

        admitted = await asyncio.gather(*(press(one) for one in clients))
    assert sum(len(times) for times in admitted) == 200


async def test_more_connections_than_there_are_places(server: serving.Server) -> None:
    path = "/echo/three/places"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(client(server, path))
        for _ in range(2):
            await stack.enter_async_context(client(server, path))
        for _ in range(3):
            refused = await stack.enter_async_context(client(server, path))
            assert await closed(refused) == (1008, "Rate limit exceeded")
        await first.close()

        async def is_free() -> bool:
            return bool((await held(server, "doors/three/places"))["places"] == 2)

        await until(is_free)
        again = await stack.enter_async_context(client(server, path))
        assert await burst(again, 1) == 1


async def test_connections_at_once_get_exactly_the_places(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *(stack.enter_async_context(client(server, "/echo/three/at-once")) for _ in range(30))
        )

        async def is_in(websocket: ClientConnection) -> bool:
            try:
                return await burst(websocket, 1) == 1
            except ConnectionClosed:
                return False

        assert sum(await asyncio.gather(*(is_in(one) for one in clients))) == 3


async def test_more_connections_than_the_rate_allows(server: serving.Server) -> None:
    for n in range(6):
        async with client(server, "/echo/rate/often") as websocket:
            if n < 4:
                assert await burst(websocket, 1) == 1
            else:
                assert await closed(websocket) == (1008, "Rate limit exceeded")


async def test_sizes_are_bytes_of_utf8(server: serving.Server) -> None:
    async with client(server, "/echo/size/sizes") as websocket:
        for text, fits in (("x" * 64, 1), ("x" * 65, 0), ("é" * 32, 1), ("é" * 32 + "x", 0)):
            assert await burst(websocket, 1, text) == fits


async def test_bytes_are_limited_with_messages_in_one_decision(server: serving.Server) -> None:
    async with client(server, "/echo/bytes/bytes") as websocket:
        sizes = (600, 600, 400, 1)
        assert [await burst(websocket, 1, "x" * size) for size in sizes] == [1, 0, 1, 0]
    stats = (await held(server, "doors/bytes/bytes"))["statistics"]
    assert (stats["total_messages"], stats["total_bytes_sent"]) == (2, 1000)


@pytest.mark.parametrize("how", ["reset", "close", "silent"])
@pytest.mark.parametrize("path", ["/echo/three/", "/careless/", "/block/drop/"])
async def test_a_client_that_vanishes_gives_its_place_back(
    server: serving.Server, how: str, path: str
) -> None:
    name = f"vanish-{how}{path.replace('/', '-')}"
    where = f"blocks/drop/{name}" if path.startswith("/block") else f"doors/three/{name}"
    places = 2 if path.startswith("/block") else 3
    for _ in range(2):
        raws = [await Raw.connect(server.port, path + name) for _ in range(places)]

        async def taken(count: int) -> bool:
            return bool((await held(server, where))["places"] == count)

        await until(lambda: taken(places))
        for raw in raws:
            await raw.send_text("x")
            if how != "silent":
                getattr(raw, how)()
        await until(lambda: taken(0))
        assert (await held(server, where))["registered"] == 0
        for raw in raws:
            raw.close()


async def test_a_handler_that_fails_gives_its_place_back(server: serving.Server) -> None:
    for _ in range(5):
        async with client(server, "/careless/failing") as websocket:
            await websocket.send("x")
            assert await answer(websocket) == "True"
            await websocket.send("boom")
            await closed(websocket)

    async def is_free() -> bool:
        return bool((await held(server, "doors/three/failing"))["places"] == 0)

    await until(is_free)


async def test_connect_in_a_task_that_ends_first(server: serving.Server) -> None:
    for _ in range(5):
        async with client(server, "/helped/helped") as websocket:
            for _ in range(3):
                await websocket.send("x")
                assert await answer(websocket) == "True"
            assert (await held(server, "doors/three/helped"))["registered"] == 1

    async def is_free() -> bool:
        return bool((await held(server, "doors/three/helped"))["places"] == 0)

    await until(is_free)


async def test_deny_is_seen_as_429_with_retry_after(server: serving.Server) -> None:
    async with client(server, "/echo/deny/denied"):
        pass
    with pytest.raises(InvalidStatus) as refused:
        async with client(server, "/echo/deny/denied"):
            pass
    assert refused.value.response.status_code == 429
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 60


async def test_deny_for_want_of_a_place(server: serving.Server) -> None:
    async with client(server, "/echo/deny-places/denied"):
        with pytest.raises(InvalidStatus) as refused:
            async with client(server, "/echo/deny-places/denied"):
                pass
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["Retry-After"]) >= 1


async def test_deny_is_403_where_the_server_lacks_the_extension(
    bare_server: serving.Server,
) -> None:
    async with client(bare_server, "/echo/deny/denied"):
        pass
    with pytest.raises(InvalidStatus) as refused:
        async with client(bare_server, "/echo/deny/denied"):
            pass
    assert refused.value.response.status_code == 403


async def test_the_default_client_is_the_peers_address(server: serving.Server) -> None:
    async with client(server, "/echo/address/a") as one, client(server, "/echo/address/b") as two:
        assert await burst(one, 4) + await burst(two, 4) == 5
    assert (await held(server, "doors/address/127.0.0.1"))["statistics"]["total_messages"] == 5


async def test_get_client_id_that_raises_refuses_and_is_logged(server: serving.Server) -> None:
    async with client(server, "/echo/raising/x") as websocket:
        assert await closed(websocket) == (1008, "Rate limit exceeded")
    assert "LookupError: no such user" in server.log()


async def test_max_refusals_close_the_connection(server: serving.Server) -> None:
    before = server.log()
    async with client(server, "/echo/refusals/much") as websocket:
        for _ in range(10):
            await websocket.send("x" * 11)
        answers = [await answer(websocket) for _ in range(3)]
        assert answers == ["refused"] * 3
        assert await closed(websocket) == (1008, "Rate limit exceeded")
    assert server.log() == before, "the endpoint failed"


async def test_a_refused_connection_costs_no_traceback(server: serving.Server) -> None:
    before = server.log()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(client(server, "/block/notify/quiet"))
        for path in ("/block/notify/quiet", "/json/quiet"):
            refused = await stack.enter_async_context(client(server, path))
            assert await closed(refused) == (1008, "Rate limit exceeded")
    assert server.log() == before


# ---- on_excess


async def test_on_excess_close(server: serving.Server) -> None:
    async with client(server, "/block/close/ada") as websocket:
        assert await burst(websocket, 3) == 3
        await websocket.send("x")
        assert await closed(websocket) == (1008, "Rate limit exceeded; retry after 1")
    async with client(server, "/block/close/eve") as websocket:
        await websocket.send("x" * 101)
        assert (await closed(websocket))[0] == 1009


async def test_on_excess_drop(server: serving.Server) -> None:
    async with client(server, "/block/drop/dropped") as websocket:
        for n in range(10):
            await websocket.send(str(n))
        assert [await answer(websocket) for _ in range(3)] == ["0", "1", "2"]
        await asyncio.sleep(1.05)
        await websocket.send("later")
        assert await answer(websocket) == "later"


async def test_on_excess_notify(server: serving.Server) -> None:
    async with client(server, "/block/notify/noted") as websocket:
        for n in range(10):
            await websocket.send(str(n))
        answers = [await answer(websocket) for _ in range(4)]
        assert answers[:3] == ["0", "1", "2"]
        assert json.loads(answers[3]) == {
            "error": "rate_limited",
            "reason": "rate_limit_exceeded",
            "retry_after": 1,
            "limit": 3,
        }
        await asyncio.sleep(1.05)  # one notice for all ten: what comes next is an echo
        await websocket.send("later")
        assert await answer(websocket) == "later"


async def test_on_excess_delay(bare_server: serving.Server) -> None:
    """On a server that pings rarely: while reading is held back no pong is read either."""
    async with client(bare_server, "/block/delay/waiting") as websocket:
        started = time.monotonic()
        for n in range(8):
            await websocket.send(str(n))
        answers = [(await answer(websocket), time.monotonic() - started) for _ in range(8)]
    assert [text for text, _ in answers] == [str(n) for n in range(8)]
    assert [int(at) for _, at in answers] == [0, 0, 0, 1, 1, 1, 2, 2]


async def test_on_excess_delay_sees_a_disconnect(bare_server: serving.Server) -> None:
    raw = await Raw.connect(bare_server.port, "/block/delay/leaving")
    for _ in range(4):
        await raw.send_text("x")
    await asyncio.sleep(0.2)
    raw.reset()

    async def is_free() -> bool:
        return bool((await held(bare_server, "blocks/delay/leaving"))["places"] == 0)

    await until(is_free, 0.6)


async def test_iter_json_and_iter_bytes(server: serving.Server) -> None:
    async with client(server, "/json/of-json") as websocket:
        await websocket.send('{"a": [1, "é"]}')
        assert json.loads(await answer(websocket)) == {
            "got": {"a": [1, "é"]},
            "allowed": True,
            "count": 2,  # the one that iter_json admitted, and the one checked by hand
        }
    async with client(server, "/binary/of-bytes") as websocket:
        await websocket.send(b"\0\xff")
        assert await answer(websocket) == b"\0\xff"
        await websocket.send("text")
        assert (await closed(websocket))[0] == 1003


# ---- many


@pytest.mark.slow
async def test_5000_connections_opened_and_dropped_leave_nothing(server: serving.Server) -> None:
    async def process() -> dict[str, int]:
        async with httpx.AsyncClient() as http:
            found: dict[str, int] = (await http.get(f"{server.http}/process", timeout=20)).json()
            return found

    async def wave(first: int, count: int) -> None:
        async def one(n: int) -> None:
            path = ("/echo/hundred/", "/block/drop/", "/helped/")[n % 3]
            raw = await Raw.connect(server.port, f"{path}many{n}")
            if n % 3:
                await raw.send_text("x")
            (raw.reset if n % 2 else raw.close)()

        for start in range(first, first + count, 50):
            await asyncio.gather(*(one(n) for n in range(start, start + 50)))

    async def is_over() -> bool:
        paths = ("doors/hundred/x", "doors/three/x", "blocks/drop/x")
        found = [await held(server, path) for path in paths]
        return all(
            not one["statistics"]["active_connections"] and not one["sockets"] for one in found
        )

    await wave(0, 500)  # what is made once is made here
    await until(is_over)
    before = await process()
    await wave(500, 5000)
    await until(is_over)
    after = await process()
    for n in range(0, 5500, 271):
        for path in ("doors/hundred", "doors/three", "blocks/drop"):
            assert (await held(server, f"{path}/many{n}"))["places"] == 0
    assert after["tasks"] <= before["tasks"]
    assert after["objects"] - before["objects"] < 500
    # the rates of 5,000 clients are kept for a minute, in some 200 bytes each
    assert after["bytes"] - before["bytes"] < 4 * 2**20
