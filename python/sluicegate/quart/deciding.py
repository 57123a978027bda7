"""The question that this door asks, and how the core answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from .. import _core
from ..limiter import Limiter, hit_all
from ..quota import Quota
from ..stores import Store

__all__ = ["Ask", "CoreDecider", "Decider"]


class Ask(NamedTuple):
    """One unit of a quota. Its state belongs to the names alone, so that whoever asks by the
    same names shares it, in whatever object."""

    limiter: str
    key: str
    quota: Quota


class Decider(Protocol):
    """What decides over some store."""

    async def decide(self, asks: Sequence[Ask]) -> tuple[_core.Decision, _core.Decision]:
        """Charges all, or none: the decision that binds, and how the first ask then stands."""


class CoreDecider:
    """The core over a native store, which `store()` returns: all asks are one decision."""

    __slots__ = ("_limiters", "_store")

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        # by name: as many as there are routes and limits on them, never one for a client
        self._limiters: dict[str, Limiter] = {}

    async def decide(self, asks: Sequence[Ask]) -> tuple[_core.Decision, _core.Decision]:
        if len(asks) == 1:
            name, key, quota = asks[0]
            decision = await self._limiter(name, quota).hit(key, quotas=quota)
            return decision, decision
        triples = [(self._limiter(ask.limiter, ask.quota), ask.key, 1) for ask in asks]
        decision = await hit_all(*triples)
        limiter, key, _ = triples[0]
        return decision, await limiter.peek(key, 0)

    def forget(self) -> None:
        """Before the store is another one."""
        self._limiters.clear()

    def _limiter(self, name: str, quota: Quota) -> Limiter:
        limiter = self._limiters.get(name)
        if limiter is None:
            limiter = self._limiters[name] = Limiter(quota, store=self._store(), name=name)
        return limiter
