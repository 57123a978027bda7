"""Four workers of real servers behind one port: what they limit is one over all of them, where
the state is in shared memory, and one each, where it is in their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

import serving

pytestmark = pytest.mark.server

WORKERS = 4
SECONDS = 20.0
EACH = 40  # messages of a client: see workers_app.py
REQUESTS = 30

Serve = Callable[[str], serving.Server]


@pytest.fixture(params=["uvicorn", "gunicorn", "gunicorn --preload"])
def serve_it(request: pytest.FixtureRequest) -> Iterator[Serve]:
    kind, *options = request.param.split()
    with ExitStack() as stack:
        yield lambda store: stack.enter_context(
            getattr(serving, kind)(
                *("workers_app:app", "--workers", str(WORKERS), *options),
                env={"TEST_STORE": store},
                app_dir=Path(__file__).parent,
            )
        )


@asynccontextmanager
async def connected(
    server: serving.Server, path: str, gone: frozenset[str] = frozenset()
) -> AsyncIterator[dict[str, ClientConnection]]:
    """A connection to each worker, by its process id; to none of those that are gone."""
    found: dict[str, ClientConnection] = {}
    give_up = time.monotonic() + SECONDS
    async with AsyncExitStack() as stack:
        while len(found) < WORKERS:
            assert time.monotonic() < give_up, f"only {len(found)} workers: {server.log()}"
            try:
                one = await connect(f"{server.ws}{path}", open_timeout=SECONDS)
                pid = (await asyncio.wait_for(one.recv(), SECONDS)).split()[0]
            except (OSError, InvalidHandshake, ConnectionClosed):  # a worker that just ends
                await asyncio.sleep(0.05)
                continue
            stack.push_async_callback(one.close)
            if pid not in gone:
                found.setdefault(str(pid), one)
        yield found


async def admitted(connections: dict[str, ClientConnection], each: int) -> dict[str, int]:
    """Sends so many messages by each, all at once: those that each worker admitted."""

    async def talk(pid: str, one: ClientConnection) -> tuple[str, int]:
        yes = 0
        for _ in range(each):
            await one.send("x")
            answer = await asyncio.wait_for(one.recv(), SECONDS)
            assert answer in ("yes", "rate_limit_exceeded")
            yes += answer == "yes"
        return pid, yes

    return dict(await asyncio.gather(*(talk(pid, one) for pid, one in connections.items())))


async def echoed(connections: dict[str, ClientConnection], each: int) -> dict[str, int]:
    """The same where who is refused is told so once, and then no more."""

    async def talk(pid: str, one: ClientConnection) -> tuple[str, int]:
        for _ in range(each):
            await one.send("x")
        yes = 0
        try:
            while True:
                yes += await asyncio.wait_for(one.recv(), 0.5) == "yes"
        except asyncio.TimeoutError:
            return pid, yes

    return dict(await asyncio.gather(*(talk(pid, one) for pid, one in connections.items())))


async def requests(server: serving.Server, user: str, count: int) -> tuple[int, set[int]]:
    """So many requests of a user, each by a connection of its own: how many were admitted, and
    the workers that these met."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=SECONDS) as client:
        answers = [await client.get(f"{server.http}/http?user={user}") for _ in range(count)]
    good = [one.json()["pid"] for one in answers if one.status_code == 200]
    assert all(one.status_code in (200, 429) for one in answers)
    return len(good), set(good)


WAYS: list[tuple[str, Callable[..., Awaitable[dict[str, int]]]]] = [
    ("/plain/ada", admitted),
    ("/door/ada", admitted),
    ("/ws?user=ada", echoed),
]


async def test_one_quota_over_all_workers(serve_it: Serve, path: str) -> None:
    server = serve_it(f"shm://{path}?size=16MB")
    for way, send in WAYS:
        async with connected(server, way) as workers:
            found = await send(workers, 15 if send is echoed else EACH // 2)
            print(f"{way}: {found}")
            assert sum(found.values()) == EACH
            assert sum((await send(workers, 3)).values()) == 0
    count, met = await requests(server, "ada", 60)
    print(f"requests: {count} by {len(met)} workers")
    assert count == REQUESTS
    assert "counts in its own memory" not in server.log()

    # what the workers of tomorrow find
    before = frozenset(workers)
    server.process.send_signal(signal.SIGHUP)
    async with connected(server, "/plain/ada", before) as others:
        assert not before & set(others)
        assert sum((await admitted(others, 3)).values()) == 0
    assert (await requests(server, "ada", 8))[0] == 0
    assert (await requests(server, "bob", 40))[0] == REQUESTS


async def test_in_memory_each_worker_has_a_quota(serve_it: Serve) -> None:
    """What the test above would find without a file that they share."""
    server = serve_it("memory://")
    for way, send in WAYS:
        async with connected(server, way) as workers:
            found = await send(workers, EACH + 5)
        print(f"{way}: {found}")
        assert list(found.values()) == [EACH] * WORKERS
    assert f"this is one of {WORKERS} workers" in server.log()


async def test_places_are_one_limit_and_those_of_a_killed_worker_come_back(
    serve_it: Serve, path: str
) -> None:
    server = serve_it(f"shm://{path}?size=16MB")
    async with AsyncExitStack() as stack:
        held: dict[str, int] = {}
        refusing: set[str] = set()
        give_up = time.monotonic() + SECONDS
        while len(refusing) < WORKERS:  # till all of them have met the limit
            assert time.monotonic() < give_up, (held, refusing)
            one = await stack.enter_async_context(connect(f"{server.ws}/few/ada"))
            pid, outcome = str(await asyncio.wait_for(one.recv(), SECONDS)).split()
            if outcome == "refused":
                refusing.add(pid)
            elif held.get(pid, 0) < 3:
                held[pid] = held.get(pid, 0) + 1
            else:  # by another worker, if there is one
                await one.close()
        print(f"places: {held}")
        assert sum(held.values()) == 7
        told = await ask(server, "ada")
        print(f"one of them says: {told}")
        assert told["places"] == told["of client"] == told["at once"] == told["asked"] == 7
        assert told["clients"] == 1
        assert told["here"] == held.get(str(told["pid"]), 0)
        victim = max(held, key=lambda pid: held[pid])
        os.kill(int(victim), signal.SIGKILL)
        give_up = time.monotonic() + SECONDS
        while True:
            try:
                told = await ask(server, "ada")
            except httpx.TransportError:
                told = {"places": 7}
            if told["places"] == 7 - held[victim]:
                break
            assert time.monotonic() < give_up, (told, held)
            await asyncio.sleep(0.05)
    give_up = time.monotonic() + SECONDS
    while (await ask(server, "ada"))["places"] != 0:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


async def ask(server: serving.Server, client: str) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=SECONDS) as http:
        found: dict[str, Any] = (await http.get(f"{server.http}/told/{client}")).json()
        return found
