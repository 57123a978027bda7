"""A notice board: read over HTTP, written over a WebSocket, and limited on both sides.

    pip install "sluicegate[app]" uvicorn websockets
    uvicorn app_limits:app

Each address may read 60 times a minute, and 10 times more when it must; search twice in ten
seconds; keep 5 connections open; post 100 notices a minute. RATE_LIMIT_PER_MINUTE and the
other variables of RateLimitSettings change the numbers. BOARD_STORE=redis://localhost makes
one limit of many processes. /metrics counts what was refused.
"""

import os
from collections import deque

from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate.app import (
    ConnectionLimiter,
    EndpointLimit,
    RateLimitedWebSocketEndpoint,
    RateLimiter,
    RateLimitMiddleware,
    RateLimitSettings,
)

settings = RateLimitSettings()
store = os.environ.get("BOARD_STORE", "memory://")
limiter = RateLimiter(store)
notices: deque[str] = deque(maxlen=100)


class Post(RateLimitedWebSocketEndpoint):
    encoding = "text"
    rate_limiter = limiter
    connection_limiter = ConnectionLimiter(store, settings.WS_MAX_CONNECTIONS_PER_USER)
    messages_per_minute = settings.WS_MESSAGE_RATE_LIMIT

    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        notices.append(data)
        await websocket.send_json({"posted": data})


async def board(request: Request) -> JSONResponse:
    return JSONResponse(list(notices))


async def search(request: Request) -> JSONResponse:
    words = request.query_params.get("words", "")
    return JSONResponse([notice for notice in notices if words in notice])


app = Starlette(
    routes=[
        Route("/", board),
        Route("/search", search),
        WebSocketRoute("/post", Post),
        Mount("/metrics", make_asgi_app()),
    ],
    middleware=[
        Middleware(
            RateLimitMiddleware,
            limiter=limiter,
            settings=settings,
            rules={r"^/search": EndpointLimit(2, window_seconds=10)},
        )
    ],
)
