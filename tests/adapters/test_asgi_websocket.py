"""WebSockets under the middleware's rules: real servers in processes of their own, each framework
behind them, and real clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest
import socketio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import serving
from adapters.raw import Raw

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@contextmanager
def daphne(app: str) -> Iterator[serving.Server]:
    """Serves `app` with daphne."""
    port = serving.free_port()
    command = [
        *(sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", app),
    ]
    with serving.serving(command, port, cwd=HERE) as server:
        yield server


@contextmanager
def served(name: str, app: str, *options: str) -> Iterator[serving.Server]:
    where = f"asgi_websocket_app:{app}"
    if name == "daphne":
        with daphne(where) as server:
            yield server
    elif name == "hypercorn":
        with serving.hypercorn(where, *options, app_dir=HERE) as server:
            yield server
    else:
        options = ("--ws", name, "--lifespan", "auto", *options)
        with serving.uvicorn(where, *options, app_dir=HERE) as server:
            yield server


SERVERS = [
    ("websockets-sansio", "starlette"),
    ("websockets-sansio", "fastapi"),
    ("websockets-sansio", "channels"),
    ("websockets-sansio", "quart"),
    ("wsproto", "starlette"),
    ("hypercorn", "fastapi"),
    ("hypercorn", "quart"),
    ("daphne", "channels"),
    ("daphne", "starlette"),
]


class Served:
    """A server, and what is said to it by a user nobody else is."""

    def __init__(self, name: str, app: str, server: serving.Server) -> None:
        self.name = name
        self.app = app
        self.server = server

    def code(self, code: int) -> int:
        """The close code that its clients see: daphne sends none of the protocol's own."""
        return code + 3000 if self.name == "daphne" else code

    @asynccontextmanager
    async def client(self, path: str, user: str) -> AsyncIterator[ClientConnection]:
        url = f"{self.server.ws}/ws/{path}?user={user}"
        async with connect(url, open_timeout=20, ping_interval=None) as websocket:
            yield websocket

    async def held(self, user: str) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.get(f"{self.server.http}/held", params={"user": user})
            found: dict[str, Any] = answer.json()
            return found

    async def until_free(self, user: str, seconds: float = 20) -> None:
        await until(lambda: self._is_free(user), seconds)

    async def _is_free(self, user: str) -> bool:
        return bool((await self.held(user))["places"] == 0)


@pytest.fixture(scope="module", params=SERVERS, ids=lambda pair: "-".join(pair))
def behind(request: pytest.FixtureRequest) -> Iterator[Served]:
    name, app = request.param
    with served(name, app) as server:
        yield Served(name, app, server)


@pytest.fixture
def user() -> str:
    return uuid4().hex


