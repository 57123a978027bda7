"""The Socket.IO door behind uvicorn in a process of its own, met by python-socketio's own
clients, over WebSocket and over long polling."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import httpx
import pytest
import socketio

import serving
from adapters.raw import Raw
from adapters.socketio_app import NAMESPACES
from sluicegate import SocketIOLimiter

pytestmark = [
    pytest.mark.server,
    # python-socketio's client leaves that of a refused connection so
    pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning"),
]

HERE = Path(__file__).parent
REFUSED = {"error": "rate_limited", "retry_after": 60}

over_both = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture(scope="module")
def server() -> Iterator[serving.Server]:
    with serving.uvicorn("socketio_app:app", app_dir=HERE) as server:
        yield server


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves unclosed is collected with it, and no other test is blamed."""
    yield
    gc.collect()


@asynccontextmanager
async def client(
    server: serving.Server,
    name: str,
    who: str,
    transport: str = "websocket",
    namespaces: tuple[str, ...] = ("/",),
    *,
    told: list[Any] | None = None,
    wait: float = 20,
    local_address: tuple[str, int] | None = None,
    **auth: Any,
) -> AsyncIterator[socketio.AsyncClient]:
    """A connected client; ConnectionError where it was refused. `told`: its connect errors."""
    connector = aiohttp.TCPConnector(local_addr=local_address)
    # a session of ours: python-socketio leaves requests of its own ones unclosed
    async with aiohttp.ClientSession(connector=connector) as http:
        made = socketio.AsyncClient(reconnection=False, http_session=http)
        if told is not None:
            made.on("connect_error", told.append)
        try:
            await made.connect(
                server.http,
                auth={"client": who, **auth},
                transports=None if transport == "both" else [transport],
                namespaces=list(namespaces),
                socketio_path=f"/{name}/socket.io",
                wait_timeout=wait,
            )
            yield made
        finally:
            # by polling it would wait for its last request, which nobody answers any more
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(made.disconnect(), 0.3 if transport == "polling" else 20)


async def call(one: socketio.AsyncClient, event: str, data: Any = None, **where: Any) -> Any:
    return await one.call(event, data, timeout=20, **where)


async def burst(one: socketio.AsyncClient, count: int, **where: Any) -> int:
    """Sends ten at a time, and says how many were answered by their handler. (Engine.IO takes
    no more than 16 in one request.)"""
    answers: list[Any] = []
    for start in range(0, count, 10):
        some = range(start, min(start + 10, count))
        answers += await asyncio.gather(*(call(one, "echo", "x", **where) for _ in some))
    refused = [answer for answer in answers if answer.get("error") == "rate_limited"]
    assert all(1 <= answer["retry_after"] <= 60 for answer in refused)
    return count - len(refused)


async def held(server: serving.Server, name: str, client: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{server.http}/held?name={name}&client={client}", timeout=20)
        found: dict[str, Any] = answer.json()
        return found


async def until_free(server: serving.Server, name: str, client: str, seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while (await held(server, name, client))["places"]:
        assert time.monotonic() < give_up, "it did not come in time"
        await asyncio.sleep(0.02)


@over_both
async def test_connections_of_one_client_share_its_quota(
    server: serving.Server, transport: str
) -> None:
    who = f"shared-{transport}"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "hundred", who, transport))
            for _ in range(5)
        ]
        for expected in (100, 0):
            assert sum(await asyncio.gather(*(burst(one, 30) for one in clients))) == expected
        assert (await held(server, "hundred", who))["registered"] == 5
        other = await stack.enter_async_context(client(server, "hundred", who + "2", transport))
        assert await burst(other, 30) == 30
    await until_free(server, "hundred", who)


@pytest.mark.parametrize("transport", ["websocket", "polling", "both"])
async def test_all_namespaces_of_a_client_share_its_quota(
    server: serving.Server, transport: str
) -> None:
    who = f"spaces-{transport}"
    async with client(server, "hundred", who, transport, NAMESPACES) as one:
        assert (await held(server, "hundred", who))["registered"] == len(NAMESPACES)
        for namespace in NAMESPACES:
            assert await burst(one, 20, namespace=namespace) == 20
        for namespace in NAMESPACES:
            assert await call(one, "echo", "x", namespace=namespace) == REFUSED
        assert await call(one, "another", "x", namespace="/all") == REFUSED
    await until_free(server, "hundred", who)


