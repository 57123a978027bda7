"""What a store knows of a limiter besides its state: its name and its quotas, as JSON, so that
commands of another process find it, and show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

from .. import _core
from ..quota import ALGORITHMS
from .layout import Quotas

__all__ = ["Known", "Registered", "as_json", "from_json"]

OF_ONE_NAME = 64  # limiters of one name whose numbers are looked at


@dataclass(frozen=True)
class Registered:
    """A limiter of some process, as the store knows it."""

    name: str
    quotas: tuple[_core.Quota | None, ...]  # None: unlimited there; empty: it counts slots alone
    algorithms: tuple[str, ...]  # of each quota, also of those that are None
    various: bool = False  # limiters of this name have other numbers; these reach farthest
    slots: int | None = None  # how many are held at most; 0: not one number; None: it has none
    age: int = 0  # seconds since a process told of it
    told: bool = True  # False: its numbers are not known, and the quotas are None


class Known:
    """The limiters of one name in this process, and those that count slots: their numbers now,
    or the last ones that they had."""

    __slots__ = ("_algorithms", "_limiters", "_quotas", "_slots")

    def __init__(self) -> None:
        self._algorithms: Sequence[str] = ()
        self._limiters: list[ReferenceType[_core.Limiter]] = []  # the last is the newest
        self._quotas: list[Quotas] = []  # of these, each once; the one that reaches farthest first
        self._slots: int | None = None

    def limiter(self, limiter: _core.Limiter) -> None:
        self._algorithms = limiter.table.algorithms
        self._limiters.append(ref(limiter))
        del self._limiters[:-OF_ONE_NAME]
        if not self._quotas:  # it may be gone when they are looked at
            self._quotas = [limiter.quotas]

    def slots(self, limit: int | None) -> None:
        self._slots = limit or 0

    def _look(self) -> None:
        live = [limiter for one in self._limiters if (limiter := one()) is not None]
        if live:
            quotas = dict.fromkeys(limiter.quotas for limiter in live)
            self._quotas = sorted(quotas, key=_reach, reverse=True)

    def as_json(self) -> str:
        self._look()
        return as_json(
            self._quotas[0] if self._quotas else (),
            self._algorithms,
            various=len(self._quotas) > 1,
            slots=self._slots,
        )


def _reach(quotas: Quotas) -> float:
    """For how many seconds a key's state may tell of what was: by these numbers none is cut."""
    return max(
        (
            max(quota.period, quota.period / quota.limit * quota.burst)
            for quota in quotas
            if quota is not None
        ),
        default=0.0,
    )


def as_json(
    quotas: Sequence[_core.Quota | None],
    algorithms: Sequence[str],
    *,
    various: bool = False,
    slots: int | None = None,
) -> str:
    told: dict[str, Any] = {}
    if quotas:
        told["quotas"] = [
            {"algorithm": algorithm} if quota is None else _plain(quota)
            for quota, algorithm in zip(quotas, algorithms, strict=True)
        ]
    if various:
        told["various"] = True
    if slots is not None:
        told["slots"] = slots
    return json.dumps(told, separators=(",", ":"))


def from_json(name: str, text: str | bytes, age: int = 0) -> Registered:
    """One of many errors where it says nothing of the kind."""
    told = json.loads(text)
    quotas, slots = told.get("quotas", []), told.get("slots")
    algorithms = tuple(quota["algorithm"] for quota in quotas)
    if (
        len(quotas) > _core.QUOTAS_MAX
        or not all(algorithm in ALGORITHMS for algorithm in algorithms)
        or not (slots is None or (isinstance(slots, int) and slots >= 0))
    ):
        raise ValueError
    return Registered(
        name,
        tuple(_core.Quota(**quota) if "limit" in quota else None for quota in quotas),
        algorithms,
        told.get("various") is True,
        slots,
        age,
    )


def _plain(quota: _core.Quota) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "limit": quota.limit,
        "period": quota.period,
        "algorithm": quota.algorithm,
    }
    if quota.burst != quota.limit:
        plain["burst"] = quota.burst
    if quota.name is not None:
        plain["name"] = quota.name
    if quota.shadow:
        plain["shadow"] = True
    return plain
