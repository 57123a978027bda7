"""Limits made ready: the limiters of one WebSocketRateLimiter over its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core, elsewhere
from ..quota import Quota
from ..stores import LocalStore, MemoryStore
from .places import Places, ServerPlaces

if TYPE_CHECKING:
    from ..stores import Store
    from .failure import Policy
    from .limits import WebSocketLimits

__all__ = ["Plan", "Plans"]

KEPT = 1024  # plans of a callable's limits that are kept ready

# Where a client's messages or bytes are unlimited its limiter has a hole, so that clients
# with and without share one table; only its algorithm counts.
_HOLE_LIMIT, _HOLE_PERIOD = 1, 60.0

_USUAL = {"messages": 2, "connections": 1}  # quotas of the minute fields


class Plan:
    """The limits of some clients, and the limiters that hold them to these."""

    __slots__ = ("byte_quotas", "connections", "limits", "messages")

    def __init__(
        self,
        limits: WebSocketLimits,
        messages: _core.Limiter,
        byte_quotas: int,
        connections: _core.Limiter | None,
    ) -> None:
        self.limits = limits
        self.messages = messages
        self.byte_quotas = byte_quotas  # bit i: quota i of `messages` counts bytes
        self.connections = connections  # None: unlimited

    def costs(self, size: int, cost: int) -> dict[str, int]:
        """What a message costs, by the names of the quotas."""
        return {
            quota.name or "": size if self.byte_quotas >> place & 1 else cost
            for place, quota in enumerate(self.messages.quotas)
            if quota is not None
        }

    def remaining_messages(self, remaining: tuple[int | None, ...]) -> int | None:
        """Messages that are left, of the quota with the smallest share left; None: unlimited."""
        shares = [
            (left / quota.burst, left)
            for place, (quota, left) in enumerate(zip(self.messages.quotas, remaining, strict=True))
            if quota is not None and left is not None and not self.byte_quotas >> place & 1
        ]
        return min(shares)[1] if shares else None


class Plans:
    """Plans over one store, and the places there."""

    __slots__ = (
        "_name",
        "_plans",
        "_policy",
        "_several",
        "places",
        "refusals",
        "store",
        "tables",
    )

    def __init__(
        self,
        store: Store,
        name: str | None,
        several: bool,
        max_refusals: tuple[_core.Quota, ...],
        policy: Policy,
    ) -> None:
        self.store = store
        self._policy = policy
        self._several = several  # shapes: the limits come of a callable
        self.tables: dict[str, _core.Table] = {}
        self._name = store.loose_name() if name is None else name
        self._plans: dict[WebSocketLimits, Plan] = {}
        part = self._part("places")
        self.places: Places = (
            Places(store.slots(part), store.clock)
            if isinstance(store, LocalStore)
            else ServerPlaces(store, part or "places")
        )
        # of connections, not of clients: never shared, so it has no name
        memory = store if isinstance(store, MemoryStore) else MemoryStore()
        self.refusals = (
            _core.Limiter(memory.table(None, max_refusals), max_refusals) if max_refusals else None
        )

    def of(self, limits: WebSocketLimits) -> Plan:
        plan = self._plans.get(limits)
        if plan is None:
            plan = self._make(limits)
            if len(self._plans) >= KEPT:  # a callable that makes new limits without end
                self._plans.clear()
            self._plans[limits] = plan
        return plan

    async def open(
        self, limits: WebSocketLimits, client: str | bytes
    ) -> tuple[str, _core.Decision]:
        """Reserves a place for the running task and charges the connection rate, both or
        neither: the decision, and what kind of violation it is where it refuses.

        Where no place is left `retry_after` is inf: nothing tells when one will be.
        """
        plan = self.of(limits)
        most = limits.max_concurrent_connections
        reservation, new = await self.places.reserve(client, most)
        if reservation is None:
            return "concurrent_connections", _core.Decision(
                False, limit=most, retry_after=float("inf")
            )
        admitted = False
        try:
            if plan.connections is None:
                decision = _core.Decision(True)
            else:
                decision = await elsewhere.hit_anywhere(plan.connections, client)
            admitted = decision.allowed
        finally:
            if new and not admitted:
                reservation.give_back()
        if admitted and not new:
            reservation.renew()
        return "connection_rate", decision

    def _make(self, limits: WebSocketLimits) -> Plan:
        messages, shape, byte_quotas = _messages_of(limits)
        connections = limits.quotas_of("connections")
        return Plan(
            limits,
            self._limiter("messages", shape, messages),
            byte_quotas,
            self._limiter("connections", connections, connections) if connections else None,
        )

    def _limiter(
        self, part: str, shape: tuple[_core.Quota, ...], row: tuple[_core.Quota | None, ...]
    ) -> _core.Limiter:
        part, table = self._table(part, shape)
        limiter = _core.Limiter(table, row)
        name = self._part(part)
        if isinstance(self.store, LocalStore):
            self.store.guard(limiter, self._policy)
        else:
            limiter._serve(self.store.server(name), self._policy, self.store.timeout)
        self.store.made(name, limiter)
        return limiter

    def _table(self, part: str, shape: tuple[_core.Quota, ...]) -> tuple[str, _core.Table]:
        """The table of that part, and the part's whole name. Where a callable returns limits of
        an unusual shape (rate strings), that shape has a table of its own: a client has one shape
        at a time."""
        algorithms = {quota.algorithm for quota in shape}
        usual = algorithms == {"sliding-log"} and len(shape) == _USUAL[part]
        if self._several and not usual:
            part = f"{part} {' '.join(quota.algorithm for quota in shape)}"
        table = self.tables.get(part)
        if table is None:
            table = self.tables[part] = self.store.table(self._part(part), shape)
        return part, table

    def _part(self, part: str) -> str | None:
        return None if self._name is None else f"{self._name}.{part}"


def _messages_of(
    limits: WebSocketLimits,
) -> tuple[tuple[_core.Quota | None, ...], tuple[_core.Quota, ...], int]:
    """The row of quotas, the same without holes, and which of them count bytes."""
    row: list[_core.Quota | None] = []
    shape: list[_core.Quota] = []
    byte_quotas = 0
    for kind in ("messages", "bytes"):
        quotas = limits.quotas_of(kind)
        if kind == "bytes":
            byte_quotas = ((1 << max(len(quotas), 1)) - 1) << len(row)
        row.extend(quotas or (None,))
        shape.extend(quotas or (_hole(limits.algorithm, kind),))
    return tuple(row), tuple(shape), byte_quotas


def _hole(algorithm: str, kind: str) -> _core.Quota:
    return Quota(_HOLE_LIMIT, _HOLE_PERIOD, algorithm=algorithm, name=kind)
