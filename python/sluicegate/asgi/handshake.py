"""How a WebSocket's handshake is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DENIAL", "deny", "read_out", "send_close", "turn_away"]

DENIAL = "websocket.http.response"  # the ASGI extension
PRIVATE = 3000  # added to a code of RFC 6455, one of those that are free for all
READ_OUT = 5.0  # seconds that a client has to answer a close


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
    except OSError:
        return  # gone meanwhile
    await send_close(send, code, reason)
    await read_out(receive)


async def send_close(send: Send, code: int, reason: str) -> None:
    """Closes what is accepted; that the client has gone meanwhile is no error.

    Daphne sends no 1008 or 1009, but raises: there it is 4008 or 4009, which any server may send.
    """
    with suppress(OSError):
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:
            raise
        except Exception:
            await send({"type": "websocket.close", "code": code + PRIVATE, "reason": reason})


async def read_out(receive: Receive) -> None:
    """After a close: reads what comes in until the disconnect, and leaves it. A server that waits
    for its application (hypercorn) would else never come to the client's answer, and keep the
    connection."""

    async def read() -> None:
        message = await receive()
        while message["type"] != "websocket.disconnect":
            await asyncio.sleep(0)  # a flood leaves the loop to others
            message = await receive()

    with suppress(Exception):  # a timeout, or what the server raises: it is over either way
        await asyncio.wait_for(read(), READ_OUT)


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
