"""How a WebSocket's handshake is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DENIAL", "deny", "turn_away"]

DENIAL = "websocket.http.response"  # the ASGI extension


async def turn_away(scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
    """Accepts, and closes at once: a browser sees code and reason in no other way."""
    if (await receive())["type"] != "websocket.connect":
        return  # gone already
    offered = scope.get("subprotocols")
    # a browser that offered some takes an answer without one for a failure, and shows no code
    accept: dict[str, Any] = {
        "type": "websocket.accept",
        "subprotocol": next(iter(offered or ()), None),
    }
    try:
        await send(accept)
        await send({"type": "websocket.close", "code": code, "reason": reason})
    except OSError:
        pass  # gone meanwhile


async def deny(
    scope: Scope, receive: Receive, send: Send, app: ASGIApp, code: int, reason: str
) -> None:
    """Answers by HTTP, as `app` does, where the server has the extension for it; else closes,
    which a client sees as 403."""
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    if DENIAL in (scope.get("extensions") or ()):
        await app(scope, _again(message, receive), _denying(send))
    else:
        await send({"type": "websocket.close", "code": code, "reason": reason})


def _again(message: Message, receive: Receive) -> Receive:
    """The same `receive`, with what was read of it first."""
    read = [message]

    async def receive_again() -> Message:
        return read.pop() if read else await receive()

    return receive_again


def _denying(send: Send) -> Callable[[Message], Any]:
    """What an application of HTTP sends, as the extension has it."""

    async def send_denial(message: Message) -> None:
        if message["type"].startswith("http.response."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return send_denial
