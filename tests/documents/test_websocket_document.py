"""Every program of websocket-rate-limiting.rst, run for real with its import root changed.

What a program leaves open (`process_message`, `log_violation` ...) is put in front of it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import socketio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import serving
from documents.programs import document, moved, python_blocks
from redis_store import servers

Serve = Callable[..., serving.Server]

SLOW_DOWN = "⚠️  Slow down! Rate limit exceeded."


@pytest.fixture
def program() -> Callable[..., str]:
    blocks = python_blocks(document("websocket-rate-limiting.rst"))

    def find(heading: str, place: int = 0) -> str:
        return moved(blocks[heading][place], "ratethrottle", "sluicegate")

    return find


async def run(source: str, **names: Any) -> dict[str, Any]:
    """Runs a program that may await at its top, and returns its names."""
    code = compile(source, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result
    return names


def start(serve: Serve, folder: Path, *parts: str) -> serving.Server:
    """Serves the application that is these parts, one after another."""
    (folder / "printed.py").write_text("\n\n".join(parts), encoding="utf-8")
    return serve("printed:app", app_dir=folder)


async def answer(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), 20))


async def refusal(url: str) -> tuple[int | None, str]:
    async with connect(url) as websocket:
        with pytest.raises(ConnectionClosed):
            await answer(websocket)
        return websocket.close_code, websocket.close_reason or ""


def test_no_program_of_the_document_is_forgotten() -> None:
    found = python_blocks(document("websocket-rate-limiting.rst"))
    assert sum(len(blocks) for blocks in found.values()) == 17
    assert set(found) == {
        "2. Socket.IO",
        "3. Django Channels",
        "4. Use Redis for Distributed Systems",
        "Simple Rate Limiter",
        "1. FastAPI WebSocket",
        "Custom Client ID Extraction",
        "Per-Room/Channel Limits",
        "Violation Callbacks",
        "Statistics and Monitoring",
        "Example 1: Real-Time Chat",
        "Example 2: Live Dashboard",
        "Strict Limits (API)",
        "Moderate Limits (Chat)",
        "Generous Limits (Internal Tools)",
        "1. Choose Appropriate Limits",
        "2. Handle Rate Limit Gracefully",
        "3. Monitor and Alert",
    }


async def test_simple_rate_limiter(program: Callable[..., str]) -> None:
    names = await run(program("Simple Rate Limiter"), data="x" * 1000)
    assert names["result"]["allowed"]
    limiter = names["limiter"]
    stats = limiter.get_statistics()
    assert (stats["active_connections"], stats["total_bytes_sent"]) == (1, 1000)
    assert stats["limits"]["max_concurrent"] == 5
    # and what its comments say of the numbers
    assert [(await limiter.check_message("conn_id", 1))["allowed"] for _ in range(100)] == [
        True
    ] * 99 + [False]
    assert (await limiter.check_message("conn_id", 65537))["reason"] == "message_too_large"
    connections = [await limiter.register_connection(n, "client_id") for n in range(6)]
    assert connections == [True] * 4 + [False] * 2


@pytest.mark.server
async def test_fastapi_websocket(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    server = start(
        serve,
        tmp_path,
        "def process_message(data): return data.upper()",
        "async def broadcast_message(message): seen.append(message)\nseen = []",
        program("1. FastAPI WebSocket"),
        "@app.get('/seen')\nasync def see(): return seen",
    )
    async with connect(f"{server.ws}/ws/ada") as websocket:
        for _ in range(120):
            await websocket.send("hello")
        answers = [await answer(websocket) for _ in range(120)]
        slow = '{"error": "Rate limit exceeded. Please slow down."}'
        assert answers == ["HELLO"] * 100 + [slow] * 20
        await websocket.send("x" * 10241)
        assert await answer(websocket) == slow
    for _ in range(9):
        async with connect(f"{server.ws}/ws/ada") as websocket:
            await websocket.send("hello")
            assert "slow down" in await answer(websocket)
    assert await refusal(f"{server.ws}/ws/ada") == (1008, "Rate limit exceeded")

    async with connect(f"{server.ws}/chat") as websocket:
        for n in range(101):
            await websocket.send(json.dumps({"n": n}))
        assert json.loads(await answer(websocket)) == {"error": "Too many messages. Wait a moment."}
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{server.http}/seen")).json() == [{"n": n} for n in range(100)]


async def test_custom_client_id(program: Callable[..., str]) -> None:
    names = await run(program("Custom Client ID Extraction"))

    peer = SimpleNamespace(
        query_params={"user_id": "42"}, headers={}, client=SimpleNamespace(host="10.0.0.1")
    )
    get_user_id = names["get_user_id"]
    assert get_user_id(peer) == "42"
    peer.query_params = {}
    assert get_user_id(peer) == "10.0.0.1"
    assert names["limiter"].get_client_id is get_user_id


@pytest.mark.server
async def test_custom_client_id_with_real_clients(
    program: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    server = start(
        serve,
        tmp_path,
        "from fastapi import FastAPI, WebSocket",
        program("Custom Client ID Extraction"),
        "app = FastAPI()",
        "@app.websocket('/')\n"
        "async def who(websocket: WebSocket):\n"
        "    if await limiter.connect(websocket):\n"
        "        await websocket.send_json(list(limiter.limiter.connections_by_client))\n"
        "        await limiter.disconnect(websocket)\n",
    )
    for query, headers, expected in (
        ("?user_id=ada", {}, "ada"),
        ("", {"X-User-ID": "eve"}, "eve"),
        ("", {}, "127.0.0.1"),
    ):
        async with connect(f"{server.ws}/{query}", additional_headers=headers) as websocket:
            assert json.loads(await answer(websocket)) == [expected]


@pytest.mark.server
async def test_per_room_limits_as_printed_refuse_every_room_message(
    program: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    server = start(
        serve,
        tmp_path,
        "from fastapi import FastAPI, WebSocket, WebSocketDisconnect",
        "from sluicegate import FastAPIWebSocketLimiter",
        "app = FastAPI()\nlimiter = FastAPIWebSocketLimiter()",
        "async def broadcast_to_room(room, data): raise AssertionError('never reached')",
        program("Per-Room/Channel Limits"),
    )
    async with connect(f"{server.ws}/room/lobby") as websocket:
        for _ in range(3):
            await websocket.send("hello")
            assert await answer(websocket) == "Room rate limit exceeded"


@pytest.mark.server
async def test_per_room_limits_mended(
    program: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    """As the docs show it: the connection is registered with the room's limiter, too."""
    printed = program("Per-Room/Channel Limits")
    place = "        return\n\n    try:\n"
    assert printed.count(place) == 1
    mended = printed.replace(
        place,
        "        return\n"
        "    room = room_limiter.get_room_limiter(room_name)\n"
        "    await room.register_connection(f'ws_{id(websocket)}', 'anybody')\n"
        "    try:\n",
    ).replace("messages_per_minute=500", "messages_per_minute=5")
    server = start(
        serve,
        tmp_path,
        "from fastapi import FastAPI, WebSocket, WebSocketDisconnect",
        "from sluicegate import FastAPIWebSocketLimiter",
        "app = FastAPI()\nlimiter = FastAPIWebSocketLimiter()\nsent = []",
        "async def broadcast_to_room(room, data): sent.append((room, data))",
        mended,
        "@app.get('/sent')\nasync def see(): return sent",
    )
    for room in ("lobby", "attic"):
        async with connect(f"{server.ws}/room/{room}") as websocket:
            for n in range(7):
                await websocket.send(str(n))
            assert [await answer(websocket) for _ in range(2)] == ["Room rate limit exceeded"] * 2
    async with httpx.AsyncClient() as http:
        sent = (await http.get(f"{server.http}/sent")).json()
    assert sent == [[room, str(n)] for room in ("lobby", "attic") for n in range(5)]


