"""GCRA over a store that can only read and write arrival times.

Another request may come between the reading and the writing, and then both pass: this is for
stores that users have written, and alone here the core does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Protocol

from .. import _core
from ..quota import Quota
from .deciding import Ask

__all__ = ["ArrivalDecider", "Arrivals"]

_US = timedelta(microseconds=1)


class Arrivals(Protocol):
    """The part of a store that is used here."""

    async def get(self, key: str, default: datetime) -> datetime: ...
    async def set(self, key: str, tat: datetime) -> None: ...


class ArrivalDecider:
    """Decides by theoretical arrival times: when a quota is whole again."""

    __slots__ = ("_store",)

    def __init__(self, store: Arrivals) -> None:
        self._store = store

    async def decide(self, asks: Sequence[Ask]) -> tuple[_core.Decision, _core.Decision]:
        now = datetime.now(timezone.utc)
        ahead_us = [await self._ahead_us(ask, now) for ask in asks]
        found = [_decided(ask.quota, us) for ask, us in zip(asks, ahead_us, strict=True)]
        binding = max(found, key=lambda decision: decision.retry_after)
        if not binding:
            return binding, found[0]
        for place, ask in enumerate(asks):
            charged_us = ahead_us[place] + _interval_us(ask.quota)
            await self._store.set(_name(ask), now + charged_us * _US)
            found[place] = _admitted(ask.quota, charged_us)
        return min(found, key=lambda decision: decision.remaining / decision.limit), found[0]

    async def _ahead_us(self, ask: Ask, now: datetime) -> int:
        """By how much the arrival time lies ahead."""
        arrival = await self._store.get(_name(ask), now)
        if arrival.tzinfo is None:
            arrival = arrival.astimezone(timezone.utc)  # a naive one is local time
        # a clock that was set back locks nobody out for longer than a period
        return min(max((arrival - now) // _US, 0), _interval_us(ask.quota) * ask.quota.limit)


def _name(ask: Ask) -> str:
    return f"{ask.limiter}:{ask.key}"


def _interval_us(quota: Quota) -> int:
    """The time in which one unit comes back, in what a datetime counts."""
    return max(round(quota.period * 1e6) // quota.limit, 1)


def _decided(quota: Quota, ahead_us: int) -> _core.Decision:
    interval_us = _interval_us(quota)
    wait_us = ahead_us + interval_us - interval_us * quota.limit
    if wait_us <= 0:
        return _admitted(quota, ahead_us)
    return _core.Decision(
        False,
        quota=quota,
        limit=quota.limit,
        retry_after=wait_us / 1e6,
        reset_after=ahead_us / 1e6,
    )


def _admitted(quota: Quota, ahead_us: int) -> _core.Decision:
    return _core.Decision(
        True,
        quota=quota,
        limit=quota.limit,
        remaining=quota.limit - -(-ahead_us // _interval_us(quota)),
        reset_after=ahead_us / 1e6,
    )
