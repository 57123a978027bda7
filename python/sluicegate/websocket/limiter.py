"""Rate limits of WebSocket connections, of any framework."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, KeysView, Mapping
from math import inf
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

from .. import _core
from ..elsewhere import as_degraded, hit_in_detail
from ..errors import StoreError, StoreFullError
from ..quota import as_quotas
from ..stores import MemoryStore, Store, attach, open_store
from .failure import Failure, Policy
from .groups import Groups
from .limits import WebSocketLimits
from .places import Place
from .plans import Plan, Plans
from .results import VIOLATIONS, refusal
from .violations import OnViolation, Violations
from .words import client_key, whole_seconds

__all__ = ["Limits", "WebSocketRateLimiter"]

Limits = WebSocketLimits | Callable[[str | bytes], WebSocketLimits]


class WebSocketRateLimiter(_core.Connections):
    """Connections, messages, bytes, sizes and concurrency of each client's WebSockets.

        if await limiter.check_connection(client):
            await limiter.register_connection(connection, client)
            result = await limiter.check_message(connection, len(data))

    `limits` is a WebSocketLimits, or a callable that returns one for a client id.
    `storage` is a URL or a store; limiters of one `name` on one store share their counts,
    and without `storage` nothing is shared. `on_violation(info)`, plain or async, hears of
    every refusal. `on_store_error` is what happens when the store fails ("local": the whole
    limits in this process's memory). `max_refusals` is a rate string: a connection that is
    refused more often is to be closed, and the result says `close: True`.

    It may be made where no loop runs, and used from several.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        storage: Store | str | None = None,
        on_violation: OnViolation | None = None,
        *,
        name: str = "websocket",
        on_store_error: Policy = "local",
        max_refusals: str | _core.Quota | None = None,
    ) -> None:
        limits = WebSocketLimits() if limits is None else limits
        if not isinstance(limits, WebSocketLimits) and not callable(limits):
            raise TypeError(
                "limits is a WebSocketLimits or a callable of the client id, "
                f"not {type(limits).__name__}"
            )
        if on_violation is not None and not callable(on_violation):
            raise TypeError(f"on_violation is a callable, not {type(on_violation).__name__}")
        if not isinstance(name, str):
            raise TypeError(f"name is a str, not {type(name).__name__}")
        if not name:
            raise ValueError("name is a text that is not empty: state belongs to it")
        self.limits = limits
        self.name = name
        self.on_violation = on_violation
        self._by_client: Groups[str | bytes, Any, None] = Groups()
        self._violations = Violations()
        self._max_refusals = () if max_refusals is None else as_quotas(max_refusals)
        self._shared = name if storage is not None else None
        store = open_store(storage)
        self._policy = on_store_error
        self._own = self._plans_on(store)
        self._others: WeakKeyDictionary[Store, Plans] = WeakKeyDictionary()
        self._failure = Failure(
            on_store_error, name, lambda: self._plans_on(MemoryStore(clock=store.clock))
        )
        self._plans = self._own
        self._tally()
        if isinstance(limits, WebSocketLimits):
            self._plans.of(limits)  # a name taken by another shape shows now
        attach(self)

    # ---- connections

    async def check_connection(self, client_id: str | bytes) -> bool:
        """Whether the client may open a connection: charges its connection rate, and reserves
        a place for the running task until that registers it, ends, or 10 s have passed."""
        return (await self.decide_connection(client_id)).allowed

    async def decide_connection(self, client_id: str | bytes) -> _core.Decision:
        """`check_connection`, with the decision; its `retry_after` is inf where no place is
        left."""
        client = client_key(client_id)
        limits = self._limits_of(client)
        try:
            kind, decision = await self._plans.open(limits, client)
        except StoreError as error:
            policy = self._failure.begins(error)
            if policy == "raise":
                raise
            if policy == "local":
                kind, decision = await self._failure.local.open(limits, client)
                decision = as_degraded(decision)
            else:
                kind, decision = "", _core.Decision(policy == "allow", degraded=True)
        else:
            self._failure.ends()
        if not decision.allowed and kind:
            await self._violated(
                kind, client, None, decision.limit, whole_seconds(decision.retry_after)
            )
        return decision

    async def register_connection(
        self,
        connection_id: Any,
        client_id: str | bytes,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Registers a connection in the place that this task has reserved, else in a new one;
        False, and nothing registered, where none is left.

        A connection of the same id is unregistered first.
        """
        client = client_key(client_id)
        await self.unregister_connection(connection_id)
        plan = self._plans.of(self._limits_of(client))
        held, place = await self._claim(plan, client)
        if not held:
            await self._no_place(plan, client, connection_id)
            return False
        info = _core.ConnectionInfo(connection_id, client, time.time(), metadata=metadata)
        info._place = place
        self._put(info, plan)
        return True

    async def unregister_connection(self, connection_id: Any) -> None:
        """Forgets a connection and gives its place back. Twice is harmless."""
        self._take(connection_id)

    async def rebind(self, connection_id: Any, client_id: str | bytes) -> bool:
        """Makes a connection another client's, as when a user logs in by message: its place
        and the rates it counts against move. False, and nothing changed, where that client
        has no place left or there is no such connection."""
        client = client_key(client_id)
        info = self._get(connection_id)
        if info is None:
            return False
        if info.client_id == client:
            return True
        plan = self._plans.of(self._limits_of(client))
        held, place = await self._claim(plan, client)
        if not held:
            await self._no_place(plan, client, connection_id)
            return False
        old, info._place = info._place, place
        self._by_client.take(info.client_id, connection_id)
        info.client_id = client
        self._put(info, plan)
        if old is not None:
            old.release()
        return True

    # ---- messages

    if sys.version_info >= (3, 12):

        async def check_message(self, connection_id: Any, message_size: int = 0) -> dict[str, Any]:
            """Whether a connection may send a message of that many bytes. See the C method."""
            result = self._check(connection_id, message_size)
            if result.__class__ is dict:
                return result  # type: ignore[no-any-return]
            return await self._refused(*result)

    else:
        # a coroutine object in C, for there an `async def` costs as much as all the rest
        check_message = _core.Connections.check_message_awaitable

    async def decide_message(
        self, connection_id: Any, message_size: int, *, cost: int = 1
    ) -> tuple[_core.Decision, dict[str, Any]]:
        """`check_message` of a message that counts as `cost`: the decision, and the result."""
        found = self._decide(connection_id, message_size, cost)
        if found.__class__ is not tuple:
            return found, {"allowed": True, "reason": "ok"}
        info, reason, decision, size = found
        if reason == "elsewhere":
            return await self._ask_server(info, size, cost)
        result = await self._refused(info, reason, decision, size, cost)
        if decision is None:
            decision = _core.Decision(
                result["allowed"],
                limit=result.get("max_size"),
                retry_after=0.0 if result["allowed"] else float("inf"),
                degraded=result["reason"] == "internal_error" or result["allowed"],
            )
        return decision, result

    async def _refused(
        self,
        info: _core.ConnectionInfo | None,
        reason: str,
        decision: _core.Decision | None,
        size: int,
        cost: int = 1,
    ) -> dict[str, Any]:
        """The documented result of what C did not admit."""
        if info is None:
            return {"allowed": False, "reason": reason}
        if reason == "elsewhere":
            return (await self._ask_server(info, size, cost))[1]
        if reason == "internal_error":
            if decision is not None:  # the store's own on_full
                return {"allowed": False, "reason": reason}
            return await self._without_store(info, size, cost)
        plan: Plan = info._plan
        result, limit = refusal(plan, reason, decision)
        refusals = self._plans.refusals
        if refusals is not None and not refusals.hit_nowait(_refusals_key(info)):
            result["close"] = True
        kind = VIOLATIONS[reason]
        if self.on_violation is None:  # what an attack takes: no coroutine more than needed
            self._violations.count(kind)
        else:
            retry_after = result.get("retry_after")
            await self._violated(kind, info.client_id, info.connection_id, limit, retry_after)
        return result

    # ---- what there is

    def get_statistics(self) -> dict[str, Any]:
        """Counts of this process, limits, and violations by type. Plain values, as for JSON.

        Over shared memory they are those of all processes, connections being set up included, and
        messages since the file was made.
        """
        limits = self.limits
        if not isinstance(limits, WebSocketLimits):
            # each client has its own: the names are all that holds for all
            shown: dict[str, Any] = dict.fromkeys(WebSocketLimits().as_dict(), "by client")
        else:
            shown = limits.as_dict()
        return {
            "active_connections": len(self._live),
            "unique_clients": len(self.connections_by_client),
            "total_messages": self.total_messages,
            "total_bytes_sent": self.total_bytes,
            "limits": shown,
            "violations": self._violations.of_all(),
            **self._plans.places.known(),
        }

    async def statistics(self) -> dict[str, Any]:
        """`get_statistics` as the store knows it: over a server, too, `active_connections` and
        `unique_clients` are those of all processes, found by a scan of its keys; the rest is
        this process's. In memory all is the same."""
        found = self.get_statistics()
        found.update(await self._plans.places.totals())
        return found

    def get_connection_info(self, connection_id: Any) -> _core.ConnectionInfo | None:
        """A connection and its live counters, or None."""
        return self._get(connection_id)

    def get_client_connections(self, client_id: str | bytes) -> int:
        """How many connections of the client are registered in this process; over shared memory,
        in all of them, those being set up included."""
        client = client_key(client_id)
        found = self._plans.places.connections_of(client)
        return self._by_client.count(client) if found is None else found

    async def count(self, client_id: str | bytes) -> int:
        """Places of the client that are taken in the store, those being set up included."""
        return await self._plans.places.count(client_key(client_id))

    @property
    def active_connections(self) -> Mapping[Any, _core.ConnectionInfo]:
        """Connection id to ConnectionInfo, live and read-only."""
        return MappingProxyType(self._live)

    @property
    def connections_by_client(self) -> Mapping[str | bytes, KeysView[Any]]:
        """Client id to the ids of its connections, live and read-only."""
        return self._by_client.view()

    @property
    def tables(self) -> Mapping[str, _core.Table]:
        """The tables of the store where the rates are kept, by what they count."""
        return MappingProxyType(self._plans.tables)

    @property
    def store(self) -> Store:
        """Where the state is."""
        return self._plans.store

    def now(self) -> float:
        """Seconds of the store's clock."""
        return self._plans.places.now()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self._live)} connections, "
            f"{len(self.connections_by_client)} clients>"
        )

    # ---- inside

    def _limits_of(self, client: str | bytes) -> WebSocketLimits:
        limits = self.limits
        if isinstance(limits, WebSocketLimits):
            return limits
        found = limits(client)
        if not isinstance(found, WebSocketLimits):
            raise TypeError(
                f"limits returned {type(found).__name__} for a client, not WebSocketLimits "
                "(it is called at every connection, and cannot be async)"
            )
        return found

    def _put(self, info: _core.ConnectionInfo, plan: Plan) -> None:
        info._plan = plan
        self._add(info, plan.messages, plan.byte_quotas, plan.limits.max_message_size)
        self._by_client.put(info.client_id, info.connection_id, None)

    def _take(self, connection_id: Any) -> _core.ConnectionInfo | None:
        """Unregisters a connection; the place is given back."""
        info = self._remove(connection_id)
        if info is not None:
            self._by_client.take(info.client_id, connection_id)
            place, info._place = info._place, None
            if place is not None:
                place.release()
            if self._plans.refusals is not None:
                self._plans.refusals.reset_nowait(_refusals_key(info))
        return info

    async def _claim(self, plan: Plan, client: str | bytes) -> tuple[bool, Place | None]:
        """Whether a place was had, and the place (None: the policy lets it do without)."""
        limit = plan.limits.max_concurrent_connections
        try:
            place = await self._plans.places.claim(client, limit)
        except StoreError as error:
            policy = self._failure.begins(error)
            if policy == "raise":
                raise
            if policy != "local":
                return policy == "allow", None
            place = await self._failure.local.places.claim(client, limit)
        return place is not None, place

    async def _no_place(self, plan: Plan, client: str | bytes, connection_id: Any) -> None:
        limit = plan.limits.max_concurrent_connections
        await self._violated("concurrent_connections", client, connection_id, limit, None)

    async def _violated(
        self,
        kind: str,
        client: str | bytes,
        connection_id: Any,
        limit: int | None,
        retry_after: int | None,
    ) -> None:
        self._violations.count(kind)
        if self.on_violation is not None:
            await self._violations.tell(
                self.on_violation, kind, client, connection_id, limit, retry_after
            )

    # ---- stores that change or fail

    def _plans_on(self, store: Store) -> Plans:
        several = not isinstance(self.limits, WebSocketLimits)
        return Plans(store, self._shared, several, self._max_refusals, self._policy)

    def _tally(self) -> None:
        """Where all processes count messages and violations: beside their places."""
        table: _core.Table = self._plans.places.table
        self._violations.tallied = table if table.shared else None
        self._tally_in(self._violations.tallied)

    def _use_store(self, store: Store | None) -> None:
        """For `sluicegate.testing.override`."""
        if store is None or store is self._own.store:
            self._plans = self._own
        else:
            plans = self._others.get(store)
            if plans is None:
                plans = self._others[store] = self._plans_on(store)
            self._plans = plans
        self._tally()
        for info in list(self._live.values()):
            self._put(info, self._plans.of(info._plan.limits))

    async def _ask_server(
        self, info: _core.ConnectionInfo, size: int, cost: int
    ) -> tuple[_core.Decision, dict[str, Any]]:
        """A message that a server decides: the decision, and the documented result."""
        plan: Plan = info._plan
        decision, refusals, remaining = await hit_in_detail(
            plan.messages, info.client_id, plan.costs(size, cost)
        )
        if not decision.allowed:
            if decision.degraded and not refusals and decision.quota is None:
                return decision, {"allowed": False, "reason": "internal_error"}
            # of several the first of the documented order is told: messages, then bytes
            of_bytes = refusals != 0 and refusals & ~plan.byte_quotas == 0
            reason = "bandwidth_exceeded" if of_bytes else "rate_limit_exceeded"
            return decision, await self._refused(info, reason, decision, size, cost)
        self._count(info, size)
        decided = not decision.degraded or decision.quota is not None  # by anybody's count
        result = {
            "allowed": True,
            "reason": "ok",
            "remaining": plan.remaining_messages(remaining) if decided else None,
        }
        if decision.degraded:
            result["degraded"] = True
        return decision, result

    async def _decide_again(self, info: _core.ConnectionInfo, size: int) -> _core.Decision:
        """A message that was refused and has waited: no new violation."""
        found = self._decide(info.connection_id, size, 1)
        if not isinstance(found, tuple):
            return found  # type: ignore[no-any-return]
        if found[1] != "elsewhere":
            return _core.Decision(False, retry_after=inf) if found[2] is None else found[2]
        plan: Plan = info._plan
        decision, _, _ = await hit_in_detail(plan.messages, info.client_id, plan.costs(size, 1))
        if decision.allowed:
            self._count(info, size)
        return decision

    def _count(self, info: _core.ConnectionInfo, size: int) -> None:
        info.message_count += 1
        info.bytes_sent += size
        info.last_message_time = time.time()
        self.total_messages += 1
        self.total_bytes += size

    async def _without_store(
        self, info: _core.ConnectionInfo, size: int, cost: int
    ) -> dict[str, Any]:
        """A message that the store could not decide."""
        full = StoreFullError(f"the store of limiter {self.name!r} is full")
        policy = self._failure.begins(full)
        if policy == "raise":
            raise full
        if policy == "deny":
            return {"allowed": False, "reason": "internal_error"}
        if policy == "local":
            plan = self._failure.local.of(info._plan.limits)
            decision = plan.messages.hit_nowait(info.client_id, plan.costs(size, cost))
            if not decision.allowed:
                of_bytes = decision.quota in info._plan.limits.quotas_of("bytes")
                reason = "bandwidth_exceeded" if of_bytes else "rate_limit_exceeded"
                return await self._refused(info, reason, decision, size)
        self._count(info, size)
        return {"allowed": True, "reason": "ok", "remaining": None, "degraded": True}


def _refusals_key(info: _core.ConnectionInfo) -> str:
    return str(id(info))
