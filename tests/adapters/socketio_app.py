"""The application that the tests of the Socket.IO door talk to: a server for each limiter, under
its name as path. Clients name themselves in their auth, so that each test has its own.
LIMITS_STORE: the store of "hundred"."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from typing import Any
from urllib.parse import parse_qs

import socketio

from sluicegate import SocketIOLimiter, WebSocketLimits

UNLIMITED: dict[str, Any] = {
    "connections_per_minute": None,
    "messages_per_minute": None,
    "max_concurrent_connections": None,
    "max_message_size": None,
}

NAMESPACES = ("/", "/before", "/after", "/class", "/all")


def limits(**given: Any) -> WebSocketLimits:
    """Those given alone; all else is unlimited."""
    return WebSocketLimits(**{**UNLIMITED, **given})


async def named(environ: dict[str, Any], auth: Any) -> str:
    return str(auth["client"])


LIMITERS = {
    "hundred": SocketIOLimiter(
        limits(messages_per_minute=100, max_concurrent_connections=5),
        os.environ.get("LIMITS_STORE"),
        get_client_id=named,
    ),
    "costs": SocketIOLimiter(
        limits(messages_per_minute=25), costs={"search": 10, "typing": 0}, get_client_id=named
    ),
    "size": SocketIOLimiter(limits(max_message_size=64), get_client_id=named),
    "bytes": SocketIOLimiter(limits(bytes_per_minute=1000), get_client_id=named),
    "three": SocketIOLimiter(limits(max_concurrent_connections=3), get_client_id=named),
    "quick": SocketIOLimiter(limits(max_concurrent_connections=3), get_client_id=named),
    "rate": SocketIOLimiter(limits(connections_per_minute=4), get_client_id=named),
    "refusals": SocketIOLimiter(
        limits(max_message_size=10), get_client_id=named, max_refusals="3/minute"
    ),
    "address": SocketIOLimiter(limits(messages_per_minute=5)),
}


async def echo(sid: str, data: Any = None) -> Any:
    if data == "boom":
        raise RuntimeError("boom")
    return {"got": data if not isinstance(data, bytes) else len(data)}


async def catch_all(event: str, sid: str, data: Any = None) -> Any:
    return {"got": data, "event": event}


async def connect(sid: str, environ: dict[str, Any], auth: Any) -> bool | None:
    if auth and auth.get("fail") == "raise":
        raise RuntimeError("no such user")
    return not (auth and auth.get("fail") == "refuse")


class Echo(socketio.AsyncNamespace):
    async def on_echo(self, sid: str, data: Any = None) -> Any:
        return await echo(sid, data)


def make(name: str, limiter: SocketIOLimiter) -> socketio.AsyncServer:
    # one that is silently gone, or refused and polling, is to be noticed within the test
    pings = {"ping_interval": 0.5, "ping_timeout": 1} if name == "quick" else {}
    sio = socketio.AsyncServer(async_mode="asgi", **pings)
    sio.on("connect", connect)
    sio.on("echo", echo, namespace="/before")
    limiter.attach(sio)
    for event in ("echo", "search", "typing"):
        sio.on(event, echo)
    sio.on("echo", echo, namespace="/after")
    sio.on("*", catch_all, namespace="/all")
    sio.register_namespace(Echo("/class"))
    return sio


SERVERS = {name: make(name, limiter) for name, limiter in LIMITERS.items()}
APPS = {
    name: socketio.ASGIApp(sio, socketio_path=f"{name}/socket.io") for name, sio in SERVERS.items()
}


async def held(name: str, client: str) -> dict[str, Any]:
    limiter, sio = LIMITERS[name], SERVERS[name]
    return {
        "registered": limiter.limiter.get_client_connections(client),
        "places": await limiter.limiter.count(client),
        "clients": sorted(map(str, limiter.sid_to_client.values())),
        "sessions": len(sio.eio.sockets),
        "statistics": limiter.limiter.get_statistics(),
    }


async def process() -> dict[str, int]:
    gc.collect()
    return {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}


async def app(scope: Any, receive: Any, send: Any) -> None:
    name = scope.get("path", "").split("/")[1:2]
    if name and name[0] in APPS:
        await APPS[name[0]](scope, receive, send)
    elif scope["type"] == "http":
        query = {key: one[0] for key, one in parse_qs(scope["query_string"].decode()).items()}
        found = await held(**query) if scope["path"] == "/held" else await process()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})
