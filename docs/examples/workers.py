"""One limit over all workers of a machine, without a server between them.

    pip install "sluicegate[fastapi]" uvicorn websockets
    LIMITS_STORE=shm:///dev/shm/chat uvicorn workers:app --workers 4

    pip install gunicorn uvicorn-worker
    LIMITS_STORE=shm:///dev/shm/chat gunicorn workers:app -w 4 -k uvicorn_worker.UvicornWorker

and, while it runs: sluicegate top shm:///dev/shm/chat
"""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from sluicegate.asgi import RateLimitMiddleware, Rule

app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    backend=os.environ["LIMITS_STORE"],
    config={
        r"^/ws": [
            Rule(messages="100/minute using fixed-window", concurrent=20, on_excess="notify"),
        ],
        r"^/": [Rule(requests="50/minute using fixed-window")],
    },
)


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"{os.getpid()} {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass


@app.get("/")
async def who() -> dict[str, int]:
    return {"worker": os.getpid()}
