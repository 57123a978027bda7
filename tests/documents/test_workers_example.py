"""The example of one limit over several workers, under the servers that it names."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

import serving
from documents.programs import ROOT
from sluicegate import SharedMemoryStore

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "docs" / "examples"
SECONDS = 30.0

Serving = Callable[[str], serving.Server]


@pytest.fixture(params=["uvicorn", "gunicorn", "gunicorn --preload"])
def serve_it(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Serves the example by four workers over a store."""
    kind, *options = request.param.split()
    serve = getattr(serving, kind)
    with ExitStack() as stack:
        yield lambda store: stack.enter_context(
            serve(
                *("workers:app", "--workers", "4", *options),
                env={"LIMITS_STORE": store},
                app_dir=EXAMPLES,
            )
        )


async def test_one_limit(serve_it: Serving, tmp_path: Path) -> None:
    server = serve_it(f"shm://{tmp_path}/app?size=16MB")
    await until_all_are_there(tmp_path / "app")

    async with httpx.AsyncClient(timeout=SECONDS) as http:
        answers = await asyncio.gather(*(http.get(server.http) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {200: 50, 429: 50}

    # messages, by fifteen connections to whichever workers
    sockets = [await connect(f"{server.ws}/ws", open_timeout=SECONDS) for _ in range(15)]
    try:
        outcomes = await asyncio.gather(*(talk(socket, 20) for socket in sockets))
    finally:
        await asyncio.gather(*(socket.close() for socket in sockets))
    admitted = [worker for outcome in outcomes for worker in outcome]
    assert len(admitted) == 100
    assert len(set(admitted)) > 1, "one worker had all connections: this showed nothing"
    assert "each counts in its own memory" not in server.log()


async def test_the_same_in_memory_is_a_limit_a_worker(serve_it: Serving) -> None:
    """What the file is for; and the test above can fail."""
    server = serve_it("memory://")
    workers: set[str] = set()
    admitted = 0
    give_up = asyncio.get_running_loop().time() + SECONDS
    while len(workers) < 2:
        assert asyncio.get_running_loop().time() < give_up, server.log()
        sockets = [await connect(f"{server.ws}/ws", open_timeout=SECONDS) for _ in range(15)]
        try:
            outcomes = await asyncio.gather(*(talk(socket, 20) for socket in sockets))
        finally:
            await asyncio.gather(*(socket.close() for socket in sockets))
        for outcome in outcomes:
            workers.update(outcome)
            admitted += len(outcome)
    assert admitted > 100
    assert 'store="shm://..."' in server.log()


async def until_all_are_there(path: Path) -> None:
    """Waits until four workers have the file open."""
    give_up = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < give_up:
        if path.exists() and SharedMemoryStore(path, make=False).processes >= 5:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the workers did not all open the file")


async def talk(socket: Any, count: int) -> list[str]:
    """Sends so many messages; the workers that sent them back."""
    for n in range(count):
        await socket.send(f"message {n}")
    workers = []
    try:
        while len(workers) < count:
            # a refused message is told of once, and the others are left out in silence
            text = str(await asyncio.wait_for(socket.recv(), 1))
            if text.startswith("{"):
                assert json.loads(text)["error"] == "rate_limited"
            else:
                workers.append(text.split()[0])
    except asyncio.TimeoutError:
        pass
    return workers
