"""An application with a dashboard of its limits, mounted by FastAPI; $TEST_TOKEN turns it on."""

from __future__ import annotations

import os

from fastapi import FastAPI

from sluicegate import Limiter, MemoryStore, WebSocketLimits, WebSocketRateLimiter
from sluicegate.asgi import Dashboard

app = FastAPI()
hits = Limiter("5/hour", store=os.environ.get("TEST_STORE", MemoryStore()), name="hits")
sockets = WebSocketRateLimiter(WebSocketLimits(max_message_size=10))
token = os.environ.get("TEST_TOKEN")
limiters = {"hits": hits, "sockets": sockets}


@app.get("/hit/{key}")
async def hit(key: str) -> bool:
    return bool(await hits.hit(key))


@app.get("/message/{size}")
async def message(size: int) -> bool:
    if sockets.get_connection_info("c") is None:
        assert await sockets.register_connection("c", "ann")
    return bool((await sockets.check_message("c", size))["allowed"])


app.mount("/limits", Dashboard(limiters, token=token))
app.mount("/hidden/below", Dashboard(limiters, token=token, hide_keys=True))
