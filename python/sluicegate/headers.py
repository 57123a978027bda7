"""A decision as HTTP header fields.

"ietf" is draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy`, `RateLimit`), whose
values are structured fields (RFC 9651); "x" is the customary `X-RateLimit-*`. A refusal
has `Retry-After` in either, unless it is for good.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from math import ceil, isinf

from ._core import Decision, Quota

__all__ = ["STYLES", "decision_headers", "headers_of", "policy_name", "retry_after_seconds"]

# What a choice of headers is made of.
STYLES = {"ietf": ("ietf",), "x": ("x",), "both": ("ietf", "x")}

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


def headers_of(decision: Decision, styles: Iterable[str]) -> dict[str, str]:
    """The fields of several styles."""
    found: dict[str, str] = {}
    for style in styles:
        found.update(decision_headers(decision, style))
    return found


def policy_name(quota: Quota) -> str:
    """How the fields call it: its name, "default" where it has none. What is no printable ASCII
    is percent-encoded, for a structured field's string holds no other."""
    out = []
    for character in quota.name or "default":
        if " " <= character <= "~" and character != "%":
            out.append(character)
        else:
            out.extend(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return "".join(out)


def _ietf(decision: Decision) -> dict[str, str]:
    quota = decision.quota
    if quota is None:
        return {}
    name, policy = _policy(quota)
    # t: when more is to be had; of a refusal that is when to come again
    wait = decision.reset_after if decision.allowed else decision.retry_after
    reset = "" if isinf(wait) else f";t={_integer(wait)}"
    return {
        "RateLimit-Policy": policy,
        "RateLimit": f"{name};r={_integer(decision.remaining)}{reset}",
    }


@lru_cache(maxsize=1024)
def _policy(quota: Quota) -> tuple[str, str]:
    """Its name as a structured field writes it, and the policy."""
    escaped = policy_name(quota).replace("\\", r"\\").replace('"', r"\"")
    unit = ';qu="content-bytes"' if quota.name == "bytes" else ""
    limits = f"q={_integer(quota.limit)}{unit};w={_integer(quota.period)}"
    return f'"{escaped}"', f'"{escaped}";{limits}'


def _x(decision: Decision) -> dict[str, str]:
    quota = decision.quota
    if quota is None:
        return {}
    wait = quota.period if isinf(decision.reset_after) else decision.reset_after
    return {
        "X-RateLimit-Limit": str(decision.limit),
        "X-RateLimit-Remaining": str(decision.remaining),
        # seconds since the epoch, as most clients expect
        "X-RateLimit-Reset": str(ceil(time.time() + wait)),
    }


def _integer(value: float) -> int:
    return min(_INTEGER_MAX, ceil(value))
