"""The Socket.IO door without a server process: its own calls, and a server that is driven over
long polling in this process, so that what comes at once can be put in order."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import socketio

from sluicegate import MemoryStore, SocketIOLimiter, WebSocketLimits
from sluicegate.socketio import client_ip
from sluicegate.socketio.sizes import NAME_MAX, event_size, payload_size
from sluicegate.testing import Clock

ONE = WebSocketLimits(max_concurrent_connections=1)


# ---- a limiter that handlers ask


async def test_connect_check_disconnect() -> None:
    limiter = SocketIOLimiter(WebSocketLimits(messages_per_minute=2, max_concurrent_connections=2))
    assert await limiter.on_connect("a", "10.0.0.1")
    assert await limiter.on_connect("b", "10.0.0.1")
    assert not await limiter.on_connect("c", "10.0.0.1")
    assert limiter.sid_to_client == {"a": "10.0.0.1", "b": "10.0.0.1"}
    assert [await limiter.check_message(sid, "x") for sid in "abab"] == [True, True, False, False]
    await limiter.on_disconnect("a")
    await limiter.on_disconnect("a")
    assert limiter.sid_to_client == {"b": "10.0.0.1"}
    assert not await limiter.check_message("a", "x")
    assert await limiter.limiter.count("10.0.0.1") == 1
    assert await limiter.on_connect("c", "10.0.0.1")


async def test_a_sid_stays_whose_it_is() -> None:
    limiter = SocketIOLimiter(WebSocketLimits(connections_per_minute=1))
    assert await limiter.on_connect("a", "10.0.0.1")
    assert await limiter.on_connect("a", "10.0.0.2")  # and nothing is charged for it
    assert limiter.sid_to_client == {"a": "10.0.0.1"}
    assert await limiter.limiter.count("10.0.0.2") == 0


async def test_what_a_refused_connection_is_told() -> None:
    clock = Clock()
    limiter = SocketIOLimiter(
        WebSocketLimits(connections_per_minute=1), MemoryStore(clock=clock), name="rate"
    )
    assert (await limiter.decide_connect("a", "ip")).allowed
    clock.advance(20)
    assert (await limiter.decide_connect("b", "ip")).retry_after == 40.0
    assert await limiter.limiter.count("ip") == 1


async def test_a_cancelled_connect_leaves_nothing() -> None:
    limiter = SocketIOLimiter(ONE)
    registering = asyncio.Event()
    register = limiter.limiter.register_connection

    async def slow(*about: Any) -> bool:
        await register(*about)
        registering.set()
        await asyncio.sleep(3600)
        return True

    limiter.limiter.register_connection = slow  # type: ignore[method-assign]
    task = asyncio.create_task(limiter.on_connect("a", "ip"))
    await registering.wait()
    assert await limiter.limiter.count("ip") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await limiter.limiter.count("ip") == 0
    assert limiter.sid_to_client == {}


async def test_events_have_their_costs() -> None:
    limiter = SocketIOLimiter(
        WebSocketLimits(messages_per_minute=30), costs={"search": 10, "typing": 0}
    )
    await limiter.on_connect("a", "ip")
    assert await limiter.check_message("a", "x", event="search")
    assert await limiter.check_message("a", "x", event="other")
    assert await limiter.check_message("a", "x", cost=9)
    decision = await limiter.decide_message("a", "x", event="search", cost=5)  # cost= goes first
    assert (decision.allowed, decision.remaining) == (True, 5)
    assert not await limiter.check_message("a", "x", event="search")
    assert await limiter.check_message("a", "x", event="typing")
    assert (await limiter.decide_message("a", "x", cost=0)).remaining == 5


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"costs": {"search": -1}}, ValueError),
        ({"costs": {"search": 2**40 + 1}}, ValueError),
        ({"costs": {"search": 1.5}}, TypeError),
        ({"costs": {"search": True}}, TypeError),
        ({"costs": {1: 1}}, TypeError),
        ({"get_client_id": "ip"}, TypeError),
        ({"limits": 5}, TypeError),
        ({"name": ""}, ValueError),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        SocketIOLimiter(**wrong)


def test_attach_takes_an_async_server() -> None:
    limiter = SocketIOLimiter()
    for wrong in (socketio.Server(), socketio.AsyncClient(), None):
        with pytest.raises(TypeError, match="AsyncServer"):
            limiter.attach(wrong)


# ---- addresses and sizes


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"REMOTE_ADDR": "10.0.0.1"}, "10.0.0.1"),
        ({"REMOTE_ADDR": "127.0.0.1", "asgi.scope": {"client": ("10.0.0.2", 5)}}, "10.0.0.2"),
        ({"REMOTE_ADDR": "127.0.0.1", "asgi.scope": {"client": ["::1", 5]}}, "::1"),
        ({"REMOTE_ADDR": "127.0.0.1", "asgi.scope": {"client": None}}, "unknown"),
        ({"REMOTE_ADDR": "127.0.0.1", "asgi.scope": {}}, "unknown"),
        (
            {"REMOTE_ADDR": "127.0.0.1", "aiohttp.request": SimpleNamespace(remote="10.0.0.3")},
            "10.0.0.3",
        ),
        (
            {"REMOTE_ADDR": "127.0.0.1", "sanic.request": SimpleNamespace(ip="10.0.0.4")},
            "10.0.0.4",
        ),
        (
            {
                "REMOTE_ADDR": "127.0.0.1",
                "tornado.handler": SimpleNamespace(request=SimpleNamespace(remote_ip="10.0.0.5")),
            },
            "10.0.0.5",
        ),
        ({}, "unknown"),
    ],
)
def test_the_peers_address(environ: dict[str, Any], address: str) -> None:
    assert client_ip(environ) == SocketIOLimiter.client_ip(environ) == address


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ("x" * 10, 10),
        ("é", 2),
        (b"\0" * 10, 10),
        (bytearray(3), 3),
        ({"a": [1, "é"]}, len(b'{"a":[1,"\xc3\xa9"]}')),
        (None, 4),
        ({"a": b"12345"}, len('{"a":""}') + 5),
        ([b"12", {"b": bytearray(b"3")}], len('["",{"b":""}]') + 3),
        ({b"key": 1}, len(repr({b"key": 1}))),
    ],
)
def test_sizes(data: Any, size: int) -> None:
    assert payload_size(data) == size
    assert event_size("name", (data, "12")) == size + 2


def test_sizes_of_what_is_made_to_break_them() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    mixed: Any = b"x"
    for _ in range(100_000):
        mixed = [mixed]
    keys: Any = {b"k": deep}
    for data in (deep, mixed, keys):
        assert payload_size(data) == 2**40
    assert event_size("x", (deep, deep)) == 2**40


def test_a_long_name_is_data() -> None:
    assert event_size("x" * NAME_MAX, ()) == 0
    assert event_size("x" * (NAME_MAX + 1), ("12",)) == NAME_MAX + 3
    assert event_size({"name": "no text"}, ()) == len('{"name":"no text"}')


# ---- a guarded server


class Session:
    """A session of Engine.IO over long polling."""

    def __init__(self, http: httpx.AsyncClient, path: str) -> None:
        self.http = http
        self.path = path
        self.came: list[str] = []

    async def post(self, *packets: str) -> None:
        answer = await self.http.post(self.path, content="\x1e".join(packets))
        assert answer.text == "OK", answer

    async def until(self, start: str) -> str:
        """The next packet that starts like that."""
        while True:
            while self.came:
                packet = self.came.pop(0)
                if packet.startswith(start):
                    return packet
            answer = await asyncio.wait_for(self.http.get(self.path), 5)
            assert answer.status_code == 200, answer.text
            self.came = answer.text.split("\x1e")

    async def ack(self, number: int) -> Any:
        packet = await self.until(f"43{number}")
        return json.loads(packet.removeprefix(f"43{number}"))[0]

    async def connect(self, auth: str = "") -> None:
        await self.post(f"40{auth}")
        await self.until("40{")


class Driven:
    """A server, a limiter, and what has reached the handlers."""

    def __init__(
        self,
        limits: WebSocketLimits | None = None,
        *,
        server: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.sio = socketio.AsyncServer(async_mode="asgi", monitor_clients=False, **(server or {}))
        self.limiter = SocketIOLimiter(limits, **options)
        self.limiter.attach(self.sio)
        self.guard = self.sio._trigger_event.__self__
        self.seen: list[Any] = []
        self.app = socketio.ASGIApp(self.sio)

    def say(self, sid: str, data: Any) -> str:
        self.seen.append(data)
        return "said"

    @asynccontextmanager
    async def session(self, address: str = "10.0.0.1") -> AsyncIterator[Session]:
        transport = httpx.ASGITransport(self.app, client=(address, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            path = "/socket.io/?EIO=4&transport=polling"
            opened = await http.get(path)
            yield Session(http, f"{path}&sid={json.loads(opened.text[1:])['sid']}")

    async def places(self, client: str = "10.0.0.1") -> int:
        return await self.limiter.limiter.count(client)

    async def is_empty(self) -> bool:
        """Whether nobody is known any more, to the limiter, its guard and the server."""
        known = (
            self.limiter.sid_to_client,
            self.limiter.limiter.active_connections,
            self.guard._sids,
            self.guard._session,
            self.sio.environ,
        )
        return not any(known) and not await self.places()


async def test_a_refused_event_is_acknowledged_and_never_handled() -> None:
    driven = Driven(WebSocketLimits(messages_per_minute=2))
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        await session.post(*(f'42{n}["say",{n}]' for n in range(3)), '42["say","no ack"]')
        assert [await session.ack(n) for n in range(3)] == [
            "said",
            "said",
            {"error": "rate_limited", "retry_after": 60},
        ]
    assert driven.seen == [0, 1]


async def test_what_never_can_be_has_no_retry_after() -> None:
    driven = Driven(WebSocketLimits(max_message_size=10))
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        await session.post(f'421["say","{"x" * 11}"]', f'422["say","{"x" * 10}"]')
        assert await session.ack(1) == {"error": "rate_limited", "retry_after": None}
        assert await session.ack(2) == "said"


async def test_connections_are_refused_with_a_connect_error() -> None:
    driven = Driven(WebSocketLimits(max_concurrent_connections=1, connections_per_minute=2))
    async with driven.session() as first, driven.session() as second:
        await first.connect()
        await second.post("40")
        assert json.loads((await second.until("44"))[2:]) == {
            "message": "Rate limit exceeded",
            "data": {"error": "rate_limited", "retry_after": None},
        }
        await second.post('421["say"]')  # it is not connected
        await first.post("41")
        await second.connect()
        assert await driven.places() == 1
        await second.post("41")
        await first.post("40")
        assert json.loads((await first.until("44"))[2:])["data"] == {
            "error": "rate_limited",
            "retry_after": 60,
        }
    assert driven.limiter.sid_to_client == {}


async def test_handlers_of_every_kind_and_namespace() -> None:
    driven = Driven(
        WebSocketLimits(messages_per_minute=1, max_concurrent_connections=None),
        server={"namespaces": "*"},
        get_client_id=lambda environ, auth: auth["as"],
    )
    sio, seen = driven.sio, driven.seen

    class Class(socketio.AsyncNamespace):
        async def on_say(self, sid: str, data: Any) -> str:
            seen.append(data)
            return "said"

    async def catch_all(event: str, sid: str, data: Any) -> str:
        seen.append(data)
        return "said"

    async def everywhere(event: str, namespace: str, sid: str, data: Any) -> str:
        seen.append(data)
        return "said"

    async def say(sid: str, data: Any) -> str:
        seen.append(data)
        return "said"

    sio.on("say", say)
    sio.on("say", driven.say, namespace="/plain")
    sio.on("*", catch_all, namespace="/all")
    sio.on("*", everywhere, namespace="*")
    sio.register_namespace(Class("/class"))
    for namespace in ("", "/plain,", "/all,", "/class,", "/wherever,"):
        # the class stands behind a catch-all, which python-socketio prefers
        if namespace == "/class,":
            del sio.handlers["*"]
        async with driven.session() as session:
            await session.post(f'40{namespace}{{"as":"{namespace or "/"}"}}')
            await session.until(f"40{namespace}")
            await session.post(*(f'42{namespace}{n}["say","{namespace}"]' for n in range(2)))
            for number, answer in enumerate(("said", {"error": "rate_limited", "retry_after": 60})):
                packet = await session.until(f"43{namespace}")
                assert json.loads(packet.removeprefix(f"43{namespace}{number}")) == [answer]
        if namespace == "/class,":
            sio.on("*", everywhere, namespace="*")
    assert seen == ["", "/plain,", "/all,", "/class,", "/wherever,"]
    assert len(driven.limiter.sid_to_client) == 5


async def test_binary_events_count_their_bytes() -> None:
    driven = Driven(WebSocketLimits(bytes_per_minute=80))
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        # 30 bytes in base64, as Engine.IO carries them here
        attachment = "b" + "AAAA" * 10
        placeholder = '{"_placeholder":true,"num":0}'
        await session.post(f'451-1["say",{placeholder}]', attachment)
        await session.post(f'451-2["say",{{"of":{placeholder}}}]', attachment)
        await session.post(f'451-3["say",{placeholder}]', attachment)
        assert [await session.ack(n) for n in (1, 2)] == ["said", "said"]
        refused = await session.ack(3)
        assert refused["error"] == "rate_limited" and 1 <= refused["retry_after"] <= 60
    stats = driven.limiter.limiter.get_statistics()
    assert stats["total_bytes_sent"] == 30 + len('{"of":""}') + 30
    assert driven.seen == [bytes(30), {"of": bytes(30)}]


async def test_an_event_before_connect_is_nobodys() -> None:
    driven = Driven()
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.post('421["say","early"]')
        await session.connect()
        await session.post('422["say","late"]')
        assert await session.ack(2) == "said"
    assert driven.seen == ["late"]
    assert driven.limiter.limiter.get_statistics()["total_messages"] == 1


async def test_events_that_are_named_connect_and_disconnect_are_events() -> None:
    """Clients may name an event as they like, and python-socketio hands it to the handler of
    that name: who believes it lets a client choose its address."""
    driven = Driven(WebSocketLimits(messages_per_minute=3, max_concurrent_connections=1))
    for name in ("connect", "disconnect"):
        driven.sio.on(name, lambda sid, *about: driven.seen.append(about))
    async with driven.session() as session:
        await session.connect()
        del driven.seen[:]
        await session.post(
            '421["connect",{"REMOTE_ADDR":"10.9.9.9"}]',
            '422["connect",null]',
            '423["disconnect","because"]',
            '424["disconnect"]',
        )
        assert (await session.ack(4))["error"] == "rate_limited"
        assert driven.seen == []
        assert list(driven.limiter.sid_to_client.values()) == ["10.0.0.1"]
        assert await driven.places() == 1


async def test_a_goodbye_of_both_kinds_is_one() -> None:
    driven = Driven()
    driven.sio.on("disconnect", lambda sid, *reason: driven.seen.append(reason))
    async with driven.session() as session:
        await session.connect()
        await session.post('42["disconnect","forged"]', '42["disconnect","forged"]', "41")
        assert len(driven.seen) == 1 and driven.seen[0] != ("forged",)
        assert await driven.places() == 0
    assert driven.limiter.limiter.get_statistics()["total_messages"] == 2


async def test_a_client_that_was_there_before_attach_is_seen_to_leave() -> None:
    driven = Driven()
    driven.sio.on("disconnect", lambda sid, *reason: driven.seen.append("left"))
    late = SocketIOLimiter()
    async with driven.session() as session:
        await session.connect()
        late.attach(driven.sio)
        await session.post("41")
    assert driven.seen == ["left"]
    assert await driven.places() == 0


async def test_an_event_and_the_goodbye_after_it() -> None:
    driven = Driven()
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        await session.post('42["say","last words"]', "41")
        assert driven.seen == ["last words"]
        assert await driven.places() == 0


@pytest.mark.parametrize("failure", ["false", "raise", "refuse", "type", "cancel"])
@pytest.mark.parametrize("auth", ["", '{"token":1}'])
async def test_a_connect_handler_that_fails_leaves_no_place(failure: str, auth: str) -> None:
    driven = Driven(ONE)

    @driven.sio.event
    async def connect(sid: str, environ: Any, auth: Any = None) -> bool | None:
        assert await driven.places() == 1
        if failure == "false":
            return False
        if failure == "raise":
            raise LookupError("no such user")
        if failure == "refuse":
            raise socketio.exceptions.ConnectionRefusedError("not you")
        if failure == "type":
            raise TypeError("a fault of its own")
        raise asyncio.CancelledError

    for _ in range(2):
        async with driven.session() as session:
            await session.post(f"40{auth}")
            if failure == "cancel":  # python-socketio takes that for a yes
                await session.until("40")
                assert await driven.places() == 1
                await session.post("1")
            assert await driven.places() == 0
    assert driven.guard._sids == driven.guard._session == driven.limiter.sid_to_client == {}


async def test_handlers_with_and_without_auth_are_one_connection() -> None:
    driven = Driven(WebSocketLimits(connections_per_minute=2))
    driven.sio.on("connect", lambda sid, environ: None)
    driven.sio.on("connect", lambda sid, environ, auth: None, namespace="/auth")
    async with driven.session() as session:
        await session.connect()
        await session.post("40/auth,")
        await session.until("40/auth,{")
    stats = driven.limiter.limiter.get_statistics()
    assert stats["violations"]["connection_rate"] == 0
    assert stats["active_connections"] == 2


@pytest.mark.parametrize("always_connect", [False, True])
@pytest.mark.parametrize("where", ["handler", "store"])
async def test_a_session_that_ends_while_it_connects(always_connect: bool, where: str) -> None:
    """python-socketio tells of no disconnect then."""
    driven = Driven(ONE, server={"always_connect": always_connect})
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(*about: Any) -> None:
        entered.set()
        await leave.wait()

    if where == "handler":
        driven.sio.on("connect", slow)
    else:
        driven.sio.on("connect", lambda *about: driven.seen.append(about))
        register = driven.limiter.limiter.register_connection

        async def slow_register(*about: Any) -> bool:
            await slow()
            return await register(*about)

        driven.limiter.limiter.register_connection = slow_register  # type: ignore[method-assign]
    async with driven.session() as session:
        connecting = asyncio.create_task(session.post("40"))
        await asyncio.wait_for(entered.wait(), 5)
        assert await driven.places() == 1
        await session.post("1")
        leave.set()
        await connecting
    assert await driven.is_empty()
    assert driven.sio.manager.rooms == {}
    assert driven.seen == []  # a client that has gone reaches no handler


async def test_a_disconnect_handler_that_fails_leaves_nothing() -> None:
    driven = Driven(WebSocketLimits(max_concurrent_connections=2))

    @driven.sio.event
    async def disconnect(sid: str, *reason: Any) -> None:
        raise LookupError("gone")

    driven.sio.on("disconnect", lambda sid, *reason: None, namespace="/other")
    async with driven.session() as session:
        await session.connect()
        await session.post("40/other,")
        await session.until("40/other,{")
        assert await driven.places() == 2
        await session.post("1")
    assert await driven.is_empty()


async def test_an_event_handler_that_fails_is_counted_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driven = Driven(server={"async_handlers": False})

    @driven.sio.event
    async def say(sid: str, data: Any) -> None:
        raise LookupError(data)

    async with driven.session() as session:
        await session.connect()
        await session.post('42["say","x"]')
        await session.post("1")
    assert driven.limiter.limiter.get_statistics()["total_messages"] == 1
    assert await driven.is_empty()


async def test_too_many_refusals_disconnect() -> None:
    driven = Driven(WebSocketLimits(max_message_size=5), max_refusals="2/minute")
    gone: list[str] = []
    driven.sio.on("disconnect", lambda sid, *reason: gone.append(sid))
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        for number in range(3):
            await session.post(f'42{number}["say","too long"]')
        assert [await session.ack(number) for number in range(2)] == [
            {"error": "rate_limited", "retry_after": None}
        ] * 2
        await session.until("41")
        await session.post('429["say","x"]')
        for _ in range(5):  # turns of the loop: here nothing waits for a network
            await asyncio.sleep(0)
    assert driven.seen == []
    assert len(gone) == 1
    assert await driven.places() == 0


async def test_attached_events_have_their_costs() -> None:
    driven = Driven(WebSocketLimits(messages_per_minute=11), costs={"search": 10, "typing": 0})
    for event in ("say", "search", "typing"):
        driven.sio.on(event, driven.say)
    async with driven.session() as session:
        await session.connect()
        events = ("search", "search", "say", "say", "typing")
        await session.post(*(f'42{n}["{event}",{n}]' for n, event in enumerate(events)))
        assert (await session.ack(4)) == "said"
    assert driven.seen == [0, 2, 4]


async def test_who_connects_may_be_told_by_auth() -> None:
    async def who(environ: Any, auth: Any) -> str:
        await asyncio.sleep(0)
        return str(auth["user"])

    driven = Driven(get_client_id=who)
    async with driven.session() as session:
        await session.connect('{"user":"ada"}')
    assert list(driven.limiter.sid_to_client.values()) == ["ada"]


@pytest.mark.parametrize("auth", ["", '{"user":null}'])
async def test_who_is_nobody_is_refused_and_logged(
    auth: str, caplog: pytest.LogCaptureFixture
) -> None:
    driven = Driven(get_client_id=lambda environ, auth: auth["user"])
    async with driven.session() as session:
        await session.post(f"40{auth}")
        await session.until("44")
    assert [one.message for one in caplog.records] == [
        "get_client_id raised; the connection is refused"
    ]


async def test_attached_twice_is_once_and_two_limiters_are_two() -> None:
    driven = Driven(WebSocketLimits(messages_per_minute=4))
    driven.limiter.attach(driven.sio)
    other = SocketIOLimiter(WebSocketLimits(messages_per_minute=2))
    other.attach(driven.sio)
    driven.limiter.attach(driven.sio)
    driven.sio.on("say", driven.say)
    async with driven.session() as session:
        await session.connect()
        await session.post(*(f'42{n}["say",{n}]' for n in range(3)))
        assert [await session.ack(n) for n in range(2)] == ["said"] * 2
        assert (await session.ack(2))["error"] == "rate_limited"
        await session.post("1")
    counts = [one.limiter.get_statistics() for one in (driven.limiter, other)]
    assert [one["total_messages"] for one in counts] == [2, 2]
    assert [one["active_connections"] for one in counts] == [0, 0]


@pytest.mark.parametrize("instrumented", ["before", "after"])
async def test_a_server_with_its_admin_instrumentation(instrumented: str) -> None:
    driven = Driven(WebSocketLimits(messages_per_minute=1))
    if instrumented == "before":
        driven.sio = socketio.AsyncServer(async_mode="asgi", monitor_clients=False)
        driven.app = socketio.ASGIApp(driven.sio)
    admin = driven.sio.instrument(auth=False, mode="production", server_stats_interval=0.01)
    try:
        driven.limiter.attach(driven.sio)
        driven.sio.on("say", driven.say)
        async with driven.session() as session:
            await session.connect()
            await session.post('421["say",1]', '422["say",2]')
            assert await session.ack(1) == "said"
            assert (await session.ack(2))["error"] == "rate_limited"
            assert await driven.places() == 1
            await session.post("1")
        assert await driven.places() == 0
        await asyncio.wait_for(admin.shutdown(), 5)
    finally:
        admin.uninstrument()  # it has changed a class of Engine.IO for everybody


def test_without_python_socketio_the_error_names_the_command() -> None:
    program = (
        "import sys; sys.modules['socketio'] = None\n"
        "from sluicegate import SocketIOLimiter\n"
        "try: SocketIOLimiter()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert 'pip install "sluicegate[socketio]"' in done.stdout
