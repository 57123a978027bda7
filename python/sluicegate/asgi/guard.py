"""One rule's messages on one connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from .. import _core
from ..errors import StoreError
from ..limiter import Limiter, hit_together
from ..websocket.excess import Excess, Peer
from ..websocket.sizes import size_of
from .counting import Counting
from .entry import Applied
from .types import Message

__all__ = ["Excessive", "Guard", "decide"]


class Guard:
    """A rule's limits of messages, for one connection."""

    __slots__ = ("_cost", "_key", "counting", "excess", "gate", "limiter", "max_size", "sized")

    def __init__(self, applied: Applied, peer: Peer) -> None:
        counting: Counting = applied.counting
        rule = counting.rule
        self.counting = counting
        self.limiter = counting.messages
        most: Any = rule.max_message_size  # bytes: the rule has parsed it
        self.max_size: int | None = most
        self.sized = rule.bytes is not None or self.max_size is not None
        self._key = counting.where.key(applied.who, applied.path)
        self._cost = rule.cost if rule.messages is not None else None
        self.excess = Excess(peer, counting.store, rule.on_excess, rule.max_delay, rule.notify)
        # the usual case at once: where a message's cost is a function's, it is none
        self.gate: _core.MessageGate | None = None
        if self._cost is None:
            count = len(counting.message_names)
            self.gate = _core.MessageGate(self.limiter, self._key, count, self.max_size)

    async def charge(self, message: Message, size: int) -> tuple[Limiter, str, _core.Cost] | None:
        """What a message is charged to; None where its size alone is limited."""
        if self.limiter is None:
            return None
        cost = 1 if self._cost is None else self._cost(message)
        if hasattr(cost, "__await__"):
            cost = await cost
        return self.limiter, self._key, self.counting.costs(size, cost)

    async def watch(self, message: Message, size: int) -> None:
        """The same for a shadow rule, which refuses nothing."""
        charge = await self.charge(message, size)
        if charge is not None:
            limiter, key, cost = charge
            with suppress(StoreError):
                await limiter.hit(key, cost)

    def refuses(self, decision: _core.Decision) -> bool:
        """Whether it is one of its quotas that refuses."""
        return self.limiter is not None and any(
            decision.quota is quota for quota in self.limiter.quotas
        )

    def excessive(self, decision: _core.Decision) -> Excessive:
        """What that refusal of its quotas is called."""
        quota = decision.quota
        if quota is None and decision.degraded:
            reason = "internal_error"
        elif quota is not None and quota.name in self.counting.byte_names:
            reason = "bandwidth_exceeded"
        else:
            reason = "rate_limit_exceeded"
        return Excessive(decision, self, reason)


class Excessive(NamedTuple):
    """A message that is refused: by which rule, and why."""

    decision: _core.Decision
    by: Guard
    reason: str


async def decide(
    guards: Sequence[Guard], watching: Sequence[Guard], message: Message
) -> Excessive | None:
    """Decides a message by all rules as one, and charges it; None where it is admitted."""
    size = 0
    if any(guard.sized for guard in (*guards, *watching)):
        text = message.get("text")
        size = size_of((message.get("bytes") or b"") if text is None else text)
    for guard in watching:
        await guard.watch(message, size)
    for guard in guards:
        if guard.max_size is not None and size > guard.max_size:
            too_large = _core.Decision(False, limit=guard.max_size, retry_after=inf)
            return Excessive(too_large, guard, "message_too_large")
    charges = [
        charge for guard in guards if (charge := await guard.charge(message, size)) is not None
    ]
    if not charges:
        return None
    decision = await hit_together(charges)
    if decision.allowed:
        return None
    limited = [guard for guard in guards if guard.limiter is not None]
    by = next((guard for guard in limited if guard.refuses(decision)), limited[0])
    return by.excessive(decision)
