"""A clock for tests."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from math import isfinite

from .. import _core

__all__ = ["Clock"]


class Timer:
    """A call that is due at a time of the clock."""

    __slots__ = ("_callback", "due", "order")

    def __init__(self, due: int, order: int, callback: Callable[[], object]) -> None:
        self.due = due
        self.order = order
        self._callback: Callable[[], object] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        self._callback = None

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Clock(_core.Clock):
    """A clock that stands until `advance`, for `MemoryStore(clock=...)`.

    What waits by a store with this clock (`wait`, `acquire`, `delay`, `store.sleep`, and
    the same in `sluicegate.sync`) waits for `advance`, and not for the time of day. After
    it, tasks that it woke run when their loop next turns: `await asyncio.sleep(0)`.
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__(start)
        self._lock = threading.Lock()
        self._timers: list[Timer] = []
        self._order = 0

    def advance(self, seconds: float) -> None:
        """Moves the clock, and wakes what is due by then, the earliest first.

        Negative seconds step it back, as real clocks may. ValueError unless finite.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds are a number, not {type(seconds).__name__}")
        if not isfinite(seconds):
            raise ValueError(f"seconds are finite, not {seconds}")
        with self._lock:
            self.ns += round(seconds * 1e9)
            due = []
            while self._timers and (self._timers[0].due <= self.ns or self._timers[0].cancelled):
                due.append(heapq.heappop(self._timers))
        for timer in due:
            timer.run()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Calls back, from within `advance`, once that many seconds have passed."""
        with self._lock:
            self._order += 1
            timer = Timer(self.ns + max(0, round(seconds * 1e9)), self._order, callback)
            heapq.heappush(self._timers, timer)
            return timer

    @property
    def waiting(self) -> int:
        """How many wait for this clock to advance."""
        with self._lock:
            return sum(not timer.cancelled for timer in self._timers)
