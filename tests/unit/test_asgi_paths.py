"""No other spelling of a path is a way round a limit: whatever an application takes for a path,
its rules take for it too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import unquote

import pytest
import socketio
from channels.routing import URLRouter
from django.urls import path as django_path
from fastapi import FastAPI
from quart import Quart, websocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from calling import call, handshake, hello
from sluicegate import MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.asgi.paths import path_of
from sluicegate.testing import Clock

Made = tuple[Any, list[str]]  # an application, and who came through to its handlers


def starlette(**options: Any) -> Made:
    came: list[str] = []

    def answer(request: Any) -> PlainTextResponse:
        came.append("http")
        return PlainTextResponse("login")

    async def accept(websocket: Any) -> None:
        came.append("websocket")
        await websocket.accept()

    routes = [Route("/login", answer), WebSocketRoute("/login", accept)]
    kind = options.pop("kind", Starlette)
    return kind(routes=routes, **options), came


def mounted() -> Made:
    app, came = starlette()
    return Starlette(routes=[Mount("/api", app)]), came


def quart(strict_slashes: bool) -> Made:
    app, came = Quart(__name__), []

    @app.route("/login", strict_slashes=strict_slashes)
    async def answer() -> str:
        came.append("http")
        return "login"

    @app.websocket("/login", strict_slashes=strict_slashes)
    async def accept() -> None:
        came.append("websocket")
        await websocket.accept()

    return app, came


def channels() -> Made:
    came: list[str] = []

    async def accept(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["type"])
        await receive()
        await send({"type": "websocket.accept"})

    async def of_urls(scope: Any, receive: Any, send: Any) -> None:
        await (router if scope["type"] == "websocket" else hello)(scope, receive, send)

    router = URLRouter([django_path("login", accept)])
    return of_urls, came


APPS: dict[str, Callable[[], Made]] = {
    "starlette": starlette,
    "fastapi": lambda: starlette(kind=FastAPI),
    "root path": lambda: starlette(kind=FastAPI, root_path="/api"),
    "mounted": mounted,
    "quart": lambda: quart(True),
    "quart, lax": lambda: quart(False),
    "channels": channels,
}

# as they stand in a request, before the server decodes them
SPELLINGS = [
    *("/login", "/login/", "//login", "///login", "/./login", "/login/.", "/x/../login"),
    *("/LOGIN", "/%6cogin", "/%6Cogin", "/%256cogin", "%2flogin", "/login%2f", "/%2flogin"),
    *("/login;x=1", "/;x/login", "/login%3fx", "/login%23x", "\\login", "/login%5c"),
    *("/login%0a", "/login%00", "/login%20", "%20/login", "%09/login", "login", "login?x"),
    *("http://testserver/login", "http:/login", "//testserver/login", "x:login", "login%3bx"),
    *("/%ef%bd%8cogin", "%ef%bc%8flogin", "/log%e2%80%8bin", "/login%ef%bb%bf"),
    *("/api/login", "/api//login", "//api/login", "/api/api/login", "/api/../login"),
    *("", "*", "http://[/login", "/api%2flogin"),
]  # fmt: skip


async def press(app: Any) -> None:
    """Asks for every spelling, by HTTP and WebSocket, three times."""
    for written in SPELLINGS * 3:
        path = unquote(written.partition("?")[0])
        more: dict[str, Any] = {"headers": [(b"host", b"testserver")]}
        with suppress(ValueError, IndexError):  # what Channels and Quart say to some of them
            await asyncio.wait_for(handshake(app, path, scheme="ws", **more), 10)
        with suppress(ValueError, IndexError):
            await asyncio.wait_for(call(app, path, **more), 10)


def protected(app: Any, **options: Any) -> Any:
    """The application behind the middleware, as its framework's users put it there."""
    if not isinstance(app, Starlette):
        return RateLimitMiddleware(app, **options)
    app.add_middleware(RateLimitMiddleware, **options)
    return app


@pytest.mark.parametrize("name", APPS)
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
async def test_whatever_reaches_a_handler_is_limited(name: str) -> None:
    app, came = APPS[name]()
    await press(app)
    reached = {kind: came.count(kind) for kind in set(came)}
    assert all(times >= 3 for times in reached.values()) and "websocket" in reached

    prefix = "/api" if name == "mounted" else ""
    for config in (
        {f"^{prefix}/login": [Rule(requests="4/hour")], "^/": [Rule(requests="999/hour")]},
        {f"^{prefix}/login": [Rule(hour=4)]},
        {f"^{prefix}/login": [Rule(requests="4/hour", per="path")]},
        {f"^{prefix}/login": [Rule(requests="4/hour", key="ip")], "^/x": [Rule()]},
        {"": [Rule(hour=4)]},
    ):
        app, came = APPS[name]()
        store = MemoryStore(clock=Clock())
        await press(protected(app, backend=store, config=config))
        assert 1 <= len(came) <= 4, (config, came)


