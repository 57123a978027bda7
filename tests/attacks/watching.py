"""A process that watches its own loop and memory."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from contextlib import suppress
from typing import Any

PERIOD = 0.001  # seconds between two looks


def resident() -> int:
    """Bytes of memory that this process has now; where that is not told, the most that it had."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return most_resident()


def most_resident() -> int:
    """The most bytes since `forget_most`, or since the process began where that is of no effect."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def forget_most() -> None:
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Watch:
    """The longest pause of a loop, and the memory of its process, from start to stop.

    A pause is the loop's own and what other programs took from it meanwhile; `busy` is the most
    of the processor's time that the loop spent between two looks, which is its own alone.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._longest = 0.0
        self._busiest = 0.0
        self._before = 0

    def start(self) -> None:
        gc.collect()
        forget_most()
        self._longest, self._busiest, self._before = 0.0, 0.0, resident()
        self._task = asyncio.ensure_future(self._look())

    async def stop(self) -> dict[str, Any]:
        assert self._task is not None
        await asyncio.sleep(2 * PERIOD)  # so that what is going on now is seen
        self._task.cancel()
        return {
            "pause": self._longest,
            "busy": self._busiest,
            "grown": max(0, resident() - self._before),
            "most": max(0, most_resident() - self._before),
        }

    async def _look(self) -> None:
        last, spent = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(PERIOD)
            now, used = time.monotonic(), time.thread_time()
            self._longest = max(self._longest, now - last - PERIOD)
            self._busiest = max(self._busiest, used - spent)
            last, spent = now, used
