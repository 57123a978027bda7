"""The application that the tests of sluicegate.app talk to. Who somebody is, is the word in the
query or in a header; the store and the numbers come from the environment."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate.app import (
    ConnectionLimiter,
    RateLimitedWebSocketEndpoint,
    RateLimiter,
    RateLimitMiddleware,
    RateLimitSettings,
)

settings = RateLimitSettings()
store = os.environ.get("LIMITED_STORE", "memory://")
limiter = RateLimiter(store, timeout=0.25)
connections = ConnectionLimiter(store, settings.WS_MAX_CONNECTIONS_PER_USER, ttl=2)
handled: list[str] = []


class ByWord(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        word = conn.query_params.get("user") or conn.headers.get("x-user")
        return (AuthCredentials(["authenticated"]), SimpleUser(word)) if word else None


class Chat(RateLimitedWebSocketEndpoint):
    encoding = "text"
    rate_limiter = limiter
    connection_limiter = connections
    messages_per_minute = settings.WS_MESSAGE_RATE_LIMIT

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("welcome")

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        handled.append(data)
        if data == "boom":
            raise RuntimeError("boom")
        await websocket.send_text(data)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def held(request: Request) -> JSONResponse:
    count = await connections.get_connection_count(request.path_params["user"])
    return JSONResponse({"count": count, "handled": len(handled)})


routes = [
    Route("/", hello),
    Route("/login", hello),
    Route("/docs", hello),
    Route("/redoc", hello),
    Route("/health", hello),
    Route("/held/{user}", held),
    Mount("/metrics", make_asgi_app()),
    WebSocketRoute("/chat", Chat),
]
middleware = [
    Middleware(AuthenticationMiddleware, backend=ByWord()),
    Middleware(
        RateLimitMiddleware,
        limiter=limiter,
        settings=settings,
        rules={"^/login": "2/minute", "^/held/": None},
    ),
]

app = Starlette(routes=routes, middleware=middleware)
fast = FastAPI(middleware=middleware)  # whose /docs and /redoc are its own
fast.router.routes.extend(routes)
