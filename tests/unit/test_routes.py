"""Limits on the routes of Starlette and FastAPI applications, without a server, by a clock."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket, routing
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

import sluicegate
from calling import Answer, call, handshake, hello
from sluicegate import MemoryStore, Quota, StoreError, fastapi, starlette
from sluicegate.fastapi import RateLimit, exempt, limit
from sluicegate.stores import users
from sluicegate.testing import Clock, record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


def starlette_app(routes: list[Any], **options: Any) -> Starlette:
    app = Starlette(routes=routes)
    starlette.install(app, **options)
    return app


async def statuses(app: Any, path: str, count: int, **more: Any) -> list[int]:
    """Of that many requests, one after the other."""
    return [(await call(app, path, **more)).status for _ in range(count)]


async def plain(request: Any) -> PlainTextResponse:
    return PlainTextResponse("plain")


# ---- what is limited


async def test_a_route_of_starlette(store: MemoryStore, clock: Clock) -> None:
    @limit("2/minute")
    async def search(request: Any) -> PlainTextResponse:
        return PlainTextResponse("found")

    @limit("2/minute")
    def report(request: Any) -> PlainTextResponse:
        return PlainTextResponse("report")

    app = starlette_app([Route("/search", search), Route("/report", report)], store=store)
    assert await statuses(app, "/search", 3) == [200, 200, 429]
    assert await statuses(app, "/report", 3) == [200, 200, 429]
    assert await statuses(app, "/search", 1, client=("198.51.100.1", 1)) == [200]
    clock.advance(30)
    assert await statuses(app, "/search", 2) == [200, 429]


@pytest.fixture
def app(store: MemoryStore) -> FastAPI:
    """Every way in which a route of FastAPI is limited; what it shares with others is tested
    below."""
    app = FastAPI()

    @app.get("/before/{number}")
    @limit("2/minute")
    async def before(number: int, q: str = "q") -> dict[str, Any]:
        return {"number": number, "q": q}

    fastapi.install(app, store=store)

    @app.get("/after")
    @limit("2/minute")
    def after() -> str:
        return "after"

    @limit("2/minute")
    @app.get("/above")
    async def above() -> str:
        return "above"

    @limit("9/minute")
    @limit("2/minute")
    @app.get("/twice-above")
    async def twice_above() -> str:
        return "above"

    @app.get("/depends")
    def depends(limited: Annotated[None, Depends(RateLimit("2/minute"))]) -> str:
        return "depends"

    @app.get("/dependencies", dependencies=[Depends(RateLimit("2/minute"))])
    async def dependencies() -> str:
        return "dependencies"

    router = APIRouter(prefix="/in", dependencies=[Depends(RateLimit("2/minute"))])

    @router.get("/one")
    def one() -> str:
        return "one"

    @router.get("/two")
    def two() -> str:
        return "two"

    inner = APIRouter(prefix="/deep")

    @inner.get("/est/{number}")
    @limit("2/minute")
    def deepest(number: int) -> int:
        return number

    router.include_router(inner)
    app.include_router(router)
    app.include_router(inner, prefix="/again")

    @app.get("/free")
    def free() -> str:
        return "free"

    return app


@pytest.mark.parametrize(
    "path",
    [
        "/before/1", "/after", "/above", "/twice-above", "/depends", "/dependencies", "/in/one",
        "/in/two", "/in/deep/est/1", "/again/deep/est/2",
    ],
)  # fmt: skip
async def test_a_route_of_fastapi(app: FastAPI, path: str, clock: Clock) -> None:
    assert await statuses(app, path, 3) == [200, 200, 429]
    assert await statuses(app, path, 1, client=("198.51.100.1", 1)) == [200]
    assert await statuses(app, "/free", 3) == [200] * 3
    clock.advance(60)
    assert await statuses(app, path, 3) == [200, 200, 429]


STREAMS = hasattr(routing, "iter_route_contexts")  # a FastAPI that is new enough for both


@pytest.mark.skipif(not STREAMS, reason="this FastAPI has no endpoints that are generators")
async def test_endpoints_that_are_generators(store: MemoryStore) -> None:
    app = FastAPI()
    fastapi.install(app, store=store)

    @app.get("/stream")
    @limit("2/minute")
    async def stream() -> AsyncIterator[int]:
        yield 1

    @app.get("/generator")
    @limit("2/minute")
    def generator() -> Iterator[int]:
        yield 1

    for path in ("/stream", "/generator"):
        assert await statuses(app, path, 3) == [200, 200, 429]


async def test_each_route_counts_for_itself_whatever_its_path_is(app: FastAPI) -> None:
    assert await statuses(app, "/before/1", 1) == await statuses(app, "/before/2", 1) == [200]
    assert await statuses(app, "/before/3", 1) == [429]
    for path in ("/in/one", "/in/two", "/in/deep/est/1", "/again/deep/est/1"):
        assert await statuses(app, path, 3) == [200, 200, 429]


async def test_what_state_is_named_after(app: FastAPI, store: MemoryStore) -> None:
    @app.websocket("/ws")
    @limit("2/minute")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.api_route("/any", methods=["POST", "GET"])
    @limit("9/minute")
    @limit("8/minute", scope="pool")
    @limit("7/minute")
    def anything() -> str:
        return "x"

    for path in ("/before/7", "/in/one", "/in/deep/est/7", "/again/deep/est/7", "/any"):
        await call(app, path)
    await handshake(app, "/ws")
    assert {one.name for one in users() if one.store is store} == {
        "routes:GET /before/{number}",
        "routes:GET /in/one depends #0",
        "routes:GET /in/deep/est/{number} depends #0",
        "routes:GET /in/deep/est/{number}",
        "routes:GET /again/deep/est/{number}",
        "routes:GET,POST /any",
        "routes:scope pool",
        "routes:GET,POST /any #2",
        "routes:WS /ws",
    }


async def test_a_pool_of_several_routes(store: MemoryStore) -> None:
    app = FastAPI()
    fastapi.install(app, store=store)

    @app.get("/a")
    @limit("3/minute", scope="pool")
    def a() -> str:
        return "a"

    @app.get("/b", dependencies=[Depends(RateLimit("3/minute", scope="pool"))])
    def b() -> str:
        return "b"

    assert await statuses(app, "/a", 2) == [200, 200]
    assert await statuses(app, "/b", 2) == [200, 429]
    assert await statuses(app, "/a", 1) == [429]


async def test_bad_requests_count_too(app: FastAPI) -> None:
    assert await statuses(app, "/before/x", 3) == [422, 422, 429]


async def test_defaults_hold_for_every_route_without_its_own(store: MemoryStore) -> None:
    @exempt
    def free(request: Any) -> PlainTextResponse:
        return PlainTextResponse("free")

    @limit("1/minute")
    async def own(request: Any) -> PlainTextResponse:
        return PlainTextResponse("own")

    class Page(HTTPEndpoint):
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("page")

    inner = Starlette(routes=[Route("/{name}", plain)])
    routes = [
        Route("/plain", plain),
        Route("/free", free),
        Route("/own", own),
        Route("/page", Page),
        Route("/part/{n}", functools.partial(plain)),
        Mount("/mounted", routes=[Route("/one", plain), Mount("/deep", inner)]),
        Mount("/static", hello),
        Host("api.example", Router([Route("/hosted", plain)])),
    ]
    app = starlette_app(routes, store=store, default="2/minute")
    app.add_route("/late", plain)
    for path in ("/plain", "/page", "/part/1", "/mounted/one", "/mounted/deep/x", "/static/a"):
        assert await statuses(app, path, 3) == [200, 200, 429], path
    host = [(b"host", b"api.example")]
    assert await statuses(app, "/hosted", 3, headers=host) == [200, 200, 429]
    assert await statuses(app, "/part/2", 1) == [429]
    assert await statuses(app, "/mounted/deep/y", 1) == [429]
    assert await statuses(app, "/static/b", 1) == [429]
    assert await statuses(app, "/free", 5) == [200] * 5
    assert await statuses(app, "/own", 2) == [200, 429]
    assert await statuses(app, "/late", 3) == [200, 200, 429]
    assert await statuses(app, "/nothing", 1) == [404]
    assert await statuses(app, "/plain", 1, method="DELETE") == [405]
    assert await statuses(app, "/nothing/else", 1) == [429]


async def test_routes_that_come_later_and_in_the_place_of_others(store: MemoryStore) -> None:
    @limit("1/minute", scope="new")
    async def replaced(request: Any) -> PlainTextResponse:
        return PlainTextResponse("new")

    app = starlette_app([Route("/a", plain)], store=store, default="2/minute")
    assert await statuses(app, "/a", 3) == [200, 200, 429]
    assert await statuses(app, "/b", 3) == [404, 404, 429]
    app.add_route("/b", plain)
    assert await statuses(app, "/b", 3) == [200, 200, 429]
    app.router.routes[0] = Route("/a", replaced)
    assert await statuses(app, "/a", 2) == [200, 429]


async def test_a_path_that_is_another_route_for_another_host(store: MemoryStore) -> None:
    routes = [Host("api.example", Router([Route("/x", plain)])), Route("/x", plain)]
    app = starlette_app(routes, store=store, default="2/minute")
    for _ in range(2):
        for host in (b"www.example", b"api.example"):
            assert await statuses(app, "/x", 1, headers=[(b"host", host)]) == [200]
    assert await statuses(app, "/x", 1, headers=[(b"host", b"api.example")]) == [429]


async def test_defaults_of_fastapi(store: MemoryStore) -> None:
    app = FastAPI()
    fastapi.install(app, store=store, default=RateLimit("3/minute", scope="all"))
    router = APIRouter(prefix="/in")

    @router.get("/one")
    def one() -> str:
        return "one"

    @router.get("/limited", dependencies=[Depends(RateLimit("1/minute"))])
    def limited() -> str:
        return "limited"

    app.include_router(router)
    app.mount("/sub", Starlette(routes=[Route("/x", plain)]))
    assert await statuses(app, "/in/limited", 2) == [200, 429]
    assert await statuses(app, "/in/one", 1) == [200]

    assert await statuses(app, "/sub/x", 2) == [200, 200]
    assert await statuses(app, "/in/one", 1) == [429]


@pytest.mark.skipif(not STREAMS, reason="this FastAPI copies a router when it is included")
async def test_a_route_that_comes_later_in_an_included_router(store: MemoryStore) -> None:
    app = FastAPI()
    fastapi.install(app, store=store, default="2/minute")
    router = APIRouter(prefix="/in")
    app.include_router(router)
    assert await statuses(app, "/in/late", 3) == [404, 404, 429]

    @router.get("/late")
    @limit("1/minute")
    def late() -> str:
        return "late"

    assert await statuses(app, "/in/late", 2) == [200, 429]


async def test_a_sub_application_with_its_own_installation(store: MemoryStore) -> None:
    inner = starlette_app([Route("/x", plain)], store=store, default="1/minute", name="inner")
    app = starlette_app([Mount("/sub", inner)], store=store, default="9/minute")
    assert await statuses(app, "/sub/x", 2) == [200, 429]
    with record() as decisions:
        await call(app, "/sub/x")
    assert [one.limiter.name for one in decisions] == ["inner:GET /x"]  # type: ignore[attr-defined]


async def test_what_is_behind_middleware_of_a_mount(store: MemoryStore) -> None:
    class Passing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    @limit("2/minute")
    async def limited(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    guarded = starlette_app([Route("/x", limited)], store=store, name="inner")
    routes = [Route("/x", limited)]
    app = starlette_app(
        [
            Mount("/guarded", guarded, middleware=[Middleware(Passing)]),
            Mount("/seen", routes=routes, middleware=[Middleware(Passing)]),
            Mount("/hidden", Passing(Starlette(routes=routes))),
            Mount("/hidden-guarded", Passing(guarded)),
        ],
        store=store,
    )
    assert await statuses(app, "/guarded/x", 3) == [200, 200, 429]
    assert await statuses(app, "/hidden-guarded/x", 1) == [429]
    assert await statuses(app, "/seen/x", 3) == [200, 200, 429]
    with pytest.raises(RuntimeError, match=r"install\(app\)"):  # nothing sees it to hold it
        await call(app, "/hidden/x")


async def test_fastapi_inside_starlette(store: MemoryStore) -> None:
    router = APIRouter(prefix="/in")

    @router.get("/x")
    @limit("2/minute")
    async def limited() -> str:
        return "x"

    inner = FastAPI()
    inner.include_router(router)
    app = starlette_app([Mount("/sub", inner)], store=store)
    assert await statuses(app, "/sub/in/x", 3) == [200, 200, 429]


async def test_several_limits_are_one_decision(store: MemoryStore, clock: Clock) -> None:
    app = FastAPI()
    fastapi.install(app, store=store)
    narrow = RateLimit("narrow: 1/second", key="app")

    @app.get("/hits")
    @limit("wide: 3/minute")
    @limit("narrow: 1/second", key="app")
    def hits() -> str:
        return "hits"

    @app.get("/mixed", dependencies=[Depends(narrow)])
    @limit("wide: 3/minute")
    def mixed() -> str:
        return "mixed"

    @app.get("/both", dependencies=[Depends(RateLimit("wide: 3/minute")), Depends(narrow)])
    def both() -> str:
        return "both"

    for path in ("/hits", "/mixed", "/both"):
        # what is refused by one is not charged to the other
        assert await statuses(app, path, 5) == [200, 429, 429, 429, 429], path
        clock.advance(1)
        assert await statuses(app, path, 2) == [200, 429], path
        clock.advance(1)
        answer = await call(app, path)
        assert answer.status == 200
        assert answer.headers["ratelimit"].startswith(('"wide";r=0', '"narrow";r=0'))
        clock.advance(1)
        assert '"wide"' in (await call(app, path)).headers["ratelimit"]


# ---- who, and how much


async def test_keys(store: MemoryStore) -> None:
    seen = []

    async def by_name(connection: Any) -> str:
        seen.append(type(connection).__name__)
        return str(connection.path_params["name"])

    @limit("1/minute", key=by_name)
    async def named(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    @limit("1/minute", key="app")
    async def everybody(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    @limit("1/minute", key=lambda request: None)
    async def nobody(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = starlette_app(
        [Route("/n/{name}", named), Route("/e", everybody), Route("/nobody", nobody)], store=store
    )
    assert await statuses(app, "/n/ada", 2) == [200, 429]
    assert await statuses(app, "/n/bob", 2, client=None) == [200, 429]
    assert set(seen) == {"HTTPConnection"}
    assert await statuses(app, "/e", 1) == [200]
    assert await statuses(app, "/e", 1, client=("198.51.100.1", 1)) == [429]
    with pytest.raises(TypeError, match="returned NoneType"):
        await call(app, "/nobody")


async def test_the_key_of_the_installation(store: MemoryStore) -> None:
    key = sluicegate.identity.address("private")
    app = starlette_app([Route("/", plain)], store=store, default="1/minute", key=key)

    def told(client: str) -> dict[str, Any]:
        return {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", client.encode())]}

    assert await statuses(app, "/", 2, **told("198.51.100.1")) == [200, 429]
    assert await statuses(app, "/", 1, **told("9.9.9.9, 198.51.100.1")) == [429]
    assert await statuses(app, "/", 1, **told("198.51.100.2")) == [200]


async def test_costs(store: MemoryStore) -> None:
    async def pages(connection: Any) -> int:
        return int(connection.query_params["pages"])

    @limit("10/minute", cost=4)
    async def fixed(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    @limit("10/minute", cost=pages)
    async def counted(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = starlette_app([Route("/fixed", fixed), Route("/counted", counted)], store=store)
    assert await statuses(app, "/fixed", 3) == [200, 200, 429]
    assert await statuses(app, "/counted", 2, query_string=b"pages=6") == [200, 429]
    assert await statuses(app, "/counted", 2, query_string=b"pages=4") == [200, 429]
    never = await call(app, "/counted", query_string=b"pages=11")
    assert (never.status, never.retry_after) == (429, 60)
    with pytest.raises(ValueError, match="0 to 2"):
        await call(app, "/counted", query_string=b"pages=-1")


# ---- count_when


@pytest.fixture(params=["decorator", "dependency"])
def login(request: pytest.FixtureRequest, store: MemoryStore) -> FastAPI:
    """Three wrong passwords a minute."""
    app = FastAPI()
    fastapi.install(app, store=store)
    options: Any = {"count_when": lambda status: status == 401}
    gate = asyncio.Event()
    gate.set()
    app.state.gate = gate
    decorated = request.param == "decorator"
    depends = [] if decorated else [Depends(RateLimit("3/minute", **options))]

    async def log_in(password: str) -> str:
        await gate.wait()
        if password == "boom":
            raise RuntimeError("boom")
        if password != "right":
            raise HTTPException(401)
        return "in"

    endpoint = limit("3/minute", **options)(log_in) if decorated else log_in
    app.post("/login", dependencies=depends)(endpoint)
    return app


def tried(app: FastAPI, password: str) -> Any:
    return call(app, "/login", "POST", query_string=f"password={password}".encode())


async def test_only_what_counts_is_counted(login: FastAPI) -> None:
    assert [(await tried(login, "right")).status for _ in range(9)] == [200] * 9
    assert [(await tried(login, "wrong")).status for _ in range(4)] == [401] * 3 + [429]
    assert (await tried(login, "right")).status == 429


async def test_no_more_are_on_their_way_than_may_count(login: FastAPI) -> None:
    gate: asyncio.Event = login.state.gate
    for password, then in (("right", [200] * 3), ("wrong", [429] * 3)):
        gate.clear()
        at_once = [asyncio.create_task(tried(login, password)) for _ in range(20)]
        done, _ = await asyncio.wait(at_once, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 17:
            more, _ = await asyncio.wait(
                set(at_once) - done, timeout=10, return_when=asyncio.FIRST_COMPLETED
            )
            done |= more
        assert {task.result().status for task in done} == {429}
        gate.set()
        answers: list[Answer] = await asyncio.gather(*at_once)
        came = [answer.status for answer in answers if answer.status != 429]
        assert came == [200 if password == "right" else 401] * 3
        assert [(await tried(login, "right")).status for _ in range(3)] == then


async def test_an_error_is_a_response_and_a_client_that_goes_counts(login: FastAPI) -> None:
    for _ in range(5):
        with pytest.raises(RuntimeError, match="boom"):
            await tried(login, "boom")
    login.state.gate.clear()
    for _ in range(2):
        task = asyncio.create_task(tried(login, "wrong"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    login.state.gate.set()
    assert [(await tried(login, "wrong")).status for _ in range(2)] == [401, 429]


async def test_a_count_when_that_raises_is_logged_and_counts(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(status: int) -> bool:
        raise ValueError(f"broken {status}")

    @limit("1/minute", count_when=broken)
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = starlette_app([Route("/", endpoint)], store=store)
    assert await statuses(app, "/", 2) == [200, 429]
    assert "broken 200" in caplog.text


# ---- what is answered


async def test_headers_and_the_problem(store: MemoryStore) -> None:
    app = starlette_app([Route("/", plain)], store=store, default="search: 2/minute")
    answer = await call(app)
    assert answer.headers["ratelimit-policy"] == '"search";q=2;w=60'
    assert answer.headers["ratelimit"] == '"search";r=1;t=30'
    assert answer.retry_after is None and answer.body == b"plain"
    await call(app)
    refused = await call(app)
    assert (refused.status, refused.retry_after) == (429, 30)
    assert refused.headers["ratelimit"] == '"search";r=0;t=30'
    assert refused.headers["content-type"] == "application/problem+json"
    problem = json.loads(refused.body)
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["violated-policies"] == ["search"]


@pytest.mark.parametrize(
    ("style", "names"),
    [("x", {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}), ("none", set())],
)
async def test_other_headers(store: MemoryStore, style: Any, names: set[str]) -> None:
    app = starlette_app([Route("/", plain)], store=store, default="1/minute", headers=style)
    common = {"content-length", "content-type"}
    assert set((await call(app)).headers) == {*names, *common}
    assert set((await call(app)).headers) == {*names, *common, "retry-after"}


async def test_an_endpoint_keeps_headers_of_its_own(store: MemoryStore) -> None:
    async def own(request: Any) -> PlainTextResponse:
        return PlainTextResponse("own", headers={"RateLimit": '"own";r=1'})

    app = starlette_app([Route("/", own)], store=store, default="1/minute")
    assert (await call(app)).headers["ratelimit"] == '"own";r=1'


async def test_what_is_raised_is_an_http_exception(store: MemoryStore) -> None:
    import fastapi as framework

    app = FastAPI()
    fastapi.install(app, store=store, default="1/minute")
    raised: list[Exception] = []

    @app.exception_handler(fastapi.RateLimitExceeded)
    async def mine(request: Request, error: Exception) -> JSONResponse:
        raised.append(error)
        return JSONResponse({"slow": "down"}, 429)

    @app.get("/")
    def root() -> str:
        return "root"

    assert await statuses(app, "/", 1) == [200]
    assert (await call(app)).body == b'{"slow":"down"}'
    (error,) = raised
    assert isinstance(error, framework.HTTPException)
    assert isinstance(error, sluicegate.RateLimitExceeded)
    assert isinstance(error, starlette.RateLimitExceeded)
    assert error.status_code == 429 and error.headers is not None
    assert error.headers["Retry-After"] == "60"
    assert error.detail == "Rate limit exceeded (1 per minute); retry after 60 seconds"
    assert not error.decision
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error) and copied.refusal == error.refusal


async def test_a_handler_for_the_status_is_asked_too(store: MemoryStore) -> None:
    async def teapot(request: Any, error: Any) -> PlainTextResponse:
        return PlainTextResponse("tea", 418, headers=error.headers)

    app = Starlette(routes=[Route("/", plain)], exception_handlers={429: teapot})
    starlette.install(app, store=store, default="1/minute")
    assert await statuses(app, "/", 2) == [200, 418]


async def test_a_store_that_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    app = starlette_app([Route("/", plain)], default="1/minute")

    async def failing(self: Any, key: Any, cost: Any = 1) -> Any:
        raise StoreError("away")

    monkeypatch.setattr("sluicegate.limiter.Limiter.hit", failing)
    with pytest.raises(StoreError):
        await call(app)

    async def denying(self: Any, key: Any, cost: Any = 1) -> Any:
        return sluicegate.Decision(False, retry_after=1.0, degraded=True)

    monkeypatch.setattr("sluicegate.limiter.Limiter.hit", denying)
    assert (await call(app)).status == 503


# ---- WebSockets


async def test_handshakes(store: MemoryStore, clock: Clock) -> None:
    app = FastAPI()
    fastapi.install(app, store=store)

    @app.websocket("/decorated")
    @limit("2/minute")
    async def decorated(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    @app.websocket("/depends", dependencies=[Depends(RateLimit("2/minute"))])
    async def depends(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    for path in ("/decorated", "/depends"):
        for _ in range(2):
            assert [message["type"] for message in await handshake(app, path)] == [
                "websocket.accept"
            ]
        start, body = await handshake(app, path)
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
        assert dict(start["headers"])[b"retry-after"] == b"30"
        assert json.loads(body["body"])["status"] == 429
        (closed,) = await handshake(app, path, denial=False)
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        assert closed["reason"] == "Rate limit exceeded; retry after 30"
    clock.advance(60)
    assert (await handshake(app, "/decorated"))[0]["type"] == "websocket.accept"


async def test_defaults_and_count_when_of_handshakes(store: MemoryStore) -> None:
    async def chat(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive()

    async def talk(websocket: Any) -> None:
        await chat(websocket)

    @limit("1/minute", count_when=lambda status: status == 403)
    async def closed(websocket: Any) -> None:
        if websocket.query_params:
            await websocket.accept()
        await websocket.close()

    open_ones = limit("1/minute", count_when=lambda status: status == 101)(talk)
    app = starlette_app(
        [
            WebSocketRoute("/chat", chat),
            WebSocketRoute("/closed", closed),
            WebSocketRoute("/open", open_ones),
            Route("/chat", plain),
        ],
        store=store,
        default="1/minute",
    )
    assert (await handshake(app, "/open"))[0]["type"] == "websocket.accept"
    assert (await handshake(app, "/open"))[0]["status"] == 429
    assert (await handshake(app, "/chat"))[0]["type"] == "websocket.accept"
    assert (await handshake(app, "/chat"))[0]["status"] == 429
    assert await statuses(app, "/chat", 2) == [200, 429]  # a route of its own
    for _ in range(3):
        opened = await handshake(app, "/closed", query_string=b"open=1")
        assert opened[0]["type"] == "websocket.accept"
    assert (await handshake(app, "/closed"))[0]["type"] == "websocket.close"
    assert (await handshake(app, "/closed"))[0]["status"] == 429


# ---- what stays as it was


def test_an_endpoint_keeps_its_signature_kind_and_name() -> None:
    async def awaited(number: int, q: str = "q") -> dict[str, Any]:
        """Its documentation."""
        return {}

    def called(number: int) -> int:
        return number

    async def streamed() -> AsyncIterator[int]:
        yield 1

    def generated() -> Iterator[int]:
        yield 1

    kinds: list[Callable[[Any], bool]] = [
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    ]
    for endpoint in (awaited, called, streamed, generated):
        limited: Any = limit("1/minute")(endpoint)
        assert inspect.signature(limited) == inspect.signature(endpoint)
        assert limited.__name__ == endpoint.__name__ and limited.__doc__ == endpoint.__doc__
        assert [kind(limited) for kind in kinds] == [kind(endpoint) for kind in kinds]
        assert limited.__wrapped__ is endpoint
        assert limited.__globals__ is globals()  # where frameworks resolve annotations


def test_the_description_of_the_interface_is_unchanged(app: FastAPI) -> None:
    def described(with_limits: bool) -> Any:
        app = FastAPI()
        marks: Any = limit("1/minute") if with_limits else (lambda endpoint: endpoint)
        more = [Depends(RateLimit("1/minute"))] if with_limits else []
        if with_limits:
            fastapi.install(app, default="9/minute")

        @app.post("/items/{number}", dependencies=more)
        @marks
        def item(number: int, body: dict[str, int], q: Annotated[str, "a query"] = "") -> list[int]:
            """An item."""
            return []

        return app.openapi()

    assert described(True) == described(False)


async def test_functions_of_one_endpoint_do_not_mix(store: MemoryStore) -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    few, many = limit("1/minute")(endpoint), limit("3/minute")(endpoint)
    app = starlette_app([Route("/few", few), Route("/many", many)], store=store)
    assert await statuses(app, "/few", 2) == [200, 429]
    assert await statuses(app, "/many", 4) == [200, 200, 200, 429]


# ---- what is silently off


async def test_a_limit_that_nothing_holds_is_an_error() -> None:
    @limit("1/minute")
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    @limit("1/minute")
    def called(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    bare = Starlette(routes=[Route("/", endpoint), Route("/called", called)])
    for path in ("/", "/called"):
        with pytest.raises(RuntimeError, match=r"install\(app\)"):
            await call(bare, path)
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimit("1/minute"))])
    def depends() -> str:
        return "x"

    with pytest.raises(RuntimeError, match=r"install\(app\)"):
        await call(app)


def test_a_missing_framework_is_named() -> None:
    program = (
        "import sys\nsys.modules['starlette'] = sys.modules['fastapi'] = None\n"
        "import sluicegate.fastapi, sluicegate.starlette, sluicegate.identity, sluicegate.http\n"
        "try:\n    sluicegate.starlette.limit('1/minute')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert 'pip install "sluicegate[fastapi]"' in done.stdout, done.stderr


async def test_install_is_once_and_before_serving(store: MemoryStore) -> None:
    app = starlette_app([], store=store)
    with pytest.raises(RuntimeError, match="already"):
        starlette.install(app)
    late = Starlette()
    await call(late)
    with pytest.raises(RuntimeError, match="first request"):
        starlette.install(late)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"default": "often"}, ValueError),
        ({"default": 5}, TypeError),
        ({"headers": "github"}, ValueError),
        ({"key": "address"}, ValueError),
        ({"jitter": -1}, ValueError),
        ({"name": ""}, ValueError),
        ({"name": None}, TypeError),
        ({"store": "sqlite://"}, ValueError),
        ({"on_store_error": "maybe"}, ValueError),
        ({"timeout": 0}, ValueError),
    ],
)
def test_installations_that_make_no_sense(options: Any, error: Any) -> None:
    app = Starlette()
    with pytest.raises(error):
        starlette.install(app, **options)
    assert app.router.middleware_stack == app.router.app  # nothing was changed


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["often"], {}, ValueError),
        ([5], {}, TypeError),
        (["1/minute"], {"key": "address"}, ValueError),
        (["1/minute"], {"scope": ""}, ValueError),
        (["1/minute"], {"scope": 1}, TypeError),
        (["1/minute"], {"cost": -1}, ValueError),
        (["1/minute"], {"cost": 1.5}, TypeError),
        (["1/minute"], {"count_when": 401}, TypeError),
    ],
)
def test_limits_that_make_no_sense(arguments: Any, options: Any, error: Any) -> None:
    for made in (limit, RateLimit):
        with pytest.raises(error):
            made(*arguments, **options)


def test_an_endpoint_that_is_a_class_takes_the_default() -> None:
    with pytest.raises(TypeError, match="default="):

        @limit("1/minute")
        class Page(HTTPEndpoint):
            pass


async def test_quotas_as_objects_and_lists(store: MemoryStore) -> None:
    @limit([Quota(5, 60, name="a"), "b: 2/hour using fixed-window"])
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = starlette_app([Route("/", endpoint)], store=store)
    assert await statuses(app, "/", 3) == [200, 200, 429]


async def test_lifespan_and_middleware_go_on_as_before(store: MemoryStore) -> None:
    app = starlette_app([Route("/", plain)], store=store, default="1/minute")

    async def stamped(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["stamped"] = "yes"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=stamped)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answers = [await http.get("/") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert all(answer.headers["stamped"] == "yes" for answer in answers)
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
