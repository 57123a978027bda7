"""The applications that the tests of the middleware's WebSockets talk to: one of each framework,
an echo with the same rules in front. Who says `?user=` is that user, so that each test has users
of its own; `/held?user=` tells what he holds. "boom" makes a handler raise."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import socketio as socketio_package
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path
from fastapi import FastAPI, WebSocket
from quart import Quart
from quart import websocket as quart_websocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect

from sluicegate import ConcurrencyLimiter, MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule

STORE = MemoryStore()
PLACES = ConcurrencyLimiter(3, store=STORE, name="asgi:places")

RULES = {
    r"^/ws/close": [
        Rule(messages="5/minute", bytes="1KB/minute", max_message_size=600, concurrent=3)
    ],
    r"^/ws/exact": [Rule(messages="5/minute", on_excess="drop")],
    r"^/ws/drop": [Rule(messages="5/second", on_excess="drop", max_refusals="20/minute")],
    r"^/ws/notify": [Rule(messages="5/minute", on_excess="notify")],
    r"^/ws/delay": [Rule(messages="4/second", on_excess="delay", concurrent=3)],
    r"^/ws/rate": [Rule(connections="2/minute")],
    r"^/ws/browser": [Rule(connections="2/minute", refuse="close")],
    r"^/http": [Rule(requests="3/minute", concurrent=2)],
    r"^/socket.io": [
        Rule(connections="99/minute", concurrent=3, max_message_size="1KB", group="*")
    ],
}


async def who(scope: Any) -> tuple[str, str]:
    return parse_qs(scope["query_string"].decode())["user"][0], "default"


class Tells:
    """Answers /held itself."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.lifespans = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.lifespans += scope["type"] == "lifespan"
        if scope["type"] != "http" or scope["path"] != "/held":
            await self.app(scope, receive, send)
            return
        user, _ = await who(scope)
        held = {pattern: await PLACES.count(f"pattern:* {user} {pattern}") for pattern in RULES}
        body = json.dumps({"places": sum(held.values()), "lifespans": self.lifespans}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def limited(app: Any) -> Any:
    return RateLimitMiddleware(app, who, STORE, RULES, headers="ietf")


# ---- Starlette and FastAPI


async def starlette_echo(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            if text == "boom":
                raise RuntimeError("boom")
            await websocket.send_text(text)
    except WebSocketDisconnect:
        pass


_starlette = Starlette(routes=[WebSocketRoute("/ws/{name}", starlette_echo)])
_starlette.add_middleware(
    RateLimitMiddleware, authenticate=who, backend=STORE, config=RULES, headers="ietf"
)
starlette = Tells(_starlette)

_fastapi = FastAPI()
_fastapi.add_middleware(
    RateLimitMiddleware, authenticate=who, backend=STORE, config=RULES, headers="ietf"
)


@_fastapi.websocket("/ws/{name}")
async def fastapi_echo(websocket: WebSocket, name: str) -> None:
    await starlette_echo(websocket)


@_fastapi.get("/http")
def fastapi_http() -> dict[str, bool]:
    return {"hello": True}


fastapi = Tells(_fastapi)


# ---- Quart

_quart = Quart(__name__)
_quart.asgi_app = limited(_quart.asgi_app)  # type: ignore[method-assign]


@_quart.websocket("/ws/<name>")
async def quart_echo(name: str) -> None:
    while True:
        text = await quart_websocket.receive()
        if text == "boom":
            raise RuntimeError("boom")
        await quart_websocket.send(text)


quart = Tells(_quart)


# ---- Channels

settings.configure(SECRET_KEY="of the tests", ALLOWED_HOSTS=["*"])


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "boom":
            raise RuntimeError("boom")
        await self.send(text_data=text_data)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


channels = Tells(
    limited(
        ProtocolTypeRouter(
            {"websocket": URLRouter([re_path(r"^ws/", Echo.as_asgi())]), "http": nothing}
        )
    )
)


# ---- Socket.IO

_sio = socketio_package.AsyncServer(async_mode="asgi", max_http_buffer_size=10_000)


@_sio.event
async def message(sid: str, data: Any) -> Any:
    return data


socketio = Tells(limited(socketio_package.ASGIApp(_sio)))
