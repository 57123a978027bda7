"""An ASGI application called without a server, for tests that give it a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What an application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def retry_after(self) -> int | None:
        """The seconds of `retry-after`; None where there is no such header."""
        value = self.headers.get("retry-after")
        return None if value is None else int(value)


def http_scope(
    path: str = "/",
    method: str = "GET",
    headers: Iterable[tuple[bytes, bytes]] = (),
    client: Any = ("203.0.113.9", 4711),
    **more: Any,
) -> dict[str, Any]:
    """The scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": client,
        "server": ("127.0.0.1", 80),
        **more,
    }


async def call(app: Any, path: str = "/", method: str = "GET", **scope: Any) -> Answer:
    """Sends one request to an application, and returns its answer."""
    answer = Answer()

    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.Event().wait()  # a client that stays
        return body.pop()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message.get("headers", ())
            }
        else:
            answer.body += message.get("body", b"")

    await app(http_scope(path, method, **scope), receive, send)
    return answer


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers each request with "hello"."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def handshake(app: Any, path: str = "/", *, denial: bool = True, **scope: Any) -> list[Any]:
    """Asks for a WebSocket, and goes when it is accepted: what the application sent."""
    sent: list[Any] = []
    events = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
    ]

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    opening = {**http_scope(path, **scope), "type": "websocket", "subprotocols": []}
    del opening["method"]
    if denial:
        opening["extensions"] = {"websocket.http.response": {}}
    await app(opening, receive, send)
    return sent