@over_both
async def test_events_have_their_costs(server: serving.Server, transport: str) -> None:
    async with client(server, "costs", f"costs-{transport}", transport) as one:
        assert await call(one, "search", "x") == {"got": "x"}
        assert await call(one, "search", "x") == {"got": "x"}
        assert await call(one, "search", "x") == REFUSED
        assert await burst(one, 6) == 5
        assert await call(one, "typing", "x") == {"got": "x"}


@over_both
async def test_sizes_are_bytes(server: serving.Server, transport: str) -> None:
    never = {"error": "rate_limited", "retry_after": None}
    async with client(server, "size", f"size-{transport}", transport) as one:
        for data, admitted in (
            ("é" * 32, True),
            ("é" * 32 + "x", False),
            (bytes(64), True),
            (bytes(65), False),
            ({"a": "x" * 56}, True),
            ({"a": "x" * 57}, False),
            ({"a": bytes(57)}, False),
        ):
            assert (await call(one, "echo", data) != never) == admitted, data


@over_both
async def test_messages_and_bytes_are_one_decision(server: serving.Server, transport: str) -> None:
    who = f"bytes-{transport}"
    before = (await held(server, "bytes", who))["statistics"]
    async with client(server, "bytes", who, transport) as one:
        answers = [await call(one, "echo", bytes(size)) for size in (600, 600, 400, 1)]
    assert [answer.get("error") for answer in answers] == [
        None,
        "rate_limited",
        None,
        "rate_limited",
    ]
    after = (await held(server, "bytes", who))["statistics"]
    assert after["total_bytes_sent"] - before["total_bytes_sent"] == 1000


@over_both
async def test_more_connections_than_there_are_places(
    server: serving.Server, transport: str
) -> None:
    who = f"places-{transport}"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(client(server, "quick", who, transport))
        for _ in range(2):
            await stack.enter_async_context(client(server, "quick", who, transport))
        for _ in range(2):
            told: list[Any] = []
            with pytest.raises(socketio.exceptions.ConnectionError):
                await stack.enter_async_context(client(server, "quick", who, transport, told=told))
            assert told == [
                {
                    "message": "Rate limit exceeded",
                    "data": {"error": "rate_limited", "retry_after": None},
                }
            ]
        assert (await held(server, "quick", who))["places"] == 3
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(first.disconnect(), 0.3)
        give_up = time.monotonic() + 20
        while (await held(server, "quick", who))["places"] > 2:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)
        again = await stack.enter_async_context(client(server, "quick", who, transport))
        assert await burst(again, 1) == 1
    await until_free(server, "quick", who)


async def test_connections_at_once_get_exactly_the_places(server: serving.Server) -> None:
    async def attempt(stack: AsyncExitStack) -> bool:
        try:
            await stack.enter_async_context(client(server, "three", "at-once"))
        except socketio.exceptions.ConnectionError:
            return False
        return True

    async with AsyncExitStack() as stack:
        assert sum(await asyncio.gather(*(attempt(stack) for _ in range(12)))) == 3


async def test_new_connections_are_counted(server: serving.Server) -> None:
    for _ in range(4):
        async with client(server, "rate", "often"):
            pass
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with client(server, "rate", "often"):
            pass
    assert (await held(server, "rate", "often"))["places"] == 0


@over_both
@pytest.mark.parametrize("fail", ["raise", "refuse"])
async def test_a_connect_handler_that_fails_leaves_no_place(
    server: serving.Server, transport: str, fail: str
) -> None:
    who = f"{fail}-{transport}"
    wait = 0.5 if fail == "raise" else 20  # python-socketio answers nothing then
    for _ in range(4):
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with client(server, "quick", who, transport, wait=wait, fail=fail):
                pass
    await until_free(server, "quick", who)


async def test_an_event_handler_that_fails(server: serving.Server) -> None:
    async with client(server, "three", "failing") as one:
        await one.emit("echo", "boom")
        assert await burst(one, 3) == 3
    await until_free(server, "three", "failing")


