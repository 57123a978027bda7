"""Limits as they are written down: on routes, on blueprints, as defaults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from ..quota import Quota
from .keys import KeyFunction

__all__ = [
    "RateLimit",
    "SkipFunction",
    "is_exempt",
    "limit_blueprint",
    "limits_on",
    "rate_exempt",
    "rate_limit",
]

SkipFunction = Callable[[], Awaitable[bool] | bool]
T = TypeVar("T")

_LIMITS = "_sluicegate_quart_limits"
_EXEMPT = "_sluicegate_quart_exempt"


@dataclass
class RateLimit:
    """`count` requests in `period`, all of them at once if need be.

    `key_function` says who is limited (by default that of the RateLimiter),
    `skip_function` whether this limit is left out for a request; plain or async.
    TypeError or ValueError where a number makes no sense.
    """

    count: int
    period: timedelta
    key_function: KeyFunction | None = None
    skip_function: SkipFunction | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.period, timedelta):
            raise TypeError(f"a period is a timedelta, not {type(self.period).__name__}")
        self.quota  # noqa: B018 - it checks the numbers

    @property
    def quota(self) -> Quota:
        """The same as a quota of the core: GCRA with the full burst."""
        return quota_of(self.count, self.period.total_seconds())

    @property
    def inverse(self) -> float:
        """Seconds in which one request comes back."""
        return self.period.total_seconds() / self.count

    @property
    def key(self) -> str:
        """Its numbers, as they stand in the name of its state."""
        return numbers(self.count, self.period.total_seconds())


@lru_cache(maxsize=1024, typed=True)  # True and 1.0 are not 1
def quota_of(count: int, seconds: float) -> Quota:
    return Quota(count, seconds)


def numbers(count: int, seconds: float) -> str:
    return f"{count}/{seconds}s"


def rate_limit(
    count: int | None = None,
    period: timedelta | None = None,
    key_function: KeyFunction | None = None,
    skip_function: SkipFunction | None = None,
    *,
    limits: Iterable[RateLimit] | None = None,
    limit: int | None = None,
) -> Callable[[T], T]:
    """Limits a route, below its `@app.route`: `@rate_limit(10, timedelta(seconds=10))`.

    On a websocket route it limits the connections. `limits` is a list in place of count
    and period; decorators add up. `limit` is another name of `count`.
    """
    given = _limits(count, period, key_function, skip_function, limits, limit)

    def decorator(function: T) -> T:
        return _add(function, given)

    return decorator


def limit_blueprint(
    blueprint: T,
    count: int | None = None,
    period: timedelta | None = None,
    key_function: KeyFunction | None = None,
    skip_function: SkipFunction | None = None,
    *,
    limits: Iterable[RateLimit] | None = None,
    limit: int | None = None,
) -> T:
    """Limits every route of a blueprint, each for itself; not those of blueprints in it."""
    return _add(blueprint, _limits(count, period, key_function, skip_function, limits, limit))


def rate_exempt(function: T) -> T:
    """No limit holds for this route, below its `@app.route`."""
    setattr(function, _EXEMPT, True)
    return function


def limits_on(marked: object) -> tuple[RateLimit, ...]:
    """The limits of a view function or of a blueprint."""
    found: tuple[RateLimit, ...] = getattr(marked, _LIMITS, ())
    return found


def is_exempt(function: object) -> bool:
    return bool(getattr(function, _EXEMPT, False))


def _add(marked: T, limits: Sequence[RateLimit]) -> T:
    # a new tuple: what was marked before may have been copied by functools.wraps
    setattr(marked, _LIMITS, (*limits_on(marked), *limits))
    return marked


def _limits(
    count: int | None,
    period: timedelta | None,
    key_function: KeyFunction | None,
    skip_function: SkipFunction | None,
    limits: Iterable[RateLimit] | None,
    limit: int | None,
) -> tuple[RateLimit, ...]:
    if count is not None and limit is not None:
        raise ValueError("count and limit are one number: give it once")
    count = limit if count is None else count
    if limits is not None:
        if count is not None or period is not None:
            raise ValueError("a rate limit is a count and a period, or limits=, not both")
        return checked(limits)
    if count is None or period is None:
        raise ValueError("a rate limit needs a count and a period, or limits=")
    return (RateLimit(count, period, key_function, skip_function),)


def checked(limits: Iterable[Any]) -> tuple[RateLimit, ...]:
    """The limits, each of which is a RateLimit: else TypeError."""
    found = tuple(limits)
    for one in found:
        if not isinstance(one, RateLimit):
            raise TypeError(f"a limit is a RateLimit, not {type(one).__name__}")
    return found
