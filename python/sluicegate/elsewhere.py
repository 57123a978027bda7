"""What a limiter does whose state is on a server: each operation is one question to it.

`Limiter` awaits these; `sluicegate.sync` runs them on the loop of a background thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf, isinf
from typing import TYPE_CHECKING, Any

from . import _core
from ._support import key_bytes
from .claims import above, comes, refused_behind
from .errors import StoreError
from .reservation import own_cost
from .waiting import LOOK_AGAIN, wait_for_server

if TYPE_CHECKING:
    from .base import BaseLimiter

__all__ = [
    "acquire",
    "as_degraded",
    "change",
    "hit",
    "hit_all",
    "hit_anywhere",
    "hit_in_detail",
    "hit_many",
    "peek",
    "reserve",
    "wait",
]

PEEK, HIT, RESERVE = 0, 1, 2
DETAILED, QUIET = 1, 2  # of _ask: all that is known; a refusal is not counted

Triple = tuple[_core.Limiter, _core.Key, _core.Cost]

log = logging.getLogger("sluicegate")


async def answer(asked: Any) -> Any:
    """What was known at once, or what the server says."""
    # asyncio.isfuture, for a module that may be imported where asyncio is not
    return await asked if hasattr(asked, "_asyncio_future_blocking") else asked


async def hit(
    limiter: _core.Limiter, key: _core.Key, cost: _core.Cost, quotas: Any = None
) -> _core.Decision:
    decision: _core.Decision = await answer(limiter._ask(HIT, key, cost, quotas))
    return decision


async def hit_anywhere(limiter: _core.Limiter, key: _core.Key) -> _core.Decision:
    """A hit, wherever the limiter's state is."""
    return limiter.hit_nowait(key) if limiter.server is None else await hit(limiter, key, 1)


async def hit_in_detail(
    limiter: _core.Limiter, key: _core.Key, cost: _core.Cost
) -> tuple[_core.Decision, int, tuple[int | None, ...]]:
    """The decision, the bits of the quotas that refuse, and what remains of each (None: it does
    not limit)."""
    found: tuple[_core.Decision, int, tuple[int | None, ...]] = await answer(
        limiter._ask(HIT, key, cost, None, 60.0, DETAILED)
    )
    return found


async def peek(limiter: _core.Limiter, key: _core.Key, cost: _core.Cost) -> _core.Decision:
    decision: _core.Decision = await answer(limiter._ask(PEEK, key, cost))
    return decision


async def hit_many(
    limiter: _core.Limiter, pairs: Iterable[tuple[_core.Key, _core.Cost]]
) -> list[_core.Decision]:
    decisions: list[_core.Decision] = await answer(limiter._ask_many(pairs))
    return decisions


async def change(
    limiter: _core.Limiter, operation: str, key: _core.Key, argument: Any = None
) -> None:
    """StoreError whatever on_store_error says: what was to be kept was not."""
    await limiter._change(operation, key, argument)


# ---- several limiters


async def hit_all(triples: Sequence[Triple]) -> _core.Decision:
    """All or none, of limiters that are not all in memory."""
    for triple in triples:
        if len(triple) != 3:
            raise TypeError("hit_all takes tuples (limiter, key, cost)")
    stores = {id(_store_of(limiter)) for limiter, _, _ in triples}
    store = _store_of(triples[0][0])
    if len(stores) == 1 and store is not None and store.settings.kind != "cluster":
        try:
            decision: _core.Decision = (await answer(_core.ask_all(triples)))[0]
        except StoreError as error:
            return _all_without_store(triples, error)
        return decision
    return await _reserve_all(triples)


def _store_of(limiter: _core.Limiter) -> Any:
    return None if limiter.server is None else getattr(limiter, "store", None)


def _all_without_store(triples: Sequence[Triple], error: StoreError) -> _core.Decision:
    """By the strictest policy among them: raise, deny, local, allow."""
    policies = {getattr(limiter, "on_store_error", "raise") for limiter, _, _ in triples}
    if "raise" in policies:
        raise error
    if "deny" in policies:
        return _core.Decision(False, retry_after=1.0, reset_after=1.0, degraded=True)
    if "local" not in policies:
        return _core.Decision(True, degraded=True)
    local = [
        (_core.Limiter(limiter.table, limiter.quotas, shadow=limiter.shadow), key, cost)
        for limiter, key, cost in triples
        if getattr(limiter, "on_store_error", "raise") == "local"
    ]
    return as_degraded(_core.hit_all_nowait(local)[0])


