"""What stores have in common whose state this process reaches itself: its own memory, and
memory that it shares with others. The same C code decides over both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

from .. import _core
from .._support import DONE, Done, check_number
from .layout import Layout, arrange, layout_of, shape_error

__all__ = ["LocalStore", "listed"]

T = TypeVar("T")


class LocalStore:
    """Tables by the names of their limiters."""

    __slots__ = ("__weakref__", "_loose", "_named", "_slots", "clock")

    clock: _core.Clock | Callable[[], float] | None

    def __init__(self, clock: _core.Clock | Callable[[], float] | None) -> None:
        self.clock = clock
        self._named: dict[str, tuple[_core.Table, Layout]] = {}
        self._slots: dict[str, _core.Table] = {}
        self._loose: WeakSet[_core.Table] = WeakSet()

    @abstractmethod
    def _make(self, name: str | None, algorithms: Sequence[str]) -> _core.Table:
        """A new table; of no algorithms one for slots."""

    def _first_layout(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> Layout:
        """The places of the quotas of a name that this process has not seen yet."""
        return layout_of(quotas)

    def _checked(self, name: str | None) -> str | None:
        """The name, if a limiter may be called so here."""
        return name

    def table(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> _core.Table:
        """Where a limiter of that name keeps its state; of no name, a new place.

        ValueError where the name is that of a limiter with other algorithms, or with
        another number of quotas.
        """
        name = self._checked(name)
        if name is not None and name in self._named:
            table, first = self._named[name]
        else:
            first = self._first_layout(name, quotas)
            table = self._make(name, [algorithm for _, algorithm in first])
            if name is None:
                self._loose.add(table)
                return table
            # setdefault: another thread may have come first, and no lock is held over a fork
            table, first = self._named.setdefault(name, (table, first))
        if arrange(first, quotas) is None:
            raise shape_error(
                name, first, quotas, "one name has one shape in a store; give this one its own name"
            )
        return table

    def layout(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> Layout:
        """The places of that name's quotas; of no name, as they stand."""
        return self._named[name][1] if name is not None else layout_of(quotas)

    def loose_name(self) -> str | None:
        """What a limiter without a name is called here."""
        return None

    def server(self, name: str | None) -> None:
        """None: no server decides, the table does."""

    def local(self, algorithms: Sequence[str]) -> _core.Table | None:
        """Where a limiter of these counts while its table cannot be had; None: it always
        can."""
        return None

    def made(self, name: str | None, limiter: _core.Limiter) -> None:
        """Tells others of a limiter of that name, and of its numbers; in memory nobody asks."""

    def made_slots(self, name: str | None, limit: int | None) -> None:
        """The same of one that counts slots."""

    def changed(self, limiter: _core.Limiter) -> None:
        """Tells others that a limiter which was told of has other numbers now."""

    def guard(self, limiter: _core.Limiter, policy: str) -> None:
        """Lets `on_store_error` decide while the limiter's table cannot be had."""
        local = self.local(limiter.table.algorithms)
        if local is not None:
            limiter._when_stalled(policy, local if policy == "local" else None)

    def slots(self, name: str | None) -> _core.Table:
        """Where a concurrency limiter of that name keeps its slots; of no name, a new place."""
        name = self._checked(name)
        if name is not None and name in self._slots:
            return self._slots[name]
        table = self._make(name, ())
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
        """Nothing to give back: what is held goes with the last limiter that uses it."""

    async def __aenter__(self: T) -> T:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


def listed(known: WeakSet[Any]) -> list[Any]:
    """What it has now; another thread may add to it meanwhile."""
    while True:
        try:
            return list(known)
        except RuntimeError:  # changed size during iteration
            continue
