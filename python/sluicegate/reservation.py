"""Units taken before their cost is known."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from . import _core
from ._support import key_bytes
from .errors import StoreError
from .waiting import wake

__all__ = ["BaseReservation", "Reservation"]

log = logging.getLogger("sluicegate")


class BaseReservation:
    """What reserving came to: false when refused, `decision` says why.

    Never settled means charged. Settling or cancelling again is harmless, and so is
    either after `ttl` seconds, or of a refused reservation.
    """

    __slots__ = ("_cost", "_key", "_receipt", "_table", "decision")

    def __init__(
        self,
        limiter: _core.Limiter,
        key: _core.Key,
        cost: _core.Cost,
        decision: _core.Decision,
        receipt: _core.Receipt | _core.Ticket | None,
    ) -> None:
        self.decision = decision
        self._receipt = receipt
        self._cost = cost
        self._key = key_bytes(key)
        self._table = limiter.table

    def __bool__(self) -> bool:
        return self.decision.allowed

    @property
    def open(self) -> bool:
        """Whether it can still be settled."""
        return self._receipt is not None and self._receipt.open

    def _settle(self, actual: _core.Cost) -> Coroutine[Any, Any, None] | None:
        """Settles it, if it is open: at once in memory, else by what is to be awaited."""
        receipt = self._receipt
        if receipt is None or not receipt.open:
            return None
        if not isinstance(receipt, _core.Receipt):
            return self._settle_elsewhere(receipt, actual)
        receipt.settle_nowait(actual)
        wake(self._table, self._key)  # something may have come back
        return None

    async def _settle_elsewhere(self, ticket: _core.Ticket, actual: _core.Cost) -> None:
        future = ticket.settle(actual)
        if future is not None:
            await future
            wake(self._table, self._key)

    async def _leave(self, failed: bool) -> None:
        pending = self._settle(0 if failed else self._cost)
        if pending is not None:
            try:
                await pending
            except StoreError as error:
                # What was reserved stays charged, and the block's own exception counts.
                log.warning("a reservation was not settled: %s", error)

    def __repr__(self) -> str:
        state = "open" if self.open else "settled" if self else "refused"
        return f"<{type(self).__name__} {state} {self.decision!r}>"


class Reservation(BaseReservation):
    """A reservation of a task. As a context (`async with await limiter.reserve(...)`) it
    is settled at the reserved cost on leaving, unless it was before, and cancelled on an
    exception. It does not raise where it was refused: test it.
    """

    __slots__ = ()

    async def settle(self, actual: _core.Cost) -> None:
        """Charges `actual` in place of what was reserved.

        Less: what is still counted of the rest comes back. More: the rest is charged,
        past the limit if need be.
        """
        pending = self._settle(actual)
        if pending is not None:
            await pending

    async def cancel(self) -> None:
        """Settles at nothing."""
        await self.settle(0)

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        await self._leave(kind is not None)


def own_cost(cost: _core.Cost) -> _core.Cost:
    """The cost as it is now: a mapping may change before its turn comes."""
    return dict(cost) if isinstance(cost, Mapping) else cost
