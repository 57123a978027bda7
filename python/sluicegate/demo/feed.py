"""`/dashboard/feed`: samples for the dashboard, over a WebSocket that is itself limited.

A dashboard only listens. What it says is charged all the same, and one that says too much
is closed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket

from sluicegate.fastapi import ConnectionRefused, FastAPIWebSocketLimiter
from sluicegate.observe.live import Sampler
from sluicegate.websocket import WebSocketLimits

from .outbox import Outbox, serve
from .security import same_origin
from .settings import FEED_CONCURRENT, FEED_CONNECTIONS, FEED_MESSAGES, DemoSettings

WAITING = 8  # samples; a slow dashboard misses the rest
POLICY_VIOLATION = 1008


class Feed:
    """Hands a sampler's samples to dashboards."""

    def __init__(self, monitor: Sampler, settings: DemoSettings) -> None:
        self.monitor = monitor
        self.settings = settings
        self.door = FastAPIWebSocketLimiter(
            WebSocketLimits(
                messages=FEED_MESSAGES,
                connections=FEED_CONNECTIONS,
                max_concurrent_connections=FEED_CONCURRENT,
                max_message_size=1024,
            )
        )

    async def serve(self, websocket: WebSocket) -> None:
        """One dashboard, from handshake to end."""
        if not same_origin(websocket.headers):
            await websocket.close(POLICY_VIOLATION)  # before accept: HTTP 403
            return
        try:
            async with self.door.connection(websocket) as place:
                outbox = Outbox(websocket, WAITING)
                outbox.offer(json.dumps(self._history()))
                self.monitor.watch(outbox)
                try:
                    await serve(
                        asyncio.ensure_future(self._read(websocket, place)),
                        asyncio.ensure_future(outbox.send_all()),
                    )
                finally:
                    self.monitor.forget(outbox)
        except ConnectionRefused:
            return  # answered: close 1008

    async def _read(self, websocket: WebSocket, place: Any) -> None:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("text")
            if not await place.check(message.get("bytes") or b"" if data is None else data):
                await websocket.close(POLICY_VIOLATION, "Rate limit exceeded")
                return

    def _history(self) -> dict[str, Any]:
        return {
            "type": "history",
            "limits": self.settings.in_words(),
            "samples": self.monitor.history(),
        }
