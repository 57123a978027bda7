"""Whether a client has gone that has left more to be read."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["slept"]

LOOK = 1.0  # seconds between two looks


def has_gone(receive: Any) -> bool:
    """Whether the server says so beside what is received.

    uvicorn puts a disconnect behind all that it has read before, which may be tens of thousands of
    messages: one that is held back would hide it until each of them had its turn.
    """
    return getattr(getattr(receive, "__self__", None), "disconnected", False) is True


async def slept(sleeper: asyncio.Future[None], receive: Any) -> bool:
    """Until that is done; False where the client has gone meanwhile. `receive` is the server's."""
    while not sleeper.done():
        if has_gone(receive):
            return False
        await asyncio.wait((sleeper,), timeout=LOOK)
    sleeper.result()
    return True
