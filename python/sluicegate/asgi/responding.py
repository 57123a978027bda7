"""An HTTP request whose response is looked at."""

from __future__ import annotations

from typing import Literal

from .. import _core
from .entry import Entry
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Headers", "respond", "with_headers"]

Headers = Literal["ietf", "x", "both"] | None

STYLES: dict[Headers, tuple[Literal["ietf", "x"], ...]] = {
    None: (),
    "ietf": ("ietf",),
    "x": ("x",),
    "both": ("ietf", "x"),
}


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
    headers = [
        (name.lower().encode("ascii"), value.encode("ascii"))
        for one in STYLES[style]
        for name, value in decision.headers(one).items()
    ]

    async def send_with_headers(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            own = list(message.get("headers") or ())
            names = {bytes(name).lower() for name, _ in own}
            more = {name: value for name, value in headers if name not in names}
            message = {**message, "headers": [*own, *more.items()]}
        await send(message)

    return send_with_headers
