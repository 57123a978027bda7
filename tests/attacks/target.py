"""A server that is attacked, what it says of itself, and a well-behaved client beside it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

import serving

FRIEND = "198.51.100.1"
PATIENCE = 30.0  # seconds after which something hangs

_numbers = count(1)


def behind(address: str) -> str:
    """The header by which the proxy tells of a client."""
    return f"X-Forwarded-For: {address}\r\n"


def attacker() -> str:
    """An address that no other attack has."""
    high, low = divmod(next(_numbers), 250)
    return f"203.0.{high}.{low + 1}"


@dataclass
class Found:
    """What an attack came to."""

    pause: float = 0.0  # seconds that the loop ran nothing else, at the longest
    busy: float = 0.0  # seconds of the processor in such a one, at the most
    grown: int = 0  # bytes of memory that were not given back right after
    most: int = 0  # bytes of memory at the worst moment, above what there was before
    counts: dict[str, int] = field(default_factory=dict)  # of limiters and application
    held: int = 0  # keys whose places are taken
    rounds: int = 0  # that the well-behaved client made, all served
    slowest: float = 0.0  # seconds of the slowest of these
    sent: int = 0  # by the attacker
    closed: list[int | None] = field(default_factory=list)  # codes that its connections were told

    def took(self, what: str, name: str = "admitted") -> int:
        """A counter of a limiter."""
        return self.counts.get(f"{what} {name}", 0)


class Target:
    def __init__(self, server: serving.Server, control: ClientConnection) -> None:
        self.server = server
        self.port = server.port
        self._control = control

    async def ask(self, text: str) -> dict[str, Any]:
        await self._control.send(text)
        said: dict[str, Any] = json.loads(await asyncio.wait_for(self._control.recv(), PATIENCE))
        return said

    @asynccontextmanager
    async def attacked(self, *, friend: bool = True) -> AsyncIterator[Found]:
        """Measures what is done within, with a well-behaved client beside it."""
        found = Found()
        tasks = (await self.ask("start"))["tasks"]
        over = asyncio.Event()
        good = asyncio.ensure_future(self._behaves(found, over)) if friend else None
        try:
            yield found
        finally:
            over.set()
            if good is not None:
                await good
        said = await self.ask("stop")
        for name in ("pause", "busy", "grown", "most", "counts", "held"):
            setattr(found, name, said[name])
        # what watched the loop was one of them, and has ended, too
        await self.until(lambda said: said["tasks"] < tasks)

    async def _behaves(self, found: Found, over: asyncio.Event) -> None:
        """Says something, on a connection that is open and on a new one, and is answered."""
        url = f"{self.server.ws}/ws/friend"
        more: Any = {
            "additional_headers": {"X-Forwarded-For": FRIEND},
            "ping_interval": None,
            "open_timeout": PATIENCE,
        }
        async with connect(url, **more) as stays:
            while not (over.is_set() and found.rounds):
                began = time.monotonic()
                async with connect(url, **more) as comes:
                    for one in (stays, comes):
                        await one.send("hello")
                        assert await asyncio.wait_for(one.recv(), PATIENCE) == "hello"
                found.rounds += 1
                found.slowest = max(found.slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)

    async def until_free(self) -> None:
        """Until nobody holds a place."""
        await self.until(lambda said: not said["held"])

    async def until(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        """Until what the server says of itself is so."""
        give_up = time.monotonic() + PATIENCE
        while not reached(said := await self.ask("how")):
            assert time.monotonic() < give_up, f"it does not come to it: {said}"
            await asyncio.sleep(0.05)


@contextmanager
def serve(*options: str, ws: str = "websockets-sansio") -> Iterator[serving.Server]:
    """The application of app.py behind uvicorn; `options` are more of uvicorn's."""
    # its own reading of X-Forwarded-For is off: the rules' is what is tried
    chosen = ("--ws", ws, "--loop", "asyncio", "--http", "h11", "--no-proxy-headers", *options)
    with serving.uvicorn("attacks.app:app", *chosen) as server:
        yield server


@asynccontextmanager
async def at(server: serving.Server) -> AsyncIterator[Target]:
    async with connect(f"{server.ws}/watch", ping_interval=None, open_timeout=PATIENCE) as control:
        yield Target(server, control)


@asynccontextmanager
async def target(*options: str, ws: str = "websockets-sansio") -> AsyncIterator[Target]:
    """The same, in one."""
    with serve(*options, ws=ws) as server:
        async with at(server) as one:
            yield one
