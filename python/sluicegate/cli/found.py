"""A limiter that a store knows, whatever the store, as the commands see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluicegate import _core

if TYPE_CHECKING:
    from sluicegate.stores.registered import Registered

__all__ = ["Found", "Looked", "shape_of"]


@dataclass(frozen=True)
class Looked:
    """How a key stands with a limiter now."""

    decision: _core.Decision  # of an event that costs as much as was asked about
    remaining: tuple[int | None, ...]  # what each quota has left now; None: it does not limit

    @property
    def banned(self) -> bool:
        """Refused without a quota: for as long as `retry_after` says."""
        return not self.decision.allowed and self.decision.quota is None


class Found(ABC):
    """A limiter of a store. Its numbers are those that the store was last told of."""

    def __init__(self, known: Registered) -> None:
        self.name = known.name
        self.known = known

    @property
    def has_quotas(self) -> bool:
        """Whether its keys can be reset and banned; slots are given back, and cannot."""
        return bool(self.known.quotas)

    @abstractmethod
    async def look(self, key: bytes, cost: int = 1) -> Looked | None:
        """What an event of that cost would come to; charges nothing. None: it counts slots."""

    @abstractmethod
    async def held(self, key: bytes) -> int | None:
        """How many slots of the key are held; None: it has no slots."""

    @abstractmethod
    async def change(self, operation: str, key: bytes, argument: Any = None) -> None:
        """reset, ban, unban. StoreError."""


def shape_of(known: Registered) -> list[_core.Quota]:
    """Its quotas; a place without one has its algorithm all the same."""
    return [
        quota or _core.Quota(1, 1, algorithm=algorithm)
        for quota, algorithm in zip(known.quotas, known.algorithms, strict=True)
    ]
