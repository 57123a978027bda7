"""The same names for threads and WSGI: `from sluicegate.sync import Limiter`.

All of it may be used from many threads at once. State is shared with the asynchronous
limiters of the same name and store.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from . import _core, elsewhere
from ._core import Decision
from ._support import check_number, own
from .base import BaseLimiter, wait_bounds, wait_timeout
from .concurrency import BaseConcurrencyLimiter
from .errors import RateLimitExceeded, StorageError, StoreError, StoreFullError
from .quota import Quota, parse_quotas
from .reservation import BaseReservation, own_cost
from .stores import MemoryStore, open_store
from .waiting import wait_in_thread

__all__ = [
    "ConcurrencyLimiter",
    "Decision",
    "Handle",
    "Limiter",
    "MemoryStore",
    "Quota",
    "RateLimitExceeded",
    "Reservation",
    "StorageError",
    "StoreError",
    "StoreFullError",
    "hit_all",
    "open_store",
    "parse_quotas",
]


T = TypeVar("T")


def run(asked: Coroutine[Any, Any, T]) -> T:
    """What a question to a server comes to; this thread waits, another one asks."""
    from .stores.redis import background

    return background.run(asked)


class Handle(_core.Handle):
    """A limiter and a key that is prepared: `hit` hashes nothing."""

    __slots__ = ()

    hit = _core.Handle.hit_nowait

    def peek(self, cost: _core.Cost = 1) -> Decision:
        """What `hit` would come to; charges nothing."""
        if self.limiter.server is not None:
            return run(elsewhere.peek(self.limiter, self.key, cost))
        return self.peek_nowait(cost)


class Reservation(BaseReservation):
    """A reservation of a thread. As a context (`with limiter.reserve(...)`) it is settled
    at the reserved cost on leaving, unless it was before, and cancelled on an exception.
    It does not raise where it was refused: test it.
    """

    __slots__ = ()

    def settle(self, actual: _core.Cost) -> None:
        """Charges `actual` in place of what was reserved.

        Less: what is still counted of the rest comes back. More: the rest is charged,
        past the limit if need be.
        """
        pending = self._settle(actual)
        if pending is not None:
            run(pending)

    def cancel(self) -> None:
        """Settles at nothing."""
        self.settle(0)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if isinstance(self._receipt, _core.Receipt):
            self._settle(0 if kind is not None else self._cost)
        elif self.open:
            run(self._leave(kind is not None))


class Limiter(BaseLimiter):
    __doc__ = BaseLimiter.__doc__

    __slots__ = ()

    hit = _core.Limiter.hit_nowait

    def _hit_elsewhere(self, key: _core.Key, cost: _core.Cost = 1, quotas: Any = None) -> Decision:
        """What C calls for a hit over a server."""
        return run(elsewhere.hit(self, key, cost, quotas))

    def peek(self, key: _core.Key, cost: _core.Cost = 1) -> Decision:
        """What `hit` would come to; charges nothing."""
        if self.server is not None:
            return run(elsewhere.peek(self, key, cost))
        return self.peek_nowait(key, cost)

    def hit_many(self, pairs: Iterable[tuple[_core.Key, _core.Cost]]) -> list[Decision]:
        """Hits each (key, cost) by itself, in order."""
        if self.server is not None:
            return run(elsewhere.hit_many(self, pairs))
        return self.hit_many_nowait(pairs)

    def check(self, key: _core.Key, cost: _core.Cost = 1) -> Decision:
        """Like `hit`, but raises RateLimitExceeded, with the decision, when refused."""
        decision = self.hit(key, cost)
        if not decision:
            raise RateLimitExceeded(decision)
        return decision

    @staticmethod
    def hit_all(*triples: tuple[_core.Limiter, _core.Key, _core.Cost]) -> Decision:
        """Charges every (limiter, key, cost), or none of them; the decision that binds."""
        if any(getattr(one, "server", None) is not None for one, *_ in triples):
            return run(elsewhere.hit_all(triples))
        return _core.hit_all_nowait(triples)[0]

    def wait(
        self,
        key: _core.Key,
        cost: _core.Cost = 1,
        timeout: float | None = None,
        max_waiters: int = 1000,
    ) -> Decision:
        """Blocks this thread until `cost` is admitted, and charges it.

        First come first served among those who wait for this key in this process. Refused
        at once, and uncharged, when its turn cannot come within `timeout` seconds (None:
        however long), when `max_waiters` wait already, or when it never can be admitted.
        """
        seconds = wait_bounds(timeout, max_waiters)
        if self.server is not None:
            return run(elsewhere.wait(self, key, cost, seconds, max_waiters))
        if self.shadow or not self.enabled:
            return self.hit_nowait(key, cost)
        decision: Decision = wait_in_thread(self._hit_claim(key, cost), seconds, max_waiters)
        return decision

    def reserve(
        self,
        key: _core.Key,
        cost: _core.Cost = 1,
        *,
        timeout: float | None = None,
        ttl: float = 60,
    ) -> Reservation:
        """Charges `cost` now, to be settled at what it really was.

        `timeout`: None decides at once, a number of seconds waits for its turn as `wait`
        does. For `ttl` seconds the reservation can be settled; after that it is charged.
        """
        if self.server is not None:
            check_number(ttl, "ttl")
            wait = None if timeout is None else wait_timeout(timeout)
            decision, ticket = run(elsewhere.reserve(self, key, cost, wait, ttl))
            return Reservation(self, key, own_cost(cost), decision, ticket)
        claim = self._reserve_claim(key, cost, ttl)
        if timeout is None or self.shadow or not self.enabled:
            wait_timeout(timeout)
            decision, receipt = claim.charge()
        else:
            decision, receipt = wait_in_thread(claim, wait_timeout(timeout))
        return Reservation(self, key, claim.cost, decision, receipt)

    def penalize(self, key: _core.Key, cost: _core.Cost = 1) -> None:
        """Charges `cost` even past the limit, by at most one burst."""
        if self.server is not None:
            run(elsewhere.change(self, "penalize", key, cost))
        else:
            self.penalize_nowait(key, cost)

    def ban(self, key: _core.Key, seconds: float) -> None:
        """Refuses all of this key for that long; `retry_after` counts it down."""
        if self.server is not None:
            run(elsewhere.change(self, "ban", key, seconds))
        else:
            self.ban_nowait(key, seconds)

    def reward(self, key: _core.Key, cost: _core.Cost = 1) -> None:
        """Gives `cost` back, at most to full."""
        if self.server is not None:
            run(elsewhere.change(self, "reward", key, cost))
        else:
            self.reward_nowait(key, cost)
        self._wake(key)

    def reset(self, key: _core.Key) -> None:
        """Forgets the key: charges, ban and open reservations."""
        if self.server is not None:
            run(elsewhere.change(self, "reset", key))
        else:
            self.reset_nowait(key)
        self._wake(key)

    def unban(self, key: _core.Key) -> None:
        """Lifts the ban; what was charged before it still counts."""
        if self.server is not None:
            run(elsewhere.change(self, "unban", key))
        else:
            self.unban_nowait(key)
        self._wake(key)

    def bind(self, key: _core.Key) -> Handle:
        """A handle whose `hit` is for this key, prepared."""
        return Handle(self, key)


hit_all = Limiter.hit_all

own(Handle, hit=_core.Handle.hit_nowait, hit_nowait=_core.Handle.hit_nowait)
own(Limiter, hit=_core.Limiter.hit_nowait, hit_nowait=_core.Limiter.hit_nowait)


class ConcurrencyLimiter(BaseConcurrencyLimiter):
    __doc__ = BaseConcurrencyLimiter.__doc__

    __slots__ = ()

    def release(self, slot: _core.Slot) -> bool:
        """Gives the slot back; False if it was not held any more."""
        if self._elsewhere:
            return run(self._release_elsewhere(slot))
        return self.release_nowait(slot)

    def count(self, key: _core.Key) -> int:
        """How many slots of the key are held."""
        if self._elsewhere:
            return run(self._count_elsewhere(key))
        return self.count_nowait(key)

    def acquire(self, key: _core.Key, timeout: float | None = 0) -> _core.Slot | None:
        """A slot, or None if none gets free within `timeout` seconds (None: however long).

        First come first served; who cannot wait does not overtake those who do.
        """
        if self._elsewhere:
            return run(self._acquire_elsewhere(key, wait_timeout(timeout)))
        return wait_in_thread(self._claim(key), wait_timeout(timeout))

    def hold(self, key: _core.Key, timeout: float | None = 0) -> Hold:
        """`with limiter.hold(key):` holds a slot; RateLimitExceeded if there is none."""
        return Hold(self, key, timeout)


class Hold:
    """A slot for the time of a block."""

    __slots__ = ("_key", "_limiter", "_slots", "_timeout")

    def __init__(self, limiter: ConcurrencyLimiter, key: _core.Key, timeout: float | None) -> None:
        self._limiter = limiter
        self._key = key
        self._timeout = timeout
        self._slots: list[_core.Slot] = []  # one may be entered by several threads

    def __enter__(self) -> _core.Slot:
        slot = self._limiter.acquire(self._key, self._timeout)
        if slot is None:
            raise self._limiter._refusal()
        self._slots.append(slot)
        return slot

    def __exit__(self, *exception: Any) -> None:
        self._limiter.release(self._slots.pop())
