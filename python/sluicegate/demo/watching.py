"""What a limiter tells those who watch: the monitor, the gauge, Prometheus."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from sluicegate import _core
from sluicegate.websocket import WebSocketLimits, WebSocketRateLimiter

_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}


class Watched:
    """A WebSocketRateLimiter whose limits are the same for all clients."""

    def __init__(self, limiter: WebSocketRateLimiter, limits: WebSocketLimits) -> None:
        self.limiter = limiter
        self.messages = limiter.tables["messages"]
        quotas = list(limits.quotas_of("messages"))
        # The table also has the places of the byte quotas; none is set here.
        holes = [None] * (len(self.messages.algorithms) - len(quotas))
        self._gauge = _core.Limiter(self.messages, [*quotas, *holes])

    def statistics(self) -> dict[str, Any]:
        """See WebSocketRateLimiter.get_statistics."""
        return self.limiter.get_statistics()

    def allowance(self, client: str | bytes) -> dict[str, Any] | None:
        """How a client stands now; charges nothing."""
        return allowance_of(self._gauge.peek_nowait(client, 0))


def allowance_of(decision: _core.Decision) -> dict[str, Any] | None:
    """What the gauge on the page needs; None where no quota was asked.

    `interval` is seconds for one message to come back, None where all come back together.
    Times are seconds from now.
    """
    quota = decision.quota
    if quota is None:
        return None
    return {
        "label": _label(quota),
        "capacity": quota.burst,
        "remaining": decision.remaining,
        "reset_after": decision.reset_after,
        "interval": quota.period / quota.limit if quota.algorithm == "gcra" else None,
    }


@lru_cache(maxsize=64)
def _label(quota: _core.Quota) -> str:
    period = _UNITS.get(quota.period) or f"{quota.period:g} seconds"
    text = f"{quota.limit} per {period}"
    return text if quota.burst == quota.limit else f"{text}, {quota.burst} at once"


def retry_after(decision: _core.Decision) -> float | None:
    """Seconds, rounded up to milliseconds; None for never, which JSON has no number for."""
    if math.isinf(decision.retry_after):
        return None
    return math.ceil(decision.retry_after * 1000) / 1000
