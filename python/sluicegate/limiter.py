"""The limiter of asynchronous programs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import _core, elsewhere
from ._support import check_number, own
from .base import BaseLimiter, wait_bounds, wait_timeout
from .errors import RateLimitExceeded
from .reservation import Reservation, own_cost
from .waiting import wait_in_task

__all__ = ["Handle", "Limiter", "hit_all", "hit_together"]


class Handle(_core.Handle):
    """A limiter and a key that is prepared: `hit` hashes nothing."""

    __slots__ = ()

    if TYPE_CHECKING or sys.version_info >= (3, 12):

        async def hit(self, cost: _core.Cost = 1) -> _core.Decision:
            """Charges `cost`, or none of it. See Limiter.hit."""
            if self.limiter.server is not None:
                return await elsewhere.hit(self.limiter, self.key, cost)
            return self.hit_nowait(cost)

    async def peek(self, cost: _core.Cost = 1) -> _core.Decision:
        """What `hit` would come to; charges nothing."""
        if self.limiter.server is not None:
            return await elsewhere.peek(self.limiter, self.key, cost)
        return self.peek_nowait(cost)


class Limiter(BaseLimiter):
    __doc__ = BaseLimiter.__doc__

    __slots__ = ()

    # A ready coroutine object in C is the fastest to await up to 3.11 (it is set below), a
    # coroutine over the C call from 3.12. Either charges when first awaited, never when called.
    if TYPE_CHECKING or sys.version_info >= (3, 12):

        async def hit(
            self,
            key: _core.Key,
            cost: _core.Cost = 1,
            *,
            quotas: Any = None,
        ) -> _core.Decision:
            """Charges `cost` to `key` if all quotas admit it, else nothing.

            An int is the cost to every quota; a mapping names quotas, those not named
            take 1. `quotas` are other numbers for this one event (a rate string, quotas).
            Never raises because of a limit: the decision is false when refused.
            StoreError where a server does not decide and `on_store_error` is "raise".
            """
            if self.server is not None:
                return await elsewhere.hit(self, key, cost, quotas)
            return self.hit_nowait(key, cost, quotas=quotas)

    async def peek(self, key: _core.Key, cost: _core.Cost = 1) -> _core.Decision:
        """What `hit` would come to; charges nothing."""
        if self.server is not None:
            return await elsewhere.peek(self, key, cost)
        return self.peek_nowait(key, cost)

    async def check(self, key: _core.Key, cost: _core.Cost = 1) -> _core.Decision:
        """Like `hit`, but raises RateLimitExceeded, with the decision, when refused."""
        decision = await self.hit(key, cost)
        if not decision:
            raise RateLimitExceeded(decision)
        return decision

    async def hit_many(self, pairs: Iterable[tuple[_core.Key, _core.Cost]]) -> list[_core.Decision]:
        """Hits each (key, cost) by itself, in order."""
        if self.server is not None:
            return await elsewhere.hit_many(self, pairs)
        return self.hit_many_nowait(pairs)

    @staticmethod
    async def hit_all(*triples: tuple[_core.Limiter, _core.Key, _core.Cost]) -> _core.Decision:
        """Charges every (limiter, key, cost), or none of them; the decision that binds.

        Limiters of one Redis or Valkey store are one question. Over a cluster, and over several
        stores, each is reserved, and where one refuses the others get theirs back.
        """
        if any(getattr(one, "server", None) is not None for one, *_ in triples):
            return await elsewhere.hit_all(triples)
        return _core.hit_all_nowait(triples)[0]

    async def wait(
        self,
        key: _core.Key,
        cost: _core.Cost = 1,
        timeout: float | None = None,
        max_waiters: int = 1000,
    ) -> _core.Decision:
        """Waits until `cost` is admitted, and charges it.

        First come first served among those who wait for this key in this process. Refused
        at once, and uncharged, when its turn cannot come within `timeout` seconds (None:
        however long), when `max_waiters` wait already, or when it never can be admitted.
        A cancelled task gives its turn to the next.
        """
        seconds = wait_bounds(timeout, max_waiters)
        if self.server is not None:
            return await elsewhere.wait(self, key, cost, seconds, max_waiters)
        if self.shadow or not self.enabled:
            return self.hit_nowait(key, cost)
        return await wait_in_task(self._hit_claim(key, cost), seconds, max_waiters)

    async def reserve(
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
            seconds = None if timeout is None else wait_timeout(timeout)
            decision, ticket = await elsewhere.reserve(self, key, cost, seconds, ttl)
            return Reservation(self, key, own_cost(cost), decision, ticket)
        claim = self._reserve_claim(key, cost, ttl)
        if timeout is None or self.shadow or not self.enabled:
            wait_timeout(timeout)
            decision, receipt = claim.charge()
        else:
            decision, receipt = await wait_in_task(claim, wait_timeout(timeout))
        return Reservation(self, key, claim.cost, decision, receipt)

    async def penalize(self, key: _core.Key, cost: _core.Cost = 1) -> None:
        """Charges `cost` even past the limit, by at most one burst."""
        if self.server is not None:
            await elsewhere.change(self, "penalize", key, cost)
        else:
            self.penalize_nowait(key, cost)

    async def reward(self, key: _core.Key, cost: _core.Cost = 1) -> None:
        """Gives `cost` back, at most to full."""
        if self.server is not None:
            await elsewhere.change(self, "reward", key, cost)
        else:
            self.reward_nowait(key, cost)
        self._wake(key)

    async def reset(self, key: _core.Key) -> None:
        """Forgets the key: charges, ban and open reservations."""
        if self.server is not None:
            await elsewhere.change(self, "reset", key)
        else:
            self.reset_nowait(key)
        self._wake(key)

    async def ban(self, key: _core.Key, seconds: float) -> None:
        """Refuses all of this key for that long; `retry_after` counts it down."""
        if self.server is not None:
            await elsewhere.change(self, "ban", key, seconds)
        else:
            self.ban_nowait(key, seconds)

    async def unban(self, key: _core.Key) -> None:
        """Lifts the ban; what was charged before it still counts."""
        if self.server is not None:
            await elsewhere.change(self, "unban", key)
        else:
            self.unban_nowait(key)
        self._wake(key)

    def bind(self, key: _core.Key) -> Handle:
        """A handle whose `hit` is for this key, prepared."""
        return Handle(self, key)


hit_all = Limiter.hit_all


def hit_together(
    charges: Sequence[tuple[Limiter, _core.Key, _core.Cost]],
) -> Awaitable[_core.Decision]:
    """`hit_all` of charges, which are often one: that is a hit, and costs no more."""
    if len(charges) == 1:
        limiter, key, cost = charges[0]
        return limiter.hit(key, cost)
    return Limiter.hit_all(*charges)


for _class, _base in ((Limiter, _core.Limiter), (Handle, _core.Handle)):
    own(_class, hit_nowait=_base.hit_nowait)
    if sys.version_info < (3, 12):
        own(_class, hit=_base.hit_awaitable)


def _register_coroutine() -> None:
    """create_task and gather take what is a Coroutine by name."""
    call = getattr(_core, "Call", None)
    if call is None:
        table = _core.Table(["gcra"], max_keys=16)
        made: Any = _core.Limiter(table, [_core.Quota(1, 1)]).hit_awaitable("")
        call = type(made)
        made.close()
    if not issubclass(call, Coroutine):
        Coroutine.register(call)


_register_coroutine()
