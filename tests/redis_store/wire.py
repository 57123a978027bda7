"""A limiter over a server that is not there: replies to what is sent are given by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sluicegate import _core

__all__ = [
    "ADMITTED", "NOW_US", "QUOTA", "Link", "Router", "Store", "admitted", "limiter_of", "refused",
    "turn",
]  # fmt: skip

NOW_US = 1_800_000_000_000_000
QUOTA = _core.Quota(60, 60, name="m")


def admitted(count: int) -> bytes:
    """The reply of a command of so many checks, of keys that are not there."""
    return b"*%d\r\n%b:%d\r\n" % (count + 1, b"$-1\r\n" * count, NOW_US)


ADMITTED = admitted(1)


def refused(seconds: int = 100) -> bytes:
    """The reply of a key that is full for some seconds more than QUOTA lets it be."""
    state = (NOW_US + (60 + seconds) * 1_000_000).to_bytes(7, "little") + bytes(2)
    return b"*2\r\n$9\r\n%b\r\n:%d\r\n" % (state, NOW_US)


async def turn() -> None:
    """What was asked leaves."""
    await asyncio.sleep(0)


class Link(_core.Link):
    def __init__(self, loop: asyncio.AbstractEventLoop, router: Any = None) -> None:
        super().__init__(loop, "redis://nowhere", router)
        self.sent = b""
        self.broken = 0

    def _flush(self) -> None:
        self.sent += self.take() or b""
        self.wrote()

    def _broken(self) -> None:
        self.broken += 1
        self.drop("nonsense")

    def _unfit(self, why: str) -> None:
        self.down = why


class Router(_core.Router):
    def __new__(cls, loop: asyncio.AbstractEventLoop) -> Router:
        return super().__new__(cls, loop)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.link = Link(loop, self)
        self._serve(self.link)
        self.laters = 0

    def _locate(self, slot: int) -> Link:
        return self.link

    def _redirected(self, ask: bool, slot: int, node: str) -> Link:
        return self.link

    def _later(self) -> None:
        self.laters += 1


class Store:
    """Hears what C tells a store, and does with it what it is told to."""

    def __init__(self) -> None:
        self.routers: dict[asyncio.AbstractEventLoop, Router] = {}
        self.heard: list[str] = []
        self.react: Callable[[], Any] = lambda: None
        _core.set_running_loop(asyncio.get_running_loop)

    def _router(self, loop: asyncio.AbstractEventLoop) -> Router:
        if loop not in self.routers:
            self.routers[loop] = Router(loop)
        return self.routers[loop]

    @property
    def link(self) -> Link:
        return self._router(asyncio.get_running_loop()).link

    def _degraded(self, name: str, why: str) -> None:
        self.heard.append(why)
        self.react()

    def _recovered(self, name: str) -> None:
        self.heard.append("recovered")
        self.react()

    def _other_shape(self, name: str) -> None:
        self.heard.append("other shape")
        self.react()


def limiter_of(store: Any, name: str = "n", **serve: Any) -> _core.Limiter:
    table = _core.Table(["gcra"])
    limiter = _core.Limiter(table, [QUOTA])
    limiter._serve(_core.Server(store, "sg", name, table), **serve)
    return limiter
