"""What runs in a fresh process, so that one measurement leaves nothing to the next.

Each takes and returns what JSON can carry; see harness.worker.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import resource
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from sluicegate.cli.loops import LIVE, counting_keys, hitting_keys, shuffled

from .harness import Ratio, alternating

__all__ = ["growth", "memory", "spread_over"]


def rss() -> int:
    """Resident bytes of this process."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # macOS has only the greatest it ever was, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sizes(low: int, high: int) -> Iterator[int]:
    """Sizes 1.5 % apart, so that a doubling anywhere is seen where it costs most."""
    size = low
    while size < high:
        yield size
        size += max(1, size * 3 // 200)
    yield high


def memory(low: int, high: int) -> dict[str, Any]:
    """Bytes a key of one gcra quota while growing from `low` to `high` keys: by resident
    memory and by the table's own account, the worst and the average of all sizes."""
    from sluicegate import MemoryStore
    from sluicegate.sync import Limiter

    limiter = Limiter(LIVE, store=MemoryStore(max_keys=4 * high))
    limiter.hit("user:warm")
    gc.collect()
    before = rss()
    points = []
    made = 0
    for size in sizes(low, high):
        for number in range(made, size):
            limiter.hit(f"user:{number}")
        made = size
        points.append((size, (rss() - before) / size, limiter.table.bytes / size))
    if limiter.table.keys < made:
        raise AssertionError(f"{limiter.table.keys} keys of {made} are there")
    worst = max(points, key=lambda point: point[1])
    own = max(points, key=lambda point: point[2])
    return {
        "bytes": worst[1],
        "at": worst[0],
        "table_bytes": own[2],
        "table_at": own[0],
        "mean": sum(point[1] for point in points) / len(points),
        "points": [[size, round(a, 2), round(b, 2)] for size, a, b in points],
    }


def growth(keys: int) -> dict[str, Any]:
    """One insert at a time while growing to `keys` keys: the percentiles, in nanoseconds.

    The clock is read before and after each insert. Then it is read for as long again with
    nothing done in between: what that shows is the floor, the interrupts that the machine
    has in any work of that length. Where the system allows it no other program comes in
    between: that would be counted as ours.
    """
    from sluicegate import MemoryStore
    from sluicegate.sync import Limiter

    limiter = Limiter(LIVE, store=MemoryStore(max_keys=2 * keys))
    limiter.hit("user:warm")
    spent = array("I", bytes(4 * keys))
    floor = array("I", bytes(4 * keys))
    clock, limit = time.perf_counter_ns, 2**32 - 1
    alone = uninterrupted()
    gc.collect()
    gc.disable()
    for number in range(keys):
        key = f"user:{number}"
        begin = clock()
        limiter.hit(key)
        end = clock()
        spent[number] = took = min(end - begin, limit)
        wanted = begin = clock()
        wanted += min(took, 2000)
        end = clock()
        while end < wanted:
            end = clock()
        floor[number] = min(end - begin, limit)
    if limiter.table.keys < keys:
        raise AssertionError(f"{limiter.table.keys} keys of {keys} are there")
    inserts, waits = sorted(spent), sorted(floor)
    return {
        "insert": percentiles(inserts),
        "floor": percentiles(waits),
        "net_p99_99": net(inserts, waits, keys // 10_000),
        "alone": alone,
    }


def net(inserts: list[int], waits: list[int], most: int) -> int:
    """The least time that `most` more inserts exceed than waits of the same length do."""
    for place in range(len(inserts) - 1 - most, -1, -1):
        time_ns = inserts[place]
        longer_inserts = len(inserts) - bisect_right(inserts, time_ns)
        longer_waits = len(waits) - bisect_right(waits, time_ns)
        if longer_inserts - longer_waits > most:
            return inserts[place + 1]
    return inserts[0]


def uninterrupted() -> bool:
    """Asks for a real-time priority; whether it was granted (Linux, as root)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        return False
    return True


def percentiles(ordered: list[int]) -> dict[str, int]:
    last = len(ordered) - 1
    at = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "p99_99": 0.9999, "max": 1.0}
    return {name: ordered[min(last, int(share * len(ordered)))] for name, share in at.items()}


def spread_over(name: str | None, keys: int, rounds: int) -> dict[str, Any]:
    """A check over `keys` keys in random order against `d[k] += 1` over the same: the
    ratio, and what a key costs in memory. `name` is a peer's; None is ourselves.

    The order is cut into as many parts as there are rounds; each part is done once by
    the one and once by the other, so both meet every key as cold as the other does.
    """
    from .peers import PEERS

    names = [f"user:{number}" for number in range(keys)]
    order, counted = shuffled(names), counting_keys(names)
    run = hitting_keys(keys) if name is None else runner(PEERS[name].spread())
    gc.collect()
    gc.disable()
    before = rss()
    run(names)
    taken = rss() - before
    part = keys // rounds
    pieces = [order[turn * part : (turn + 1) * part] for turn in range(rounds)]
    subject, reference = alternating(
        lambda turn: run(pieces[turn]), lambda turn: counted(pieces[turn]), rounds
    )
    found = Ratio.of(subject, reference, part)
    return {"ratio": found.ratio, "bytes": taken / keys, "info": found.info()}


def runner(hit: Callable[[str], Any]) -> Callable[[list[str]], float]:
    if not inspect.iscoroutinefunction(hit):

        def run(names: list[str]) -> float:
            begin = time.process_time()
            for key in names:
                hit(key)
            return time.process_time() - begin

        return run

    async def body(names: list[str]) -> float:
        begin = time.process_time()
        for key in names:
            await hit(key)
        return time.process_time() - begin

    loop = asyncio.new_event_loop()
    return lambda names: loop.run_until_complete(body(names))