def as_degraded(decision: _core.Decision) -> _core.Decision:
    """The same decision, as one that the store asked did not make."""
    return _flagged(decision, degraded=True, shadow=decision.shadow)


def _flagged(decision: _core.Decision, *, degraded: bool, shadow: bool) -> _core.Decision:
    if (decision.degraded, decision.shadow) == (degraded, shadow):
        return decision
    return _core.Decision(
        decision.allowed,
        quota=decision.quota,
        limit=decision.limit,
        remaining=decision.remaining,
        retry_after=decision.retry_after,
        reset_after=decision.reset_after,
        degraded=degraded,
        shadow=shadow,
    )


def _bound(decision: _core.Decision, among: Sequence[_core.Decision]) -> _core.Decision:
    """The one that binds, which also tells what any of the others would have told."""
    return _flagged(
        decision,
        degraded=any(one.degraded for one in among),
        shadow=any(one.shadow for one in among),
    )


async def _reserve_all(triples: Sequence[Triple]) -> _core.Decision:
    """Over several stores, or several nodes of a cluster: each is reserved, and where one is
    refused the others get theirs back."""
    made: list[tuple[_core.Decision, Any]] = []
    try:
        for limiter, key, cost in triples:
            made.append(await _reserve_one(limiter, key, cost))
            if not made[-1][0].allowed:
                break
    except BaseException:
        await _settle_all(made, 0)
        raise
    decisions = [decision for decision, _ in made]
    if decisions[-1].allowed:
        await _settle_all(made, None, triples)
        return _bound(min(decisions, key=_left), decisions)
    # of those after the first refusal one may refuse for longer
    await _settle_all(made, 0)
    decisions += [await _peek_one(*triple) for triple in triples[len(made) :]]
    refused = [decision for decision in decisions if not decision.allowed]
    return _bound(max(refused, key=lambda decision: decision.retry_after), decisions)


async def _reserve_one(
    limiter: _core.Limiter, key: _core.Key, cost: _core.Cost
) -> tuple[_core.Decision, Any]:
    if limiter.server is None:
        return limiter.reserve_nowait(key, cost)
    outcome: tuple[_core.Decision, Any] = await answer(limiter._ask(RESERVE, key, cost))
    return outcome


async def _peek_one(limiter: _core.Limiter, key: _core.Key, cost: _core.Cost) -> _core.Decision:
    if limiter.server is None:
        return limiter.peek_nowait(key, cost)
    return await peek(limiter, key, cost)


def _left(decision: _core.Decision) -> float:
    """The share of its quota that is left; nothing limits where there is none."""
    return inf if decision.quota is None else decision.remaining / decision.quota.burst


async def _settle_all(
    made: Sequence[tuple[_core.Decision, Any]], actual: int | None, triples: Sequence[Triple] = ()
) -> None:
    """At `actual`, or (None) at what was reserved. What cannot be settled stays charged."""
    from asyncio import gather

    asked = []
    for place, (_, receipt) in enumerate(made):
        if receipt is None or not receipt.open:
            continue
        cost = triples[place][2] if actual is None else actual
        if isinstance(receipt, _core.Receipt):
            receipt.settle_nowait(cost)
            continue
        try:
            asked.append(receipt.settle(cost))
        except StoreError as error:
            log.warning("a refund of hit_all was not made: %s", error)
    for outcome in await gather(
        *(future for future in asked if future is not None), return_exceptions=True
    ):
        if isinstance(outcome, BaseException):
            log.warning("a refund of hit_all was not made: %s", outcome)


# ---- waiting


