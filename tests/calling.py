"""An ASGI application called without a server, for tests that give it a clock."""

from __future__ import annotations

import asyncio
from collections import deque
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

    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await answered.wait()  # a client that stays, until it has what it asked for
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message.get("headers", ())
            }
        else:
            answer.body += message.get("body", b"")
            if not message.get("more_body"):
                answered.set()

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


def websocket_scope(
    path: str = "/ws",
    headers: Iterable[tuple[bytes, bytes]] = (),
    client: Any = ("203.0.113.9", 4711),
    **more: Any,
) -> dict[str, Any]:
    """The scope of a WebSocket, of a server with the Denial Response extension."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": client,
        "server": ("127.0.0.1", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **more,
    }


class Dialog:
    """A WebSocket to an application, without a server: `async with Dialog(app, path) as client`.

    Entering sends the handshake and waits for the answer, which is `client.answer`.
    """

    def __init__(self, app: Any, path: str = "/ws", **scope: Any) -> None:
        self.scope = websocket_scope(path, **scope)
        self.app = app
        self.answer: dict[str, Any] = {}
        self.taken = 0  # messages that were received of the server
        self._incoming: deque[dict[str, Any]] = deque()
        self._arrived = asyncio.Event()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        while not self._incoming:
            self._arrived.clear()
            await self._arrived.wait()
        self.taken += 1
        return self._incoming.popleft()

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        await self._sent.put(message)
        if message["type"] == "websocket.close":
            self.leave(message.get("code", 1000))

    def put(self, *messages: Any) -> None:
        """What the client sends: texts, bytes, or messages of ASGI."""
        for one in messages:
            if isinstance(one, str):
                one = {"type": "websocket.receive", "text": one}
            elif isinstance(one, bytes):
                one = {"type": "websocket.receive", "bytes": one}
            self._incoming.append(one)
        self._arrived.set()

    def leave(self, code: int = 1000) -> None:
        """The client goes."""
        self.put({"type": "websocket.disconnect", "code": code})

    async def next(self) -> dict[str, Any]:
        """What the application sends next."""
        return await asyncio.wait_for(self._sent.get(), 10)

    def sent(self) -> list[dict[str, Any]]:
        """What it has sent since."""
        return [self._sent.get_nowait() for _ in range(self._sent.qsize())]

    async def texts(self) -> list[str]:
        """The texts that it has sent since, once nothing moves any more."""
        await turns()
        return [one["text"] for one in self.sent()]

    @property
    def accepted(self) -> bool:
        return self.answer.get("type") == "websocket.accept"

    async def __aenter__(self) -> Dialog:
        self.task = asyncio.ensure_future(self.app(self.scope, self.receive, self.send))
        self.put({"type": "websocket.connect"})
        first = asyncio.ensure_future(self.next())
        await asyncio.wait((first, self.task), return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            await turns()
        if first.done():
            self.answer = first.result()
        else:
            first.cancel()
            await self.task  # which raises what it raised
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.leave()
        await self.over()

    async def over(self) -> None:
        """Until the application has ended, which it must by itself."""
        await asyncio.wait_for(asyncio.shield(self.task), 10)


async def turns(count: int = 30) -> None:
    """Lets whatever is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that accepts each WebSocket and sends back what it receives."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
