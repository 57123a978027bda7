"""A decision as HTTP header fields.

"ietf" is draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy`, `RateLimit`), whose
values are structured fields (RFC 9651); "x" is the customary `X-RateLimit-*`. A refusal
has `Retry-After` in either, unless it is for good.
"""

from __future__ import annotations

import time
from math import ceil, isinf

from ._core import Decision

__all__ = ["decision_headers", "retry_after_seconds"]

_INTEGER_MAX = 999_999_999_999_999  # of a structured field: 15 digits


def retry_after_seconds(decision: Decision) -> int | None:
    """Whole seconds, rounded up, at least 1; None when admitted, or never to be."""
    if decision.allowed or isinf(decision.retry_after):
        return None
    return max(1, ceil(decision.retry_after))


def decision_headers(decision: Decision, style: str = "ietf") -> dict[str, str]:
    """The fields of one style, "ietf" or "x"; empty where nothing is limited.

    Under a ban no quota binds, so there is `Retry-After` alone.
    """
    if style == "ietf":
        headers = _ietf(decision)
    elif style == "x":
        headers = _x(decision)
    else:
        raise ValueError(f"headers are 'ietf' or 'x', not {style!r}")
    retry_after = retry_after_seconds(decision)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return headers


def _ietf(decision: Decision) -> dict[str, str]:
    quota = decision.quota
    if quota is None:
        return {}
    name = _string(quota.name or "default")
    unit = ';qu="content-bytes"' if quota.name == "bytes" else ""
    # t: when more is to be had; of a refusal that is when to come again
    wait = decision.reset_after if decision.allowed else decision.retry_after
    reset = "" if isinf(wait) else f";t={_integer(wait)}"
    return {
        "RateLimit-Policy": f"{name};q={_integer(quota.limit)}{unit};w={_integer(quota.period)}",
        "RateLimit": f"{name};r={_integer(decision.remaining)}{reset}",
    }


def _x(decision: Decision) -> dict[str, str]:
    if decision.quota is None:
        return {}
    return {
        "X-RateLimit-Limit": str(decision.limit),
        "X-RateLimit-Remaining": str(decision.remaining),
        # seconds since the epoch, as most clients expect
        "X-RateLimit-Reset": str(ceil(time.time() + decision.reset_after)),
    }


def _integer(value: float) -> int:
    return min(_INTEGER_MAX, ceil(value))


def _string(text: str) -> str:
    """A structured-field string holds printable ASCII; what is not is percent-encoded."""
    out = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif character == "%":
            out.append("%25")
        elif " " <= character <= "~":
            out.append(character)
        else:
            out.extend(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return '"' + "".join(out) + '"'
