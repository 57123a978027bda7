"""The loops that are timed: a hit as a program writes it, and what it is measured against. Each
loop looks up as much as the other, so that both pay for it alike."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from .timing import Timed, TimedAsync

__all__ = [
    "KEY",
    "LIVE",
    "PLENTY",
    "at_once",
    "awaited_hit",
    "awaiting_empty",
    "counting",
    "counting_keys",
    "hitting",
    "hitting_keys",
    "one_by_one",
    "shuffled",
]

KEY = "user:42"
PLENTY = 1_000_000_000
# State stays alive for as long as a measurement takes: one event of a key fills 86 s of it, the
# next one 86 s more.
LIVE = "1000/day"


def counting(key: str = KEY) -> Timed:
    """`d[k] += 1`: the reference of synchronous hits."""
    counts = {key: 0}

    def run(count: int) -> float:
        d, k = counts, key
        begin = time.process_time()
        for _ in range(count):
            d[k] += 1
        return time.process_time() - begin

    return run


def hitting(quotas: str | list[str] = f"{PLENTY}/second", expect: bool = True) -> Timed:
    """`limiter.hit(key)` of `sluicegate.sync`, all of them admitted, or (`expect`) refused."""
    from sluicegate.sync import Limiter

    limiter = Limiter(quotas)
    if not expect:
        while limiter.hit(KEY):
            pass

    def run(count: int) -> float:
        made, key = limiter, KEY
        begin = time.process_time()
        for _ in range(count):
            made.hit(key)
        return time.process_time() - begin

    if bool(limiter.hit(KEY)) is not expect:
        raise AssertionError(f"{quotas!r} should have {'admitted' if expect else 'refused'}")
    return run


async def empty() -> None:
    """The reference of awaited hits."""


async def awaiting_empty(count: int) -> float:
    """Awaits an empty `async def` so many times."""
    begin = time.process_time()
    for _ in range(count):
        await empty()
    return time.process_time() - begin


def awaited_hit() -> TimedAsync:
    """`await limiter.hit(key)`."""
    from sluicegate import Limiter

    limiter = Limiter(f"{PLENTY}/second")

    async def run(count: int) -> float:
        made, key = limiter, KEY
        begin = time.process_time()
        for _ in range(count):
            await made.hit(key)
        return time.process_time() - begin

    return run


# ---- many keys


def shuffled(names: list[str], seed: int = 7) -> list[str]:
    """The same in an order that is random, and the same each time."""
    order = names[:]
    random.Random(seed).shuffle(order)
    return order


def counting_keys(names: list[str]) -> Callable[[list[str]], float]:
    """`d[k] += 1` of each of some keys out of `names`."""
    counts: dict[str, int] = dict.fromkeys(names, 0)

    def run(keys: list[str]) -> float:
        d = counts
        begin = time.process_time()
        for key in keys:
            d[key] += 1
        return time.process_time() - begin

    return run


def hitting_keys(most: int) -> Callable[[list[str]], float]:
    """`limiter.hit(k)` of each of some keys, of which there are at most so many."""
    from sluicegate import MemoryStore
    from sluicegate.sync import Limiter

    limiter: Any = Limiter(LIVE, store=MemoryStore(max_keys=4 * most))

    def run(keys: list[str]) -> float:
        made = limiter
        begin = time.process_time()
        for key in keys:
            made.hit(key)
        return time.process_time() - begin

    return run


# ---- on a server: two processes take part, so time is the wall's


async def one_by_one(ask: Callable[[str], Awaitable[Any]], keys: Sequence[str]) -> float:
    """The seconds of all, each after the other's end."""
    begin = time.perf_counter()
    for key in keys:
        await ask(key)
    return time.perf_counter() - begin


async def at_once(ask: Callable[[str], Awaitable[Any]], keys: Sequence[str], width: int) -> float:
    """The seconds of all, by `width` tasks that each have one under way."""
    left: Iterator[str] = iter(keys)

    async def work() -> None:
        for key in left:
            await ask(key)

    begin = time.perf_counter()
    await asyncio.gather(*[work() for _ in range(width)])
    return time.perf_counter() - begin
