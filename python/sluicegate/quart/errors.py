"""What a limit that is reached raises, for requests and for messages."""

from __future__ import annotations

from werkzeug.exceptions import TooManyRequests

from .. import _core, errors
from ..websocket.words import whole_seconds

__all__ = ["RateLimitExceeded", "WebSocketRateLimitException", "seconds_of"]


def seconds_of(decision: _core.Decision) -> int:
    """Whole seconds until the same may come again, rounded up, at least 1."""
    return whole_seconds(decision.retry_after) or 1


def _refusal(retry_after: int) -> _core.Decision:
    return _core.Decision(False, retry_after=retry_after)


class RateLimitExceeded(errors.RateLimitExceeded, TooManyRequests):
    """A request or a handshake over a limit: HTTP 429 with `Retry-After`.

    `retry_after`: whole seconds. `decision` says which quota holds it back.
    """

    retry_after = 1

    def __init__(self, retry_after: int, decision: _core.Decision | None = None) -> None:
        TooManyRequests.__init__(self, retry_after=retry_after)
        self.decision = _refusal(retry_after) if decision is None else decision

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.retry_after, self.decision)


class WebSocketRateLimitException(errors.RateLimitExceeded):
    """A message over a limit.

    `retry_after`: whole seconds. `context_key`: that of the call, "" where it had none.
    """

    retry_after = 1

    def __init__(
        self,
        retry_after: int,
        context_key: str = "",
        decision: _core.Decision | None = None,
    ) -> None:
        text = f"WebSocket rate limit exceeded. Retry after {retry_after} seconds."
        if context_key:
            text = f"{text} Context: {context_key}"
        super().__init__(_refusal(retry_after) if decision is None else decision, text)
        self.retry_after = retry_after
        self.context_key = context_key

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.retry_after, self.context_key, self.decision)
