"""A decision as HTTP header fields.

"ietf" is draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy`, `RateLimit`), whose
values are structured fields (RFC 9651); "x" is the customary `X-RateLimit-*`. A refusal
has `Retry-After` in either, unless it is for good. The fields are made in C
(csrc/binding/fields.c), which asks here how a quota's policy reads, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, isinf
from typing import Literal

from ._core import Decision, Quota

__all__ = ["STYLES", "headers_of", "policy_name", "policy_of", "retry_after_seconds"]

Style = Literal["ietf", "x"]

# What a choice of headers is made of.
STYLES: dict[str, tuple[Style, ...]] = {
    "ietf": ("ietf",),
    "x": ("x",),
    "both": ("ietf", "x"),
}

_INTEGER_MAX = 999_999_999_999_999  # of a structured field: 15 digits


def retry_after_seconds(decision: Decision) -> int | None:
    """Whole seconds, rounded up, at least 1; None when admitted, or never to be."""
    if decision.allowed or isinf(decision.retry_after):
        return None
    return max(1, ceil(decision.retry_after))


def headers_of(decision: Decision, styles: Iterable[Style]) -> dict[str, str]:
    """The fields of several styles."""
    found: dict[str, str] = {}
    for style in styles:
        found.update(decision.headers(style))
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


def policy_of(quota: Quota) -> tuple[str, str]:
    """Its name as a structured field writes it, and the policy; both ASCII."""
    escaped = policy_name(quota).replace("\\", r"\\").replace('"', r"\"")
    unit = ';qu="content-bytes"' if quota.name == "bytes" else ""
    limits = f"q={_integer(quota.limit)}{unit};w={_integer(quota.period)}"
    return f'"{escaped}"', f'"{escaped}";{limits}'


def _integer(value: float) -> int:
    return min(_INTEGER_MAX, ceil(value))
