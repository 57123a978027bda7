"""Counting over the native stores."""

from __future__ import annotations

from math import ceil
from typing import Any

from ... import _core
from ...base import OnStoreError, QuotasArgument
from ...errors import StoreError
from ...headers import retry_after_seconds
from ...limiter import Limiter
from ...quota import Quota
from ...stores import Store, open_store
from ..rule import TTL, Rule
from .base import BaseBackend, RetryAfter

__all__ = ["StoreBackend"]

KEPT = 256  # rules that `retry_after` keeps ready; the middleware keeps its own


class StoreBackend(BaseBackend):
    """Counts in a store: a URL, a native store, or a client of Redis or Valkey, whose settings
    are taken. None is the memory of this process.

    Backends of one `name` on one store share what they count, and whom they block.
    `on_store_error` ("raise", "allow", "deny" or "local") is what becomes of a request when
    the store fails, `timeout` how many seconds a decision may take. None is "raise" for the
    rules that asgi-ratelimit has, and "local" for those that say more.
    """

    algorithm = "fixed-window"

    def __init__(
        self,
        store: Any = None,
        *,
        name: str = "asgi",
        on_store_error: OnStoreError | None = None,
        timeout: float = 0.5,
    ) -> None:
        self.store: Store = open_store(store)
        self.name = name
        self.on_store_error = on_store_error
        self.timeout = timeout
        self._prepared: dict[Rule, RetryAfter] = {}
        self.blocked = self.blocks()

    async def retry_after(self, path: str, user: str, rule: Rule) -> int:
        if rule.unlimited:
            return 0
        prepared = self._prepared.get(rule)
        if prepared is None:
            if len(self._prepared) >= KEPT:  # rules that are made anew without end
                self._prepared.clear()
            prepared = self._prepared[rule] = self.prepare(rule)
        return await prepared(path, user)

    def prepare(self, rule: Rule) -> RetryAfter:
        return _Prepared(self, rule).retry_after

    async def is_blocking(self, user: str) -> int:
        """For how many more seconds, rounded up, the user is blocked; 0 where he is not."""
        return retry_after_seconds(await self.blocked.peek(user, 0)) or 0

    async def set_block_time(self, user: str, block_time: float) -> None:
        """Blocks the user for that many seconds."""
        await self.blocked.ban(user, block_time)

    def counts(self, unit: str, limit: int) -> Limiter:
        """What counts a unit of the rules. Its state belongs to the unit, whatever the number
        and the other units of a rule are: so rules of one zone share it."""
        return self.limiter(unit, self.unit(unit, limit))

    def unit(self, unit: str, limit: int) -> Quota:
        """The quota of a unit of a rule."""
        return Quota(limit, TTL[unit], algorithm=self.algorithm, name=unit)

    def blocks(self, policy: OnStoreError = "raise") -> Limiter:
        """Who is blocked is banned here. It is asked at a cost of 0, which a ban alone refuses,
        so that the quota is never used."""
        return self.limiter("blocked", Quota(1, 1, algorithm="fixed-window"), policy)

    def limiter(
        self,
        part: str,
        quotas: QuotasArgument,
        policy: OnStoreError = "raise",
        *,
        shadow: bool = False,
    ) -> Limiter:
        """A limiter of this backend; `policy` where on_store_error was not given."""
        return Limiter(
            quotas,
            store=self.store,
            name=f"{self.name}:{part}",
            on_store_error=self.on_store_error or policy,
            timeout=self.timeout,
            shadow=shadow,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"


class _Prepared:
    """A rule over a backend."""

    __slots__ = ("_backend", "_block_time", "_blocked", "_limiters", "_method", "_zone")

    def __init__(self, backend: StoreBackend, rule: Rule) -> None:
        self._backend = backend
        self._blocked = backend.blocked
        self._limiters = [backend.counts(unit, limit) for unit, limit in rule.limits().items()]
        self._method = rule.only_method() or "*"
        self._zone = rule.zone
        self._block_time = rule.block_time

    async def retry_after(self, path: str, user: Any) -> int:
        user = name = user if type(user) is str else str(user)
        # Counted under a key that no other method, user and path or zone has, whatever text these
        # are: a method has no space in it, a user's are taken out, the last may hold anything.
        if " " in name or "%" in name:
            name = name.replace("%", "%25").replace(" ", "%20")
        zone = self._zone
        key = f"{self._method} {name} {path}" if zone is None else f"zone {name} {zone}"
        # one decision: the block and every unit admit it, or nothing is charged
        decision = await Limiter.hit_all(
            (self._blocked, user, 0), *[(limiter, key, 1) for limiter in self._limiters]
        )
        return 0 if decision.allowed else await self._refused(decision, user)

    async def _refused(self, decision: _core.Decision, user: str) -> int:
        seconds = retry_after_seconds(decision) or 1
        # without a quota it was the block that refused, or a store that cannot decide
        if not self._block_time or decision.quota is None:
            return seconds
        try:
            # whose block ends before the window does is still blocked, and not blocked anew
            left = await self._backend.is_blocking(user)
            if not left:
                await self._backend.set_block_time(user, self._block_time)
        except StoreError:
            if self._backend.blocked.on_store_error == "raise":
                raise
            return seconds
        return left or ceil(self._block_time)