async def test_a_middleware_inside_of_what_is_mounted() -> None:
    """Its patterns may leave out where it is, or name it."""
    for pattern in ("^/login", "^/api/login"):
        app, came = starlette()
        app.add_middleware(RateLimitMiddleware, config={pattern: [Rule(requests="2/hour")]})
        await press(Starlette(routes=[Mount("/api", app)]))
        assert len(came) == 2


async def test_an_exception_for_one_spelling_is_none_for_another() -> None:
    """An application may tell them apart: a gateway hands on whatever comes."""
    app = RateLimitMiddleware(
        hello,
        backend=MemoryStore(clock=Clock()),
        config={"^/public": [Rule()], "^/": [Rule(requests="2/hour burst 2")]},
    )

    numbers = count()

    async def statuses(path: str) -> list[int]:
        client = (f"198.51.100.{next(numbers)}", 80)
        return [(await call(app, path, client=client)).status for _ in range(3)]

    assert await statuses("/public/page") == [200] * 3
    for path in (
        "//public",
        "/x/../public/y",
        "/public/../x",
        "\\public\\more",
        "/public/%2e%2e/x1",
    ):
        assert await statuses(path) == [200, 200, 429], path


async def test_no_spelling_of_a_method_is_a_way_round() -> None:
    for method, asked in (
        ("POST", ("POST", "post", "Post")),
        ("get", ("GET", "get", "HEAD", "head")),
        ("HEAD", ("HEAD", "Head")),
    ):
        came_by: list[str] = []

        async def counting(scope: Any, receive: Any, send: Any, came_by: Any = came_by) -> None:
            came_by.append(scope["method"])
            await hello(scope, receive, send)

        app = RateLimitMiddleware(
            counting, config={"^/": [Rule(requests="2/hour burst 2", method=method)]}
        )
        for written in asked * 3:
            await call(app, "/login", written)
        assert len(came_by) == 2
        assert (await call(app, "/login", "PUT")).status == 200


async def test_what_another_spelling_is_refused_by_charges_nothing() -> None:
    config = {
        "^//": [Rule(requests="9/hour burst 3")],
        "^/a": [Rule(requests="9/hour burst 1", zone="a")],
    }
    app = RateLimitMiddleware(hello, backend=MemoryStore(clock=Clock()), config=config)
    assert [(await call(app, "//a")).status for _ in range(9)] == [200] + [429] * 8
    assert [(await call(app, "//b")).status for _ in range(3)] == [200, 200, 429]


async def test_a_plain_path_is_held_to_the_first_pattern_alone() -> None:
    config = {"^/a/$": [Rule(requests="9/hour burst 3")], "^/": [Rule(requests="9/hour burst 1")]}
    app = RateLimitMiddleware(hello, backend=MemoryStore(clock=Clock()), config=config)
    for path in ("/a/", "/a/"):  # a slash at the end is no odd spelling to a pattern
        assert (await call(app, path)).status == 200
    assert (await call(app, "/a/", root_path="/b")).status == 200
    assert [(await call(app, "/a")).status for _ in range(2)] == [200, 429]


async def test_who_asks_by_another_spelling_is_authenticated_once() -> None:
    asked = []

    def authenticate(scope: Any) -> tuple[str, str]:
        asked.append(scope["path"])
        return "ada", "default"

    app = RateLimitMiddleware(
        hello, authenticate, config={"^//": [Rule(minute=5)], "^/a": [Rule(requests="5/minute")]}
    )
    assert (await call(app, "//a")).status == 200
    assert asked == ["//a"]  # and the scope is as it came


async def test_socketio_answers_without_the_slash_at_its_end() -> None:
    app = RateLimitMiddleware(
        socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi")),
        backend=MemoryStore(clock=Clock()),
        config={"^/socket.io/": [Rule(requests="2/hour burst 2")]},
    )
    query = {"query_string": b"EIO=4&transport=polling"}
    paths = ("/socket.io", "/socket.io/", "/socket.io//", "/socket.io/x", "/socket.io")
    assert [(await call(app, path, **query)).status for path in paths] == [200] * 2 + [429] * 3


@pytest.mark.parametrize(
    ("path", "root", "counted"),
    [
        ("/a", "", "/a"),
        ("/a/", "", "/a"),
        ("//a//b/", "", "/a/b"),
        ("/a", "/api", "/api/a"),
        ("/api/a", "/api", "/api/a"),
        ("/api", "/api", "/api"),
        ("/api//a", "/api/", "/api/a"),
        ("/apiary", "/api", "/api/apiary"),
        ("", "", "/"),
    ],
)
def test_what_counts_by_path_counts_under_one(path: str, root: str, counted: str) -> None:
    assert path_of({"path": path, "root_path": root})[0] == counted


def test_long_paths_are_not_kept_and_take_no_time() -> None:
    for piece in ("/.", "//", "%25", "/x/..", "\ufdfa", "a:", "\u200b", "[", ";"):
        counted, _, _ = path_of({"path": piece * 10_000})
        assert counted.startswith("/")
