"""Members by group: the connections of a client, its reservations."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, KeysView, Mapping
from typing import Generic, TypeVar

__all__ = ["Groups"]

G = TypeVar("G", bound=Hashable)
M = TypeVar("M", bound=Hashable)
V = TypeVar("V")


class Groups(Generic[G, M, V]):
    """group → {member: value}. A group without members is dropped.

    Safe from several threads, and from finalizers, which may run in the middle of any call
    here (they only take out): hence the reentrant lock and the second look in `put`.
    """

    __slots__ = ("_groups", "_lock")

    def __init__(self) -> None:
        self._groups: dict[G, dict[M, V]] = {}
        self._lock = threading.RLock()

    def put(self, group: G, member: M, value: V) -> None:
        with self._lock:
            while True:
                members = self._groups.setdefault(group, {})
                members[member] = value
                if self._groups.get(group) is members:
                    return

    def take(self, group: G, member: M) -> V | None:
        """Takes a member out; None where it is not there."""
        with self._lock:
            members = self._groups.get(group)
            if members is None:
                return None
            value = members.pop(member, None)
            if not members and self._groups.get(group) is members:
                self._groups.pop(group, None)
            return value

    def get(self, group: G, member: M) -> V | None:
        members = self._groups.get(group)
        return None if members is None else members.get(member)

    def values(self, group: G) -> list[V]:
        members = self._groups.get(group)
        return [] if members is None else list(members.values())

    def count(self, group: G) -> int:
        members = self._groups.get(group)
        return 0 if members is None else len(members)

    def view(self) -> Mapping[G, KeysView[M]]:
        """The groups and their members, live and read-only."""
        return _View(self._groups)


class _View(Mapping[G, KeysView[M]]):
    __slots__ = ("_groups",)

    def __init__(self, groups: Mapping[G, Mapping[M, object]]) -> None:
        self._groups = groups

    def __getitem__(self, group: G) -> KeysView[M]:
        return self._groups[group].keys()

    def __iter__(self) -> Iterator[G]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        return repr({group: set(members) for group, members in self._groups.items()})
