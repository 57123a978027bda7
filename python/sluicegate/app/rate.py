"""How often: a sliding log whose numbers come with each call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from .. import _core
from ..errors import StoreError
from ..limiter import Limiter
from ..quota import Quota
from ..stores import MemoryStore, Store
from .backing import store_of
from .outage import Outage

__all__ = ["RateLimiter", "quota_of"]

Policy = Literal["raise", "allow", "local"]


class RateLimiter:
    """At most so many events of a key in any window of so many seconds.

    `redis_or_store`: a URL, a store, a client of redis or valkey (which lends its settings);
    None is this process's memory. RateLimiters of one `name` on one store share what they
    count. `timeout`: seconds that a check may take at most.
    """

    __slots__ = ("_limiters", "_local", "_name", "_outage", "_store", "_timeout")

    def __init__(
        self, redis_or_store: Any = None, *, name: str = "app", timeout: float = 0.5
    ) -> None:
        self._store = store_of(redis_or_store)
        self._name = name
        self._timeout = timeout
        self._limiters: dict[Policy, Limiter] = {}
        self._local: RateLimiter | None = None
        self._outage = Outage(f"RateLimiter {name!r}")
        self._limiter("raise")  # what is wrong with the arguments shows now

    @property
    def store(self) -> Store:
        """Where it counts: `await limiter.store.aclose()` when the application ends."""
        return self._store

    async def check_rate_limit(
        self, key: str, limit: int, window_seconds: int, burst: int = 0
    ) -> tuple[bool, int]:
        """(allowed, remaining): whether this event of `key` may pass, and how many more may.

        At most `limit + burst` in any `window_seconds`. What is refused is not counted.
        ValueError for numbers that make no sense; StoreError when the store fails.
        """
        decision = await self.decide(key, limit, window_seconds, burst)
        return decision.allowed, decision.remaining if decision.allowed else 0

    async def decide(
        self,
        key: str,
        limit: int,
        window_seconds: float,
        burst: int = 0,
        *,
        on_store_error: Policy = "raise",
    ) -> _core.Decision:
        """`check_rate_limit`, with the decision: when the key may come again, and when its
        window is empty. `on_store_error`: what happens when the store
        fails, as with `sluicegate.Limiter`."""
        quota = quota_of(limit, window_seconds, burst)
        limiter = self._limiters.get(on_store_error) or self._limiter(on_store_error)
        try:
            decision = await limiter.hit(key, quotas=quota)
        except StoreError as error:
            if on_store_error == "raise":
                raise
            return await self._without_store(str(error), on_store_error, key, quota)
        full = limiter.server is None and decision.degraded and not decision.allowed
        if full and on_store_error != "raise":  # a memory store, which has no policy of this
            return await self._without_store("it is full", on_store_error, key, quota)
        self._outage.ends()
        return decision

    def _limiter(self, on_store_error: Policy) -> Limiter:
        """One for each policy; of one name, so that they count together."""
        limiter = Limiter(
            quota_of(60, 60, 0),  # any numbers: each hit brings its own
            store=self._store,
            name=self._name,
            on_store_error=on_store_error,
            timeout=self._timeout,
        )
        return self._limiters.setdefault(on_store_error, limiter)

    async def _without_store(
        self, why: str, on_store_error: Policy, key: str, quota: Quota
    ) -> _core.Decision:
        """The policy where the native limiter knows none: of a full memory store, which says
        so, or denies, by its own `on_full`."""
        self._outage.begins(why, on_store_error)
        if on_store_error == "local":
            if self._local is None:
                self._local = RateLimiter(MemoryStore(), name=self._name)
            return await self._local.decide(key, quota.limit, quota.period)
        return _core.Decision(True, quota=quota, remaining=quota.limit, degraded=True)

    def __repr__(self) -> str:
        return f"RateLimiter({self._store!r}, name={self._name!r})"


@lru_cache(maxsize=1024)
def quota_of(limit: int, window_seconds: float, burst: int = 0) -> Quota:
    """Of a log a burst is more room in each window. ValueError or TypeError for numbers that
    make no sense."""
    for what, number in (("limit", limit), ("burst", burst)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{what} is an int, not {type(number).__name__}")
        if number < 0:
            raise ValueError(f"{what} is at least 0, not {number}")
    return Quota(limit + burst, window_seconds, algorithm="sliding-log")
