"""Limiters over Redis and Valkey, as the commands reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluicegate import _core, elsewhere

from .found import Found, Looked, shape_of

if TYPE_CHECKING:
    from sluicegate.stores.redis import RedisStore
    from sluicegate.stores.registered import Registered

__all__ = ["OnServer"]

LOOK = 1  # of elsewhere.PEEK: what remains of each quota, too
PLACES_TTL = 30.0  # seconds; a count renews nothing, so that any will do


class OnServer(Found):
    def __init__(self, store: RedisStore, known: Registered) -> None:
        super().__init__(known)
        self._store = store
        self._limiter: _core.Limiter | None = None
        if known.quotas:
            self._limiter = _core.Limiter(store.table(known.name, shape_of(known)), known.quotas)
            self._limiter._serve(store.server(known.name), "raise", store.timeout)

    async def look(self, key: bytes, cost: int = 1) -> Looked | None:
        if self._limiter is None:
            return None
        decision, _, after = await elsewhere.answer(
            self._limiter._ask(elsewhere.PEEK, key, cost, None, 60.0, LOOK)
        )
        charged = cost if decision.allowed else 0
        return Looked(decision, tuple(None if left is None else left + charged for left in after))

    async def held(self, key: bytes) -> int | None:
        if self.known.slots is None:
            return None
        return await self._store.held(self.name, PLACES_TTL).count(key)

    async def change(self, operation: str, key: bytes, argument: Any = None) -> None:
        assert self._limiter is not None
        await elsewhere.change(self._limiter, operation, key, argument)
