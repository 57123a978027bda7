"""Units taken before their cost is known."""

from __future__ import annotations

from collections.abc import Mapping

from . import _core
from ._support import key_bytes
from .waiting import wake

__all__ = ["BaseReservation", "Reservation"]


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
        receipt: _core.Receipt | None,
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

    def _settle(self, actual: _core.Cost) -> None:
        receipt = self._receipt
        if receipt is not None and receipt.open:
            receipt.settle_nowait(actual)
            wake(self._table, self._key)  # something may have come back

    def _leave(self, failed: bool) -> None:
        self._settle(0 if failed else self._cost)

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
        self._settle(actual)

    async def cancel(self) -> None:
        """Settles at nothing."""
        self._settle(0)

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._leave(kind is not None)


def own_cost(cost: _core.Cost) -> _core.Cost:
    """The cost as it is now: a mapping may change before its turn comes."""
    return dict(cost) if isinstance(cost, Mapping) else cost
