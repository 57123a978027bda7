"""The Channels door without a server: its own calls, classes that cannot be served, and
consumers that are driven by hand."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from typing import Any

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from django.conf import settings

from sluicegate import (
    ChannelsRateLimiter,
    MemoryStore,
    RateLimitedConsumerMixin,
    WebSocketLimits,
)
from sluicegate.testing import Clock

ONE = WebSocketLimits(max_concurrent_connections=1)

if not settings.configured:
    settings.configure()


# ---- a limiter that consumers ask


async def test_check_register_unregister() -> None:
    limiter = ChannelsRateLimiter(WebSocketLimits(messages_per_minute=2))
    assert await limiter.check_connection("10.0.0.1")
    assert await limiter.register_connection("a", "10.0.0.1", metadata={"user": "ada"})
    info = limiter.limiter.get_connection_info("a")
    assert info is not None and info.metadata == {"user": "ada"}
    assert await limiter.check_message("a", "x")
    decision = await limiter.decide_message("a", b"x", cost=2)
    assert (decision.allowed, decision.limit) == (False, 2)
    assert await limiter.check_message("a", {"a": 1})
    assert not await limiter.check_message("a", "x")
    await limiter.unregister_connection("a")
    await limiter.unregister_connection("a")
    assert not await limiter.check_message("a", "x")
    assert await limiter.limiter.count("10.0.0.1") == 0


async def test_sizes_are_bytes() -> None:
    limiter = ChannelsRateLimiter(WebSocketLimits(max_message_size=4))
    await limiter.register_connection("a", "ip")
    found = [await limiter.check_message("a", data) for data in ("éé", "ééx", b"1234", b"12345")]
    assert found == [True, False, True, False]


async def test_a_connection_ends_with_the_task_that_checked_and_registered_it() -> None:
    limiter = ChannelsRateLimiter(ONE)

    async def consumer() -> None:
        assert await limiter.check_connection("ip")
        assert await limiter.register_connection("a", "ip")
        raise LookupError("it fails, and is told of no disconnect")

    for _ in range(2):
        with pytest.raises(LookupError):
            await asyncio.create_task(consumer())
        await until_free(limiter)
    assert limiter._watches == {}


async def test_a_connection_outlives_tasks_that_register_alone() -> None:
    """As a thread does it, or a timeout on some Pythons."""
    limiter = ChannelsRateLimiter(ONE)
    assert await asyncio.create_task(limiter.check_connection("ip"))
    assert await asyncio.create_task(limiter.register_connection("a", "ip"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await limiter.check_message("a", "x")
    await limiter.unregister_connection("a")
    assert await limiter.limiter.count("ip") == 0


async def test_a_name_that_is_registered_again_is_its_new_task_s() -> None:
    limiter = ChannelsRateLimiter(WebSocketLimits(max_concurrent_connections=2))
    leave = asyncio.Event()

    async def consumer(wait: bool) -> None:
        assert await limiter.check_connection("ip")
        assert await limiter.register_connection("a", "ip")
        if wait:
            await leave.wait()

    first = asyncio.create_task(consumer(True))
    await asyncio.sleep(0)
    second = asyncio.create_task(consumer(True))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    for _ in range(5):
        await asyncio.sleep(0)
    assert limiter.limiter.get_client_connections("ip") == 1
    leave.set()
    await second
    await until_free(limiter)


def test_a_loop_that_is_closed_under_a_connection() -> None:
    limiter = ChannelsRateLimiter(ONE)

    async def consumer() -> None:
        assert await limiter.check_connection("ip")
        assert await limiter.register_connection("a", "ip")
        await asyncio.sleep(3600)

    for _ in range(2):
        loop = asyncio.new_event_loop()
        task = loop.create_task(consumer())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        assert limiter.limiter.get_client_connections("ip") == 1
        loop.close()
        del task, loop
        gc.collect()
        assert limiter.limiter.get_client_connections("ip") == 0
        assert asyncio.run(limiter.limiter.count("ip")) == 0


async def until_free(limiter: ChannelsRateLimiter, client: str = "ip") -> None:
    for _ in range(100):
        if not await limiter.limiter.count(client):
            break
        await asyncio.sleep(0)
    assert await limiter.limiter.count(client) == 0
    assert limiter.limiter.get_client_connections(client) == 0


# ---- classes


def test_what_cannot_be_served_is_told_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match="limits WebSocket consumers"):
        type("Page", (RateLimitedConsumerMixin, AsyncHttpConsumer), {})
    with pytest.raises(TypeError, match=r"class Chat\(RateLimitedConsumerMixin, AsyncWebsocket"):
        type("Chat", (AsyncWebsocketConsumer, RateLimitedConsumerMixin), {})
    with pytest.raises(ValueError, match=r"Chat\.on_excess is 'notify', 'drop' or 'close'"):
        type("Chat", (RateLimitedConsumerMixin, AsyncWebsocketConsumer), {"on_excess": "delay"})


def test_what_can_be_served() -> None:
    class Ours(RateLimitedConsumerMixin):
        on_excess = "close"

    for consumer in (AsyncWebsocketConsumer, AsyncJsonWebsocketConsumer, WebsocketConsumer):
        type("Chat", (Ours, consumer), {})


async def test_a_consumer_without_a_limiter_says_so() -> None:
    class Chat(RateLimitedConsumerMixin, AsyncWebsocketConsumer):
        pass

    for wrong in (None, "5/second"):
        Chat.rate_limiter = wrong  # type: ignore[assignment]
        with pytest.raises(TypeError, match=r"Chat\.rate_limiter is to be a ChannelsRateLimiter"):
            await Driven(Chat).run()


# ---- consumers


class Driven:
    """A consumer, and the server's side of it."""

    def __init__(self, consumer: Any, *messages: Any, client: Any = ("ip", 5)) -> None:
        self.app = consumer.as_asgi()
        self.scope = {"type": "websocket", "path": "/", "client": client, "subprotocols": []}
        self.received: list[Any] = [{"type": "websocket.connect"}]
        for message in messages:
            kind = "bytes" if isinstance(message, bytes) else "text"
            self.received.append({"type": "websocket.receive", kind: message})
        self.sent: list[dict[str, Any]] = []
        self.broken = False

    async def receive(self) -> Any:
        if not self.received:
            return {"type": "websocket.disconnect", "code": 1006}
        return self.received.pop(0)

    async def send(self, message: Any) -> None:
        if self.broken:
            raise OSError("gone")
        self.sent.append(message)

    async def run(self) -> list[Any]:
        """Runs it to its end; the texts that it has sent."""
        await asyncio.wait_for(self.app(self.scope, self.receive, self.send), 5)
        return [one.get("text") for one in self.sent if one["type"] == "websocket.send"]


