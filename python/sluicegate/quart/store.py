"""Stores under the names of quart-rate-limiter, and what `store=` may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from .. import _core, stores
from ..limiter import Limiter
from .arrivals import ArrivalDecider
from .deciding import CoreDecider, Decider

__all__ = ["MemoryStore", "NativeStore", "RateLimiterStoreABC", "as_store", "decider_of"]


class RateLimiterStoreABC(ABC):
    """What a store of your own derives from: arrival times by key.

    Reading and writing are two steps, so that requests at the same time may pass a limit
    together. The stores of this package decide in one.
    """

    @abstractmethod
    async def before_serving(self) -> None:
        """Called when the application of a RateLimiter starts."""

    @abstractmethod
    async def get(self, key: str, default: datetime) -> datetime:
        """The theoretical arrival time of the key, or `default` where there is none."""

    @abstractmethod
    async def set(self, key: str, tat: datetime) -> None:
        """Keeps the theoretical arrival time of the key. It is of no use once it has passed."""

    @abstractmethod
    async def after_serving(self) -> None:
        """Called when the application of a RateLimiter ends."""


class NativeStore(RateLimiterStoreABC):
    """A store of the core behind that interface: limits over it are decided by the core.

    `get` and `set` keep arrival times of their own in it, for stores that wrap this one.
    """

    def __init__(self, make: Callable[[], stores.Store]) -> None:
        self._make = make
        self._native: stores.Store | None = make()  # what is wrong with it shows now
        self._core = CoreDecider(lambda: self.native)
        self._arrivals: Limiter | None = None

    @property
    def native(self) -> stores.Store:
        """The store of the core; once it was closed, a new one."""
        if self._native is None:
            self._native = self._make()
        return self._native

    @property
    def decider(self) -> Decider:
        """What decides over it. A subclass with a `get` or `set` of its own is asked by them."""
        own = type(self)
        if own.get is NativeStore.get and own.set is NativeStore.set:
            return self._core
        return ArrivalDecider(self)

    async def before_serving(self) -> None:
        """Nothing to do: it connects when it is first asked."""

    async def after_serving(self) -> None:
        """Closes it; a later use opens it again."""
        native, self._native, self._arrivals = self._native, None, None
        self._core.forget()
        if native is not None:
            await native.aclose()

    async def get(self, key: str, default: datetime) -> datetime:
        decision = await self._times().peek(key, 0)
        if decision:
            return default
        return datetime.now(timezone.utc) + timedelta(seconds=decision.retry_after)

    async def set(self, key: str, tat: datetime) -> None:
        if tat.tzinfo is None:
            tat = tat.astimezone(timezone.utc)  # a naive one is local time
        ahead = (tat - datetime.now(timezone.utc)).total_seconds()
        if ahead > 0:
            await self._times().ban(key, ahead)
        else:
            await self._times().unban(key)

    def _times(self) -> Limiter:
        """Its bans are arrival times: they lie ahead, count down and end by themselves."""
        if self._arrivals is None:
            self._arrivals = Limiter("1/second", store=self.native, name="quart:arrivals")
        return self._arrivals

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._native!r})"


class MemoryStore(NativeStore):
    """State in the memory of this process, with the options of `sluicegate.MemoryStore`."""

    def __init__(
        self,
        max_keys: int = 1_000_000,
        max_bytes: int | None = None,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: _core.Clock | Callable[[], float] | None = None,
    ) -> None:
        native = stores.MemoryStore(max_keys, max_bytes, on_full, clock)
        super().__init__(lambda: native)

    async def after_serving(self) -> None:
        """Nothing to close; what was counted stays."""


def as_store(store: Any) -> RateLimiterStoreABC | stores.Store:
    """What an argument `store=` means: a URL, a store of the core, or one of the above.

    TypeError for anything else, ValueError for a URL that no store has.
    """
    if isinstance(store, RateLimiterStoreABC):
        return store
    return stores.open_store(store)


def decider_of(store: RateLimiterStoreABC | stores.Store) -> Decider:
    """What decides over that store."""
    if isinstance(store, NativeStore):
        return store.decider
    if isinstance(store, RateLimiterStoreABC):
        return ArrivalDecider(store)
    return CoreDecider(lambda: store)
