"""The FastAPI door without a server: what it imports, what it refuses to be made of, and
handshakes that go wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from sluicegate import (
    ConnectionRefused,
    FastAPIWebSocketLimiter,
    RateLimitExceeded,
    WebSocketLimits,
)
from sluicegate.identity import address
from sluicegate.websocket import gone

ONE = WebSocketLimits(max_concurrent_connections=1)


class Wire:
    """The server's side of an ASGI WebSocket, played from a list."""

    def __init__(self, *received: dict[str, Any], client: Any = ("10.0.0.1", 5)) -> None:
        self.received = [{"type": "websocket.connect"}, *received]
        self.sent: list[dict[str, Any]] = []
        self.broken = False
        scope = {"type": "websocket", "path": "/", "headers": [], "client": client}
        self.websocket = WebSocket(scope, self.receive, self.send)

    async def receive(self) -> Any:
        if not self.received:
            await asyncio.sleep(3600)
        return self.received.pop(0)

    async def send(self, message: Any) -> None:
        if self.broken:
            raise OSError("gone")
        self.sent.append(message)


async def test_a_client_is_its_address_or_unknown() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    for client, key in (
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8::7", 5), "2001:db8::/64"),  # what one subscriber has to himself
        (("testclient", 5), "testclient"),
        (None, "unknown"),
    ):
        wire = Wire(client=client)
        assert await limiter.connect(wire.websocket)
        assert limiter.limiter.get_client_connections(key) == 1
        assert limiter.websocket_map == {wire.websocket: f"ws_{id(wire.websocket)}"}
        await limiter.disconnect(wire.websocket)
        await limiter.disconnect(wire.websocket)
        assert await limiter.limiter.count(key) == 0


async def test_a_client_behind_a_proxy() -> None:
    limiter = FastAPIWebSocketLimiter(ONE, get_client_id=address("private"))
    wire = Wire()
    wire.websocket.scope["headers"].append((b"x-forwarded-for", b"9.9.9.9, 198.51.100.7"))
    assert await limiter.connect(wire.websocket)
    assert limiter.limiter.get_client_connections("198.51.100.7") == 1
    await limiter.disconnect(wire.websocket)


async def test_get_client_id_may_be_async() -> None:
    async def who(websocket: WebSocket) -> str:
        await asyncio.sleep(0)
        return "ada"

    limiter = FastAPIWebSocketLimiter(ONE, who)
    assert await limiter.connect(Wire().websocket)
    assert limiter.limiter.get_client_connections("ada") == 1


@pytest.mark.parametrize("answer", [None, 1.5, ["ada"], True])
async def test_a_client_id_that_is_none_is_refused_and_logged(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = FastAPIWebSocketLimiter(ONE, lambda websocket: answer)
    wire = Wire()
    assert not await limiter.connect(wire.websocket)
    assert wire.sent[-1]["code"] == 1008
    assert len(caplog.records) == 1


async def test_a_client_that_leaves_during_the_handshake() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    wire = Wire()
    wire.broken = True
    with pytest.raises(OSError, match="gone"):
        await limiter.connect(wire.websocket)
    assert await limiter.limiter.count("10.0.0.1") == 0
    assert limiter.websocket_map == {}


async def test_a_cancelled_handshake() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    wire = Wire()
    wire.received.clear()  # accept waits for the connect message
    task = asyncio.create_task(limiter.connect(wire.websocket))
    await asyncio.sleep(0.001)
    assert await limiter.limiter.count("10.0.0.1") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await limiter.limiter.count("10.0.0.1") == 0


async def test_a_refusal_of_a_client_that_has_gone_is_no_error() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    first, second = Wire(), Wire()
    assert await limiter.connect(first.websocket)
    second.broken = True
    assert not await limiter.connect(second.websocket)


async def test_one_that_is_accepted_already() -> None:
    limiter = FastAPIWebSocketLimiter(ONE, refuse="deny")
    first, second = Wire(), Wire()
    for wire in (first, second):
        await wire.websocket.accept()
    assert await limiter.connect(first.websocket)
    assert await limiter.connect(first.websocket)  # twice is once
    assert not await limiter.connect(second.websocket)
    assert [message["type"] for message in first.sent] == ["websocket.accept"]
    assert second.sent[-1] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "Rate limit exceeded",
    }
    assert limiter.limiter.get_client_connections("10.0.0.1") == 1


async def test_the_block_gives_the_place_back_however_it_ends() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    for error in (None, KeyError(), asyncio.CancelledError()):
        wire = Wire()
        try:
            async with limiter.connection(wire.websocket) as c:
                assert c.info is not None
                assert await limiter.limiter.count("10.0.0.1") == 1
                if error is not None:
                    raise error
        except (KeyError, asyncio.CancelledError):
            assert error is not None
        assert await limiter.limiter.count("10.0.0.1") == 0


