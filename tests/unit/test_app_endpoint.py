"""RateLimitedWebSocketEndpoint of sluicegate.app, on a wire that a test plays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.authentication import SimpleUser
from starlette.websockets import WebSocket

from sluicegate import Limiter, MemoryStore
from sluicegate.app import ConnectionLimiter, RateLimitedWebSocketEndpoint, RateLimiter, defaults
from sluicegate.testing import Clock, record


class Wire:
    """The server's side of a WebSocket: what it receives, in order, and what was sent."""

    def __init__(self, *messages: Any, user: Any = None, **scope: Any) -> None:
        self.received = [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": text} for text in messages),
            {"type": "websocket.disconnect", "code": 1001},
        ]
        self.sent: list[Any] = []
        self.gone = False
        self.scope = {"type": "websocket", "path": "/", "headers": [], "user": user, **scope}
        self.scope.setdefault("client", ("198.51.100.7", 5))

    async def receive(self) -> Any:
        return self.received.pop(0)

    async def send(self, message: Any) -> None:
        if self.gone:
            raise OSError("gone")
        self.sent.append(message)

    @property
    def texts(self) -> list[str]:
        return [one["text"] for one in self.sent if one["type"] == "websocket.send"]

    @property
    def closed(self) -> tuple[int, str] | None:
        for one in self.sent:
            if one["type"] == "websocket.close":
                return one["code"], one["reason"]
        return None


async def play(endpoint: Any, *messages: Any, **scope: Any) -> Wire:
    wire = Wire(*messages, **scope)
    await endpoint(wire.scope, wire.receive, wire.send)
    return wire


