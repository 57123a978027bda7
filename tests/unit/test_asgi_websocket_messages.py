"""Messages of WebSockets under the middleware's rules, on a clock and without a server."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from calling import Dialog, echo, turns
from sluicegate import MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.testing import Clock, record
from sluicegate.websocket import gone


class Door:
    """A middleware on a clock, in front of an echo."""

    def __init__(self, *rules: Rule, app: Any = echo, **options: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.app = RateLimitMiddleware(
            app, backend=self.store, config={"^/ws": list(rules)}, **options
        )

    def client(self, host: str = "203.0.113.9", **scope: Any) -> Dialog:
        return Dialog(self.app, client=(host, 1), **scope)

    async def pass_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turns()


def closed(messages: list[dict[str, Any]]) -> tuple[int, str]:
    """Code and reason of the close that is the last of them."""
    assert messages[-1]["type"] == "websocket.close"
    return messages[-1]["code"], messages[-1]["reason"]


async def test_what_is_within_the_limits_comes_through_as_it_is() -> None:
    door = Door(Rule(messages="3/minute", bytes="1KB/minute", max_message_size=9))
    async with door.client() as client:
        client.put("text", b"\0\xff", "")
        await turns()
        assert client.sent() == [
            {"type": "websocket.send", "text": "text"},
            {"type": "websocket.send", "bytes": b"\0\xff"},
            {"type": "websocket.send", "text": ""},
        ]


async def test_close_says_when_to_come_again() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noted() -> Any:
            got.append(message := await receive())
            return message

        await echo(scope, noted, send)

    door = Door(Rule(messages="5/minute"), app=app)
    async with door.client() as client:
        client.put(*"abcdefgh")
        await turns()
        sent = client.sent()
        assert [one.get("text") for one in sent[:-1]] == list("abcde")
        assert closed(sent) == (1008, "Rate limit exceeded; retry after 12")
        await client.over()
    assert [one.get("text") for one in got] == [None, *"abcde", None]
    assert got[-1]["type"] == "websocket.disconnect"


async def test_messages_are_limited_over_all_connections_of_a_user() -> None:
    door = Door(Rule(messages="4/minute", on_excess="drop"))
    async with door.client() as one, door.client() as two, door.client("203.0.113.10") as other:
        one.put(*"abc")
        assert await one.texts() == ["a", "b", "c"]
        two.put(*"def")
        assert await two.texts() == ["d"]
        other.put(*"ghijk")
        assert await other.texts() == ["g", "h", "i", "j"]


async def test_several_rates_and_a_burst_are_one_decision() -> None:
    door = Door(Rule(messages="1/second burst 3; 5/minute using sliding-log", on_excess="drop"))
    async with door.client() as client:
        for seconds, expected in ((1, 3), (1, 1), (1, 1), (1, 0), (56, 0), (1, 3)):
            client.put(*"xxxx")
            assert len(await client.texts()) == expected
            await door.pass_by(seconds)


async def test_bytes_are_those_of_utf8_and_a_refused_message_takes_none() -> None:
    door = Door(Rule(messages="10/minute", bytes="1000/minute", on_excess="drop"))
    async with door.client() as client:
        for text, passes in (("é" * 300, 1), ("x" * 600, 0), (b"x" * 400, 1), ("x", 0), ("", 1)):
            client.put(text)
            await turns()
            assert len(client.sent()) == passes


async def test_bytes_alone_close_too() -> None:
    door = Door(Rule(bytes="10/minute"))
    async with door.client() as client:
        client.put("x" * 10, "x")
        await turns()
        assert closed(client.sent()) == (1008, "Rate limit exceeded; retry after 6")


@pytest.mark.parametrize(("size", "most"), [("1KB", 1024), (7, 7)])
async def test_what_is_too_large_closes_with_1009(size: Any, most: int) -> None:
    door = Door(Rule(max_message_size=size))
    async with door.client() as client:
        client.put("x" * most, b"x" * most, "é" * (most // 2) + "x" * (most % 2), "x" * (most + 1))
        await turns()
        sent = client.sent()
        assert len(sent) == 4
        assert closed(sent) == (1009, "Message too large")


async def test_what_is_too_large_charges_nothing() -> None:
    door = Door(Rule(max_message_size=5, messages="2/minute", on_excess="drop"))
    async with door.client() as client:
        client.put("too large", "a", "too large", "b", "c")
        assert await client.texts() == ["a", "b"]


async def test_after_a_close_the_application_is_told_and_its_answers_are_lost() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

        async def listen() -> None:
            told.append(await receive())

        listening = asyncio.ensure_future(listen())
        while not told and not listening.done():
            await send({"type": "websocket.send", "text": "tick"})
        told.append(await receive())  # again, as often as it asks
        with pytest.raises(OSError, match="closed this WebSocket"):
            await send({"type": "websocket.send", "text": "tock"})
        await send({"type": "websocket.close"})  # as well-behaved ones do
        await listening

    door = Door(Rule(messages="1/minute"), app=app)
    async with door.client() as client:
        client.put("a", "b")
        await client.over()
        sent = client.sent()
    assert closed(sent) == (1008, "Rate limit exceeded; retry after 60")
    assert {one.get("text") for one in sent[:-1]} <= {"tick"}
    disconnect = {
        "type": "websocket.disconnect",
        "code": 1008,
        "reason": "Rate limit exceeded; retry after 60",
    }
    assert told == [disconnect, disconnect]


async def test_after_a_close_what_still_comes_is_read_out() -> None:
    """A server that waits for its application would not come to the client's answer else."""

    class Waiting(Dialog):
        def leave(self, code: int = 1000) -> None:
            if "more" not in self.scope:  # the answer is behind these
                self.scope["more"] = True
                self.put(*(str(n) for n in range(100)))
            super().leave(code)

    door = Door(Rule(messages="1/minute"))
    async with Waiting(door.app) as client:
        client.put("a", "b")
        await client.over()
        assert client.taken == 1 + 2 + 100 + 1