async def test_violation_callbacks(
    program: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    from sluicegate import WebSocketRateLimiter

    logged: list[dict[str, Any]] = []
    alerts: list[str] = []
    banned: list[str] = []
    names = await run(
        program("Violation Callbacks"),
        WebSocketRateLimiter=WebSocketRateLimiter,
        log_violation=logged.append,
        send_alert=alerts.append,
        get_violation_count=lambda client: len(logged),
        ban_client=banned.append,
    )
    limiter = names["limiter"]
    await limiter.register_connection("c", "ada")
    for _ in range(1012):
        await limiter.check_message("c", 1)
    await limiter.check_message("c", 65537)
    assert [info["type"] for info in logged] == ["message_rate"] * 12 + ["message_size"]
    assert alerts == ["High message rate from ada"] * 12
    assert banned == ["ada"] * 3
    assert capsys.readouterr().out.count("Violation: {'type': ") == 13


async def test_statistics_and_monitoring(
    program: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    from sluicegate import WebSocketLimits, WebSocketRateLimiter

    limiter = WebSocketRateLimiter(
        WebSocketLimits(connections_per_minute=10, messages_per_minute=100)
    )
    for connection_id in ("conn_123", "conn_124"):
        await limiter.register_connection(connection_id, "192.168.1.1")
    for size in (10, 20):
        await limiter.check_message("conn_123", size)
    names = await run(program("Statistics and Monitoring"), limiter=limiter, time=time)
    stats = names["stats"]
    assert list(stats)[:5] == [
        "active_connections",
        "unique_clients",
        "total_messages",
        "total_bytes_sent",
        "limits",
    ]
    assert stats["limits"]["connections_per_minute"] == 10
    assert stats["limits"]["messages_per_minute"] == 100
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["Messages: 2", "Bytes: 30"]
    assert printed[3].startswith("Connected: 0.0")
    assert printed[4] == "Client has 2 active connections"


@pytest.mark.server
async def test_real_time_chat(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, program("Example 1: Real-Time Chat"))
    async with connect(f"{server.ws}/chat") as ada, connect(f"{server.ws}/chat") as eve:
        # both have one address, and so one quota of 30
        for n in range(20):
            await ada.send(str(n))
        assert [await answer(ada) for _ in range(20)] == [str(n) for n in range(20)]
        for n in range(20):
            await eve.send(str(n))
        heard = [await answer(eve) for _ in range(40)]
        assert heard == [str(n) for n in (*range(20), *range(10))] + [SLOW_DOWN] * 10
        await ada.send("x" * 1025)
        assert [await answer(ada) for _ in range(11)][10] == SLOW_DOWN
        await eve.close()
        for _ in range(3):
            async with connect(f"{server.ws}/chat"):
                pass
        assert await refusal(f"{server.ws}/chat") == (1008, "Rate limit exceeded")


@pytest.mark.server
async def test_live_dashboard(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, program("Example 2: Live Dashboard"))
    async with connect(f"{server.ws}/dashboard") as websocket:
        found = [json.loads(await answer(websocket)) for _ in range(2)]
    assert [one["active_connections"] for one in found] == [1, 1]
    assert [one["total_messages"] for one in found] == [0, 1]
    assert found[1]["total_bytes_sent"] > 200  # a dict counts as its JSON

    async def connections() -> int:
        async with connect(f"{server.ws}/dashboard") as websocket:
            return int(json.loads(await answer(websocket))["active_connections"])

    # who has gone is noticed when the next second's figures are sent
    give_up = time.monotonic() + 20
    while await connections() > 2:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("Strict Limits (API)", (5, 50, 102400, 2, 1024)),
        ("Moderate Limits (Chat)", (10, 100, 1048576, 5, 10240)),
        ("Generous Limits (Internal Tools)", (50, 1000, 10485760, 20, 65536)),
    ],
)
def test_configurations(program: Callable[..., str], heading: str, values: tuple[int, ...]) -> None:
    from sluicegate import WebSocketLimits

    assert eval(program(heading), {"WebSocketLimits": WebSocketLimits}) == WebSocketLimits(*values)


