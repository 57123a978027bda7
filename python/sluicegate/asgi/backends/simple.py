"""Counting in the memory of this process."""

from __future__ import annotations

from typing import Any

from ...stores import MemoryStore
from .store import StoreBackend

__all__ = ["MemoryBackend"]


class MemoryBackend(StoreBackend):
    """Counts in memory. Each shares nothing with another, unless both are given one store."""

    def __init__(self, store: Any = None, *, name: str = "asgi") -> None:
        super().__init__(MemoryStore() if store is None else store, name=name)
