"""An HTTP request whose response is looked at."""

from __future__ import annotations

from typing import Literal

from .. import _core
from .entry import Entry
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Headers", "respond", "with_headers"]

Headers = Literal["ietf", "x", "both"] | None


async def respond(app: ASGIApp, entry: Entry, scope: Scope, receive: Receive, send: Send) -> None:
    """Lets an application answer, and settles by its status what was reserved."""
    answered = False

    async def send_settled(message: Message) -> None:
        nonlocal answered
        if not answered and message["type"].endswith("http.response.start"):
            answered = True
            await entry.respond(message["status"])
        await send(message)

    try:
        await app(scope, receive, send_settled)
    except Exception:
        if not answered:
            await entry.respond(500)  # which the server makes of it
        raise
    finally:
        entry.close()


def with_headers(send: Send, decision: _core.Decision | None, style: Headers) -> Send:
    """The same `send`, for responses with what a decision says; those that there are, stay."""
    if style is None or decision is None:
        return send
    return _core.Sender(send, _core.raw_headers(decision, style))