class Echo(RateLimitedWebSocketEndpoint):
    encoding = "text"
    closes: list[int]
    connected: list[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.closes, cls.connected = [], []

    async def on_connect(self, websocket: WebSocket) -> None:
        self.connected.append(websocket)
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        if data == "boom":
            raise LookupError("boom")
        if data == "wait":
            await asyncio.sleep(3600)
        await websocket.send_text(data)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.closes.append(close_code)


def limited(store: Any, *, connections: int = 2, messages: int = 3) -> type[Echo]:
    class Limited(Echo):
        rate_limiter = RateLimiter(store)
        connection_limiter = ConnectionLimiter(store, connections)
        messages_per_minute = messages

    return Limited


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def until(check: Callable[[], Any]) -> None:
    """Lets other tasks run until it holds."""
    for _ in range(100):
        if check():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come")


def hits(kind: str) -> float:
    return REGISTRY.get_sample_value("rate_limit_hits_total", {"limit_type": kind}) or 0


def fields(logged: Any) -> tuple[Any, ...]:
    return tuple(vars(logged)[name] for name in ("user_id", "limit_type", "current_count", "limit"))


async def held(endpoint: type[Echo], user: str) -> int:
    assert endpoint.connection_limiter is not None
    return await endpoint.connection_limiter.get_connection_count(user)


async def test_messages_over_the_limit_do_not_reach_the_handler(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, before = limited(store), hits("ws_message")
    ada = SimpleUser("ada")
    wire = await play(endpoint, "1", "2", "3", "4", "5", user=ada)
    assert wire.texts[:3] == ["1", "2", "3"]
    assert [json.loads(text) for text in wire.texts[3:]] == 2 * [
        {
            "error": "rate_limited",
            "detail": "Rate limit exceeded. Try again in 60 seconds.",
            "retry_after": 60,
            "limit": 3,
        }
    ]
    assert endpoint.closes == [1001] and wire.closed is None
    assert hits("ws_message") == before + 2
    assert caplog.messages == ["Rate limit exceeded for user ada"] * 2
    assert fields(caplog.records[0]) == ("ada", "ws_message", 3, 3)
    # the minute is the user's, not the connection's
    assert len((await play(endpoint, "6", user=ada)).texts[0]) > 1
    assert (await play(endpoint, "6", user=SimpleUser("eve"))).texts == ["6"]
    clock.advance(60)
    assert (await play(endpoint, "6", user=ada)).texts == ["6"]


async def test_a_refused_message_is_not_decoded(store: MemoryStore) -> None:
    class Json(limited(store, messages=1)):  # type: ignore[misc]
        encoding = "json"

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_text("got")

    wire = await play(Json, "{}", "no json")  # which would end the connection
    assert wire.texts[0] == "got" and json.loads(wire.texts[1])["error"] == "rate_limited"
    assert Json.closes == [1001]


async def test_connections_over_the_limit(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, before = limited(store, connections=2), hits("ws_connection")
    ada = SimpleUser("ada")
    open_ones = [asyncio.create_task(play(endpoint, "wait", user=ada)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await held(endpoint, "ada") == 2

    refused = await play(endpoint, "x", user=ada, subprotocols=["chat", "other"])
    assert [one["type"] for one in refused.sent] == ["websocket.accept", "websocket.close"]
    assert refused.sent[0]["subprotocol"] == "chat"
    assert refused.closed == (1008, "Rate limit exceeded")
    assert len(endpoint.connected) == 2 and endpoint.closes == []
    assert hits("ws_connection") == before + 1
    assert caplog.messages == ["Rate limit exceeded for user ada"]
    assert fields(caplog.records[0]) == ("ada", "ws_connection", 2, 2)

    assert (await play(endpoint, "x", user=SimpleUser("eve"))).texts == ["x"]
    for one in open_ones:
        one.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)
    assert await held(endpoint, "ada") == 0
    assert (await play(endpoint, "x", user=ada)).texts == ["x"]


async def test_a_refused_client_that_has_gone_is_no_error(store: MemoryStore) -> None:
    endpoint = limited(store, connections=1)
    assert endpoint.connection_limiter is not None
    await endpoint.connection_limiter.add_connection("ada", "elsewhere")
    wire = Wire(user=SimpleUser("ada"))
    wire.gone = True
    await endpoint(wire.scope, wire.receive, wire.send)  # type: ignore[arg-type]
    assert wire.sent == []


async def test_an_answer_to_a_client_that_has_gone_is_no_error(store: MemoryStore) -> None:
    class Silent(limited(store, messages=1)):  # type: ignore[misc]
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            wire.gone = True

    wire = Wire("1", "2")
    await Silent(wire.scope, wire.receive, wire.send)
    assert Silent.closes == [1001]


@pytest.mark.parametrize("what", ["boom", "wait"])
async def test_the_place_is_given_back_however_it_ends(store: MemoryStore, what: str) -> None:
    endpoint = limited(store)
    task = asyncio.create_task(play(endpoint, what, user=SimpleUser("ada")))
    await until(lambda: endpoint.connected)
    if what == "wait":
        assert await held(endpoint, "ada") == 1
        task.cancel()
    with pytest.raises(LookupError if what == "boom" else asyncio.CancelledError):
        await task
    assert await held(endpoint, "ada") == 0


async def test_the_place_is_given_back_when_on_connect_fails(store: MemoryStore) -> None:
    class Broken(limited(store)):  # type: ignore[misc]
        async def on_connect(self, websocket: WebSocket) -> None:
            raise LookupError("no such room")

    with pytest.raises(LookupError):
        await play(Broken, user=SimpleUser("ada"))
    assert await held(Broken, "ada") == 0


async def test_a_subclass_may_override_dispatch(store: MemoryStore) -> None:
    class Own(limited(store, connections=1, messages=1)):  # type: ignore[misc]
        async def dispatch(self) -> None:
            websocket = WebSocket(self.scope, self.receive, self.send)
            await websocket.accept()
            while (await websocket.receive())["type"] != "websocket.disconnect":
                await websocket.send_text(str(await held(Own, "ada")))

    wire = await play(Own, "a", "b", user=SimpleUser("ada"))
    assert wire.texts[0] == "1" and "rate_limited" in wire.texts[1]
    assert await held(Own, "ada") == 0


async def test_who_it_is(store: MemoryStore) -> None:
    endpoint = limited(store)
    for user, key in (
        (SimpleUser("ada"), "ws:messages:ada"),
        (SimpleNamespace(id=42), "ws:messages:42"),
        (None, "ws:messages:ip:198.51.100.7"),
        # nobody takes the places of an address by his name
        (SimpleUser("ip:198.51.100.7"), "ws:messages:user:ip:198.51.100.7"),
        (SimpleUser("user:ip:198.51.100.7"), "ws:messages:user:user:ip:198.51.100.7"),
    ):
        with record() as made:
            await play(endpoint, "x", user=user)
        assert made[-1].key == key


async def test_a_subclass_may_say_who_it_is(store: MemoryStore) -> None:
    class Rooms(limited(store)):  # type: ignore[misc]
        async def get_user_id(self, websocket: WebSocket) -> str:
            return f"guest {websocket.query_params['name']}"

    with record() as made:
        await play(Rooms, "x", query_string=b"name=ada")
    assert made[-1].key == "ws:messages:guest ada"


async def test_a_subclass_may_say_it_in_its_own_words(store: MemoryStore) -> None:
    class Own(limited(store, messages=1)):  # type: ignore[misc]
        def rate_limit_error(self, retry_after: int, limit: int) -> Any:
            return {"status": "slow down", "wait": retry_after, "of": limit}

    wire = await play(Own, "1", "2")
    assert json.loads(wire.texts[1]) == {"status": "slow down", "wait": 60, "of": 1}


async def test_when_the_store_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Connections are refused, which is told from a limit that is reached; messages of those
    that are there are limited in this process."""
    store = MemoryStore(max_keys=1, on_full="raise")
    endpoint = limited(store, messages=2)
    before = hits("ws_connection"), hits("ws_message")
    await Limiter("1/minute using sliding-log", store=store, name="app").ban("x", 1000)
    wire = await play(endpoint, "1", "2", "3", user=SimpleUser("ada"))
    assert wire.texts[:2] == ["1", "2"] and "rate_limited" in wire.texts[2]

    assert endpoint.connection_limiter is not None
    assert await endpoint.connection_limiter.add_connection("joe", "elsewhere")
    refused = await play(endpoint, user=SimpleUser("eve"))
    assert refused.closed == (1008, "Connections cannot be counted now")
    assert (hits("ws_connection"), hits("ws_message")) == (before[0], before[1] + 1)
    assert "Rate limit exceeded for user eve" not in caplog.messages


@pytest.mark.parametrize("wrong", [0, -1])
def test_numbers_that_make_no_sense(wrong: int) -> None:
    with pytest.raises(ValueError):

        class Wrong(RateLimitedWebSocketEndpoint):
            messages_per_minute = wrong


@pytest.fixture
def _own_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WS_MAX_CONNECTIONS_PER_USER", "1")
    monkeypatch.setenv("WS_MESSAGE_RATE_LIMIT", "2")
    kept = (defaults.settings, defaults.rate_limiter, defaults.connection_limiter)
    for one in kept:
        one.cache_clear()
    yield
    for one in kept:
        one.cache_clear()


@pytest.mark.usefixtures("_own_defaults", "sluice_store")
async def test_a_class_that_says_nothing_is_limited_by_the_settings() -> None:
    class Bare(Echo):
        pass

    wire = await play(Bare, "1", "2", "3")
    assert wire.texts[:2] == ["1", "2"] and json.loads(wire.texts[2])["limit"] == 2
    first = asyncio.create_task(play(Bare, "wait", client=("203.0.113.1", 1)))
    await until(lambda: len(Bare.connected) == 2)
    assert (await play(Bare, client=("203.0.113.1", 2))).closed == (1008, "Rate limit exceeded")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
