"""A WebSocket echo for uvicorn: bare, and under limits that admit all. Run by echo.py."""

from __future__ import annotations

from typing import Any

from sluicegate.asgi import RateLimitMiddleware, Rule


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


limited = RateLimitMiddleware(
    bare,
    headers="ietf",
    config={
        r"^/": [
            Rule(
                key="ip",
                connections="1000000/second",
                concurrent=1000,
                messages="100000000/second",
                bytes="900MB/second",
                max_message_size="64KB",
            )
        ]
    },
)
