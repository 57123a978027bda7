"""The store in memory, under the name that users of ratethrottle know."""

from __future__ import annotations

from ..stores.memory import MemoryStore

__all__ = ["InMemoryStorage"]


class InMemoryStorage(MemoryStore):
    """State in the memory of this process. It is a `MemoryStore`, with the same options."""

    __slots__ = ()
