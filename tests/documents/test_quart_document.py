"""Every program of quart-websocket-rate-limiting.rst, served by hypercorn with its import root
changed, and met by a real client.

What a program leaves open (an `app`, the rest of a handler) is put before it, behind it, or in
the place of its `...`. Its Redis at localhost:6379 is a server of the test: the names of that
address lead there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

import serving
from documents.programs import document, moved, python_blocks
from redis_store import servers

Start = Callable[..., serving.Server]

APP = "from quart import Quart, websocket\napp = Quart(__name__)"
NAMES = "from sluicegate.quart import WebSocketRateLimiter, WebSocketRateLimitException"
ECHO = """
        await websocket.accept()
        while True:
            data = await websocket.receive()
            try:
                await ratelimit(websocket)
                await websocket.send(data)
            except WebSocketRateLimitException as error:
                await websocket.send_json({"retry_after": error.retry_after})
"""
HANDLER = f"""
@app.websocket("/ws")
async def websocket_endpoint():
    if True:{ECHO}"""
NEARBY = """
import socket
_look_up = socket.getaddrinfo

def _nearby(host, port, *more, **options):
    if host == "localhost" and port == 6379:
        host, port = "127.0.0.1", {port}
    return _look_up(host, port, *more, **options)

socket.getaddrinfo = _nearby
"""


@pytest.fixture
def program() -> Callable[[str], str]:
    blocks = python_blocks(document("quart-websocket-rate-limiting.rst"))

    def find(heading: str) -> str:
        (block,) = blocks[heading]
        return moved(block, "quart_rate_limiter", "sluicegate.quart")

    return find


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serves the application that is these parts, one after another."""
    with ExitStack() as stack:

        def serve(*parts: str) -> serving.Server:
            (tmp_path / "printed.py").write_text("\n\n".join(parts), encoding="utf-8")
            return stack.enter_context(serving.hypercorn("printed:app", app_dir=tmp_path))

        yield serve


def _redis_of_the_test(kind: str) -> Iterator[tuple[str, redis.Redis]]:
    port = serving.free_port()
    with servers.server(kind, "--port", str(port), "--bind", "127.0.0.1") as client:
        yield NEARBY.format(port=port), client


@pytest.fixture
def at_home() -> Iterator[tuple[str, redis.Redis]]:
    """What goes before a program that uses the Redis at localhost:6379, and a client of it."""
    yield from _redis_of_the_test("redis-server")


@pytest.fixture
def valkey_at_home() -> Iterator[tuple[str, redis.Redis]]:
    yield from _redis_of_the_test(servers.KINDS[-1])


def rest(block: str, place: str = "    # ... rest of websocket logic") -> str:
    """The program with the rest of its handler, which it leaves out."""
    assert block.count(place) == 1
    return block.replace(place, f"    if True:{ECHO}")


def client(server: serving.Server, path: str = "/ws", **more: Any) -> connect:
    return connect(server.ws + path, open_timeout=20, proxy=None, **more)


async def answer(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), 20))


async def ask(websocket: ClientConnection, message: Any) -> Any:
    """Sends a message, and returns the answer; both JSON unless they are text."""
    text = isinstance(message, str)
    await websocket.send(message if text else json.dumps(message))
    reply = await answer(websocket)
    return reply if text else json.loads(reply)


def test_no_program_of_the_document_is_forgotten() -> None:
    found = python_blocks(document("quart-websocket-rate-limiting.rst"))
    assert {heading: len(blocks) for heading, blocks in found.items()} == {
        "Basic Usage": 1,
        "Time Periods": 1,
        "Context Keys": 1,
        "Custom Key Functions": 1,
        "Automatic Store Detection": 1,
        "Manual Store Configuration": 1,
        "Memory Store (Default fallback)": 1,
        "Redis Store": 1,
        "Valkey Store": 1,
        "Error Handling": 1,
        "Advanced Example": 1,
    }


@pytest.mark.server
async def test_basic_usage(program: Callable[[str], str], start: Start) -> None:
    server = start(program("Basic Usage"))
    async with client(server) as websocket:
        assert [await ask(websocket, "a"), await ask(websocket, "b")] == [
            "Echo: a",
            "Rate limited!",
        ]
        async with client(server) as again:  # a new connection is no new limit
            assert await ask(again, "c") == "Rate limited!"
        await asyncio.sleep(5)
        assert [await ask(websocket, "d"), await ask(websocket, "e")] == [
            "Echo: d",
            "Rate limited!",
        ]


@pytest.mark.server
async def test_time_periods(program: Callable[[str], str], start: Start) -> None:
    handler = HANDLER.replace("/ws", "/<int:n>").replace("endpoint()", "endpoint(n)")
    server = start(
        APP,
        NAMES,
        program("Time Periods"),
        handler.replace("if True:", "if ratelimit := (limiter1, limiter2, limiter3)[n - 1]:"),
    )
    for number, (times, seconds) in enumerate([(10, 60), (100, 3600), (5, 5430)], 1):
        async with client(server, f"/{number}") as websocket:
            assert [await ask(websocket, "x") for _ in range(times)] == ["x"] * times
            wait = json.loads(await ask(websocket, "x"))["retry_after"]
            # the first comes back after that share of the time, of which little has passed
            assert seconds // times - 5 <= wait <= seconds // times


