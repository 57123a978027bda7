"""A rule over a store: the limiters that hold it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import ceil
from typing import Any

from .. import _core
from ..base import OnStoreError
from ..concurrency import ConcurrencyLimiter
from ..errors import StoreError
from ..headers import retry_after_seconds
from ..limiter import Limiter
from ..stores import MemoryStore, Store
from .backends import StoreBackend
from .keys import Where
from .rule import Rule

__all__ = ["FREE", "Charge", "Counting", "Places"]

Charge = tuple[Limiter, str | bytes, int]

FREE = object()  # a place without a slot: the policy lets it do without

log = logging.getLogger("sluicegate")


class Counting:
    """The limiters of one rule. `kind` is who is counted, "user", "ip", "app" or a name for a
    function; rules of other kinds share nothing."""

    __slots__ = (
        "_clocked",
        "_units",
        "blocked",
        "byte_names",
        "connections",
        "kind",
        "message_names",
        "messages",
        "places",
        "refusals",
        "requests",
        "rule",
        "simple",
        "where",
    )

    def __init__(self, rule: Rule, backend: StoreBackend, pattern: str, kind: str) -> None:
        # a shadow rule must never hold back what it only watches
        policy: OnStoreError = "raise" if rule.plain else "allow" if rule.shadow else "local"
        suffix = (f":{kind}" if kind != "user" else "") + (":shadow" if rule.shadow else "")

        def limiter(part: str, quotas: tuple[_core.Quota, ...]) -> Limiter | None:
            if not quotas:
                return None
            # one name has one shape; its numbers are the rule's own
            shape = "+".join(quota.algorithm for quota in quotas)
            name = f"{part}{suffix}:{shape}"
            return backend.limiter(name, quotas, policy, shadow=rule.shadow)

        self.rule = rule
        self.kind = kind
        self.where = Where(rule, pattern)
        self._clocked = backend.blocks(policy)
        self.blocked = None if rule.shadow else self._clocked
        self._units = [
            backend.limiter(unit + suffix, backend.unit(unit, limit), policy, shadow=rule.shadow)
            for unit, limit in rule.limits().items()
        ]
        self.requests = limiter("requests", rule.quotas("requests"))
        self.connections = limiter("connections", rule.quotas("connections"))
        messages, sizes = rule.quotas("messages"), rule.quotas("bytes")
        self.messages = limiter("messages" if messages else "bytes", messages + sizes)
        self.message_names = tuple(quota.name or "" for quota in messages)
        self.byte_names = tuple(quota.name or "" for quota in sizes)
        self.places = (
            None
            if rule.concurrent is None
            else Places(
                rule.concurrent,
                backend.store,
                f"{backend.name}:places{suffix}",
                backend.on_store_error or policy,
            )
        )
        # whether it only counts, and at once
        self.simple = self.places is None and rule.count_when is None and not rule.shadow
        # of connections, not of users: never shared, so it has no name
        refusals = rule.quotas("max_refusals")
        memory = backend.store if isinstance(backend.store, MemoryStore) else MemoryStore()
        self.refusals = Limiter(refusals, store=memory) if refusals else None

    @property
    def store(self) -> Store:
        """Where its state is now."""
        return self._clocked.store

    def now(self) -> float:
        """Seconds of the store's clock."""
        return self._clocked.table.now()

    def charges(self, who: str, path: str, cost: int, handshake: bool) -> list[Charge]:
        """What a request is charged to. A handshake counts once: as a connection where the rule
        has a rate of those, else as a request."""
        if handshake and self.connections is not None:
            return [(self.connections, self.where.key(who, path), cost)]
        found: list[Charge] = []
        if self._units:
            key = self.where.unit_key(who, path)
            found.extend((limiter, key, cost) for limiter in self._units)
        if self.requests is not None:
            found.append((self.requests, self.where.key(who, path), cost))
        return found

    def block(self, who: str) -> Charge | None:
        """What refuses whom the backend blocks, and charges nothing; None where it blocks nobody
        at all."""
        blocked = self.blocked
        if blocked is None or (blocked.server is None and not blocked.table.keys):
            return None
        return blocked, self._block_key(who), 0

    def refuses(self, quota: _core.Quota | None) -> bool:
        """Whether that is a quota of its requests."""
        limiters = [*self._units, self.requests, self.connections]
        return any(quota is own for one in limiters if one is not None for own in one.quotas)

    async def block_refused(self, who: str, decision: _core.Decision) -> int:
        """Blocks who was refused, where the rule does: the seconds to tell."""
        seconds = retry_after_seconds(decision) or 1
        block_time, blocked = self.rule.block_time, self.blocked
        if not block_time or blocked is None or not self.refuses(decision.quota):
            return seconds
        key = self._block_key(who)
        try:
            # whose block ends before the window does is still blocked, and not blocked anew
            left = retry_after_seconds(await blocked.peek(key, 0)) or 0
            if not left:
                await blocked.ban(key, block_time)
        except StoreError:
            if blocked.on_store_error == "raise":
                raise
            return seconds
        return left or ceil(block_time)

    def costs(self, size: int, cost: int) -> int | Mapping[str, int]:
        """What a message of that size and cost takes of `messages`."""
        if not self.byte_names:
            return cost
        costs = dict.fromkeys(self.byte_names, size)
        if cost != 1:
            costs.update(dict.fromkeys(self.message_names, cost))
        return costs

    def _block_key(self, who: str) -> str | bytes:
        if self.kind == "user":
            return who
        # no text is it: a user may be named as an address is
        return b"\xff" + f"{self.kind} {who}".encode("utf-8", "surrogatepass")


class Places:
    """The places of a rule, with what becomes of one where the store fails."""

    __slots__ = ("_failing", "_limiter", "_local", "_policy", "limit")

    def __init__(self, limit: int, store: Store, name: str, policy: OnStoreError) -> None:
        self.limit = limit
        self._limiter = ConcurrencyLimiter(limit, store=store, name=name)
        self._local: ConcurrencyLimiter | None = None
        self._policy = policy
        self._failing = False

    async def take(self, key: str) -> Any:
        """A slot, FREE, or None where none is left. StoreError by the policy "raise"."""
        try:
            slot = await self._limiter.acquire(key)
        except StoreError as error:
            if not self._failing:
                self._failing = True
                log.warning(
                    "the places of %r: %s; now: %s", self._limiter.name, error, self._policy
                )
            if self._policy == "raise":
                raise
            if self._policy != "local":
                return FREE if self._policy == "allow" else None
            if self._local is None:
                self._local = ConcurrencyLimiter(self.limit, store=MemoryStore())
            return await self._local.acquire(key)
        if self._failing:
            self._failing = False
            log.warning("the places of %r: the store answers again", self._limiter.name)
        return slot