class _HitClaim:
    """Units of a key on a server, to be charged when there are enough."""

    __slots__ = ("_fetched", "clock", "cost", "given", "key", "limiter", "table")

    def __init__(self, limiter: _core.Limiter, key: _core.Key, cost: _core.Cost) -> None:
        self.limiter = limiter
        self.table = limiter.table
        self.clock = None
        self.cost = own_cost(cost)
        self.given = key
        self.key = key_bytes(key)
        self._fetched: Any = None

    async def attempt(self, left: float) -> tuple[bool, Any, float]:
        outcome = await self.charge()
        decision = self.decision_of(outcome)
        if decision.allowed or not comes(decision, left):
            return True, outcome, 0.0
        return False, None, decision.retry_after

    async def charge(self) -> Any:
        return await answer(self.limiter._ask(HIT, self.given, self.cost, None, 60.0, QUIET))

    def decision_of(self, outcome: Any) -> _core.Decision:
        decision: _core.Decision = outcome
        return decision

    def refused(self, decision: _core.Decision) -> Any:
        return decision

    def follows(self, other: _HitClaim) -> bool:
        """Whether all that admits it would have admitted the other."""
        if self.limiter is not other.limiter:
            return False
        if isinstance(self.cost, int) and isinstance(other.cost, int):
            return self.cost >= other.cost
        return self.cost == other.cost

    async def look(self) -> None:
        with suppress(StoreError):  # the attempt will tell
            self._fetched = await self.limiter._fetch(self.given)

    def too_late(self, ahead: Sequence[Any], left: float) -> bool:
        wait = self._project(ahead)
        return isinf(wait) or above(wait, left)

    async def refusal(self, ahead: Sequence[Any]) -> Any:
        await self.look()
        seen = await peek(self.limiter, self.given, self.cost)
        return self.refused(refused_behind(seen, self._project(ahead)))

    def _project(self, ahead: Sequence[Any]) -> float:
        if self._fetched is None:
            return 0.0
        costs = [claim.cost for claim in ahead]
        try:
            return self.limiter._foretell(self._fetched, [*costs, self.cost])
        except ValueError:
            # another limiter of this name calls its quotas by other names
            return self.limiter._foretell(self._fetched, [self.cost])


class _ReserveClaim(_HitClaim):
    """The same, to be settled later: (decision, ticket)."""

    __slots__ = ("_ttl",)

    def __init__(
        self, limiter: _core.Limiter, key: _core.Key, cost: _core.Cost, ttl: float
    ) -> None:
        super().__init__(limiter, key, cost)
        self._ttl = ttl

    async def charge(self) -> Any:
        return await answer(
            self.limiter._ask(RESERVE, self.given, self.cost, None, self._ttl, QUIET)
        )

    def decision_of(self, outcome: Any) -> _core.Decision:
        decision: _core.Decision = outcome[0]
        return decision

    def refused(self, decision: _core.Decision) -> Any:
        return decision, None


async def wait(
    limiter: BaseLimiter, key: _core.Key, cost: _core.Cost, timeout: float, max_waiters: float
) -> _core.Decision:
    if limiter.shadow or not limiter.enabled:
        return await hit(limiter, key, cost)
    decision: _core.Decision = await wait_for_server(
        _HitClaim(limiter, key, cost), timeout, max_waiters
    )
    return decision


async def reserve(
    limiter: BaseLimiter, key: _core.Key, cost: _core.Cost, timeout: float | None, ttl: float
) -> tuple[_core.Decision, Any]:
    """The decision, and what to settle by. `timeout` None: at once, no queue."""
    outcome: tuple[_core.Decision, Any]
    if timeout is None or limiter.shadow or not limiter.enabled:
        outcome = await answer(limiter._ask(RESERVE, key, cost, None, ttl))
    else:
        outcome = await wait_for_server(_ReserveClaim(limiter, key, cost, ttl), timeout)
    return outcome


class _SlotClaim:
    """A slot of a key on a server, to be held when one is free."""

    __slots__ = ("_held", "_limit", "clock", "given", "key", "table")

    def __init__(self, held: Any, table: _core.Table, key: _core.Key, limit: int) -> None:
        self._held = held
        self._limit = limit
        self.table = table
        self.clock = None
        self.given = key
        self.key = key_bytes(key)

    async def attempt(self, left: float) -> tuple[bool, _core.Slot | None, float]:
        slot: _core.Slot | None = await self._held.acquire(self.given, self._limit)
        return slot is not None or left <= 0, slot, LOOK_AGAIN

    def follows(self, other: _SlotClaim) -> bool:
        """Whether the other had a slot wherever this one has."""
        return self._limit <= other._limit

    async def look(self) -> None:
        """Nothing tells when one will be free."""

    def too_late(self, ahead: Sequence[Any], left: float) -> bool:
        return left <= 0

    async def refusal(self, ahead: Sequence[Any]) -> _core.Slot | None:
        return None


async def acquire(
    held: Any, table: _core.Table, key: _core.Key, limit: int, timeout: float
) -> _core.Slot | None:
    slot: _core.Slot | None = await wait_for_server(_SlotClaim(held, table, key, limit), timeout)
    return slot
