"""What is done about a message that is over a limit: close, drop, delay or notify."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import isinf
from typing import Any, Literal, Protocol

from .. import _core
from ..stores import Store
from .words import whole_seconds

__all__ = ["Excess", "OnExcess", "Peer", "close_of", "notice_of", "quiet_for"]

OnExcess = Literal["close", "drop", "delay", "notify"]
Notify = Callable[[dict[str, Any]], Any]

POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1008, 1009, 1011  # close codes of RFC 6455
REASON = "Rate limit exceeded"  # what a client reads beside 1008
SIZE_QUIET = 1.0  # seconds between notices of messages that are too large


class Peer(Protocol):
    """What a framework's connection does for this."""

    async def send(self, message: Any) -> None:
        """Sends a notice: text and bytes as they are, anything else as JSON."""

    async def close(self, code: int, reason: str) -> None: ...

    async def pause(self, seconds: float) -> bool:
        """Waits without reading on; False where the client has gone meanwhile."""


class Excess:
    """One connection's way with what is refused."""

    __slots__ = ("_mode", "_notify", "_patience", "_peer", "_quiet_until", "_store")

    def __init__(
        self,
        peer: Peer,
        store: Store,
        mode: OnExcess,
        max_delay: float,
        notify: Notify | None,
    ) -> None:
        self._peer = peer
        self._store = store
        self._mode = mode
        self._patience = max_delay
        self._notify = notify
        self._quiet_until = 0.0

    async def answer(
        self,
        decision: _core.Decision,
        result: dict[str, Any],
        again: Callable[[], Awaitable[_core.Decision]],
        now: Callable[[], float],
    ) -> bool | None:
        """Answers a refused message. True: it is admitted after all; False: it is dropped;
        None: the connection is over. `again` decides anew, quietly."""
        if result.get("close") or self._mode == "close":
            await self._close(decision, result)
            return None
        if self._mode == "drop":
            return False
        if self._mode == "notify":
            await self._tell(decision, result, now())
            return False
        waited_from = now()
        while not decision.allowed:
            left = waited_from + self._patience - now()
            if isinf(decision.retry_after) or decision.retry_after > left:
                await self._close(decision, result)
                return None
            if not await self._peer.pause(decision.retry_after):
                return None
            decision = await again()
        return True

    async def _close(self, decision: _core.Decision, result: dict[str, Any]) -> None:
        await self._peer.close(*close_of(result["reason"], decision.retry_after))

    async def _tell(self, decision: _core.Decision, result: dict[str, Any], now: float) -> None:
        if now < self._quiet_until:
            return
        self._quiet_until = now + quiet_for(decision)
        notice: Any = notice_of(decision, result)
        if self._notify is not None:
            notice = self._notify(notice)
            if isinstance(notice, Awaitable):
                notice = await notice
        await self._peer.send(notice)


def notice_of(decision: _core.Decision, result: dict[str, Any]) -> dict[str, Any]:
    """What a client is told of a message that was refused."""
    return {
        "error": "rate_limited",
        "reason": result["reason"],
        "retry_after": whole_seconds(decision.retry_after),
        "limit": decision.limit or None,
    }


def quiet_for(decision: _core.Decision) -> float:
    """Seconds in which the client is not told again."""
    return SIZE_QUIET if isinf(decision.retry_after) else decision.retry_after


def close_of(reason: str, retry_after: float) -> tuple[int, str]:
    """The close code, and the reason that a client sees."""
    if reason == "message_too_large":
        return TOO_BIG, "Message too large"
    if reason == "internal_error":
        return INTERNAL_ERROR, "Rate limits cannot be checked"
    seconds = whole_seconds(retry_after)
    return POLICY_VIOLATION, REASON if seconds is None else f"{REASON}; retry after {seconds}"
