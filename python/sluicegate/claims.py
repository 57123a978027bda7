"""What `wait` and `reserve` of a limiter wait for."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isinf
from typing import Any

from . import _core
from ._support import key_bytes
from .reservation import own_cost
from .waiting import LOOK_AGAIN, StoreClock

__all__ = ["HitClaim", "ReserveClaim", "SlotClaim", "above", "comes", "refused_behind"]

_NOISE = 2e-9
_SHORTEST = 1e-3  # seconds a refusal names at least, where units are there but not its turn


class HitClaim:
    """Units of a key, to be charged when there are enough."""

    __slots__ = ("_given", "clock", "cost", "key", "limiter", "table")

    def __init__(
        self, limiter: _core.Limiter, key: _core.Key, cost: _core.Cost, clock: StoreClock
    ) -> None:
        self.limiter = limiter
        self.table = limiter.table
        self.clock = clock
        self.cost = own_cost(cost)
        self.key = key_bytes(key)
        self._given = key

    def attempt(self, left: float) -> tuple[bool, Any, float]:
        # looks first: what waits on is no refusal, and is not counted as one
        seen = self.limiter.peek_nowait(self._given, self.cost)
        if not seen.allowed and comes(seen, left):
            return False, None, seen.retry_after
        outcome = self.charge()
        decision = self.decision_of(outcome)
        if not decision.allowed and comes(decision, left):  # another thread was faster
            return False, None, decision.retry_after
        return True, outcome, 0.0

    def decision_of(self, outcome: Any) -> _core.Decision:
        decision: _core.Decision = outcome
        return decision

    def charge(self) -> Any:
        return self.limiter.hit_nowait(self._given, self.cost)

    def too_late(self, ahead: Sequence[Any], left: float) -> bool:
        wait = self._project(ahead)
        return isinf(wait) or above(wait, left)

    def refusal(self, ahead: Sequence[Any]) -> Any:
        seen = self.limiter.peek_nowait(self._given, self.cost)
        return self.refused(refused_behind(seen, self._project(ahead)))

    def refused(self, decision: _core.Decision) -> Any:
        return decision

    def _project(self, ahead: Sequence[Any]) -> float:
        """Seconds until its turn, if all ahead are served as soon as can be."""
        costs = [claim.cost for claim in ahead]
        try:
            return self.limiter.project_nowait(self._given, [*costs, self.cost])
        except ValueError:
            # another limiter of this name calls its quotas by other names
            return self.limiter.project_nowait(self._given, [self.cost])


def refused_behind(seen: _core.Decision, wait: float) -> _core.Decision:
    """The refusal of who would wait for `wait` seconds behind others; `seen` is without them."""
    return _core.Decision(
        False,
        quota=seen.quota,
        limit=seen.limit,
        remaining=seen.remaining,
        retry_after=max(wait, seen.retry_after, _SHORTEST),
        reset_after=seen.reset_after,
        degraded=seen.degraded,
    )


def comes(decision: _core.Decision, left: float) -> bool:
    return not isinf(decision.retry_after) and not above(decision.retry_after, left)


def above(seconds: float, left: float) -> bool:
    """What is left is a difference of floats: a nanosecond or two are its noise."""
    return seconds > (left + _NOISE if left > 0 else 0.0)


class ReserveClaim(HitClaim):
    """The same, to be settled later: (decision, receipt)."""

    __slots__ = ("_ttl",)

    def __init__(
        self,
        limiter: _core.Limiter,
        key: _core.Key,
        cost: _core.Cost,
        clock: StoreClock,
        ttl: float,
    ) -> None:
        super().__init__(limiter, key, cost, clock)
        self._ttl = ttl

    def decision_of(self, outcome: Any) -> _core.Decision:
        decision: _core.Decision = outcome[0]
        return decision

    def charge(self) -> Any:
        return self.limiter.reserve_nowait(self._given, self.cost, self._ttl)

    def refused(self, decision: _core.Decision) -> Any:
        return decision, None


class SlotClaim:
    """A slot of a key, to be held when one is free."""

    __slots__ = ("_given", "clock", "key", "slots", "table")

    def __init__(
        self, slots: _core.Slots, table: _core.Table, key: _core.Key, clock: StoreClock
    ) -> None:
        self.slots = slots
        self.table = table
        self.clock = clock
        self.key = key_bytes(key)
        self._given = key

    def attempt(self, left: float) -> tuple[bool, _core.Slot | None, float]:
        slot = self.slots.acquire_nowait(self._given)
        # no time can be told: whoever gives one back wakes the head; another process cannot
        return slot is not None or left <= 0, slot, LOOK_AGAIN if self.table.shared else inf

    def too_late(self, ahead: Sequence[Any], left: float) -> bool:
        return left <= 0

    def refusal(self, ahead: Sequence[Any]) -> _core.Slot | None:
        return None
