"""Shared memory: against private memory in one process, and two processes against one.

Beside it, the same check on a Redis on this machine, one at a time: what sharing a limit without a
server saves.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from .harness import Timed, alternate, median
from .rows import Row, Topic

NAME = "shared"
KEYS = 1_000_000
QUOTA = "1000000000/second"
SIZE = "256MB"  # room for a million keys
PRIVATE = "the same in private memory"
ONE = "one process"


@contextmanager
def place() -> Iterator[str]:
    """A path on a tmpfs where there is one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as directory:
        yield os.path.join(directory, "shared")


def hot(store: Any) -> Timed:
    """One hot key."""
    from sluicegate.sync import Limiter

    hit = Limiter(QUOTA, store=store, name="hot").hit

    def run(count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            hit("user:42")
        return time.process_time() - begin

    return run


def spread(store: Any, keys: list[str]) -> Timed:
    """The next `count` of many keys in random order."""
    from sluicegate.sync import Limiter

    hit = Limiter(QUOTA, store=store, name="spread").hit
    for key in keys:
        hit(key)
    at = 0

    def run(count: int) -> float:
        nonlocal at
        chosen = [keys[(at + n) % len(keys)] for n in range(count)]
        at += count
        begin = time.process_time()
        for key in chosen:
            hit(key)
        return time.process_time() - begin

    return run


def shuffled(count: int, seed: int) -> list[str]:
    keys = [f"user:{n}" for n in range(count)]
    random.Random(seed).shuffle(keys)
    return keys


def working(path: str, count: int, seed: int, start: Barrier, rounds: int, told: Any) -> None:
    """One of the processes: hits all keys once a round, when all have come."""
    from sluicegate import SharedMemoryStore
    from sluicegate.sync import Limiter

    hit = Limiter(QUOTA, store=SharedMemoryStore(path), name="spread").hit
    keys = shuffled(count, seed)
    for _ in range(rounds):
        start.wait(600)
        begin = time.perf_counter()
        for key in keys:
            hit(key)
        told.put(time.perf_counter() - begin)
        start.wait(600)


def rates(path: str, processes: int, keys: int, rounds: int) -> list[float]:
    """Hits a second of all processes together, a round each."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(processes), context.Queue()
    started = [
        context.Process(target=working, args=(path, keys, seed, start, rounds, told))
        for seed in range(processes)
    ]
    for process in started:
        process.start()
    times = [[told.get(timeout=600) for _ in range(processes)] for _ in range(rounds)]
    for process in started:
        process.join(60)
    return [processes * keys / max(taken) for taken in times]


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    from sluicegate import MemoryStore, SharedMemoryStore

    count = 20_000 if quick else KEYS
    with place() as path:
        store = SharedMemoryStore(path, SIZE)
        found = alternate(hot(store), hot(MemoryStore()), rounds)
        yield Row(NAME, "sync hit, one hot key", found.ratio, "x", PRIVATE, 1.5, info=found.info())
        keys = shuffled(count, 1)
        found = alternate(spread(store, keys), spread(MemoryStore(), keys), rounds)
        what = f"sync hit over {count:,} keys in random order"
        yield Row(NAME, what, found.ratio, "x", PRIVATE, 1.5, info=found.info())
        # by turns, so that what the machine does meanwhile meets both
        ones, twos = [], []
        for _ in range(1 if quick else 3):
            ones += rates(path, 1, count, 1 if quick else 3)
            twos += rates(path, 2, count, 1 if quick else 3)
        yield Row(
            NAME,
            f"two processes over {count:,} random keys, throughput",
            median(twos) / median(ones),
            "x",
            ONE,
            1.8,
            at_least=True,
            info={"per_second": round(median(twos)), "reference_per_second": round(median(ones))},
        )


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    """The same check on a server of this machine."""
    from . import redis_setup

    what, reference = "Redis on this machine, one check at a time", "shared memory, one check"
    why = redis_setup.why_not()
    if why is not None:
        yield Row(NAME, what, None, "x", reference, peer=True, missing=why)
        return
    import asyncio

    from sluicegate import Limiter, RedisStore, SharedMemoryStore

    async def timed(limiter: Limiter, count: int) -> float:
        await limiter.hit("user:42")
        begin = time.perf_counter()
        for _ in range(count):
            await limiter.hit("user:42")
        return (time.perf_counter() - begin) / count

    async def both(path: str, url: str) -> tuple[list[float], list[float]]:
        async with RedisStore(url, timeout=redis_setup.TIMEOUT) as server:
            over = Limiter("1000000/second", store=server, name="shared")
            here = Limiter(QUOTA, store=SharedMemoryStore(path, "16MB"), name="shared")
            slow, fast = [], []
            for _ in range(rounds):
                slow.append(await timed(over, 100 if quick else 2000))
                fast.append(await timed(here, 10_000))
            return slow, fast

    with place() as path, redis_setup.setup() as server:
        slow, fast = asyncio.run(both(path, server.url))
    info = {"ns": median(slow) * 1e9, "reference_ns": median(fast) * 1e9}
    yield Row(NAME, what, median(slow) / median(fast), "x", reference, peer=True, info=info)


TOPIC = Topic(NAME, "Shared memory", measure, peers)
