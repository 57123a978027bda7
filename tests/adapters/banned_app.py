"""One of several processes over the store of $TEST_STORE: a chat of its own door, and a block."""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from sluicegate import FastAPIWebSocketLimiter, WebSocketLimits

app = FastAPI()
door = FastAPIWebSocketLimiter(
    WebSocketLimits(messages="1000/second", connections="1000/second"),
    storage=os.environ["TEST_STORE"],
    name="chat",
    on_excess="notify",
)


@app.websocket("/echo/{client}")
async def echo(websocket: WebSocket, client: str) -> None:
    if not await door.connect(websocket, client):
        return
    try:
        while True:
            data = await websocket.receive_text()
            allowed = await door.check_message(websocket, data)
            await websocket.send_text(data if allowed else "refused")
    except WebSocketDisconnect:
        await door.disconnect(websocket)


@app.websocket("/block/{client}")
async def block(websocket: WebSocket, client: str) -> None:
    async with door.connection(websocket, client) as place:
        async for text in place.iter_text():
            await websocket.send_text(text)