@pytest.mark.server
async def test_context_keys(program: Callable[[str], str], start: Start) -> None:
    server = start(APP, NAMES, program("Context Keys"))
    async with client(server) as websocket:
        for kind in ("chat", "command"):
            assert await ask(websocket, {"type": kind}) == {"status": "processed"}
        for kind in ("chat", "command"):
            refused = await ask(websocket, {"type": kind})
            assert refused["error"] == "rate_limited"
            assert refused["retry_after"] in (4, 5)
        assert await ask(websocket, {"type": "other"}) == {"status": "processed"}


@pytest.mark.server
async def test_custom_key_functions(program: Callable[[str], str], start: Start) -> None:
    server = start(APP, NAMES, program("Custom Key Functions"))
    for query, user in (("?user_id=ada", "ada"), ("?user_id=eve", "eve"), ("", "anonymous")):
        for expected in ([f"User {user}: x"] * 5, [f"User {user}: x"] * 5):
            async with client(server, f"/ws{query}") as websocket:
                assert [await ask(websocket, "x") for _ in range(5)] == expected
        async with client(server, f"/ws{query}") as websocket:
            assert await ask(websocket, "x") == "User rate limit exceeded!"


@pytest.mark.server
@pytest.mark.parametrize("heading", ["Automatic Store Detection", "Manual Store Configuration"])
async def test_the_store_of_the_rate_limiter(
    program: Callable[[str], str], start: Start, at_home: tuple[str, redis.Redis], heading: str
) -> None:
    near, store = at_home
    parts = (near, APP, NAMES, rest(program(heading)))
    one, two = start(*parts), start(*parts)
    async with client(one) as websocket, client(two) as elsewhere:
        assert await ask(websocket, "x") == "x"
        assert store.dbsize() > 0
        assert json.loads(await ask(elsewhere, "x"))["retry_after"] in (4, 5)


@pytest.mark.server
async def test_memory_store(program: Callable[[str], str], start: Start) -> None:
    server = start(APP, NAMES, program("Memory Store (Default fallback)"), HANDLER)
    async with client(server) as websocket:
        assert await ask(websocket, "x") == "x"
        assert json.loads(await ask(websocket, "x"))["retry_after"] in (4, 5)


@pytest.mark.server
async def test_redis_store(
    program: Callable[[str], str], start: Start, at_home: tuple[str, redis.Redis]
) -> None:
    near, store = at_home
    place = "    await websocket.accept()\n    # ... rest of websocket logic"
    parts = (near, APP, NAMES, rest(program("Redis Store"), place))
    one, two = start(*parts), start(*parts)
    async with client(one) as websocket, client(two) as elsewhere:
        replies = await asyncio.gather(ask(websocket, "x"), ask(elsewhere, "x"))
        assert sorted(reply == "x" for reply in replies) == [False, True]
        assert store.dbsize() > 0


@pytest.mark.server
async def test_valkey_store(
    program: Callable[[str], str], start: Start, valkey_at_home: tuple[str, redis.Redis]
) -> None:
    near, store = valkey_at_home
    parts = (near, APP, NAMES, program("Valkey Store"), HANDLER)
    one, two = start(*parts), start(*parts)
    async with client(one) as websocket, client(two) as elsewhere:
        replies = await asyncio.gather(ask(websocket, "x"), ask(elsewhere, "x"))
        assert sorted(reply == "x" for reply in replies) == [False, True]
        assert store.dbsize() > 0


@pytest.mark.server
async def test_error_handling(program: Callable[[str], str], start: Start) -> None:
    server = start(APP, NAMES, program("Error Handling"))
    async with client(server) as websocket:
        assert [await ask(websocket, "x") for _ in range(5)] == ["Processing: x"] * 5
        refused = json.loads(await ask(websocket, "x"))
        seconds = refused["retry_after"]
        assert seconds in (10, 11, 12)
        assert refused == {
            "error": "Rate limit exceeded",
            "retry_after": seconds,
            "message": f"WebSocket rate limit exceeded. Retry after {seconds} seconds.",
        }


@pytest.mark.server
async def test_advanced_example(
    program: Callable[[str], str], start: Start, at_home: tuple[str, redis.Redis]
) -> None:
    near, _ = at_home
    server = start(near, program("Advanced Example"))
    with pytest.raises(InvalidStatus) as refused:  # closed before it was accepted
        async with client(server):
            pass
    assert refused.value.response.status_code == 403

    command = {"type": "command", "command": "dance"}
    async with (
        client(server, "/ws?user_id=ada") as ada,
        client(server, additional_headers={"X-User-ID": "ada"}) as again,
        client(server, "/ws?user_id=eve") as eve,
    ):
        assert [await ask(ada, command) for _ in range(5)] == [{"result": "Executed: dance"}] * 5
        for websocket in (ada, again):  # one user, whatever the connection
            told = await ask(websocket, command)
            assert told["retry_after"] in (10, 11, 12)
            assert told == {
                "error": "rate_limit_exceeded",
                "retry_after": told["retry_after"],
                "limit_type": "command",
            }
        assert await ask(eve, command) == {"result": "Executed: dance"}

        message = {"text": "hello"}
        started, passed = time.monotonic(), 0
        while (told := await ask((ada, again)[passed % 2], message)) == {"echo": message}:
            passed += 1
        assert 30 <= passed <= 30 + (time.monotonic() - started) / 2
        assert told["retry_after"] in (1, 2)
        assert told["limit_type"] == "message"

        await eve.send("{")
        assert json.loads(await answer(eve)) == {"error": "invalid_json"}
        assert await ask(eve, {"type": "command"}) == {"error": "server_error"}
