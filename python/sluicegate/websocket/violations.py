"""Violations: counted by type, and told to the application's callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .. import _core

__all__ = ["OnViolation", "Violations", "log"]

OnViolation = Callable[[dict[str, Any]], Any]

TYPES = ("concurrent_connections", "connection_rate", "message_size", "message_rate", "bandwidth")

TALLIES = 2  # of the table of places: the first that counts violations, after those of messages
PATIENCE = 1.0  # seconds that a decision waits for an async callback; then it runs on alone
RUNNING_MAX = 1000  # callbacks that run on; more are left out, and that is logged


class Violations:
    """Counts by type, and the callback. What the callback does changes no decision."""

    __slots__ = ("_full", "_running", "counts", "tallied")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(TYPES, 0)
        self.tallied: _core.Table | None = None  # where all processes count theirs
        self._running: set[asyncio.Task[None]] = set()
        self._full = False

    def count(self, kind: str) -> None:
        self.counts[kind] += 1
        if self.tallied is not None:
            self.tallied.tally(TALLIES + TYPES.index(kind))

    def of_all(self) -> dict[str, int]:
        """Counts by type: of all processes where they share memory, else of this one."""
        if self.tallied is None:
            return dict(self.counts)
        return dict(zip(TYPES, self.tallied.tallies()[TALLIES:], strict=False))

    async def tell(
        self,
        callback: OnViolation,
        kind: str,
        client_id: str | bytes,
        connection_id: Any,
        limit: int | None,
        retry_after: int | None,
    ) -> None:
        info = {
            "type": kind,
            "client_id": client_id,
            "connection_id": connection_id,
            "timestamp": time.time(),
            "limit": limit,
            "retry_after": retry_after,
        }
        try:
            result = callback(info)
        except Exception:
            log().exception("on_violation raised; the decision stands")
            return
        if hasattr(result, "__await__"):
            await self._run(result)

    async def _run(self, result: Any) -> None:
        """In a task of its own: neither a cancelled check nor a callback that hangs harms
        the other. It is waited for a while, so that a flood of refusals is slowed by it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _leave_out(result)
            log().error("an async on_violation needs a running asyncio loop; it was left out")
            return
        if len(self._running) >= RUNNING_MAX:
            _leave_out(result)
            if not self._full:
                log().error("%d on_violation callbacks run at once; leaving out more", RUNNING_MAX)
            self._full = True
            return
        self._full = False
        task = loop.create_task(_awaited(result))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait((task,), timeout=PATIENCE)


async def _awaited(result: Any) -> None:
    try:
        await result
    except Exception:
        log().exception("on_violation raised; the decision stands")


def _leave_out(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:  # a coroutine that is never awaited warns, unless it is closed
        close()


def log() -> Any:
    """The package's logger. `logging` is not imported before there is something to say."""
    import logging

    return logging.getLogger("sluicegate.websocket")
