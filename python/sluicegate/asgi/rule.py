"""What a group may do."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from .. import _core
from .._support import check_number

__all__ = ["RULENAMES", "TTL", "Rule"]

# the units of a rule, in seconds
TTL: dict[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 60 * 60,
    "day": 24 * 60 * 60,
    "month": 31 * 24 * 60 * 60,
}
RULENAMES: tuple[str, ...] = tuple(TTL)

_BLOCK_MAX = 10 * 365 * 24 * 60 * 60  # seconds; what a ban can be, but for leap days


@dataclass(frozen=True)
class Rule:
    """How many requests a user of a group may make.

    `second` to `month` (31 days): that many requests in each, all of them decided together;
    where none is given the group is unlimited. A window starts at a user's first request.
    `group`: whom it is for. `method`: the HTTP method it is for; None (or "*") is any.
    Requests are counted by path; `zone` is a name to count them under in its place, so that
    all rules of one zone share a pool. `block_time`: seconds for which a user who was
    refused is refused everywhere in the backend, unless his group is unlimited there; what is
    left of them is what he is told.

    ValueError or TypeError for what makes no sense.
    """

    second: int | None = None
    minute: int | None = None
    hour: int | None = None
    day: int | None = None
    month: int | None = None

    group: str = "default"
    method: str | None = None
    zone: str | None = None
    block_time: float | None = None

    def __post_init__(self) -> None:
        for unit, limit in self.limits().items():
            _check_limit(unit, limit)
        for what in ("group", "method", "zone"):
            _check_text(what, getattr(self, what), optional=what != "group")
        if self.block_time is not None:
            block_time = check_number(self.block_time, "block_time", equal=True)
            if block_time > _BLOCK_MAX:
                length = "without end" if block_time == inf else f"{block_time:g} seconds"
                raise ValueError(f"block_time is at most ten years, not {length}")
            if block_time and self.unlimited:
                raise ValueError("block_time does nothing in a rule without a limit")

    @property
    def unlimited(self) -> bool:
        """Whether it limits nothing."""
        return not self.limits()

    def limits(self) -> dict[str, int]:
        """The units that are limited, and how many requests each may have."""
        return {unit: getattr(self, unit) for unit in TTL if getattr(self, unit) is not None}

    def only_method(self) -> str | None:
        """The method it is for, in capitals; None for any."""
        return None if self.method in (None, "*") else str(self.method).upper()

    def ruleset(self, path: str, user: str) -> dict[str, tuple[int, int]]:
        """For a backend of one's own: keys to count under, each with its limit and seconds."""
        method = self.method or "*"
        return {
            f"{path}:{method}:{user}:{unit}": (limit, TTL[unit])
            for unit, limit in self.limits().items()
        }


def _check_limit(unit: str, limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(
            f"{unit} is a number of requests, an int, not {type(limit).__name__} "
            f"(name the arguments: Rule(second=5, group='admin'))"
        )
    if not 1 <= limit <= _core.LIMIT_MAX:
        raise ValueError(f"{unit} is 1 to 2**40 requests, not {limit}; None is unlimited")


def _check_text(what: str, value: object, *, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str{' or None' * optional}, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{what} is not empty")