def echo(limits: WebSocketLimits | None = None, **about: Any) -> Any:
    """An echoing consumer class with a limiter of its own."""

    async def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)

    options = {key: about.pop(key) for key in ("storage", "max_refusals") if key in about}
    limiter = ChannelsRateLimiter(limits, **options)
    body = {"rate_limiter": limiter, "receive": receive, **about}
    return type("Chat", (RateLimitedConsumerMixin, AsyncWebsocketConsumer), body)


async def test_a_consumer_without_a_channel_layer() -> None:
    chat = echo(WebSocketLimits(messages_per_minute=2))
    texts = await Driven(chat, "a", "b", "c", "d").run()
    assert texts[:2] == ["a", "b"]
    assert [json.loads(one)["retry_after"] for one in texts[2:]] == [60]  # told once
    await until_free(chat.rate_limiter)


async def test_a_notice_again_when_its_time_has_passed() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    chat = echo(
        WebSocketLimits(messages="1/second", max_message_size=10),
        storage=store,
        rate_limit_notice=lambda self, notice: notice["reason"].encode(),
    )
    driven = Driven(chat, "a", "b", "c")
    receive = driven.receive

    async def later() -> Any:
        message = await receive()
        if message.get("text") == "c":
            clock.advance(0.999)
        if message.get("text") == "d":
            clock.advance(0.001)
        if message.get("text") == "too long for it":
            clock.advance(5)
        return message

    driven.receive = later  # type: ignore[method-assign]
    for text in ("d", "e", "too long for it", "too long again"):
        driven.received.append({"type": "websocket.receive", "text": text})
    await driven.run()
    sent = [one.get("text") or one.get("bytes") for one in driven.sent[1:]]
    assert sent == ["a", b"rate_limit_exceeded", "d", b"rate_limit_exceeded", b"message_too_large"]


@pytest.mark.parametrize("mode", ["drop", "close"])
async def test_the_other_ways_with_excess(mode: str) -> None:
    chat = echo(WebSocketLimits(messages_per_minute=1), on_excess=mode)
    driven = Driven(chat, "a", "b", "c")
    assert await driven.run() == ["a"]
    closes = [one for one in driven.sent if one["type"] == "websocket.close"]
    assert closes == (
        []
        if mode == "drop"
        else [
            {
                "type": "websocket.close",
                "code": 1008,
                "reason": "Rate limit exceeded; retry after 60",
            }
        ]
    )


async def test_too_many_refusals_close() -> None:
    chat = echo(WebSocketLimits(messages_per_minute=1), max_refusals="2/minute")
    driven = Driven(chat, "a", "b", "c", "d", "e")
    assert len(await driven.run()) == 2  # an echo and a notice
    assert driven.sent[-1]["code"] == 1008


