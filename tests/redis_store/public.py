"""What the tests of the public interface over a server share."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_servers.waiting import PATIENCE
from sluicegate import Limiter
from sluicegate._core import Cost, Key

T = TypeVar("T")

ALGORITHMS = ("gcra", "fixed-window", "sliding-window", "sliding-log")

_numbers = itertools.count()


def fresh(word: str = "limiter") -> str:
    """A name that no other limiter of this process has."""
    return f"{word}-{next(_numbers)}"


async def left(limiter: Limiter, key: Key = "a") -> int:
    """Units that are there."""
    return (await limiter.peek(key, 0)).remaining


async def admitted(limiter: Limiter, tries: int, key: Key = "a", cost: Cost = 1) -> int:
    """How many of so many hits, made one after the other, are admitted."""
    return sum([bool(await limiter.hit(key, cost)) for _ in range(tries)])


async def eventually(look: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE) -> T:
    """The first true value of `await look()`; AssertionError with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        await asyncio.sleep(0.02)
