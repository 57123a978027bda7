"""The WebSocket that feeds the page: samples out, and nothing of what comes in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from sluicegate.observe.live import Sampler

from ..types import Receive, Send
from .answers import REFUSED

__all__ = ["Feed"]

WAITING = 8  # samples; a slow page misses the rest
VIEWERS = 50  # pages at once
HEARD = 16  # messages of a page, which has nothing to say
STALLED_SECONDS = 20.0  # a page that takes nothing for so long is gone


class _Viewer:
    """What waits to be sent to one page."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue(WAITING)

    def offer(self, text: str) -> bool:
        try:
            self.queue.put_nowait(text)
        except asyncio.QueueFull:
            return False
        return True


class Feed:
    """Hands samples to pages; takes none while there is no page."""

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._sampler = Sampler(read)
        self._sampling: asyncio.Task[None] | None = None
        self._viewers = 0

    async def serve(self, receive: Receive, send: Send) -> None:
        """One page, from accept to its end."""
        if self._viewers >= VIEWERS:
            await send(REFUSED)
            return
        self._viewers += 1
        viewer = _Viewer()
        try:
            await send({"type": "websocket.accept"})
            viewer.offer(json.dumps({"type": "history", "samples": self._sampler.history()}))
            self._sampler.watch(viewer)
            self._keep_sampling()
            await _first_of(_read(receive, send), _write(viewer, send))
        finally:
            self._sampler.forget(viewer)
            self._viewers -= 1

    def _keep_sampling(self) -> None:
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.ensure_future(self._sampler.run_while_watched())


async def _read(receive: Receive, send: Send) -> None:
    for _ in range(HEARD):
        if (await receive())["type"] == "websocket.disconnect":
            return
    await send(REFUSED)


async def _write(viewer: _Viewer, send: Send) -> None:
    while True:
        text = await viewer.queue.get()
        try:
            message = {"type": "websocket.send", "text": text}
            await asyncio.wait_for(send(message), STALLED_SECONDS)
        except (asyncio.TimeoutError, OSError, RuntimeError):
            return  # it has gone; servers say so in their own ways


async def _first_of(*coroutines: Any) -> None:
    """Until one has ended; the other is cancelled."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
