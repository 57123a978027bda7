"""State in the memory of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar
from weakref import WeakSet

from .. import _core
from .._support import DONE, Done, check_number
from .layout import Layout, arrange, layout_of, shape_error
from .workers import warn_of_workers

__all__ = ["MemoryStore"]

T = TypeVar("T")


class MemoryStore:
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

    __slots__ = ("__weakref__", "_loose", "_named", "_options", "_slots", "clock")

    def __init__(
        self,
        max_keys: int = 1_000_000,
        max_bytes: int | None = None,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: _core.Clock | Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock
        self._options = {
            "max_keys": max_keys,
            "max_bytes": max_bytes,
            "on_full": on_full,
            "clock": clock,
            # one for the store: who does not know it cannot aim at collisions
            "secret": os.urandom(16),
        }
        self._named: dict[str, tuple[_core.Table, Layout]] = {}
        self._slots: dict[str, _core.Table] = {}
        self._loose: WeakSet[_core.Table] = WeakSet()
        self._make(())  # what is wrong with the arguments shows now

    def _make(self, algorithms: Sequence[str]) -> _core.Table:
        return _core.Table(algorithms, **self._options)  # type: ignore[arg-type]

    def table(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> _core.Table:
        """Where a limiter of that name keeps its state; of no name, a new place.

        ValueError where the name is that of a limiter with other algorithms, or with
        another number of quotas.
        """
        if self.clock is None:
            warn_of_workers()
        layout = layout_of(quotas)
        if name is not None and name in self._named:
            table, first = self._named[name]
        else:
            table, first = self._make([algorithm for _, algorithm in layout]), layout
            if name is None:
                self._loose.add(table)
                return table
            # setdefault: another thread may have come first, and no lock is held over a fork
            table, first = self._named.setdefault(name, (table, layout))
        if arrange(first, quotas) is None:
            raise shape_error(
                name, first, quotas, "one name has one shape in a store; give this one its own name"
            )
        return table

    def layout(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> Layout:
        """The places of that name's quotas; of no name, as they stand."""
        return self._named[name][1] if name is not None else layout_of(quotas)

    def loose_name(self) -> None:
        """What a limiter without a name is called here: nothing."""

    def server(self, name: str | None) -> None:
        """None: no server decides, the table does."""

    def slots(self, name: str | None) -> _core.Table:
        """Where a concurrency limiter of that name keeps its slots; of no name, a new place."""
        if self.clock is None:
            warn_of_workers()
        if name is not None and name in self._slots:
            return self._slots[name]
        table = self._make(())
        if name is None:
            self._loose.add(table)
            return table
        return self._slots.setdefault(name, table)

    def tables(self) -> list[tuple[str | None, _core.Table]]:
        """Every table in use, with the name of its limiter."""
        named = [(name, table) for name, (table, _) in list(self._named.items())]
        return [
            *named,
            *list(self._slots.items()),
            *((None, table) for table in listed(self._loose)),
        ]

    def clear(self) -> Done:
        """Forgets all state at once (it need not be awaited); limiters stay in use."""
        from ..waiting import wake_table

        for _, table in self.tables():
            table.clear()
            wake_table(table)
        return DONE

    async def sleep(self, seconds: float) -> None:
        """Waits by this store's clock: a testing.Clock's `advance` ends it."""
        from ..waiting import sleep

        await sleep(check_number(seconds, "a sleep", equal=True), self.clock)

    async def ping(self) -> bool:
        """True: memory answers."""
        return True

    async def aclose(self) -> None:
        """Nothing to give back: the state goes with the last limiter that uses it."""

    async def __aenter__(self) -> MemoryStore:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        shown = {"max_keys": 1_000_000, "max_bytes": None, "on_full": "deny", "clock": None}
        given = (
            f"{name}={self._options[name]!r}"
            for name, default in shown.items()
            if self._options[name] != default
        )
        return f"MemoryStore({', '.join(given)})"


def listed(known: WeakSet[T]) -> list[T]:
    """What it has now; another thread may add to it meanwhile."""
    while True:
        try:
            return list(known)
        except RuntimeError:  # changed size during iteration
            continue
