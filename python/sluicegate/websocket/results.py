"""The documented result of a message that is refused."""

from __future__ import annotations

from typing import Any

from .. import _core
from .plans import Plan
from .words import whole_seconds

__all__ = ["VIOLATIONS", "refusal"]

# What a refusal is called where violations are told.
VIOLATIONS = {
    "message_too_large": "message_size",
    "rate_limit_exceeded": "message_rate",
    "bandwidth_exceeded": "bandwidth",
}


def refusal(
    plan: Plan, reason: str, decision: _core.Decision | None
) -> tuple[dict[str, Any], int | None]:
    """The result, and the limit that was reached. No decision: the size was too large."""
    result: dict[str, Any] = {"allowed": False, "reason": reason}
    if decision is None:
        result["max_size"] = plan.limits.max_message_size
        return result, plan.limits.max_message_size
    if reason == "bandwidth_exceeded":
        result["remaining_bytes"] = decision.remaining
    result["retry_after"] = whole_seconds(decision.retry_after)
    return result, _limit(plan, reason, decision)


def _limit(plan: Plan, reason: str, decision: _core.Decision) -> int | None:
    """That of the quota that binds, if it is of the reason: bytes may bind, by a longer wait,
    where messages are what is told."""
    quotas = plan.limits.quotas_of("bytes" if reason == "bandwidth_exceeded" else "messages")
    if decision.quota in quotas:
        return decision.limit
    return quotas[0].limit if quotas else None