# ---- notify


async def test_notify_tells_once_in_a_retry_after() -> None:
    door = Door(Rule(messages="6/minute burst 2", on_excess="notify"))
    async with door.client() as client:
        client.put(*"abcde")
        texts = await client.texts()
        assert texts[:2] == ["a", "b"]
        assert [json.loads(text) for text in texts[2:]] == [
            {
                "error": "rate_limited",
                "reason": "rate_limit_exceeded",
                "retry_after": 10,
                "limit": 6,
            }
        ]
        await door.pass_by(9.5)
        client.put("f")
        assert await client.texts() == []
        await door.pass_by(0.5)
        client.put("g", "h")
        first, second = await client.texts()
        assert (first, json.loads(second)["retry_after"]) == ("g", 10)


@pytest.mark.parametrize(
    ("rule", "sent", "reason", "retry_after", "limit"),
    [
        (Rule(bytes="10/minute", on_excess="notify"), "x" * 9, "bandwidth_exceeded", 48, 10),
        (Rule(max_message_size=5, on_excess="notify"), "x" * 6, "message_too_large", None, 5),
    ],
)
async def test_notify_says_what_it_was(
    rule: Rule, sent: str, reason: str, retry_after: int | None, limit: int
) -> None:
    door = Door(rule)
    async with door.client() as client:
        client.put(sent, sent)
        told = json.loads((await client.texts())[-1])
    assert told == {
        "error": "rate_limited",
        "reason": reason,
        "retry_after": retry_after,
        "limit": limit,
    }


@pytest.mark.parametrize("made", ["slow down", b"slow", {"slow": "down"}])
async def test_notify_may_be_ones_own(made: Any) -> None:
    asked = []

    def notify(notice: dict[str, Any]) -> Any:
        asked.append(notice["retry_after"])
        return made

    door = Door(Rule(messages="1/minute", on_excess="notify", notify=notify))
    async with door.client() as client:
        client.put("a", "b")
        await turns()
        notice = client.sent()[1]
    assert asked == [60]
    if isinstance(made, bytes):
        assert notice == {"type": "websocket.send", "bytes": made}
    else:
        text = made if isinstance(made, str) else json.dumps(made)
        assert notice == {"type": "websocket.send", "text": text}


# ---- delay


async def test_delay_holds_back_and_lets_through_in_time_and_order() -> None:
    door = Door(Rule(messages="1/second burst 2", on_excess="delay"))
    async with door.client() as client:
        client.put(*"abcdef")
        assert await client.texts() == ["a", "b"]
        for n, text in enumerate("cdef"):
            await door.pass_by(0.75)
            assert await client.texts() == []
            assert client.taken <= 1 + 3 + n + 1  # the held one, and one ahead of it
            await door.pass_by(0.25)
            assert await client.texts() == [text]


