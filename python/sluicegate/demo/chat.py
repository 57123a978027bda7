"""`/chat`: the WebSocket whose messages are limited.

In: {"text": ...}. Each is answered by exactly one of
  {"type": "message", "own": true, ...}   admitted; the others get it with "own": false
  {"type": "limited", "reason": ..., "retry_after": seconds or null}
  {"type": "error", "reason": "invalid_json" | "missing_text"}
The page says {"type": "hello"} once and is told who it is and what came before; nothing is
sent unasked, so that a program may read one reply for each message.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket

from sluicegate.fastapi import ConnectionRefused, FastAPIWebSocketLimiter

from .outbox import Outbox, serve
from .room import Member, Room
from .security import same_origin
from .settings import DemoSettings
from .watching import Watched, allowance_of, retry_after

WAITING = 256  # messages that may wait for one connection
HELLO_BYTES = 64


class Chat:
    """The room and its limits."""

    def __init__(self, settings: DemoSettings) -> None:
        limits = settings.limits()
        self.settings = settings
        self.door = FastAPIWebSocketLimiter(limits)
        self.watched = Watched(self.door.limiter, limits)
        self.room = Room()

    async def serve(self, websocket: WebSocket) -> None:
        """One connection, from handshake to end."""
        if not same_origin(websocket.headers):
            await websocket.close(1008)  # before accept: HTTP 403
            return
        try:
            async with self.door.connection(websocket) as place:
                info = place.info
                assert info is not None
                outbox = Outbox(websocket, WAITING)
                member = self.room.join(info.client_id, outbox)
                try:
                    await serve(
                        asyncio.ensure_future(self._read(websocket, info.connection_id, member)),
                        asyncio.ensure_future(outbox.send_all()),
                    )
                finally:
                    self.room.leave(member)
        except ConnectionRefused:
            return  # answered: close 1008

    async def _read(self, websocket: WebSocket, connection: Any, member: Member) -> None:
        greeted = False
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data: str | bytes | None = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if not greeted and is_hello(data):
                # Once, uncharged: a page that comes in must not use up what it shows.
                greeted = True
                await member.outbox.put(json.dumps(self._welcome(member)))
            else:
                await self._answer(connection, member, data)

    async def _answer(self, connection: Any, member: Member, data: str | bytes) -> None:
        size = len(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        decision, result = await self.door.limiter.decide_message(connection, size)
        allowance = allowance_of(decision)
        if not result["allowed"]:
            refusal = {
                "type": "limited",
                "reason": result["reason"],
                "retry_after": retry_after(decision),
                "allowance": allowance,
            }
            if "max_size" in result:
                refusal["max_size"] = result["max_size"]
            await member.outbox.put(json.dumps(refusal))
            return
        value = parse(data)
        text = value.get("text") if value is not None else None
        if not isinstance(text, str) or not text.strip():
            reason = "invalid_json" if value is None else "missing_text"
            error = {"type": "error", "reason": reason, "allowance": allowance}
            await member.outbox.put(json.dumps(error))
            return
        await self.room.say(member, text, allowance)

    def _welcome(self, member: Member) -> dict[str, Any]:
        return {
            "type": "welcome",
            "you": member.name,
            "hue": member.hue,
            "limits": self.settings.in_words(),
            "allowance": self.watched.allowance(member.client),
            "recent": self.room.recent,
        }


def parse(data: str | bytes) -> dict[str, Any] | None:
    """The JSON object in a frame; None for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_hello(data: str | bytes) -> bool:
    """Whether this is {"type": "hello"}."""
    if len(data) > HELLO_BYTES:
        return False
    value = parse(data)
    return value is not None and value.get("type") == "hello"
