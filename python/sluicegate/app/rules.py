"""Which numbers hold for which path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ..quota import Quota
from .rate import quota_of

__all__ = ["EndpointLimit", "Rules", "RulesArgument"]


class EndpointLimit(NamedTuple):
    """At most `limit + burst` requests in any `window_seconds`."""

    limit: int
    window_seconds: float = 60
    burst: int = 0


RulesArgument = Mapping[str, EndpointLimit | str | int | None]

# Health checks, what Prometheus reads, and FastAPI's pages about the API.
EXCLUDED = frozenset(("/health", "/metrics", "/docs", "/redoc", "/openapi.json"))


class Rules:
    """The excluded paths, then the patterns in their order, then the default.

    A pattern is a regular expression that is matched from the start of the path. Its limit is
    an EndpointLimit (or a tuple of its fields), a rate string as "5/minute", an int (requests
    a minute), or None: not limited. ValueError or TypeError for others.
    """

    __slots__ = ("_default", "_patterns")

    def __init__(self, default: EndpointLimit, rules: RulesArgument | None = None) -> None:
        self._default = ("", _checked(default))
        self._patterns = [
            (_compiled(pattern), (f"endpoint:{pattern}:", _limit(pattern, given)))
            for pattern, given in (rules or {}).items()
        ]

    def of(self, path: str) -> tuple[str, EndpointLimit | None]:
        """What stands before the key of who asks for this path, and the limit; None: none."""
        if (path.rstrip("/") or "/") in EXCLUDED:
            return "", None
        for pattern, found in self._patterns:
            if pattern.match(path):
                return found
        return self._default


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rules: {pattern!r} is no regular expression: {error}") from error


def _limit(pattern: str, given: object) -> EndpointLimit | None:
    if given is None:
        return None
    if isinstance(given, str):
        return _of_text(pattern, given)
    if isinstance(given, tuple):
        return _checked(EndpointLimit(*given))
    if isinstance(given, int) and not isinstance(given, bool):
        return _checked(EndpointLimit(given))
    raise TypeError(
        f"rules: the limit of {pattern!r} is an EndpointLimit, a rate string, an int or None, "
        f"not {type(given).__name__}"
    )


def _of_text(pattern: str, text: str) -> EndpointLimit:
    quota = Quota.parse(text)
    if quota.burst != quota.limit or quota.algorithm not in ("gcra", "sliding-log"):
        raise ValueError(
            f"rules: {pattern!r} has {text!r}, but here all limits are sliding logs, to which "
            f"a burst is added: EndpointLimit({quota.limit}, {quota.period:g}, burst=...)"
        )
    return _checked(EndpointLimit(quota.limit, quota.period))


def _checked(limit: EndpointLimit) -> EndpointLimit:
    quota_of(*limit)
    return limit
