"""What an application has of this door: its store, and what decides over it."""

from __future__ import annotations

from typing import Any

from quart import Quart

from .. import stores
from .deciding import Decider
from .store import MemoryStore, RateLimiterStoreABC, as_store, decider_of

__all__ = ["ENABLED", "STORE", "AppState", "state_of"]

STORE = "QUART_RATE_LIMITER_STORE"
ENABLED = "QUART_RATE_LIMITER_ENABLED"

_EXTENSION = "sluicegate.quart"


class AppState:
    """Of one application. `limiters`: the RateLimiters that guard it."""

    __slots__ = ("_asked", "_decider", "_memory", "_store", "limiters")

    def __init__(self) -> None:
        self.limiters: list[object] = []
        self._memory = MemoryStore()
        self._use(self._memory)

    def store(self, app: Quart) -> RateLimiterStoreABC | stores.Store:
        """The store that its configuration names, else a memory store of its own."""
        self._look(app)
        return self._store

    def decider(self, app: Quart) -> Decider:
        """What decides over that store."""
        self._look(app)
        return self._decider

    def _look(self, app: Quart) -> None:
        asked = app.config.get(STORE)
        if asked is None:
            asked = self._memory
        if asked is not self._asked:
            self._use(asked)

    def _use(self, asked: Any) -> None:
        self._store = as_store(asked)
        self._decider = decider_of(self._store)
        self._asked = asked


def state_of(app: Quart) -> AppState:
    """The state of an application."""
    state: AppState | None = app.extensions.get(_EXTENSION)
    if state is None:
        state = app.extensions[_EXTENSION] = AppState()
    return state
