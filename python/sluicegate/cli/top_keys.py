"""How one key stands, as a row of `sluicegate top`."""

from __future__ import annotations

from math import inf, isinf
from typing import Any

from sluicegate.observe import escape_key

from .found import Found
from .limiters import standing
from .words import number

__all__ = ["keyed"]


async def keyed(found: Found, key: bytes) -> tuple[float, dict[str, Any]]:
    """By what to sort a key, least left first, and its row."""
    row: dict[str, Any] = {"key": escape_key(key), "admitted": True, "left": "", "stands": ""}
    share = inf
    looked = await found.look(key)
    if looked is not None:
        decision, quota = looked.decision, looked.decision.quota
        row["admitted"], row["stands"] = decision.allowed, standing(looked)
        row["retry_after"] = None if isinf(decision.retry_after) else decision.retry_after
        if quota is not None:
            row["left"] = f"{number(decision.remaining)} of {number(quota.burst)}"
            share = decision.remaining / quota.burst
        if not decision.allowed:  # those that are held back for longest come first
            share = -min(decision.retry_after, 1e12)
    held = await found.held(key)
    if held:
        most = found.known.slots
        row["held"] = held
        row["stands"] = f"{row['stands']}, {held} held".removeprefix(", ")
        share = min(share, 1 - held / most if most else 1 / (1 + held))
        if not row["left"] and most:
            row["left"] = f"{number(max(most - held, 0))} of {number(most)}"
    return share, row
