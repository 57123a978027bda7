"""Limiters over shared memory, as the commands reach them: this process decides for itself, as
those that use them do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sluicegate import _core

from .found import Found, Looked

if TYPE_CHECKING:
    from sluicegate.stores.registered import Registered
    from sluicegate.stores.shared import SharedMemoryStore

__all__ = ["InFile", "found_in_file"]


class InFile(Found):
    """A limiter of a file: its quotas, its slots, or both."""

    def __init__(
        self, known: Registered, table: _core.Table | None, slots: _core.Table | None
    ) -> None:
        super().__init__(known)
        self.tables = [one for one in (table, slots) if one is not None]
        self._limiter = None if table is None else _core.Limiter(table, known.quotas)
        # each quota for itself, for a decision tells what is left of the one that binds
        self._each = [
            None
            if table is None or quota is None
            else _core.Limiter(
                table, [quota if at == place else None for at in range(len(known.quotas))]
            )
            for place, quota in enumerate(known.quotas)
        ]
        self._slots = None if slots is None else _core.Slots(slots, 1)  # only counted

    async def look(self, key: bytes, cost: int = 1) -> Looked | None:
        if self._limiter is None:
            return None
        decision = self._limiter.peek_nowait(key, cost)
        if not decision.allowed and decision.quota is None:  # a ban tells of no quota
            return Looked(decision, (None,) * len(self._each))
        return Looked(
            decision,
            tuple(None if one is None else one.peek_nowait(key, 0).remaining for one in self._each),
        )

    async def held(self, key: bytes) -> int | None:
        return None if self._slots is None else self._slots.count_nowait(key)

    async def change(self, operation: str, key: bytes, argument: Any = None) -> None:
        assert self._limiter is not None
        if operation == "ban":
            self._limiter.ban_nowait(key, argument)
        elif operation == "unban":
            self._limiter.unban_nowait(key)
        else:
            self._limiter.reset_nowait(key)


def found_in_file(store: SharedMemoryStore) -> list[Found]:
    """All that the file knows. Slots have a table of their own there, and so has a limiter of
    the same name with other algorithms: it is told apart by them."""
    by_name: dict[str, list[Registered]] = {}
    for known in store.limiters():
        by_name.setdefault(known.name, []).append(known)
    found: list[Found] = []
    for name, alike in by_name.items():
        slots = next((one for one in alike if not one.algorithms), None)
        place = None if slots is None else store.table_of(slots)
        quotas = [one for one in alike if one.algorithms]
        if not quotas and slots is not None:
            found.append(InFile(slots, None, place))
        for number, one in enumerate(quotas):
            known = one if slots is None or number > 0 else replace(one, slots=slots.slots)
            limiter = InFile(known, store.table_of(one), place if number == 0 else None)
            if len(quotas) > 1:
                limiter.name = f"{name} ({', '.join(one.algorithms)})"
            found.append(limiter)
    return found
