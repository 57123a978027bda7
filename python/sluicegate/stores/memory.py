"""State in the memory of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from .. import _core
from .local import LocalStore
from .workers import warn_of_workers

__all__ = ["MemoryStore"]


class MemoryStore(LocalStore):
    """State in the memory of this process: no server, and nothing to close.

    Every limiter has a table of its own, with bounds of its own: `max_keys` keys and
    `max_bytes` bytes (None: no bound). In a full table a new key takes the place of
    expired state, else of the least used. What may not be evicted (bans, slots, open
    reservations) may fill it wholly; then `on_full` decides: "deny", "allow" or "raise"
    (StoreFullError). `clock` is a `sluicegate.testing.Clock`, or a callable that returns
    seconds; None is the monotonic clock.

    It may be used from any number of threads and event loops, and after fork: a child
    goes on with what its parent knew.
    """

    __slots__ = ("_options",)

    def __init__(
        self,
        max_keys: int = 1_000_000,
        max_bytes: int | None = None,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: _core.Clock | Callable[[], float] | None = None,
    ) -> None:
        super().__init__(clock)
        self._options: dict[str, Any] = {
            "max_keys": max_keys,
            "max_bytes": max_bytes,
            "on_full": on_full,
            "clock": clock,
            # one for the store: who does not know it cannot aim at collisions
            "secret": os.urandom(16),
        }
        _core.Table((), **self._options)  # what is wrong with the arguments shows now

    def _make(self, name: str | None, algorithms: Sequence[str]) -> _core.Table:
        return _core.Table(algorithms, **self._options)

    def _checked(self, name: str | None) -> str | None:
        if self.clock is None:
            warn_of_workers()
        return name

    def __repr__(self) -> str:
        shown = {"max_keys": 1_000_000, "max_bytes": None, "on_full": "deny", "clock": None}
        given = (
            f"{name}={self._options[name]!r}"
            for name, default in shown.items()
            if self._options[name] != default
        )
        return f"MemoryStore({', '.join(given)})"
