"""The errors. A limit that is reached and a store that failed are never the same one."""

from __future__ import annotations

from math import ceil, isinf

from ._core import Decision, StoreError, StoreFullError

__all__ = ["RateLimitExceeded", "StorageError", "StoreError", "StoreFullError"]

PERIODS: dict[float, str] = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}

StorageError = StoreError  # its name in the sources


class RateLimitExceeded(Exception):  # noqa: N818 - its name in the sources
    """A limit was reached. Base of every RateLimitExceeded of the package.

    `decision` says which quota holds the event back, and for how long.
    """

    decision: Decision

    def __init__(self, decision: Decision, message: str | None = None) -> None:
        self.decision = decision
        Exception.__init__(self, describe(decision) if message is None else message)

    @property
    def retry_after(self) -> float:
        """Seconds until the same event would be admitted; `inf` when it never can be."""
        return self.decision.retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.decision, str(self))


def describe(decision: Decision) -> str:
    """One line: what holds the event back, and when it may come again."""
    quota, retry_after = decision.quota, decision.retry_after
    if quota is None:
        what = "Rate limit exceeded"
    else:
        name = f"{quota.name}: " if quota.name else ""
        period = PERIODS.get(quota.period) or f"{quota.period:g} seconds"
        what = f"Rate limit exceeded ({name}{quota.limit} per {period})"
        if isinf(retry_after):
            return f"{what}; the cost is above the burst of {quota.burst}, so it never can be met"
    if isinf(retry_after):
        return what
    return f"{what}; retry after {seconds(retry_after)}"


def seconds(value: float) -> str:
    """Seconds for people, rounded up: a tenth below ten, whole ones from there."""
    if value < 10:
        tenths = ceil(value * 10)
        return "1 second" if tenths == 10 else f"{tenths / 10:g} seconds"
    return f"{ceil(value)} seconds"
