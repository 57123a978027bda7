"""Two things timed in alternation, so that what slows the machine slows both.

Time is the processor's, of this process: what other programs take from it does not count.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Ratio",
    "Timed",
    "TimedAsync",
    "alternate",
    "alternate_async",
    "alternating",
    "count_for",
    "median",
    "no_gc",
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
    added_ns: float  # the median of the differences
    added_spread: tuple[float, float]

    @classmethod
    def of(cls, subject: list[float], reference: list[float], each: int) -> Ratio:
        """`subject` and `reference`: seconds of `each` runs, a round an entry."""
        ratios = [a / b for a, b in zip(subject, reference, strict=True)]
        added = [(a - b) / each * 1e9 for a, b in zip(subject, reference, strict=True)]
        return cls(
            median(ratios),
            median(subject) / each * 1e9,
            median(reference) / each * 1e9,
            (min(ratios), max(ratios)),
            len(ratios),
            median(added),
            (min(added), max(added)),
        )

    def info(self) -> dict[str, Any]:
        return {
            "ns": round(self.subject_ns, 1),
            "reference_ns": round(self.reference_ns, 1),
            "spread": [round(self.spread[0], 3), round(self.spread[1], 3)],
            "rounds": self.rounds,
        }


@contextmanager
def no_gc() -> Iterator[None]:
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


def alternating(
    subject: Callable[[int], float], reference: Callable[[int], float], rounds: int
) -> tuple[list[float], list[float]]:
    """What both say of each round, told its number; which of them comes first changes with it."""
    ours, theirs = [], []
    for turn in range(rounds):
        if turn % 2:
            ours.append(subject(turn))
            theirs.append(reference(turn))
        else:
            theirs.append(reference(turn))
            ours.append(subject(turn))
    return ours, theirs


def alternate(subject: Timed, reference: Timed, rounds: int, *, count: int | None = None) -> Ratio:
    """Times both `rounds` times."""
    with no_gc():
        each = count_for(subject) if count is None else count
        subject(each), reference(each)  # warm: caches, the specialised byte code
        a, b = alternating(lambda turn: subject(each), lambda turn: reference(each), rounds)
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
