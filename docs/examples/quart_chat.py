"""A chat room on Quart, with limits on requests, connections and messages.

    pip install "sluicegate[quart]" hypercorn
    hypercorn quart_chat:app

Then talk to ws://127.0.0.1:8000/chat/ada with any WebSocket client, or read /lines. A line that
begins with "!" is a shout. STORE=redis://localhost lets several servers share the limits.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from datetime import timedelta

from quart import Quart, websocket

from sluicegate.quart import (
    RateLimit,
    RateLimiter,
    WebSocketRateLimiter,
    WebSocketRateLimitException,
    rate_limit,
)

app = Quart(__name__)
RateLimiter(
    app,
    store=os.environ.get("STORE"),
    default_limits=[RateLimit(60, timedelta(minutes=1))],  # requests and connections, a route
)

lines: deque[str] = deque(maxlen=20)
room: set[asyncio.Queue[str]] = set()


def say(line: str) -> None:
    lines.append(line)
    for ears in room:
        with suppress(asyncio.QueueFull):  # who does not read misses lines
            ears.put_nowait(line)


@app.get("/lines")
@rate_limit(5, timedelta(seconds=30))
async def last_lines() -> list[str]:
    return list(lines)


@app.websocket("/chat/<name>")
@rate_limit(10, timedelta(minutes=1))
async def chat(name: str) -> None:
    async def person() -> str:
        return f"person:{name}"

    # Made anew for each connection; the counts belong to the person all the same.
    talk = WebSocketRateLimiter(times=10, minutes=1, key_function=person)
    shout = WebSocketRateLimiter(times=1, minutes=1, key_function=person)

    ears: asyncio.Queue[str] = asyncio.Queue(maxsize=100)
    room.add(ears)
    hearing = asyncio.create_task(hear(ears))
    try:
        while True:
            data = await websocket.receive()
            line = data if isinstance(data, str) else data.decode(errors="replace")
            try:
                if line.startswith("!"):
                    await shout(websocket, context_key="shout")
                await talk(websocket)
                say(f"{name}: {line}")
            except WebSocketRateLimitException as refused:
                what = refused.context_key or "line"
                await websocket.send(f"(your next {what} in {refused.retry_after} s)")
    finally:
        hearing.cancel()
        room.discard(ears)


async def hear(ears: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send(await ears.get())
