"""An application of the FastAPI door over a server, served by several processes at once."""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from sluicegate import FastAPIWebSocketLimiter, WebSocketLimits

app = FastAPI()
limiter = FastAPIWebSocketLimiter(
    WebSocketLimits(
        connections_per_minute=None, messages_per_minute=20, max_concurrent_connections=3
    ),
    storage=os.environ["STORE"],
    on_store_error="raise",
)


@app.websocket("/echo/{client}")
async def echo(websocket: WebSocket, client: str) -> None:
    if not await limiter.connect(websocket, client):
        return
    try:
        while True:
            data = await websocket.receive_text()
            admitted = await limiter.check_message(websocket, data)
            await websocket.send_text("ok" if admitted else "refused")
    except WebSocketDisconnect:
        await limiter.disconnect(websocket)
