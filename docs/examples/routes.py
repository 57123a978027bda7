"""Limits on the routes of a FastAPI application.

    pip install "sluicegate[fastapi]" uvicorn
    uvicorn routes:app

Behind a proxy, say which: TRUSTED_PROXIES=10.0.0.0/8. Over several processes or machines, say
where to count: LIMITS_STORE=redis://localhost.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect

from sluicegate.fastapi import RateLimit, exempt, install, limit
from sluicegate.identity import address

app = FastAPI()
proxies = os.environ.get("TRUSTED_PROXIES", "").split()
install(
    app,
    store=os.environ.get("LIMITS_STORE"),
    key=address(trusted_proxies=proxies),
    default="20/minute",
    jitter=2,
)


@app.get("/search")
@limit("5/second burst 10; 100/hour")
async def search(q: str) -> dict[str, list[str]]:
    return {"found": [q]}


# a report costs as many units as it has pages; all reports share one pool
def pages(connection: Any) -> int:
    return max(1, connection.path_params["pages"])


@app.get("/reports/{pages:int}")
@limit("10/minute", scope="reports", cost=pages)
def report(pages: int) -> dict[str, int]:
    return {"pages": pages}


@app.get("/reports", dependencies=[Depends(RateLimit("10/minute", scope="reports"))])
def reports() -> list[int]:
    return [1, 2, 3]


# only a wrong password counts
@app.post("/login")
@limit("5/minute", count_when=lambda status: status == 401)
async def log_in(password: str) -> str:
    if password != os.environ.get("PASSWORD", "open sesame"):
        raise HTTPException(401)
    return "welcome"


@app.get("/health")
@exempt
def health() -> str:
    return "well"


@app.get("/")
def root() -> str:
    return "here the default holds"


# a handshake counts; for the messages see FastAPIWebSocketLimiter
@app.websocket("/ws")
@limit("3/minute")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
