"""What must hold whatever a server does: the loop runs on, nothing is left behind, nothing is
logged that nobody meant."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis_servers.waiting import PATIENCE
from sluicegate import RedisStore, StoreError

__all__ = ["MARGIN", "Watch", "eventually", "outcomes", "rss_bytes", "tries", "watched"]

MARGIN = 2.0  # seconds beyond a timeout that this machine may take when it is busy
PAUSE = 2.0  # seconds that the loop may be held up by others on it
TICK = 0.005


class Watch:
    """What was seen in a block of `watched`."""

    def __init__(self) -> None:
        self.longest_pause = 0.0  # seconds
        self.problems: list[dict[str, Any]] = []  # what the loop's exception handler got
        self.records: list[logging.LogRecord] = []
        self._thread = threading.get_ident()

    @property
    def lines(self) -> list[str]:
        """What sluicegate has logged on this loop: on that of sluicegate.sync, the stores of other
        tests may live on, and miss their servers."""
        return [
            one.getMessage()
            for one in self.records
            if one.name.startswith("sluicegate") and one.thread == self._thread
        ]

    async def _tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self.longest_pause = max(self.longest_pause, now - last - TICK)
            last = now


class _Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def _descriptors() -> int:
    path = Path("/proc/self/fd")
    return len(os.listdir(path if path.exists() else "/dev/fd"))


def _threads() -> int:
    # the loop's own, which looks names up, are kept by it until it is closed
    return sum(not one.name.startswith("asyncio_") for one in threading.enumerate())


@asynccontextmanager
async def watched(*stores: RedisStore) -> AsyncIterator[Watch]:
    """Closes the stores at its end, and asserts that the loop was never blocked, that no check,
    task, thread or descriptor is left, and that neither the loop nor asyncio had to complain."""
    loop = asyncio.get_running_loop()
    watch = Watch()
    gc.collect()
    tasks, threads, descriptors = len(asyncio.all_tasks()), _threads(), _descriptors()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: watch.problems.append(context))
    keep = _Keep(watch.records)
    root, level = logging.getLogger(), logging.getLogger("sluicegate").level
    root.addHandler(keep)
    logging.getLogger("sluicegate").setLevel(logging.DEBUG)
    ticker = asyncio.create_task(watch._tick())
    try:
        yield watch
        for store in stores:
            for router in store._routers.values():
                for connection in router.connections():
                    await eventually(
                        lambda one=connection: not one.waiting and not one.flying,
                        "a check was left waiting",
                    )
            await store.aclose()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 1, "a task was left")
        gc.collect()
        await eventually(lambda: _threads() <= threads, "a thread was left")
        await eventually(lambda: _descriptors() <= descriptors, "a descriptor was left")
        await asyncio.sleep(0)
        assert watch.longest_pause < PAUSE, f"the loop stood for {watch.longest_pause:.2f} s"
        assert watch.problems == []
        told = [one for one in watch.records if one.exc_info or one.levelno >= logging.ERROR]
        assert told == [], [one.getMessage() for one in told]
    finally:
        ticker.cancel()
        for store in stores:
            await store.aclose()
        root.removeHandler(keep)
        logging.getLogger("sluicegate").setLevel(level)
        loop.set_exception_handler(before)


async def eventually(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Waits for it, and lets the loop run meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        await asyncio.sleep(0.01)


async def tries(check: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """What the check comes to once the store decides it again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            outcome = await check()
            if not getattr(outcome, "degraded", False):
                return outcome
            assert time.monotonic() < deadline, f"degraded for {seconds} s"
        except StoreError as error:
            assert time.monotonic() < deadline, f"no answer for {seconds} s: {error}"
        await asyncio.sleep(0.01)


async def outcomes(checks: Iterable[Awaitable[Any]], seconds: float) -> list[Any]:
    """What they come to, errors included; AssertionError unless all are over in `seconds`."""
    asked = [asyncio.ensure_future(check) for check in checks]
    _, pending = await asyncio.wait(asked, timeout=seconds)
    assert not pending, f"{len(pending)} of {len(asked)} hang after {seconds} s"
    return [one.exception() or one.result() for one in asked]


def rss_bytes() -> int:
    """Memory of this process in the machine, now; where that cannot be told, at most so far."""
    path = Path("/proc/self/statm")
    if path.exists():
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
