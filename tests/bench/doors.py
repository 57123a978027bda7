"""What a door costs: the time that it adds to a message or request over calling the core directly.

The reference does the same work without the door: the core's own call, and where the door stands in
front of an application, that application beside it. All in memory, admitted, without a server.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from typing import Any

from .harness import alternate_async
from .rows import Row, Topic

__all__ = ["TOPIC"]

SIZE = "x" * 128
MANY = 10**9
Call = Callable[[], Awaitable[Any]]
Pair = tuple[Call, Call]  # with the door; the core directly
Make = Callable[[], Awaitable[Pair]]


def limits() -> Any:
    from sluicegate import WebSocketLimits

    return WebSocketLimits(
        connections_per_minute=None,
        messages_per_minute=MANY,
        bytes_per_minute=MANY * 50,
        algorithm="gcra",
    )


async def core_message() -> Call:
    """The check of a message that every WebSocket door comes down to."""
    from sluicegate import WebSocketRateLimiter

    limiter = WebSocketRateLimiter(limits())
    assert await limiter.register_connection("connection", "client")
    return lambda: limiter.check_message("connection", 128)


async def fastapi() -> Pair:
    from starlette.websockets import WebSocket

    from sluicegate import FastAPIWebSocketLimiter

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}
    door, websocket = FastAPIWebSocketLimiter(limits()), WebSocket(scope, receive, send)
    assert await door.connect(websocket)
    return lambda: door.check_message(websocket, SIZE), await core_message()


async def socketio() -> Pair:
    from sluicegate import SocketIOLimiter

    door = SocketIOLimiter(limits())
    assert await door.on_connect("sid", "127.0.0.1")
    return lambda: door.check_message("sid", SIZE, event="message"), await core_message()


async def channels() -> Pair:
    from sluicegate import ChannelsRateLimiter

    door = ChannelsRateLimiter(limits())
    assert await door.check_connection("127.0.0.1")
    await door.register_connection("channel", "127.0.0.1")
    return lambda: door.check_message("channel", SIZE), await core_message()


async def quart_message() -> Pair:
    from sluicegate import Limiter
    from sluicegate.quart import WebSocketRateLimiter

    class Websocket:
        remote_addr, endpoint = "127.0.0.1", "chat"

    door, websocket = WebSocketRateLimiter(MANY, seconds=1), Websocket()
    core = Limiter(f"{MANY}/second")
    return lambda: door(websocket), lambda: core.hit("127.0.0.1")


SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "headers": [],
    "client": ("127.0.0.1", 1),
    "query_string": b"",
}
OK = {"type": "http.response.start", "status": 200, "headers": []}


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({**OK, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def nothing(message: Any = None) -> Any:
    pass


def behind(door: Any, core: Call) -> Pair:
    async def bare() -> None:
        await core()
        await application(dict(SCOPE), nothing, nothing)

    return lambda: door(dict(SCOPE), nothing, nothing), bare


async def asgi() -> Pair:
    from sluicegate import Limiter
    from sluicegate.asgi import RateLimitMiddleware, Rule

    async def authenticate(scope: Any) -> tuple[str, str]:
        return "user", "default"

    door = RateLimitMiddleware(application, authenticate, config={r"^/": [Rule(minute=MANY)]})
    core = Limiter(f"{MANY}/minute using fixed-window")
    return behind(door, lambda: core.hit("/:user"))


async def app() -> Pair:
    from sluicegate import Limiter
    from sluicegate.app import RateLimiter, RateLimitMiddleware

    class Settings:
        RATE_LIMIT_ENABLED, RATE_LIMIT_PER_MINUTE, RATE_LIMIT_BURST = True, MANY, 0

    door = RateLimitMiddleware(application, RateLimiter(), Settings())
    core = Limiter(f"{MANY}/minute using sliding-log")
    return behind(door, lambda: core.hit("ip:127.0.0.1"))


# what is shown; the package that it needs; how it is made
DOORS: tuple[tuple[str, str, Make], ...] = (
    ("FastAPIWebSocketLimiter.check_message, a message", "starlette", fastapi),
    ("SocketIOLimiter.check_message, a message", "socketio", socketio),
    ("ChannelsRateLimiter.check_message, a message", "channels", channels),
    ("sluicegate.quart WebSocketRateLimiter, a message", "quart", quart_message),
    ("sluicegate.asgi RateLimitMiddleware, a request", "starlette", asgi),
    ("sluicegate.app RateLimitMiddleware, a request", "pydantic_settings", app),
)


class Both:
    """A pair, made in the loop and the task that time it: connections end with their tasks."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._pair: Pair | None = None

    def timed(self, which: int) -> Callable[[int], Awaitable[float]]:
        async def run(count: int) -> float:
            if self._pair is None:
                self._pair = await self._make()
            ask = self._pair[which]
            begin = time.process_time()
            for _ in range(count):
                await ask()
            return time.process_time() - begin

        return run


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    for what, package, make in DOORS:
        if find_spec(package) is None:
            yield Row("doors", what, None, "µs", missing=f"needs {package}")
            continue
        both = Both(make)
        found = alternate_async(both.timed(0), both.timed(1), rounds)
        yield Row(
            "doors", what, found.added_ns / 1000, "µs", "the core directly", info=found.info()
        )


TOPIC = Topic("doors", "Doors, added to a message or request", measure)
