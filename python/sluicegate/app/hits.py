"""What was refused, for Prometheus and for the log."""

from __future__ import annotations

from typing import Literal

from .outage import logger

try:
    from prometheus_client import Counter
except ImportError as error:
    raise ImportError(
        "the doors of sluicegate.app count for Prometheus, which needs prometheus_client: "
        'pip install "sluicegate[app]"'
    ) from error

__all__ = ["LimitType", "report"]

LimitType = Literal["http", "ws_connection", "ws_message"]

_SHOWN = 128  # characters of a user's id in the words of a log line

try:
    # In the registry that prometheus_client exposes unless told otherwise.
    _hits = Counter(
        "rate_limit_hits_total", "Requests, connections and messages over a limit", ["limit_type"]
    )
except ValueError as error:
    raise ValueError(
        "the application has a metric rate_limit_hits_total of its own; sluicegate.app counts "
        "it: delete the other one"
    ) from error
_counted = {name: _hits.labels(limit_type=name) for name in ("http", "ws_connection", "ws_message")}


def report(limit_type: LimitType, user_id: str, current_count: int, limit: int) -> None:
    """Counts a refusal and logs it. `current_count` is without the one that was refused."""
    _counted[limit_type].inc()
    logger.warning(
        "Rate limit exceeded for user %s",
        _shown(user_id),
        extra={
            "user_id": user_id,
            "limit_type": limit_type,
            "current_count": current_count,
            "limit": limit,
        },
    )


def _shown(user_id: str) -> str:
    """On one line, whatever somebody has called himself."""
    text = user_id if len(user_id) <= _SHOWN else f"{user_id[:_SHOWN]}…"
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