@pytest.mark.parametrize("how", ["reset", "close", "silent"])
async def test_a_client_that_vanishes_gives_its_places_back(
    server: serving.Server, how: str
) -> None:
    who = f"vanish-{how}"
    path = "/quick/socket.io/?EIO=4&transport=websocket"
    raws = [await Raw.connect(server.port, path) for _ in range(2)]
    for raw in raws:
        for namespace in ("", "/class,")[: 1 if raw is raws[0] else 2]:
            await raw.send_text(f'40{namespace}{{"client":"{who}"}}')
    give_up = time.monotonic() + 20
    while (await held(server, "quick", who))["places"] != 3:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
    for raw in raws:
        await raw.send_text('421["echo","x"]')
        if how != "silent":
            getattr(raw, how)()
    await until_free(server, "quick", who)
    assert (await held(server, "quick", who))["registered"] == 0
    for raw in raws:
        raw.close()


async def test_a_polling_client_that_polls_no_more(server: serving.Server) -> None:
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
        path = "/quick/socket.io/?EIO=4&transport=polling"
        sid = json.loads((await http.get(path)).text[1:])["sid"]
        await http.post(f"{path}&sid={sid}", content='40{"client":"lazy"}')
        assert (await held(server, "quick", "lazy"))["places"] == 1
    await until_free(server, "quick", "lazy")


async def test_too_many_refusals_disconnect(server: serving.Server) -> None:
    async with client(server, "refusals", "much") as one:
        gone = asyncio.Event()
        one.on("disconnect", lambda *reason: gone.set())
        for _ in range(4):
            await one.emit("echo", "x" * 11)
        await asyncio.wait_for(gone.wait(), 20)
    await until_free(server, "refusals", "much")


@over_both
async def test_the_default_client_is_the_peers_address(
    server: serving.Server, transport: str
) -> None:
    """Not what Engine.IO has in REMOTE_ADDR, which is 127.0.0.1 for everybody."""
    address = {"websocket": "127.0.0.2", "polling": "127.0.0.3"}[transport]
    here = need_address(address)
    async with client(server, "address", "x", transport, local_address=here) as one:
        assert (await held(server, "address", address))["clients"] == [address]
        assert await burst(one, 10) == 5
    async with client(server, "address", "x", transport) as one:
        assert (await held(server, "address", "127.0.0.1"))["clients"] == ["127.0.0.1"]


async def test_the_peers_address_on_aiohttps_own_server() -> None:
    sio = socketio.AsyncServer(async_mode="aiohttp")
    limiter = SocketIOLimiter()
    limiter.attach(sio)
    app = aiohttp.web.Application()
    sio.attach(app)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    port = serving.free_port()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        connector = aiohttp.TCPConnector(local_addr=need_address("127.0.0.2"))
        async with aiohttp.ClientSession(connector=connector) as http:
            one = socketio.AsyncClient(reconnection=False, http_session=http)
            await one.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
            assert list(limiter.sid_to_client.values()) == ["127.0.0.2"]
            await one.disconnect()
    finally:
        await sio.shutdown()
        await runner.cleanup()
    assert limiter.sid_to_client == {}


def need_address(address: str) -> tuple[str, int]:
    """One to connect from; not every system has more than one."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            pytest.skip(f"this system has no {address}")
    return address, 0


@pytest.mark.slow
async def test_2000_connections_opened_and_dropped_leave_nothing(server: serving.Server) -> None:
    async def process() -> dict[str, int]:
        async with httpx.AsyncClient() as http:
            found: dict[str, int] = (await http.get(f"{server.http}/process", timeout=20)).json()
            return found

    async def wave(first: int, count: int) -> None:
        async def one(n: int) -> None:
            raw = await Raw.connect(server.port, "/quick/socket.io/?EIO=4&transport=websocket")
            await raw.send_text(f'40{{"client":"many{n % 500}"}}')
            if n % 3:
                await raw.send_text('42["echo","x"]')
            (raw.reset if n % 2 else raw.close)()

        for start in range(first, first + count, 50):
            await asyncio.gather(*(one(n) for n in range(start, start + 50)))

    async def until_over() -> None:
        give_up = time.monotonic() + 20
        while True:
            found = await held(server, "quick", "many0")
            if not found["sessions"] and not found["statistics"]["active_connections"]:
                return
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)

    await wave(0, 500)  # what is made once is made here
    await until_over()
    before = await process()
    await wave(500, 2000)
    await until_over()
    after = await process()
    for n in range(0, 500, 37):
        assert (await held(server, "quick", f"many{n}"))["places"] == 0
    assert (await held(server, "quick", "x"))["clients"] == []
    # a session's next ping stays a task until it is due
    assert after["tasks"] <= before["tasks"] + 2000
    assert (after["objects"] - before["objects"]) / 2000 < 40
