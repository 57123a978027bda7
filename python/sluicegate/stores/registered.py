"""What a store knows of a limiter besides its state: its name and its quotas, as JSON, so that
commands of another process find it, and show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..quota import ALGORITHMS

__all__ = ["Registered", "as_json", "from_json"]


@dataclass(frozen=True)
class Registered:
    """A limiter of some process, as the store knows it."""

    name: str
    quotas: tuple[_core.Quota | None, ...]  # None: unlimited there; empty: it counts slots alone
    algorithms: tuple[str, ...]  # of each quota, also of those that are None
    various: bool = False  # limiters of this name have other numbers; these reach farthest
    slots: int | None = None  # how many are held at most; 0: not one number; None: it has none
    age: int = 0  # seconds since a process told of it


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