async def until(check: Callable[[], Any], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < give_up, "it did not come in time"
        await asyncio.sleep(0.05)


async def answer(websocket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(websocket.recv(), 20)


async def closed(websocket: ClientConnection) -> tuple[int | None, str]:
    """Code and reason of the close that the client sees."""
    with pytest.raises(ConnectionClosed):
        while True:
            await answer(websocket)
    return websocket.close_code, websocket.close_reason or ""


async def echoes(websocket: ClientConnection, count: int) -> int:
    """How many of that many messages come back."""
    for n in range(count):
        await websocket.send(str(n))
    found = 0
    with suppress(asyncio.TimeoutError):
        while True:
            assert (await asyncio.wait_for(websocket.recv(), 0.5)).isdigit()
            found += 1
    return found


# ---- messages


async def test_what_is_admitted_is_exact(behind: Served, user: str) -> None:
    """Of six connections, by two users, five messages a user."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(behind.client("exact", f"{user}-{n % 2}"))
            for n in range(6)
        ]
        counts = await asyncio.gather(*(echoes(one, 9) for one in clients))
        assert sum(counts[::2]) == sum(counts[1::2]) == 5


async def test_close_says_when_to_come_again(behind: Served, user: str) -> None:
    async with behind.client("close", user) as websocket:
        for n in range(6):
            await websocket.send(str(n))
        code, reason = await closed(websocket)
    assert code == behind.code(1008)
    if behind.name != "daphne":  # which sends no reason
        assert reason == "Rate limit exceeded; retry after 12"


async def test_what_is_too_large_closes_with_1009(behind: Served, user: str) -> None:
    async with behind.client("close", user) as websocket:
        await websocket.send("é" * 300)
        assert await answer(websocket) == "é" * 300
        await websocket.send("é" * 301)
        assert (await closed(websocket))[0] == behind.code(1009)


async def test_bytes_are_counted_with_messages(behind: Served, user: str) -> None:
    async with behind.client("close", user) as websocket:
        await websocket.send("x" * 600)
        assert len(await answer(websocket)) == 600
        await websocket.send("x" * 600)
        assert (await closed(websocket))[0] == behind.code(1008)


async def test_drop_leaves_out_and_goes_on(behind: Served, user: str) -> None:
    async with behind.client("drop", user) as websocket:
        for n in range(12):
            await websocket.send(str(n))
        assert [await answer(websocket) for _ in range(5)] == list("01234")
        await asyncio.sleep(1)
        await websocket.send("later")
        assert await answer(websocket) == "later"
        for n in range(60):  # refused more often than that, it is closed
            await websocket.send(str(n))
        assert (await closed(websocket))[0] == behind.code(1008)


async def test_notify_says_so_once(behind: Served, user: str) -> None:
    async with behind.client("notify", user) as websocket:
        for n in range(9):
            await websocket.send(str(n))
        answers = [await answer(websocket) for _ in range(6)]
        # Quart reads ahead of its handler: there the notice comes before the last echoes
        answers.sort(key=len)
        assert answers[:5] == list("01234")
        assert json.loads(answers[5]) == {
            "error": "rate_limited",
            "reason": "rate_limit_exceeded",
            "retry_after": 12,
            "limit": 5,
        }
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(websocket.recv(), 0.3)


# ---- handshakes and places


async def test_a_handshake_over_the_rate_is_refused(behind: Served, user: str) -> None:
    for _ in range(2):
        async with behind.client("rate", user):
            pass
    with pytest.raises(InvalidStatus) as refused:
        async with behind.client("rate", user):
            pass
    response = refused.value.response
    if behind.name == "daphne":  # which lacks the extension
        assert response.status_code == 403
    else:
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 30
        assert response.headers["ratelimit-policy"] == '"connections";q=2;w=60'


# What clients may write in the first line of a request, and some frameworks take for /ws/rate.
SPELLED = [
    "//ws/rate",
    "///ws/rate",
    "ws/rate",
    "http://there/ws/rate",
    "/%77s/rate",
    "%20/ws/rate",
]
TAKEN = {
    ("websockets-sansio", "channels"): {"//ws/rate", "///ws/rate", "ws/rate"},
    ("websockets-sansio", "quart"): set(SPELLED),
    ("hypercorn", "quart"): set(SPELLED),
    ("daphne", "channels"): {"///ws/rate", "http://there/ws/rate", "ws/rate"},
}


async def test_no_spelling_of_the_path_is_a_way_round(behind: Served, user: str) -> None:
    async def enters(path: str, who: str) -> bool:
        try:
            raw = await Raw.connect(behind.server.port, f"{path}?user={who}")
        except (ConnectionError, asyncio.TimeoutError):
            return False
        raw.reset()
        return True

    taken = set()
    for number, path in enumerate(SPELLED):
        who = f"{user}-{number}"
        entered = [await enters(path, who) for _ in range(3)]
        if any(entered):
            taken.add(path)
            assert entered == [True, True, False], path
            assert not await enters("/ws/rate", who), path
    # else it would show nothing
    assert taken >= TAKEN.get((behind.name, behind.app), set()) | {"/%77s/rate"}, taken


async def test_a_browser_is_told_by_1008(behind: Served, user: str) -> None:
    for _ in range(2):
        async with behind.client("browser", user):
            pass
    async with behind.client("browser", user) as websocket:
        code, reason = await closed(websocket)
    assert code == behind.code(1008)
    assert reason.startswith("Rate limit exceeded; retry after ") or behind.name == "daphne"


async def test_places_are_exact_and_come_back(behind: Served, user: str) -> None:
    async with AsyncExitStack() as stack:

        async def enters() -> ClientConnection | None:
            try:
                return await stack.enter_async_context(behind.client("close", user))
            except InvalidStatus as refused:
                assert refused.response.status_code in (403, 429)
                return None

        found = await asyncio.gather(*(enters() for _ in range(12)))
        clients = [one for one in found if one is not None]
        assert len(clients) == 3
        await clients[0].close()

        async def two() -> bool:
            return bool((await behind.held(user))["places"] == 2)

        await until(two)
        assert await enters() is not None
        assert await enters() is None
    await behind.until_free(user)


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_vanishes_gives_its_place_back(
    behind: Served, user: str, how: str
) -> None:
    for _ in range(2):
        raws = [await Raw.connect(behind.server.port, f"/ws/close?user={user}") for _ in range(3)]
        with pytest.raises(ConnectionError):
            await Raw.connect(behind.server.port, f"/ws/close?user={user}")
        for raw in raws:
            getattr(raw, how)()
        await behind.until_free(user)


async def test_a_handler_that_raises_gives_its_place_back(behind: Served, user: str) -> None:
    for _ in range(4):
        async with behind.client("close", f"{user}") as websocket:
            with suppress(ConnectionClosed):
                await websocket.send("boom")
                await answer(websocket)
        await behind.until_free(user)


async def test_the_lifespan_passes(behind: Served, user: str) -> None:
    # daphne has none
    assert (await behind.held(user))["lifespans"] == (0 if behind.name == "daphne" else 1)


# ---- delay


async def test_delay_holds_back_and_loses_nothing(behind: Served, user: str) -> None:
    if behind.name == "daphne":
        with pytest.raises(InvalidStatus):
            async with behind.client("delay", user):
                pass
        await behind.until_free(user)
        assert "on_excess='delay' holds nothing back here: this server (daphne)" in (
            behind.server.log()
        )
        return
    async with behind.client("delay", user) as websocket:
        began = time.monotonic()
        for n in range(10):
            await websocket.send(str(n))
        found = [(await answer(websocket), time.monotonic() - began) for _ in range(10)]
    assert [text for text, _ in found] == [str(n) for n in range(10)]
    for n, (_, at) in enumerate(found):
        assert at >= max(0, n - 3) / 4 - 0.05
    assert found[-1][1] < 6


async def test_delay_sees_a_disconnect(behind: Served, user: str) -> None:
    if behind.name == "daphne":
        pytest.skip("delay is an error behind daphne, as the test before shows")
    raw = await Raw.connect(behind.server.port, f"/ws/delay?user={user}")
    for _ in range(5):  # the fifth waits
        await raw.send_text("x")
    await asyncio.sleep(0.05)
    raw.reset()
    await behind.until_free(user, 2)


@pytest.mark.parametrize("name", ["websockets-sansio", "wsproto", "hypercorn"])
async def test_delay_fills_the_clients_socket(name: str, user: str) -> None:
    """A client that never stops is held back by TCP, amid keepalive pings; what it managed to
    send comes through at the rate of the rule, and when it has gone that is noticed."""
    pings = ("--ws-ping-interval", "0.5", "--ws-ping-timeout", "20")
    if name == "hypercorn":
        pings = ("--websocket-ping-interval", "1")
    with served(name, "starlette", *pings) as server:
        behind = Served(name, "starlette", server)
        raw = await Raw.connect(server.port, f"/ws/delay?user={user}")
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        loop = asyncio.get_running_loop()
        payload = b"x" * 60_000
        frame = bytes((0x81, 0xFE)) + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload
        sent = 0
        with pytest.raises(asyncio.TimeoutError):  # a second in which nothing more fits
            while True:
                await asyncio.wait_for(loop.sock_sendall(raw.socket, frame), 0.2)
                sent += 1
                assert sent < 2000, "120 MB went in: nothing held it back"
        assert sent > 4
        assert (await behind.held(user))["places"] == 1

        # Four echoes a second come back, and pings between them.
        began, got, pinged = time.monotonic(), bytearray(), False
        while time.monotonic() - began < 2.2:
            with suppress(asyncio.TimeoutError):
                part = await asyncio.wait_for(loop.sock_recv(raw.socket, 1 << 20), 0.3)
                assert part, "the server has closed it"
                got += part
        echoed, pinged = frames(got)
        assert pinged, "no keepalive ping came"
        assert 4 <= echoed <= 4 + 4 * 4

        raw.reset()
        await behind.until_free(user, 30)


def frames(received: bytearray) -> tuple[int, bool]:
    """How many text frames begin in what a server sent, and whether there was a ping."""
    texts, pinged, at = 0, False, 0
    while at + 4 <= len(received):
        opcode, size = received[at] & 0x0F, received[at + 1] & 0x7F
        head = 2
        if size == 126:
            size, head = int.from_bytes(received[at + 2 : at + 4], "big"), 4
        texts += opcode == 1
        pinged = pinged or opcode == 9
        at += head + size
    return texts, pinged


# ---- every framework behind every server

EVERYWHERE = [
    pair
    for pair in itertools.product(
        ("websockets", "websockets-sansio", "wsproto", "hypercorn", "daphne"),
        ("starlette", "fastapi", "quart", "channels"),
    )
    # Quart wants to know a WebSocket's scheme, which daphne does not tell
    if pair not in SERVERS and pair != ("daphne", "quart")
]


@pytest.mark.parametrize("pair", EVERYWHERE, ids="-".join)
async def test_the_same_rules_everywhere(pair: tuple[str, str], user: str) -> None:
    """The rest of SERVERS, by what matters most."""
    with served(*pair) as server:
        behind = Served(*pair, server)
        await test_what_is_admitted_is_exact(behind, f"{user}-exact")
        await test_places_are_exact_and_come_back(behind, f"{user}-places")
        await test_a_handler_that_raises_gives_its_place_back(behind, f"{user}-raises")
        await test_a_client_that_vanishes_gives_its_place_back(behind, f"{user}-gone", "reset")
        await test_a_handshake_over_the_rate_is_refused(behind, f"{user}-rate")
        await test_delay_holds_back_and_loses_nothing(behind, f"{user}-delay")
        await test_the_lifespan_passes(behind, f"{user}-lifespan")


# ---- Socket.IO


@pytest.mark.parametrize("name", ["websockets-sansio", "wsproto", "hypercorn", "daphne"])
async def test_in_front_of_socketio(name: str, user: str) -> None:
    with served(name, "socketio") as server:
        url = f"{server.http}?user={user}"
        http = aiohttp.ClientSession()
        clients = [socketio.AsyncClient(reconnection=False, http_session=http) for _ in range(5)]
        try:
            accepted = []
            for client in clients:
                with suppress(socketio.exceptions.ConnectionError):
                    await client.connect(url, transports=["websocket"], wait_timeout=10)
                    accepted.append(client)
            assert len(accepted) == 3
            for n in range(30):  # events are not its affair
                assert await accepted[0].call("message", n, timeout=10) == n
            await accepted[1].disconnect()

            async def again() -> bool:
                with suppress(socketio.exceptions.ConnectionError):
                    await clients[4].connect(url, transports=["websocket"], wait_timeout=10)
                return bool(clients[4].connected)

            await until(again)
            await accepted[0].emit("message", "x" * 2000)
            await until(lambda: gone(accepted[0]))
        finally:
            for client in clients:
                await client.shutdown()
            await http.close()


async def gone(client: socketio.AsyncClient) -> bool:
    return not client.connected


# ---- HTTP


async def test_requests_beside_them(user: str) -> None:
    with served("websockets-sansio", "fastapi") as server:
        async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
            answers = [await http.get("/http", params={"user": user}) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
        assert answers[0].headers["ratelimit"] == '"requests";r=2;t=20'
        assert "retry-after" not in answers[0].headers
        assert answers[3].headers["retry-after"] == "20"