async def test_choose_appropriate_limits(program: Callable[..., str]) -> None:
    from sluicegate import WebSocketLimits

    made: list[WebSocketLimits] = []

    def keep(**given: Any) -> None:
        made.append(WebSocketLimits(**given))

    await run(program("1. Choose Appropriate Limits"), WebSocketLimits=keep)
    assert [one.messages_per_minute for one in made] == [10, 60, 120]


async def test_handle_rate_limit_gracefully(program: Callable[..., str]) -> None:
    from sluicegate import WebSocketLimits, WebSocketRateLimiter

    sent: list[dict[str, Any]] = []

    class Peer:
        async def send_json(self, message: dict[str, Any]) -> None:
            sent.append(message)

    limiter = WebSocketRateLimiter(WebSocketLimits(messages_per_minute=1, max_message_size=100))
    await limiter.register_connection("c", "ada")
    for size in (1, 1, 101):
        result = await limiter.check_message("c", size)
        await run(program("2. Handle Rate Limit Gracefully"), result=result, websocket=Peer())
    assert sent == [
        {"error": "Too many messages", "retry_after": 60},
        {"error": "Message too large. Max: 100 bytes"},
    ]


async def test_monitor_and_alert(
    program: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from sluicegate import WebSocketLimits, WebSocketRateLimiter

    alerts: list[str] = []
    counts = iter(range(1, 100))
    names = await run(
        program("3. Monitor and Alert"),
        logger=logging.getLogger("app"),
        get_violation_count=lambda client: next(counts),
        send_admin_alert=alerts.append,
    )
    limiter = WebSocketRateLimiter(
        WebSocketLimits(messages_per_minute=1), on_violation=names["on_violation"]
    )
    await limiter.register_connection("c", "ada")
    for _ in range(13):
        await limiter.check_message("c", 1)
    assert len([one for one in caplog.messages if one.startswith("Rate limit violation")]) == 12
    assert alerts == ["Client ada exceeding limits"] * 2


# ---- Socket.IO


def start_socketio(serve: Serve, folder: Path, printed: str) -> serving.Server:
    return start(
        serve,
        folder,
        "def process_message(data): return data.upper()",
        printed,
        "from socketio import ASGIApp\n"
        "async def page(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    body = str(len(limiter.limiter.active_connections)).encode()\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
        "app = ASGIApp(sio, page)",
    )


@asynccontextmanager
async def socketio_client(
    server: serving.Server, transport: str = "websocket"
) -> AsyncIterator[tuple[socketio.AsyncClient, asyncio.Queue[Any]]]:
    """A connected client, and the events that come to it."""
    came: asyncio.Queue[Any] = asyncio.Queue()
    async with aiohttp.ClientSession() as http:
        made = socketio.AsyncClient(reconnection=False, http_session=http)
        made.on("*", lambda event, data: came.put_nowait((event, data)))
        made.on("message", lambda data: came.put_nowait(("message", data)))
        try:
            await made.connect(server.http, transports=[transport], wait_timeout=20)
            yield made, came
        finally:
            # by polling it would wait for its last request, which nobody answers any more
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(made.disconnect(), 0.3 if transport == "polling" else 20)


async def next_of(came: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(came.get(), 20)


@pytest.mark.server
async def test_socketio(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    server = start_socketio(serve, tmp_path, program("2. Socket.IO"))
    async with socketio_client(server) as (ada, came):
        assert "Client 127.0.0.1 connected: " in server.log()
        for n in range(199):
            await ada.send(f"hello {n}")
        got = [await next_of(came) for _ in range(199)]
        assert got == [("response", f"HELLO {n}") for n in range(199)]
        await ada.emit("join_room", {"room": "lobby"})
        assert await next_of(came) == ("joined", {"room": "lobby"})
        # 200 messages in this minute, over all the client's connections
        for _ in range(2):
            await ada.send("more")
            assert await next_of(came) == (
                "error",
                {"message": "Rate limit exceeded", "retry_after": 10},
            )
        async with socketio_client(server, "polling") as (other, came_other):
            await other.emit("join_room", {"room": "lobby"})
            await other.emit("chat_message", {"room": "lobby", "text": "hello"})
            await other.send("more")
            assert (await next_of(came_other))[0] == "error"
    for _ in range(18):
        async with socketio_client(server):
            pass
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with socketio_client(server):
            pass
    assert server.log().count("Client disconnected: ") >= 18
    await until_text(server, "0")


@pytest.mark.server
async def test_socketio_rooms(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    """The program is of a time when `enter_room` was not awaited, and since then nobody enters
    a room in it; with that `await`, as the docs say, the room hears what is admitted."""
    printed = program("2. Socket.IO")
    assert printed.count("        sio.enter_room(") == 1
    server = start_socketio(
        serve, tmp_path, printed.replace("sio.enter_room(", "await sio.enter_room(")
    )
    async with socketio_client(server) as (ada, ada_came), socketio_client(server) as (eve, came):
        for one, its in ((ada, ada_came), (eve, came)):
            await one.emit("join_room", {"room": "lobby"})
            assert await next_of(its) == ("joined", {"room": "lobby"})
        for n in range(198):
            await ada.emit("chat_message", {"room": "lobby", "n": n})
        assert [(await next_of(came))[1]["n"] for _ in range(198)] == list(range(198))
        await ada.emit("chat_message", {"room": "lobby", "n": "too many"})
        await ada.send("more")
        assert (await next_of(ada_came))[0] == "error"
        assert came.empty()


async def until_text(server: serving.Server, text: str) -> None:
    """Waits until the server's page says that."""
    give_up = time.monotonic() + 20
    async with httpx.AsyncClient() as http:
        while (await http.get(server.http)).text != text:
            assert time.monotonic() < give_up, "it did not come in time"
            await asyncio.sleep(0.02)


# ---- Channels


@pytest.fixture(params=["uvicorn", "daphne"])
def channels_server(
    program: Callable[..., str], serve: Serve, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[serving.Server]:
    parts = (
        "from django.conf import settings\n"
        "layer = {'BACKEND': 'channels.layers.InMemoryChannelLayer'}\n"
        "settings.configure(CHANNEL_LAYERS={'default': layer})\n"
        "import django; django.setup()",
        program("3. Django Channels"),
        "from channels.routing import ProtocolTypeRouter, URLRouter\n"
        "from django.urls import path\n"
        "async def page(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    infos = limiter.limiter.active_connections.values()\n"
        "    body = json.dumps([info.metadata for info in infos]).encode()\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
        "app = ProtocolTypeRouter({\n"
        "    'http': page,\n"
        "    'websocket': URLRouter([path('chat/<room_name>', ChatConsumer.as_asgi())]),\n"
        "})",
    )
    if request.param == "uvicorn":
        yield start(serve, tmp_path, *parts)
        return
    (tmp_path / "printed.py").write_text("\n\n".join(parts), encoding="utf-8")
    port = serving.free_port()
    command = [sys.executable, "-m", "daphne", "-p", str(port), "-v", "0", "printed:app"]
    with serving.serving(command, port, cwd=tmp_path) as server:
        yield server


@pytest.mark.server
async def test_django_channels(channels_server: serving.Server) -> None:
    url = f"{channels_server.ws}/chat/lobby"
    async with connect(url) as ada, connect(url) as eve:
        await until_text(channels_server, '[{"user": null}, {"user": null}]')
        for n in range(150):
            await ada.send(json.dumps({"message": n}))
        for one in (ada, eve):
            got = [json.loads(await answer(one)) for _ in range(150)]
            assert got == [{"type": "message", "message": n} for n in range(150)]
        for one in (ada, eve):  # both have one address, and so one quota of 150
            await one.send(json.dumps({"message": "more"}))
            assert json.loads(await answer(one)) == {
                "type": "error",
                "message": "Rate limit exceeded",
            }
    for _ in range(13):
        async with connect(url):
            pass
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url):
            pass
    assert refused.value.response.status_code == 403
    await until_text(channels_server, "[]")


@pytest.mark.server
async def test_django_channels_gives_the_place_of_a_failed_consumer_back(
    channels_server: serving.Server,
) -> None:
    async with connect(f"{channels_server.ws}/chat/lobby") as websocket:
        await websocket.send("no JSON")
        with pytest.raises(ConnectionClosed):
            await answer(websocket)
    await until_text(channels_server, "[]")


# ---- Redis


@pytest.mark.server
async def test_redis_for_distributed_systems(program: Callable[..., str]) -> None:
    from sluicegate import WebSocketLimits, WebSocketRateLimiter

    def limited(**about: Any) -> WebSocketRateLimiter:
        return WebSocketRateLimiter(WebSocketLimits(messages_per_minute=10), **about)

    printed = program("4. Use Redis for Distributed Systems")
    assert printed.count("redis://localhost:6379/0") == 1
    with servers.server("redis-server") as redis:
        url = f"unix://{redis.connection_pool.connection_kwargs['path']}"
        here = printed.replace("redis://localhost:6379/0", url)
        first = (await run(here, WebSocketRateLimiter=limited))["limiter"]
        second = (await run(here, WebSocketRateLimiter=limited))["limiter"]
        assert await first.register_connection("a", "ada")
        assert await second.register_connection("b", "ada")
        admitted = 0
        for _ in range(10):
            for limiter, connection in ((first, "a"), (second, "b")):
                admitted += (await limiter.check_message(connection, 1))["allowed"]
        assert admitted == 10
        assert await first.count("ada") == await second.count("ada") == 2
        for limiter, connection in ((first, "a"), (second, "b")):
            await limiter.unregister_connection(connection)
            await limiter.store.aclose()
