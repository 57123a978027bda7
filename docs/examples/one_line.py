"""A whole app under limits by one line: its WebSockets, its login, and everything else.

    pip install "sluicegate[fastapi,jwt]" uvicorn websockets
    TOKEN_KEY="$(openssl rand -hex 32)" uvicorn one_line:app

The handlers know nothing of it. Who connects sends a token in the query, for a browser's
WebSocket has no other place for one: `new WebSocket("ws://localhost:8000/ws?token=...")`.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.asgi.auths import create_jwt_auth

app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    # the memory of this process; over several, "shm:///run/app" or "redis://localhost"
    backend=os.environ.get("LIMITS_STORE", "memory://"),
    authenticate=create_jwt_auth(
        os.environ["TOKEN_KEY"], ["HS256"], user_key="sub", query_param="token"
    ),
    on_auth_error=JSONResponse({"error": "a token is needed"}, status_code=401),
    config={
        r"^/ws": [
            # by address, before any token is looked at
            Rule(key="ip", group="*", connections="10/minute"),
            Rule(
                messages="5/second burst 20; 200/minute",
                bytes="1MB/minute",
                concurrent=3,
                max_message_size="64KB",
                on_excess="notify",
                max_refusals="100/minute",
            ),
            Rule(group="premium", messages="25/second burst 100", concurrent=10),
            # what would a limit for the whole app refuse? It is counted, and holds nothing back
            Rule(key="app", group="*", messages="500/second", shadow=True),
        ],
        # wrong passwords alone are counted; of those that are tried at once no more are let in
        r"^/login": [
            Rule(requests="5/minute", key="ip", count_when=lambda status: status == 401),
        ],
    },
    headers="ietf",
)


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


@app.post("/login")
async def log_in(body: dict[str, Any]) -> dict[str, str]:
    if body.get("password") != "open sesame":
        raise HTTPException(401, "wrong password")
    return {"welcome": str(body.get("name"))}


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
