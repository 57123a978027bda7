"""`sluicegate flood` against real servers: its figures are the server's."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

import serving
from demo.helpers import SECONDS, Start, decisions, metric
from sluicegate.cli.pressing import NobodyThereError, Plan, Tally, press
from sluicegate.cli.replies import default_judge, judge_by

pytestmark = pytest.mark.server


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "sluicegate.cli", "flood", *arguments]


def flood(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=SECONDS)


def flood_json(*arguments: str) -> dict[str, Any]:
    done = flood(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1  # one object, and nothing else
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_its_figures_are_the_servers(start_demo: Start) -> None:
    server = start_demo("--messages", "5/second burst 20")
    figures = flood_json(f"{server.ws}/chat", "--rate", "100", "--duration", "3")
    assert figures["sent"] == 300
    assert figures["admitted"] == decisions(server, "admitted")
    assert figures["refused"] == decisions(server, "refused")
    assert figures["admitted"] + figures["refused"] == 300
    assert figures["unanswered"] == figures["errors"] == 0
    assert 20 + 5 * 2 <= figures["admitted"] <= 20 + 5 * (figures["elapsed"] + 2.5)
    assert figures["reasons"] == {"rate_limit_exceeded": figures["refused"]}
    series = figures["series"]
    for name in ("sent", "admitted", "refused"):
        assert sum(series[name]) == figures[name]
    # Paced: 10 in each tenth of a second, give or take the edges, and none early.
    sent = 0
    for i, count in enumerate(series["sent"]):
        sent += count
        assert sent <= 10 * (i + 1) + 1


def test_many_connections_share_the_rate(start_demo: Start) -> None:
    server = start_demo("--messages", "30/day", "--concurrent", "8")
    figures = flood_json(
        f"{server.ws}/chat", "--rate", "120", "--duration", "1", "--connections", "6"
    )
    assert (figures["opened"], figures["sent"]) == (6, 120)
    assert (figures["admitted"], figures["refused"]) == (30, 90)
    assert decisions(server, "admitted") == 30


def test_connections_above_the_limit_are_counted_by_close_code(start_demo: Start) -> None:
    server = start_demo("--concurrent", "2")
    figures = flood_json(f"{server.ws}/chat", "--connections", "5", "--duration", "0.5")
    assert figures["closed"] == {"1008": 3}
    assert figures["sent"] == figures["admitted"] + figures["refused"]
    turned_away = metric(
        server, "sluicegate_violations_total", limiter="chat", type="concurrent_connections"
    )
    assert turned_away == 3


def test_sizes_and_texts(start_demo: Start) -> None:
    server = start_demo("--messages", "1000/second", "--max-message-size", "100")
    url = f"{server.ws}/chat"
    assert flood_json(url, "--duration", "0.2", "--size", "100")["refused"] == 0
    figures = flood_json(url, "--duration", "0.2", "--size", "101")
    assert (figures["admitted"], figures["refused"]) == (0, 10)
    assert figures["reasons"] == {"message_too_large": 10}
    figures = flood_json(url, "--duration", "0.2", "--raw", "no json")
    assert (figures["admitted"], figures["errors"]) == (0, 10)  # no limit refused these
    assert flood_json(url, "--duration", "0.2", "--message", "hi")["admitted"] == 10


def test_for_a_person(start_demo: Start) -> None:
    server = start_demo("--messages", "5/day")
    done = flood(f"{server.ws}/chat", "--duration", "0.5", "--rate", "40")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout  # no colours where no terminal is
    for words in ("sent", "admitted", "seconds", "rate_limit_exceeded 15"):
        assert words in done.stdout
    assert any("⠉" in line or "⣀" in line or "⠒" in line for line in done.stdout.splitlines())


def test_an_interrupt_tells_what_came_so_far(start_demo: Start) -> None:
    server = start_demo("--messages", "1000/second")
    running = subprocess.Popen(
        command(f"{server.ws}/chat", "--duration", "600", "--rate", "50", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        give_up = time.monotonic() + SECONDS
        while decisions(server, "admitted") < 20:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        printed, complaints = running.communicate(timeout=SECONDS)
    finally:
        running.kill()
        running.communicate()
    assert (running.returncode, complaints) == (0, "")
    figures = json.loads(printed)
    assert figures["interrupted"] is True
    assert figures["sent"] == figures["admitted"] == decisions(server, "admitted") >= 20
    assert figures["sent"] <= 50 * (figures["elapsed"] + 0.1)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ws://127.0.0.1:{port}/chat", "start the server first"),
        ("127.0.0.1:{port}", "start the server first"),
        ("ws://no.such.host.invalid/chat", "the address right?"),
    ],
)
def test_nobody_there(url: str, says: str) -> None:
    done = flood(url.format(port=serving.free_port()), "--duration", "1", "--json")
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_the_wrong_path(start_demo: Start) -> None:
    done = flood(f"{start_demo().http}/nothing", "--duration", "1")
    assert done.returncode == 1
    assert "The demo's chat is at /chat" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ftp://127.0.0.1/chat",),
        ("ws://",),
        ("ws://[",),
        ("ws://127.0.0.1:99999/",),
        ("ws://127.0.0.1:1/", "--rate", "0"),
        ("ws://127.0.0.1:1/", "--rate", "nan"),
        ("ws://127.0.0.1:1/", "--duration", "-1"),
        ("ws://127.0.0.1:1/", "--connections", "0"),
        ("ws://127.0.0.1:1/", "--refused-if", "/(/"),
        ("ws://127.0.0.1:1/", "--refused-if", ""),
        ("ws://127.0.0.1:1/", "--message", "x", "--size", "20"),
    ],
)
def test_wrong_arguments_are_told_kindly(arguments: Sequence[str]) -> None:
    done = flood(*arguments)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


# ---- against servers of other kinds, in this process

Handler = Callable[[ServerConnection], Any]


@asynccontextmanager
async def server_of(handler: Handler) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


def plan(url: str, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "rate": 200.0,
        "connections": 2,
        "seconds": 0.2,
        "frame": str,
        "judge": default_judge,
    }
    return Plan(url=url, **{**settings, **changes})


async def pressed(wanted: Plan) -> Tally:
    tally = Tally(step=wanted.step)
    await asyncio.wait_for(press(wanted, tally, asyncio.Event()), SECONDS)
    assert tally.open == 0
    return tally


async def test_every_message_leaves_once_and_in_turn() -> None:
    got: list[int] = []

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            got.append(int(message))
            await connection.send(message)

    async with server_of(echo) as url:
        tally = await pressed(plan(url, connections=3))
    assert sorted(got) == list(range(40))
    assert (tally.sent, tally.admitted, tally.refused) == (40, 40, 0)


async def test_a_rule_tells_refusals() -> None:
    async def odd_ones_out(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(json.dumps({"ok": int(message) % 4 != 0}))

    async with server_of(odd_ones_out) as url:
        tally = await pressed(plan(url, judge=judge_by("ok=false")))
    assert (tally.admitted, tally.refused) == (30, 10)


async def test_a_server_that_closes_ends_it_early() -> None:
    async def three_and_out(connection: ServerConnection) -> None:
        for _ in range(3):
            await connection.send(await connection.recv())
        await connection.close(1013, "enough")

    async with server_of(three_and_out) as url:
        start = time.monotonic()
        tally = await pressed(plan(url, rate=50.0, seconds=60.0))
    assert time.monotonic() - start < 20
    assert tally.admitted == 6
    assert dict(tally.closed) == {1013: 2}


async def test_a_server_that_says_nothing_does_not_hold_it() -> None:
    async def mute(connection: ServerConnection) -> None:
        async for _ in connection:
            pass

    async with server_of(mute) as url:
        tally = await pressed(plan(url, grace=0.2))
    assert (tally.sent, tally.answered) == (40, 0)


async def test_a_server_that_reads_nothing_does_not_hold_it() -> None:
    free = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await free.wait()
        connection.transport.abort()

    def big(_: int) -> str:
        return "x" * 2**20

    async with server_of(deaf) as url:
        wanted = plan(url, rate=100.0, seconds=0.3, frame=big, grace=0.2, connections=1)
        tally = Tally(step=wanted.step)
        running = asyncio.ensure_future(press(wanted, tally, asyncio.Event()))
        await asyncio.wait_for(running, SECONDS)
        free.set()
    assert tally.sent < 30


async def test_nothing_but_tcp() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"go away\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NobodyThereError, match="WebSocket server"):
            await pressed(plan(f"ws://127.0.0.1:{port}/"))
