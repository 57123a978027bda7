"""The application that the tests of the Quart door talk to. Clients name themselves in the
query, so that each test has clients of its own."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypercorn.middleware import ProxyFixMiddleware
from quart import Quart, request, websocket

from sluicegate.quart import (
    RateLimit,
    RateLimiter,
    WebSocketRateLimiter,
    WebSocketRateLimitException,
    rate_exempt,
    rate_limit,
    remote_addr_key,
)

MINUTE = timedelta(minutes=1)


async def by_name() -> str:
    return request.args["name"]


async def by_name_of_socket() -> str:
    return websocket.args["name"]


app = Quart(__name__)
limiter = RateLimiter(
    app,
    key_function=by_name,
    store=os.environ.get("STORE") or None,
    default_limits=[RateLimit(50, MINUTE)],
)


@app.route("/five")
@rate_limit(5, timedelta(seconds=50))
async def five() -> str:
    return "here"


@app.route("/one")
@rate_limit(1, timedelta(seconds=1))
async def one() -> str:
    return "here"


@app.route("/default")
async def default() -> str:
    return "here"


@app.route("/exempt")
@rate_exempt
async def exempt() -> str:
    return "here"


@app.route("/address")
@rate_limit(1, MINUTE, remote_addr_key)
async def address() -> str:
    return "here"


@app.websocket("/connections")
@rate_exempt
async def connections_of_all() -> None:
    await websocket.send("hello")
    await websocket.receive()


@app.websocket("/connections/one")
@rate_limit(limits=[RateLimit(1, MINUTE, by_name_of_socket)])
async def connections_of_one() -> None:
    await websocket.send("hello")
    await websocket.receive()


@app.websocket("/echo/<int:times>/<int:seconds>")
@rate_exempt
async def echo(times: int, seconds: int) -> None:
    """Sends back what is admitted, else how long to wait. "kind:text" is of that context."""
    ratelimit = WebSocketRateLimiter(times, seconds=seconds, key_function=by_name_of_socket)
    while True:
        data = await websocket.receive()
        context = data.partition(":")[0] if ":" in data else None
        try:
            await ratelimit(websocket, context_key=context)
            await websocket.send(data)
        except WebSocketRateLimitException as error:
            await websocket.send_json({"retry_after": error.retry_after, "message": str(error)})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The same on a server that lacks the Denial Response extension."""
    await app({**scope, "extensions": {}}, receive, send)


proxied = ProxyFixMiddleware(app)