async def test_delay_reads_no_further_than_one_message() -> None:
    door = Door(Rule(messages="1/minute", on_excess="delay", max_delay=100))
    async with door.client() as client:
        client.put(*(str(n) for n in range(1000)))
        for _ in range(5):
            await door.pass_by(10)
        assert client.taken == 1 + 1 + 1 + 1  # connect, admitted, held, one ahead
        client.leave()
        client.task.cancel()
        with suppress(asyncio.CancelledError):
            await client.task
        with pytest.raises(asyncio.CancelledError):
            client.task.result()
        client.task = asyncio.ensure_future(asyncio.sleep(0))


async def test_delay_sees_that_the_client_has_gone() -> None:
    door = Door(Rule(messages="1/minute", concurrent=1, on_excess="delay", max_delay=100))
    async with door.client() as client:
        client.put("a", "b")
        await turns()
        assert not (await enters(door))
        client.leave(1001)
        await client.over()  # with no time gone by
        assert [one.get("text") for one in client.sent()] == ["a"]
        assert await enters(door)
    assert door.clock.waiting == 0


async def test_delay_sees_it_behind_what_was_sent_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn has read on, and its disconnect stands behind that."""
    monkeypatch.setattr(gone, "LOOK", 0.01)
    door = Door(Rule(messages="1/minute", concurrent=1, on_excess="delay", max_delay=100))
    async with door.client() as client:
        client.put(*"abcdefgh")
        await asyncio.sleep(0.05)  # some looks
        assert not (await enters(door))
        assert client.taken == 1 + 2 + 1, "nothing was left out"
        client.leave(1001)
        client.disconnected = True  # as uvicorn's protocols say it
        await client.over()  # with no time gone by
        assert [one.get("text") for one in client.sent()] == ["a"]
        assert await enters(door)
    assert door.clock.waiting == 0


async def enters(door: Door) -> bool:
    async with door.client() as client:
        return client.accepted


async def test_delay_longer_than_max_delay_closes() -> None:
    door = Door(Rule(messages="6/minute burst 1", on_excess="delay", max_delay=9.5))
    async with door.client() as client:
        client.put("a", "b")
        await turns()
        assert closed(client.sent()) == (1008, "Rate limit exceeded; retry after 10")
    door = Door(Rule(messages="6/minute burst 1", on_excess="delay"))  # 10 seconds
    async with door.client() as client:
        client.put("a", "b")
        await turns()
        await door.pass_by(10)
        assert await client.texts() == ["a", "b"]


async def test_delay_is_no_way_round_what_can_never_pass() -> None:
    door = Door(Rule(bytes="10/minute", max_message_size=100, on_excess="delay"))
    async with door.client() as client:
        client.put("x" * 11)
        await turns()
        assert closed(client.sent()) == (1008, "Rate limit exceeded")
    async with door.client() as client:
        client.put("x" * 101)
        await turns()
        assert closed(client.sent())[0] == 1009


async def test_a_receive_that_is_cancelled_loses_no_message() -> None:
    got: list[str] = []

    async def impatient(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            task = asyncio.ensure_future(receive())
            await turns(7)
            if not task.done():
                task.cancel()
            with suppress(asyncio.CancelledError):
                message = await task
                if message["type"] == "websocket.disconnect":
                    return
                got.append(message["text"])

    door = Door(
        Rule(messages="1/second", on_excess="delay", max_refusals="3/minute"), app=impatient
    )
    async with door.client() as client:
        client.put(*"abcd")
        for _ in range(8):
            await door.pass_by(0.5)
            await turns(100)
        assert got == list("abcd")
        assert client.sent() == []  # however often it was asked for, each was refused once


async def test_what_the_server_raises_while_one_is_delayed_goes_on() -> None:
    class Broken(Exception):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(Broken):
            while True:
                await receive()

    door = Door(Rule(messages="1/minute", on_excess="delay", max_delay=100), app=app)

    class Breaking(Dialog):
        async def receive(self) -> dict[str, Any]:
            if self.taken == 3:
                raise Broken
            return await super().receive()

    client = Breaking(door.app)
    async with client:
        client.put("a", "b")
        await client.over()


# ---- refused too often


@pytest.mark.parametrize("on_excess", ["drop", "notify"])
async def test_a_connection_that_is_refused_too_often_is_closed(on_excess: Any) -> None:
    door = Door(Rule(messages="1/minute", max_refusals="3/minute", on_excess=on_excess))
    async with door.client() as one, door.client() as other:
        one.put(*"abcd")
        await turns()
        assert all(message["type"] == "websocket.send" for message in one.sent())
        one.put("e")
        await turns()
        assert closed(one.sent()) == (1008, "Rate limit exceeded; retry after 60")
        other.put(*"abc")  # of the same user, and no worse than before
        await turns()
        assert all(message["type"] == "websocket.send" for message in other.sent())


async def test_refusals_by_size_count_too() -> None:
    door = Door(Rule(max_message_size=1, max_refusals="1/minute", on_excess="drop"))
    async with door.client() as client:
        client.put("xx", "xx")
        await turns()
        assert closed(client.sent())[0] == 1009


# ---- cost


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_message_may_cost_more(asynchronous: bool) -> None:
    def cost(event: dict[str, Any]) -> int:
        if event["type"] == "websocket":
            return 1
        assert event["type"] == "websocket.receive"
        return 10 if event["text"].startswith("search") else 0 if event["text"] == "free" else 1

    async def cost_later(event: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return cost(event)

    rule = Rule(
        messages="12/minute",
        bytes="1KB/minute",
        on_excess="drop",
        cost=cost_later if asynchronous else cost,
    )
    door = Door(rule)
    async with door.client() as client:
        client.put("search a", "search b", "x", "free", "y", "z", "free")
        assert await client.texts() == ["search a", "x", "free", "y", "free"]


# ---- many


@pytest.mark.parametrize("on_excess", ["drop", "notify", "close"])
async def test_a_flood_leaves_the_loop_to_others(on_excess: Any) -> None:
    door = Door(Rule(messages="5/minute", on_excess=on_excess))
    turned = 0

    async def tick() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    async with door.client() as client:
        ticking = asyncio.ensure_future(tick())
        client.put(*["x"] * 5000)
        client.leave()
        await client.over()
        ticking.cancel()
    assert turned > 4500
    assert len(client.sent()) in (5, 6)


# ---- several rules


async def test_rules_of_several_keys_are_one_decision() -> None:
    door = Door(
        Rule(messages="3/minute", on_excess="drop"),
        Rule(key="app", messages="4/minute", on_excess="notify"),
    )
    async with door.client() as one, door.client("203.0.113.10") as two:
        one.put(*"abcd")  # the fourth is refused by the user's rule, and costs the app nothing
        assert await one.texts() == ["a", "b", "c"]
        two.put(*"ef")
        texts = await two.texts()
        assert texts[0] == "e"
        assert json.loads(texts[1])["limit"] == 4
        await door.pass_by(15)
        one.put("g")
        assert await one.texts() == []
        await door.pass_by(5)
        one.put("h")
        assert await one.texts() == ["h"]


async def test_a_shadow_rule_counts_and_holds_nothing_back() -> None:
    door = Door(
        Rule(messages="2/minute", max_message_size=1, shadow=True),
        Rule(messages="4/minute", on_excess="drop"),
    )
    async with door.client() as client:
        with record() as decisions:
            client.put(*"abcd", "efg")
            assert await client.texts() == ["a", "b", "c", "d"]
    shadows = [one for one in decisions if "shadow" in str(one.limiter.name)]
    assert [one.decision.allowed for one in shadows] == [True] * 5
    assert [one.decision.shadow for one in shadows] == [False, False, True, True, True]
    assert {one.limiter.name for one in shadows} == {"asgi:messages:shadow:gcra"}


async def test_every_limit_is_the_cores() -> None:
    door = Door(Rule(messages="2/minute", on_excess="drop"))
    async with door.client() as client:
        with record() as decisions:
            client.put(*"abc")
            await turns()
    assert [one.decision.allowed for one in decisions] == [True, True, False]
    assert {(one.limiter.name, one.key) for one in decisions} == {
        ("asgi:messages:gcra", "pattern:* 203.0.113.9 ^/ws")
    }
