"""The loop on which threads ask servers: one for the process, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")

END = 2.0  # seconds that giving back what is held may take when the process ends

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget_parent() -> None:
    """A forked child has not its parent's thread; it makes its own when it needs one."""
    global _lock, _loop
    _lock = threading.Lock()
    _loop = None


os.register_at_fork(after_in_child=_forget_parent)


def _end() -> None:
    """A process that ends shuts this loop down as asyncio.run does its own: the stores' routers
    give back the slots that are held, and close their connections."""
    global _loop
    loop, _loop = _loop, None
    if loop is not None:
        done = asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)
        with suppress(Exception):
            done.result(END)


atexit.register(_end)


def _background() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="sluicegate-store", daemon=True)
            thread.start()
            _loop = loop
        return _loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it comes to; blocks this thread, never a loop. RuntimeError on that very loop."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is not None:
        coroutine.close()
        raise RuntimeError(
            "sluicegate.sync over a server would block this event loop: "
            "await the limiter of `from sluicegate import Limiter` here"
        )
    future = asyncio.run_coroutine_threadsafe(coroutine, _background())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
