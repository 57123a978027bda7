"""What a middleware adds to a request or a message, beside one that does nothing.

The application answers a request by two messages, as most do, and has two headers of its own; a
WebSocket's receives messages, and (in one row) answers each. No server is in between: the
middleware is called as one would call it. All is admitted, one rule, one quota, by address, in
memory, but where a row says more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from .harness import TimedAsync, alternate_async
from .peers import version_of
from .rows import Row, Topic

__all__ = ["PEERS", "TOPIC", "Nothing", "application", "requests", "websocket"]

NAME = "middleware"
REFERENCE = "a middleware that does nothing"
MANY = 1_000_000_000
TEXT = "x" * 64

App = Callable[[Any, Any, Any], Any]

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [(b"host", b"example.org")],
    "client": ("198.51.100.7", 50000),  # of a network for documentation: nobody
}


class Nothing:
    """A middleware that does nothing."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def application(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Receives until the end."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """The same, and each message is answered."""
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": TEXT})


async def empty_send(message: Any) -> None:
    pass


async def empty_receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def requests(app: App, more: dict[str, Any] | None = None) -> TimedAsync:
    """So many requests, one after the other."""
    scope = {**SCOPE, **(more or {})}
    statuses: list[int] = []

    async def noted(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def run(count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            await app(scope.copy(), empty_receive, empty_send)
        spent = time.process_time() - begin
        await app(scope.copy(), empty_receive, noted)
        if statuses.pop() != 200:
            raise AssertionError("a request was refused that ought to be admitted")
        return spent

    return run


def websocket(app: App) -> TimedAsync:
    """So many messages of one connection."""
    scope = {**SCOPE, "type": "websocket"}

    async def run(count: int) -> float:
        left = count

        async def receive() -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                return {"type": "websocket.receive", "text": TEXT}
            return {"type": "websocket.disconnect", "code": 1000}

        closed = False

        async def send(message: Any) -> None:
            nonlocal closed
            if message["type"] == "websocket.close":
                closed = True

        begin = time.process_time()
        await app(scope.copy(), receive, send)
        spent = time.process_time() - begin
        if closed or left != -1:
            raise AssertionError("the connection was closed by a limit that ought to admit all")
        return spent

    return run


def limited(
    app: App, headers: Any = "ietf", authenticate: Any = None, key: Any = "ip", **rule: Any
) -> App:
    from sluicegate.asgi import RateLimitMiddleware, Rule

    config = {r"^/": [Rule(key=key, **rule)]}
    return RateLimitMiddleware(app, authenticate, headers=headers, config=config)


async def by_address(scope: Any) -> tuple[str, str]:
    """Who a user is, for what has to be told."""
    return scope["client"][0], "default"


# what is shown; how it is timed; the application; its limits; the target in µs
CASES: tuple[tuple[str, Any, App, dict[str, Any], float | None], ...] = (
    ('an HTTP request, headers="ietf"', requests, application, {"requests": f"{MANY}/minute"}, 1.5),
    (
        'an HTTP request, headers="both"',
        requests,
        application,
        {"requests": f"{MANY}/minute", "headers": "both"},
        None,
    ),
    (
        "an HTTP request, no headers",
        requests,
        application,
        {"requests": f"{MANY}/minute", "headers": None},
        None,
    ),
    (
        "an HTTP request, its user told by authenticate, no headers",
        requests,
        application,
        {"minute": MANY, "key": "user", "authenticate": by_address, "headers": None},
        None,
    ),
    ("a WebSocket message", websocket, reading, {"messages": f"{MANY}/minute"}, 0.7),
    ("the same, and its answer", websocket, answering, {"messages": f"{MANY}/minute"}, None),
    (
        "a WebSocket message, by bytes and size too",
        websocket,
        reading,
        {"messages": f"{MANY}/minute", "bytes": "900MB/second", "max_message_size": "64KB"},
        None,
    ),
)


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    for what, timed, app, rule, target in CASES:
        found = alternate_async(timed(limited(app, **rule)), timed(Nothing(app)), rounds)
        added = found.added_ns / 1000
        yield Row(NAME, what, added, "µs", REFERENCE, target, info=found.info())


# ---- others: each returns the subject and its reference


class Slowapi:
    """SlowAPIASGIMiddleware, its limit one of all routes. The application whose routes it looks
    through has one."""

    package = "slowapi"

    def make(self) -> tuple[TimedAsync, TimedAsync]:
        from slowapi import Limiter
        from slowapi.middleware import SlowAPIASGIMiddleware
        from slowapi.util import get_remote_address
        from starlette.applications import Starlette
        from starlette.routing import Route

        async def index(request: Any) -> None:
            pass

        app = Starlette(routes=[Route("/", index)])
        app.state.limiter = Limiter(
            key_func=get_remote_address, default_limits=[f"{MANY}/minute"], headers_enabled=True
        )
        # a server's scope has a state of its own for each request
        more = {"app": app, "state": {}}
        return (
            fresh_state(requests, SlowAPIASGIMiddleware(application), more),
            fresh_state(requests, Nothing(application), more),
        )


def fresh_state(timed: Any, app: App, more: dict[str, Any]) -> TimedAsync:
    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {}
        await app(scope, receive, send)

    run: TimedAsync = timed(with_state, more)
    return run


class AsgiRatelimit:
    """Its middleware over its MemoryBackend, the user told by `authenticate`; it has no
    headers, and leaves WebSockets alone."""

    package = "asgi-ratelimit"

    def make(self) -> tuple[TimedAsync, TimedAsync]:
        from ratelimit import RateLimitMiddleware, Rule
        from ratelimit.backends.simple import MemoryBackend

        config = {r"^/": [Rule(minute=MANY)]}
        door = RateLimitMiddleware(application, by_address, MemoryBackend(), config)
        return requests(door), requests(Nothing(application))


class FastapiLimiter:
    """A dependency of a route, over the bucket in memory of a pyrate-limiter, which all
    addresses share; the reference is the same route without it."""

    package = "fastapi-limiter"

    def make(self) -> tuple[TimedAsync, TimedAsync]:
        from fastapi import Depends, FastAPI, Response
        from fastapi_limiter.depends import RateLimiter
        from pyrate_limiter import Duration, Limiter, Rate

        def app_of(dependencies: list[Any]) -> Any:
            app = FastAPI()

            @app.get("/", dependencies=dependencies)
            async def index() -> Response:
                return Response("ok")

            return app

        limit = RateLimiter(limiter=Limiter(Rate(MANY, Duration.MINUTE)))
        return requests(app_of([Depends(limit)])), requests(app_of([]))


class FastapiLimiterMessages:
    """Called by the handler for each message, as its documentation has it."""

    package = "fastapi-limiter"

    def make(self) -> tuple[TimedAsync, TimedAsync]:
        from fastapi_limiter.depends import WebSocketRateLimiter
        from pyrate_limiter import Duration, Limiter, Rate
        from starlette.websockets import WebSocket

        limit = WebSocketRateLimiter(limiter=Limiter(Rate(MANY, Duration.MINUTE)))

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            socket = WebSocket(scope, receive, send)
            while (await receive())["type"] != "websocket.disconnect":
                await limit(socket)

        return websocket(guarded), websocket(reading)


PEERS: dict[str, Any] = {
    "slowapi, an HTTP request (limits, fixed window)": Slowapi(),
    "asgi-ratelimit, an HTTP request (by authenticate, no headers)": AsgiRatelimit(),
    "fastapi-limiter, an HTTP request (one bucket, no headers)": FastapiLimiter(),
    "fastapi-limiter, a WebSocket message (one bucket)": FastapiLimiterMessages(),
}


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    for name, peer in PEERS.items():
        row = Row(NAME, name, None, "µs", REFERENCE, peer=True)
        if version_of(peer.package) is None:
            row.missing = f"not installed (pip install {peer.package})"
        else:
            try:
                found = alternate_async(*peer.make(), rounds)
            except Exception as error:  # whatever another package does, the rest is measured
                row.missing = repr(error)
            else:
                row.value, row.info = found.added_ns / 1000, found.info()
        yield row


TOPIC = Topic(NAME, "Middleware, added to a request or message", measure, peers)
