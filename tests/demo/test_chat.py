"""The chat's WebSocket, from a real server to a real client."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from demo.helpers import SECONDS, Start, decisions, loads, metric

pytestmark = pytest.mark.server


def opening(server: Any, **options: Any) -> Any:
    return connect(f"{server.ws}/chat", proxy=None, compression=None, **options)


async def receive(client: ClientConnection) -> dict[str, Any]:
    return loads(await asyncio.wait_for(client.recv(), SECONDS))


async def say(client: ClientConnection, text: Any) -> dict[str, Any]:
    await client.send(json.dumps({"text": text}))
    return await receive(client)


async def press(client: ClientConnection, count: int, rate: float) -> tuple[list[str], float]:
    """Send at a steady rate; the types of the replies, and the time from first to last."""
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def send() -> None:
        for k in range(count):
            await asyncio.sleep(max(0.0, start + k / rate - loop.time()))
            await client.send(json.dumps({"text": f"{k}"}))

    sending = asyncio.ensure_future(send())
    replies = [(await receive(client))["type"] for _ in range(count)]
    await sending
    return replies, loop.time() - start


async def test_fifty_a_second_see_exactly_the_quota(start_demo: Start) -> None:
    # Too long a period for anything to come back meanwhile.
    server = start_demo("--messages", "20/day")
    async with opening(server) as client:
        replies, _ = await press(client, 100, 50.0)
    assert replies == ["message"] * 20 + ["limited"] * 80
    assert (decisions(server, "admitted"), decisions(server, "refused")) == (20, 80)


async def test_over_a_longer_run_the_quota_and_its_refill(start_demo: Start) -> None:
    server = start_demo("--messages", "10/second burst 15")
    async with opening(server) as client:
        replies, seconds = await press(client, 200, 50.0)
    admitted = replies.count("message")
    # The last message left at 3.98 s; of what came back by then, at most one was not asked for.
    assert 15 + int(10 * 199 / 50) - 1 <= admitted <= 15 + 10 * seconds
    assert decisions(server, "admitted") == admitted
    assert decisions(server, "refused") == 200 - admitted


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_each_address_has_its_own_allowance(start_demo: Start) -> None:
    server = start_demo("--messages", "5/day")

    async def one(address: str) -> list[str]:
        async with opening(server, local_addr=(address, 0)) as client:
            types = []
            for k in range(12):
                await client.send(json.dumps({"text": f"{k}"}))
                reply = await receive(client)
                while reply.get("own") is False:  # somebody else's
                    reply = await receive(client)
                types.append(reply["type"])
            return types

    results = await asyncio.gather(*(one(f"127.0.0.{10 + i}") for i in range(6)))
    assert results == [["message"] * 5 + ["limited"] * 7] * 6


async def test_a_refusal_says_when_and_is_right(start_demo: Start) -> None:
    server = start_demo("--messages", "2/second")
    async with opening(server) as client:
        for _ in range(50):
            reply = await say(client, "on")
            if reply["type"] == "limited":
                break
        assert reply["reason"] == "rate_limit_exceeded"
        assert 0 < reply["retry_after"] <= 0.5
        assert reply["allowance"]["remaining"] == 0
        assert reply["allowance"]["interval"] == 0.5
        await asyncio.sleep(reply["retry_after"])
        assert (await say(client, "again"))["type"] == "message"


async def test_tabs_talk_to_each_other_and_share_what_is_left(start_demo: Start) -> None:
    server = start_demo("--messages", "10/day")
    async with opening(server) as first, opening(server) as second:
        await first.send('{"type": "hello"}')
        welcome = await receive(first)
        assert welcome["type"] == "welcome"
        assert welcome["allowance"]["remaining"] == 10  # a hello is free
        mine = await say(second, "hello <b>you</b>")
        theirs = await receive(first)
        assert (mine["own"], theirs["own"]) == (True, False)
        assert theirs["text"] == "hello <b>you</b>"
        assert theirs["from"] == mine["from"] != welcome["you"]
        assert theirs["allowance"]["remaining"] == mine["allowance"]["remaining"] == 9
        # Only the first hello is free.
        await first.send('{"type": "hello"}')
        assert await receive(first) | {"allowance": None} == {
            "type": "error",
            "reason": "missing_text",
            "allowance": None,
        }
    async with opening(server) as third:
        await third.send('{"type": "hello"}')
        welcome = await receive(third)
        assert [message["text"] for message in welcome["recent"]] == ["hello <b>you</b>"]
        assert welcome["allowance"]["remaining"] == 8


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("not json", "invalid_json"),
        ("", "invalid_json"),
        ("[1]", "invalid_json"),
        ("[" * 3000, "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        ('{"texts": "x"}', "missing_text"),
        ('{"text": 5}', "missing_text"),
        ('{"text": "  "}', "missing_text"),
        ('{"text": null, "type": "message"}', "missing_text"),
    ],
)
async def test_junk_is_answered(start_demo: Start, frame: str | bytes, reason: str) -> None:
    server = start_demo()
    async with opening(server) as client:
        await client.send(frame)
        reply = await receive(client)
        assert (reply["type"], reply["reason"]) == ("error", reason)
        assert (await say(client, "still here"))["type"] == "message"
    assert decisions(server, "admitted") == 2  # junk is charged like anything else


async def test_binary_and_strange_texts_arrive(start_demo: Start) -> None:
    server = start_demo()
    async with opening(server) as client, opening(server) as other:
        await client.send(json.dumps({"text": "as bytes"}).encode())
        assert (await receive(client))["text"] == "as bytes"
        assert (await receive(other))["text"] == "as bytes"
        strange = "\ud800 \x00 \u202e </script> \U0001f600"
        assert (await say(client, strange))["text"] == strange
        assert (await receive(other))["text"] == strange


async def test_a_message_too_large_never_passes(start_demo: Start) -> None:
    server = start_demo("--max-message-size", "100")
    async with opening(server) as client:
        fits = json.dumps({"text": "x" * 88})
        assert len(fits) == 100
        await client.send(fits)
        assert (await receive(client))["type"] == "message"
        refused = await say(client, "x" * 89)
        assert refused["reason"] == "message_too_large"
        assert refused["retry_after"] is None
        assert refused["max_size"] == 100
        # Far above: the server ends the connection before it has read it.
        await client.send("x" * (2**20 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await receive(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_too_many_connections_are_closed_with_1008(start_demo: Start) -> None:
    server = start_demo("--concurrent", "3")
    clients = [await opening(server) for _ in range(3)]
    try:
        async with opening(server) as extra:
            with pytest.raises(ConnectionClosed) as closed:
                await receive(extra)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason == "Rate limit exceeded"
        # One that vanishes without a close frame gives its place back.
        clients.pop().transport.abort()
        give_up = time.monotonic() + SECONDS
        while metric(server, "sluicegate_connections", limiter="chat") > 2:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)
        clients.append(await opening(server))
        assert (await say(clients[-1], "in"))["type"] == "message"
    finally:
        for client in clients:
            await client.close()


async def test_too_many_connections_a_minute(start_demo: Start) -> None:
    server = start_demo("--connections", "4/day")
    codes = []
    for _ in range(6):
        async with opening(server) as client:
            try:
                await client.send('{"text": "x"}')
                codes.append((await receive(client))["type"])
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                codes.append(closed.rcvd.code)
    assert codes == ["message"] * 4 + [1008] * 2


@pytest.mark.parametrize("path", ["/chat", "/dashboard/feed"])
async def test_pages_of_others_are_kept_out(start_demo: Start, path: str) -> None:
    server = start_demo()
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port}.evil.example"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.ws + path, origin=origin, proxy=None)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
    async with connect(server.ws + path, origin=server.http, proxy=None):  # type: ignore[arg-type]
        pass


async def test_a_slow_reader_holds_up_nobody(start_demo: Start) -> None:
    server = start_demo("--messages", "1000000/second")
    text = "x" * 4000
    async with (
        opening(server, max_queue=1) as slow,
        opening(server) as quick,
        connect(f"{server.ws}/dashboard/feed", proxy=None) as feed,
    ):
        await asyncio.sleep(0)

        async def all_of_it() -> None:
            for _ in range(60):
                for _ in range(50):
                    await quick.send(json.dumps({"text": text}))
                for _ in range(50):
                    assert (await receive(quick))["own"]

        # 12 MB, none of which `slow` reads: far more than any socket buffer holds.
        await asyncio.wait_for(all_of_it(), SECONDS)
        give_up = time.monotonic() + SECONDS
        while loads(await asyncio.wait_for(feed.recv(), SECONDS)).get("missed", 0) == 0:
            assert time.monotonic() < give_up
        slow.transport.abort()


async def test_the_feed_moves_and_is_itself_limited(start_demo: Start) -> None:
    server = start_demo("--messages", "3/day")
    async with connect(f"{server.ws}/dashboard/feed", proxy=None) as feed:
        history = loads(await asyncio.wait_for(feed.recv(), SECONDS))
        assert history["type"] == "history"
        assert "messages 3/day" in history["limits"]
        async with opening(server) as client:
            for _ in range(10):
                await say(client, "x")
            give_up = time.monotonic() + SECONDS
            while True:
                sample = loads(await asyncio.wait_for(feed.recv(), SECONDS))
                if sample["refused"] == 7:
                    break
                assert time.monotonic() < give_up
        assert sample["admitted"] == 3
        assert sample["connections"] == 1
        assert sample["refused_rate"] > 0
        assert [row["key"] for row in sample["most_refused"]] == ["127.0.0.1"]
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(20):
                await feed.send("more!")
            for _ in range(20):  # samples that were on the way
                await asyncio.wait_for(feed.recv(), SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_nothing_stays_behind(start_demo: Start) -> None:
    server = start_demo("--connections", "100000/second", "--concurrent", "100")
    for _ in range(5):
        clients = [await opening(server) for _ in range(40)]
        for client in clients[::2]:
            client.transport.abort()
        await asyncio.gather(*(client.close() for client in clients[1::2]))
    give_up = time.monotonic() + SECONDS
    while metric(server, "sluicegate_connections", limiter="chat") > 0:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)
    server.stop()
    assert "Traceback" not in server.log()
    assert "Error" not in server.log()