async def test_connection_refused_is_a_rate_limit_exceeded() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    first, second = Wire(), Wire()
    async with limiter.connection(first.websocket):
        with pytest.raises(ConnectionRefused) as refused:
            await limiter.connection(second.websocket).__aenter__()
        assert isinstance(refused.value, RateLimitExceeded)
        assert refused.value.decision.limit == 1
        assert [message["type"] for message in second.sent] == [
            "websocket.accept",
            "websocket.close",
        ]


async def test_messages_of_a_socket_that_is_not_connected() -> None:
    limiter = FastAPIWebSocketLimiter(ONE)
    wire = Wire()
    assert not await limiter.check_message(wire.websocket, "x")
    assert not await limiter.decide_message(wire.websocket, "x")
    await limiter.connect(wire.websocket)
    decision = await limiter.decide_message(wire.websocket, {"a": 1}, cost=999)
    assert (decision.allowed, decision.remaining) == (True, 1)
    await limiter.disconnect(wire.websocket)
    assert not await limiter.check_message(wire.websocket, "x")


async def test_after_too_many_refusals_the_endpoint_runs_out_quietly() -> None:
    limiter = FastAPIWebSocketLimiter(
        WebSocketLimits(messages_per_minute=1), max_refusals="1/minute"
    )
    wire = Wire({"type": "websocket.disconnect", "code": 1006})
    websocket = wire.websocket
    await limiter.connect(websocket)
    assert [await limiter.check_message(websocket, "x") for _ in range(3)] == [True, False, False]
    assert wire.sent[-1]["code"] == 1008
    await websocket.send_text("slow down")  # as endpoints answer; the server would raise
    assert wire.sent[-1]["code"] == 1008
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()
    assert limiter.limiter.get_statistics()["active_connections"] == 0


def test_in_starlettes_own_test_client() -> None:
    from fastapi import FastAPI

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer ones would rather have another HTTP client
        from starlette.testclient import TestClient

    app = FastAPI()
    limiter = FastAPIWebSocketLimiter(ONE)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        if await limiter.connect(websocket):
            await websocket.send_text("in")
            with pytest.raises(WebSocketDisconnect):
                await websocket.receive_text()

    with TestClient(app) as client:
        for _ in range(2):
            with client.websocket_connect("/") as first:
                assert first.receive_text() == "in"
                with client.websocket_connect("/") as second:
                    with pytest.raises(WebSocketDisconnect) as refused:
                        second.receive_text()
                    assert (refused.value.code, refused.value.reason) == (
                        1008,
                        "Rate limit exceeded",
                    )


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"refuse": "drop"}, ValueError),
        ({"on_excess": "ban"}, ValueError),
        ({"max_delay": 0}, ValueError),
        ({"max_delay": float("inf")}, ValueError),
        ({"get_client_id": "ip"}, TypeError),
        ({"notify": "hello"}, TypeError),
        ({"limits": 5}, TypeError),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        FastAPIWebSocketLimiter(**wrong)


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_takes_no_framework() -> None:
    program = (
        "import asyncio, sys; before = set(sys.modules)\n"
        "import sluicegate\n"
        "from sluicegate import Limiter, WebSocketRateLimiter, WebSocketLimits, InMemoryStorage\n"
        "WebSocketRateLimiter()\n"
        "print({m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "      & {'fastapi', 'starlette', 'socketio', 'channels', 'django', 'redis', 'logging',\n"
        "         'json', 'anyio', 'click'})\n"
    )
    # a loop's own logger has imported logging already
    assert python(program).strip() in ("set()", "{'logging'}")


def test_without_starlette_the_error_names_the_command() -> None:
    program = (
        "import sys; sys.modules['starlette'] = None\n"
        "from sluicegate import FastAPIWebSocketLimiter\n"
        "try: FastAPIWebSocketLimiter()\n"
        "except ImportError as error: print(error)\n"
    )
    assert 'pip install "sluicegate[fastapi]"' in python(program)


async def test_delay_sees_a_disconnect_behind_what_was_sent_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvicorn has read on, and its disconnect stands behind that."""
    monkeypatch.setattr(gone, "LOOK", 0.01)
    limits = WebSocketLimits(messages="1/hour", max_concurrent_connections=1)
    limiter = FastAPIWebSocketLimiter(limits, on_excess="delay", max_delay=100_000)
    wire = Wire(*({"type": "websocket.receive", "text": str(n)} for n in range(8)))
    got: list[str] = []

    async def endpoint() -> None:
        async with limiter.connection(wire.websocket, "somebody") as connection:
            async for text in connection.iter_text():
                got.append(text)

    task = asyncio.ensure_future(endpoint())
    await asyncio.sleep(0.05)  # some looks
    assert not task.done()
    wire.disconnected = True  # type: ignore[attr-defined]  # as uvicorn's protocols say it
    await asyncio.wait_for(task, 10)
    assert got == ["0"]
    assert limiter.limiter.get_client_connections("somebody") == 0