async def test_after_a_limit_s_close_the_consumer_is_heard_no_more() -> None:
    async def disconnect(self: Any, code: int) -> None:
        await self.send(text_data="and one thing more")  # a server would raise

    chat = echo(WebSocketLimits(messages_per_minute=1), on_excess="close", disconnect=disconnect)
    driven = Driven(chat, "a", "b", "c")
    assert await driven.run() == ["a"]
    assert driven.sent[-1]["type"] == "websocket.close"


async def test_a_refused_connection_is_accepted_and_closed() -> None:
    called: list[str] = []

    async def connect(self: Any) -> None:
        called.append("connect")
        await self.accept()

    async def disconnect(self: Any, code: int) -> None:
        called.append("disconnect")

    chat = echo(ONE, connect=connect, disconnect=disconnect)
    assert await chat.rate_limiter.register_connection("other", "ip")
    driven = Driven(chat, "a")
    driven.scope["subprotocols"] = ["chat", "other"]
    await driven.run()
    assert driven.sent == [
        {"type": "websocket.accept", "subprotocol": "chat"},
        {"type": "websocket.close", "code": 1008, "reason": "Rate limit exceeded"},
    ]
    gone = Driven(chat, "a")
    gone.broken = True
    await gone.run()
    assert called == []
    await chat.rate_limiter.unregister_connection("other")
    await Driven(chat, "a").run()
    assert called == ["connect", "disconnect"]


@pytest.mark.parametrize("failure", [LookupError, asyncio.CancelledError])
@pytest.mark.parametrize("place", ["connect", "receive", "disconnect"])
async def test_a_consumer_that_fails_gives_its_place_back(
    failure: type[BaseException], place: str
) -> None:
    async def fails(self: Any, *about: Any, **more: Any) -> None:
        # the place is given back before an application's own farewell, which may take long
        expected = 0 if place == "disconnect" else 1
        assert await self.rate_limiter.limiter.count("ip") == expected
        raise failure

    chat = echo(ONE, **{place: fails})
    for _ in range(2):
        driven = Driven(chat, "a")
        with pytest.raises(failure):  # in a task that lives on
            await driven.app(driven.scope, driven.receive, driven.send)
        assert await chat.rate_limiter.limiter.count("ip") == 0
        assert chat.rate_limiter._watches == {}


async def test_a_cancelled_consumer_gives_its_place_back() -> None:
    chat = echo(ONE)
    driven = Driven(chat)

    async def silent() -> Any:
        if driven.received:
            return driven.received.pop(0)
        return await asyncio.sleep(3600)

    driven.receive = silent  # type: ignore[method-assign]
    task = asyncio.create_task(driven.app(driven.scope, driven.receive, driven.send))
    while not driven.sent:
        await asyncio.sleep(0)
    assert await chat.rate_limiter.limiter.count("ip") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_free(chat.rate_limiter)
    assert chat.rate_limiter._watches == {}


@pytest.mark.parametrize(("client", "key"), [(["::1", 5], "::1"), (None, "unknown")])
async def test_a_client_is_its_address_or_unknown(client: Any, key: str) -> None:
    seen: list[int] = []

    async def connect(self: Any) -> None:
        seen.append(self.rate_limiter.limiter.get_client_connections(key))

    await Driven(echo(connect=connect), client=client).run()
    assert seen == [1]


@pytest.mark.parametrize("answer", [None, 1.5, LookupError()])
async def test_who_is_nobody_is_refused_and_logged(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def get_client_id(self: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    driven = Driven(echo(get_client_id=get_client_id), "a")
    await driven.run()
    assert driven.sent[-1]["code"] == 1008
    assert len(caplog.records) == 1


async def test_binary_and_empty_frames() -> None:
    chat = echo(WebSocketLimits(max_message_size=2))
    driven = Driven(chat, b"12", b"123", "")
    driven.received.append({"type": "websocket.receive", "text": None, "bytes": b"123"})
    await driven.run()
    assert [one.get("bytes") or one.get("text") for one in driven.sent[1:]] == [
        b"12",
        json.dumps(
            {
                "error": "rate_limited",
                "reason": "message_too_large",
                "retry_after": None,
                "limit": 2,
            }
        ),
        "",
    ]


def test_without_channels_the_error_names_the_command() -> None:
    for use in (
        "sluicegate.ChannelsRateLimiter()",
        "type('Chat', (sluicegate.RateLimitedConsumerMixin,), {})",
    ):
        program = (
            "import sys; sys.modules['channels'] = None\n"
            "import sluicegate\n"
            f"try: {use}\n"
            "except ImportError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert 'pip install "sluicegate[channels]"' in done.stdout
