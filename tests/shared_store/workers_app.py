"""The application that several workers serve: each limits the same client, by the store that the
environment names. Every answer says which worker gave it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from sluicegate import FastAPIWebSocketLimiter, WebSocketLimits, WebSocketRateLimiter
from sluicegate.asgi import RateLimitMiddleware, Rule

STORE = os.environ["TEST_STORE"]
PID = os.getpid  # a preloaded application is forked

LIMITS = WebSocketLimits(
    connections_per_minute=None,
    max_concurrent_connections=None,
    messages="40/day using fixed-window",
)
limiter = WebSocketRateLimiter(LIMITS, STORE, name="plain", on_store_error="raise")
door = FastAPIWebSocketLimiter(LIMITS, storage=STORE, name="door", on_store_error="raise")
few = WebSocketRateLimiter(
    WebSocketLimits(
        connections_per_minute=None, messages_per_minute=None, max_concurrent_connections=7
    ),
    STORE,
    name="few",
    on_store_error="raise",
)


async def who(scope: Any) -> tuple[str, str]:
    return parse_qs(scope["query_string"].decode()).get("user", ["nobody"])[0], "default"


app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    authenticate=who,
    backend=STORE,
    config={
        r"^/ws": [Rule(messages="40/day", on_excess="notify", notify=lambda refusal: "refused")],
        r"^/http": [Rule(requests="30/day")],
    },
)


@app.get("/http")
async def http() -> dict[str, int]:
    return {"pid": PID()}


@app.get("/told/{client}")
async def told(client: str) -> dict[str, Any]:
    statistics = await few.statistics()
    return {
        "pid": PID(),
        "places": await few.count(client),
        "of client": few.get_client_connections(client),
        "at once": few.get_statistics()["active_connections"],
        "asked": statistics["active_connections"],
        "clients": statistics["unique_clients"],
        "here": len(few.active_connections),
    }


@app.websocket("/plain/{client}")
async def plain(websocket: WebSocket, client: str) -> None:
    await websocket.accept()
    await websocket.send_text(str(PID()))
    assert await limiter.check_connection(client)
    assert await limiter.register_connection(websocket, client)
    with suppress(WebSocketDisconnect):
        while True:
            data = await websocket.receive_text()
            result = await limiter.check_message(websocket, len(data))
            await websocket.send_text("yes" if result["allowed"] else result["reason"])
    await limiter.unregister_connection(websocket)


@app.websocket("/door/{client}")
async def by_door(websocket: WebSocket, client: str) -> None:
    if not await door.connect(websocket, client):
        return
    await websocket.send_text(str(PID()))
    with suppress(WebSocketDisconnect):
        while True:
            data = await websocket.receive_text()
            await websocket.send_text(
                "yes" if await door.check_message(websocket, data) else "rate_limit_exceeded"
            )
    await door.disconnect(websocket)


@app.websocket("/few/{client}")
async def places(websocket: WebSocket, client: str) -> None:
    await websocket.accept()
    held = await few.check_connection(client) and await few.register_connection(websocket, client)
    await websocket.send_text(f"{PID()} {'held' if held else 'refused'}")
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
    if held:
        await few.unregister_connection(websocket)


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(PID()))
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
            await websocket.send_text("yes")
