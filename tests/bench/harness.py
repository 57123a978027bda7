"""Two things timed in alternation, so that what slows the machine slows both.

Time is the processor's, of this process: what other programs take from it does not count.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Ratio",
    "alternate",
    "alternate_async",
    "count_for",
    "environment",
    "median",
    "no_gc",
    "worker",
]

Timed = Callable[[int], float]  # runs n times, returns the seconds
TimedAsync = Callable[[int], Awaitable[float]]

median = statistics.median


@dataclass(frozen=True)
class Ratio:
    """Of rounds in alternation: the median ratio, and the nanoseconds behind it."""

    ratio: float
    subject_ns: float
    reference_ns: float
    spread: tuple[float, float]
    rounds: int

    @classmethod
    def of(cls, subject: list[float], reference: list[float], each: int) -> Ratio:
        """`subject` and `reference`: seconds of `each` runs, a round an entry."""
        ratios = [a / b for a, b in zip(subject, reference, strict=True)]
        return cls(
            median(ratios),
            median(subject) / each * 1e9,
            median(reference) / each * 1e9,
            (min(ratios), max(ratios)),
            len(ratios),
        )

    def info(self) -> dict[str, Any]:
        return {
            "ns": round(self.subject_ns, 1),
            "reference_ns": round(self.reference_ns, 1),
            "spread": [round(self.spread[0], 3), round(self.spread[1], 3)],
            "rounds": self.rounds,
        }


@contextmanager
def no_gc() -> Any:
    """As timeit does: a collection in the middle would be charged to whoever runs then."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def count_for(timed: Timed, seconds: float = 0.04, start: int = 64) -> int:
    """How many runs take about that long."""
    count = start
    while True:
        spent = timed(count)
        if spent >= seconds / 4 or count >= 10_000_000:
            return max(1, min(10_000_000, int(count * seconds / max(spent, 1e-9))))
        count *= 4


def alternate(subject: Timed, reference: Timed, rounds: int, *, count: int | None = None) -> Ratio:
    """Times both `rounds` times; which of the two comes first changes with each round."""
    with no_gc():
        each = count_for(subject) if count is None else count
        subject(each), reference(each)  # warm: caches, the specialised byte code
        a: list[float] = []
        b: list[float] = []
        for turn in range(rounds):
            if turn % 2:
                a.append(subject(each))
                b.append(reference(each))
            else:
                b.append(reference(each))
                a.append(subject(each))
    return Ratio.of(a, b, each)


def alternate_async(
    subject: TimedAsync, reference: TimedAsync, rounds: int, *, seconds: float = 0.04
) -> Ratio:
    """The same for coroutine functions, in one event loop."""

    async def main() -> Ratio:
        spent = await subject(1000)
        each = max(100, min(5_000_000, int(1000 * seconds / max(spent, 1e-9))))
        await subject(each), await reference(each)
        a: list[float] = []
        b: list[float] = []
        for turn in range(rounds):
            if turn % 2:
                a.append(await subject(each))
                b.append(await reference(each))
            else:
                b.append(await reference(each))
                a.append(await subject(each))
        return Ratio.of(a, b, each)

    with no_gc():
        return asyncio.run(main())


def counting(key: str) -> Timed:
    """`d[k] += 1`: the reference of every synchronous row."""
    counts = {key: 0}

    def run(count: int) -> float:
        d, k = counts, key
        begin = time.process_time()
        for _ in range(count):
            d[k] += 1
        return time.process_time() - begin

    return run


async def empty() -> None:
    """The reference of every awaited row."""


async def awaiting_empty(count: int) -> float:
    """Awaits an empty `async def` so many times."""
    begin = time.process_time()
    for _ in range(count):
        await empty()
    return time.process_time() - begin


def worker(name: str, *arguments: object, timeout: float = 1800) -> Any:
    """Runs `bench.workers.NAME(*arguments)`, or NAME of another module of bench where it is
    "module.name", in a fresh process; what it returned."""
    module, _, name = name.rpartition(".")
    call = (
        "import importlib, json, sys; module = importlib.import_module('bench.' + sys.argv[1]); "
        "print(json.dumps(getattr(module, sys.argv[2])(*json.loads(sys.argv[3]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call, module or "workers", name, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )
    if done.returncode != 0:
        # What is told of its end after that is no cause of it.
        said = done.stderr.partition("Exception ignored in")[0]
        last = said.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{name} ended with {done.returncode}: {last[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """This environment, with the tests (and a checkout's package, if used) importable."""
    found = os.environ.copy()
    paths = [str(Path(__file__).resolve().parent.parent), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return found
