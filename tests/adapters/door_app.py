"""The application that the tests of the FastAPI door talk to. Clients name themselves in the
path, so that each test has clients of its own."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from sluicegate import ConnectionRefused, FastAPIWebSocketLimiter, WebSocketLimits

app = FastAPI()

UNLIMITED: dict[str, Any] = {
    "connections_per_minute": None,
    "messages_per_minute": None,
    "max_concurrent_connections": None,
    "max_message_size": None,
}


def limits(**given: Any) -> WebSocketLimits:
    """Those given alone; all else is unlimited."""
    return WebSocketLimits(**{**UNLIMITED, **given})


async def raising(websocket: WebSocket) -> str:
    raise LookupError("no such user")


DOORS = {
    "hundred": FastAPIWebSocketLimiter(limits(messages_per_minute=100)),
    "fifty": FastAPIWebSocketLimiter(limits(messages="50/2 seconds using sliding-log")),
    "three": FastAPIWebSocketLimiter(limits(max_concurrent_connections=3)),
    "rate": FastAPIWebSocketLimiter(limits(connections_per_minute=4)),
    "size": FastAPIWebSocketLimiter(limits(max_message_size=64)),
    "bytes": FastAPIWebSocketLimiter(limits(bytes_per_minute=1000)),
    "deny": FastAPIWebSocketLimiter(limits(connections_per_minute=1), refuse="deny"),
    "deny-places": FastAPIWebSocketLimiter(limits(max_concurrent_connections=1), refuse="deny"),
    "refusals": FastAPIWebSocketLimiter(limits(max_message_size=10), max_refusals="3/minute"),
    "raising": FastAPIWebSocketLimiter(get_client_id=raising),
    "address": FastAPIWebSocketLimiter(limits(messages_per_minute=5)),
}
BLOCKS = {
    mode: FastAPIWebSocketLimiter(
        limits(
            messages="3/second using fixed-window",
            max_concurrent_connections=2,
            max_message_size=100,
        ),
        on_excess=mode,
        max_delay=2.5,
    )
    for mode in ("close", "drop", "delay", "notify")
}


@app.websocket("/echo/{door}/{client}")
async def echo(websocket: WebSocket, door: str, client: str) -> None:
    """As the source shows it: connect, check, disconnect."""
    limiter = DOORS[door]
    who = None if door in ("raising", "address") else client
    if not await limiter.connect(websocket, who):
        return
    try:
        while True:
            data = await websocket.receive_text()
            if not await limiter.check_message(websocket, data):
                await websocket.send_text("refused")
                continue
            await websocket.send_text(data)
    except WebSocketDisconnect:
        await limiter.disconnect(websocket)


kept: list[WebSocket] = []


@app.websocket("/careless/{client}")
async def careless(websocket: WebSocket, client: str) -> None:
    """Keeps the socket for ever, disconnects nothing, and fails."""
    limiter = DOORS["three"]
    if not await limiter.connect(websocket, client):
        return
    kept.append(websocket)
    while True:
        data = await websocket.receive_text()
        if data == "boom":
            raise RuntimeError("boom")
        await websocket.send_text(str(await limiter.check_message(websocket, data)))


@app.websocket("/helped/{client}")
async def helped(websocket: WebSocket, client: str) -> None:
    """Connects in a task that ends before the endpoint does."""
    limiter = DOORS["three"]
    if not await asyncio.create_task(limiter.connect(websocket, client)):
        return
    try:
        while True:
            data = await websocket.receive_text()
            await websocket.send_text(str(await limiter.check_message(websocket, data)))
    except WebSocketDisconnect:
        pass


@app.websocket("/block/{mode}/{client}")
async def block(websocket: WebSocket, mode: str, client: str) -> None:
    async with BLOCKS[mode].connection(websocket, client) as c:
        async for text in c.iter_text():
            await websocket.send_text(text)


@app.websocket("/json/{client}")
async def of_json(websocket: WebSocket, client: str) -> None:
    try:
        async with BLOCKS["notify"].connection(websocket, client) as c:
            async for message in c.iter_json():
                decision = await c.check(message, cost=0)
                assert c.info is not None
                await websocket.send_json(
                    {"got": message, "allowed": decision.allowed, "count": c.info.message_count}
                )
    except ConnectionRefused as refused:
        assert refused.decision.retry_after > 0
        raise


@app.websocket("/binary/{client}")
async def binary(websocket: WebSocket, client: str) -> None:
    async with BLOCKS["drop"].connection(websocket, client) as c:
        async for data in c.iter_bytes():
            await websocket.send_bytes(data)


@app.get("/held/{group}/{door}/{client}")
async def held(group: str, door: str, client: str) -> dict[str, Any]:
    limiter = (DOORS if group == "doors" else BLOCKS)[door]
    return {
        "registered": limiter.limiter.get_client_connections(client),
        "places": await limiter.limiter.count(client),
        "sockets": len(limiter.websocket_map),
        "statistics": limiter.limiter.get_statistics(),
    }


@app.get("/process")
async def process() -> dict[str, int]:
    kept.clear()
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
        "bytes": resident_bytes(),
    }


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # macOS tells only the most that it ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(statm.read_text().split()[1]) * resource.getpagesize()


Channel = Callable[..., Awaitable[Any]]


class WithoutExtensions:
    """The same application behind a server that has no extension."""

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Channel, send: Channel
    ) -> None:
        scope.pop("extensions", None)
        await app(scope, receive, send)


bare = WithoutExtensions()
