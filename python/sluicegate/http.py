"""A decision as an HTTP answer: the fields of each response, and what a refusal says.

The body is a problem (RFC 9457) of the types that draft-ietf-httpapi-ratelimit-headers-10
registers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import ceil, isfinite
from random import random
from typing import Any, Literal, NamedTuple

from ._core import Decision, completed
from ._support import check_number
from .headers import STYLES, headers_of, policy_name

__all__ = [
    "PROBLEM_JSON",
    "Answers",
    "Headers",
    "Refusal",
    "completed",
    "problem_of",
    "raw_headers",
]

Headers = Literal["ietf", "x", "both", "none"]

PROBLEM_JSON = "application/problem+json"

_TYPES = "https://iana.org/assignments/http-problem-types#"
_TOO_MANY, _UNAVAILABLE = 429, 503
_FOR_GOOD = 60.0  # seconds; of a refusal that no quota explains and no wait ends


class Refusal(NamedTuple):
    """What is answered in place of what was asked for."""

    status: int
    headers: dict[str, str]
    problem: dict[str, Any]

    @property
    def body(self) -> bytes:
        """The problem, of the type PROBLEM_JSON."""
        return json.dumps(self.problem).encode()


class Answers:
    """How decisions are told.

    `headers`: "ietf" (`RateLimit-Policy` and `RateLimit`), "x" (`X-RateLimit-Limit`,
    `-Remaining`, and `-Reset` in seconds since the epoch), "both", or "none" (or None). A refusal
    has `Retry-After` in any case, in whole seconds, with up to `jitter` seconds more, by chance,
    so that those who were refused together do not come again together.
    ValueError or TypeError for what is neither.
    """

    __slots__ = ("_chance", "_styles", "jitter")

    def __init__(
        self,
        headers: Headers | None = "ietf",
        jitter: float = 0.0,
        *,
        chance: Callable[[], float] = random,
    ) -> None:
        if headers is not None and not isinstance(headers, str):
            raise TypeError(f"headers are named by a str or None, not {type(headers).__name__}")
        if headers not in (None, "none", *STYLES):
            raise ValueError(f"headers are 'ietf', 'x', 'both' or 'none', not {headers!r}")
        self.jitter = check_number(jitter, "jitter", equal=True)
        if not isfinite(self.jitter):
            raise ValueError("jitter is finite")
        self._styles = STYLES.get(headers or "none", ())
        self._chance = chance

    def headers(self, decision: Decision) -> dict[str, str]:
        """The fields that tell of a decision; of one that refuses, with `Retry-After`."""
        found = headers_of(decision, self._styles)
        if not decision.allowed:
            found["Retry-After"] = str(self._retry_after(decision))
        return found

    def refusal(self, decision: Decision) -> Refusal:
        """The answer to what was refused: 429, or 503 where no limit was reached, but what
        counts did not answer (`on_store_error="deny"`) or is full."""
        headers = self.headers(decision)
        status, problem = problem_of(decision, int(headers["Retry-After"]))
        return Refusal(status, headers, problem)

    def later(self, seconds: float) -> int:
        """Whole seconds, at least 1, with the jitter."""
        return max(1, ceil(seconds + self.jitter * self._chance()))

    def _retry_after(self, decision: Decision) -> int:
        wait = decision.retry_after
        if not isfinite(wait):
            # It never can be admitted; something smaller can, at the latest when all is whole.
            wait = decision.reset_after
            if not isfinite(wait) or not wait:
                wait = _FOR_GOOD if decision.quota is None else decision.quota.period
        return self.later(wait)


def problem_of(decision: Decision, seconds: int) -> tuple[int, dict[str, Any]]:
    """The status of a refusal, and what it says."""
    quota = decision.quota
    failed = quota is None and decision.degraded
    status = _UNAVAILABLE if failed else _TOO_MANY
    kind, title = (
        ("temporary-reduced-capacity", "Request cannot be counted just now")
        if failed
        else (
            "quota-exceeded",
            "Request cannot be satisfied as assigned quota has been exceeded",
        )
    )
    problem = {
        "type": _TYPES + kind,
        "title": title,
        "status": status,
        "detail": f"Come again in {seconds} second{'' if seconds == 1 else 's'}.",
        "violated-policies": [] if quota is None else [policy_name(quota)],
        "retry_after": seconds,
    }
    return status, problem


def raw_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """As ASGI has them."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
