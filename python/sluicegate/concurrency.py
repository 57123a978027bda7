"""How many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core
from . import releasing as releasing  # who waits for a slot is woken
from ._support import check_number
from .base import check_name, wait_timeout
from .claims import SlotClaim
from .errors import RateLimitExceeded
from .stores import LocalStore, Store, attach, open_store
from .waiting import wait_in_task

if TYPE_CHECKING:
    from .stores.redis.held import Held

__all__ = ["BaseConcurrencyLimiter", "ConcurrencyLimiter"]


class BaseConcurrencyLimiter:
    """At most `limit` slots of a key are held at once.

    Limiters of one name on one store share their slots; unnamed ones in memory share
    nothing. Slots of a process that died lapse after `ttl` seconds in stores outside it;
    in memory they die with it.
    """

    __slots__ = ("__weakref__", "_home", "_slots", "_slots_name", "_store", "_table", "name", "ttl")

    def __init__(
        self,
        limit: int,
        *,
        store: Store | str | None = None,
        name: str | None = None,
        ttl: float = 30,
    ) -> None:
        check_name(name)
        self.name = name
        self.ttl = check_number(ttl, "ttl")
        self._store = open_store(store)
        self._table = self._store.slots(name)
        self._slots = _core.Slots(self._table, limit)
        self._home = (self._store, self._table)
        self._slots_name = name  # in the store that it uses now
        self._tell_store()
        attach(self)

    @property
    def limit(self) -> int:
        """How many slots of a key are held at most."""
        return self._slots.limit

    @property
    def store(self) -> Store:
        """Where its slots are now."""
        return self._store

    @property
    def table(self) -> _core.Table:
        """The counters of its slots: what `sluicegate.observe` reads."""
        return self._table

    def acquire_nowait(self, key: _core.Key) -> _core.Slot | None:
        """A slot if one is free, at once; it may be there before those who wait."""
        self._in_memory("acquire")
        return self._slots.acquire_nowait(key)

    def release_nowait(self, slot: _core.Slot) -> bool:
        """Gives the slot back; False if it was not held any more."""
        return slot.release_nowait()  # which wakes who waits: see _released

    def count_nowait(self, key: _core.Key) -> int:
        """How many slots of the key are held."""
        self._in_memory("count")
        return self._slots.count_nowait(key)

    @property
    def _elsewhere(self) -> bool:
        """Whether a server keeps its slots."""
        return not isinstance(self._store, LocalStore)

    def _in_memory(self, what: str) -> None:
        if self._elsewhere:
            raise RuntimeError(
                f"{what}_nowait needs slots in this process; these are on a server: "
                f"await {what}(), or use sluicegate.sync"
            )

    async def _acquire_elsewhere(self, key: _core.Key, timeout: float) -> _core.Slot | None:
        from .elsewhere import acquire

        return await acquire(self._held(), self._table, key, self.limit, timeout)

    async def _release_elsewhere(self, slot: _core.Slot) -> bool:
        was_held = slot.release_nowait()
        await self._held().given_back()
        return was_held

    async def _count_elsewhere(self, key: _core.Key) -> int:
        return await self._held().count(key)

    def _held(self) -> Held:
        """What the running loop holds of a server's slots."""
        assert not isinstance(self._store, LocalStore)
        return self._store.held(self._slots_name, self.ttl)

    def _claim(self, key: _core.Key) -> SlotClaim:
        return SlotClaim(self._slots, self._table, key, self._store.clock)

    def _refusal(self) -> RateLimitExceeded:
        # how long others hold theirs nobody knows
        decision = _core.Decision(False, limit=self.limit, retry_after=float("inf"))
        limit = f"{self.limit} slot{'s' if self.limit != 1 else ''}"
        return RateLimitExceeded(decision, f"Rate limit exceeded: {limit} held at once")

    def _use_store(self, store: Store | None) -> None:
        if store is None or store is self._home[0]:
            self._store, self._table = self._home
            self._slots_name = self.name
        else:
            self._slots_name = store.loose_name() if self.name is None else self.name
            self._store, self._table = store, store.slots(self._slots_name)
        self._slots = _core.Slots(self._table, self.limit)
        self._tell_store()

    def _tell_store(self) -> None:
        self._store.made_slots(self._slots_name, self.limit)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"{type(self).__name__}({self.limit}, store={self._store!r}{name})"


class ConcurrencyLimiter(BaseConcurrencyLimiter):
    __doc__ = BaseConcurrencyLimiter.__doc__

    __slots__ = ()

    async def acquire(self, key: _core.Key, timeout: float | None = 0) -> _core.Slot | None:
        """A slot, or None if none gets free within `timeout` seconds (None: however long).

        First come first served; who cannot wait does not overtake those who do.
        """
        seconds = wait_timeout(timeout)
        if self._elsewhere:
            return await self._acquire_elsewhere(key, seconds)
        return await wait_in_task(self._claim(key), seconds)

    async def release(self, slot: _core.Slot) -> bool:
        """Gives the slot back; False if it was not held any more."""
        if self._elsewhere:
            return await self._release_elsewhere(slot)
        return self.release_nowait(slot)

    def hold(self, key: _core.Key, timeout: float | None = 0) -> Hold:
        """`async with limiter.hold(key):` holds a slot; RateLimitExceeded if there is none."""
        return Hold(self, key, timeout)

    async def count(self, key: _core.Key) -> int:
        """How many slots of the key are held."""
        if self._elsewhere:
            return await self._count_elsewhere(key)
        return self.count_nowait(key)


class Hold:
    """A slot for the time of a block."""

    __slots__ = ("_key", "_limiter", "_slots", "_timeout")

    def __init__(self, limiter: ConcurrencyLimiter, key: _core.Key, timeout: float | None) -> None:
        self._limiter = limiter
        self._key = key
        self._timeout = timeout
        self._slots: list[_core.Slot] = []  # one may be entered by several tasks

    async def __aenter__(self) -> _core.Slot:
        slot = await self._limiter.acquire(self._key, self._timeout)
        if slot is None:
            raise self._limiter._refusal()
        self._slots.append(slot)
        return slot

    async def __aexit__(self, *exception: Any) -> None:
        await self._limiter.release(self._slots.pop())
