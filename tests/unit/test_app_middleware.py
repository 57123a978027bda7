"""RateLimitMiddleware of sluicegate.app, called as a server calls it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from sluicegate import Limiter, MemoryStore
from sluicegate.app import EndpointLimit, RateLimiter, RateLimitMiddleware, RateLimitSettings
from sluicegate.testing import Clock, record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(MemoryStore(clock=clock))


def settings(limit: int = 5, burst: int = 2, **more: Any) -> RateLimitSettings:
    return RateLimitSettings(RATE_LIMIT_PER_MINUTE=limit, RATE_LIMIT_BURST=burst, **more)


class App:
    """Answers 200, with headers of its own, in two parts."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.headers = [(b"x-own", b"1"), (b"X-RateLimit-Limit", b"999")]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        await send({"type": "http.response.body", "body": b"llo"})


class Answer:
    def __init__(self, sent: list[Any]) -> None:
        assert sent[0]["type"] == "http.response.start"
        self.status = sent[0]["status"]
        names = [name.decode().lower() for name, _ in sent[0]["headers"]]
        assert len(set(names)) == len(names), "a header twice"
        self.headers = {n.decode().lower(): v.decode() for n, v in sent[0]["headers"]}
        self.body = b"".join(one["body"] for one in sent[1:])

    @property
    def limits(self) -> tuple[str, str] | None:
        if "x-ratelimit-remaining" not in self.headers:  # the other one is App's own
            return None
        return self.headers["x-ratelimit-limit"], self.headers["x-ratelimit-remaining"]


async def get(
    app: Any, path: str = "/", *, client: Any = ("198.51.100.7", 5), **scope: Any
) -> Answer:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await app({"type": "http", "path": path, "client": client, **scope}, receive, send)
    return Answer(sent)


def hits() -> float:
    return REGISTRY.get_sample_value("rate_limit_hits_total", {"limit_type": "http"}) or 0


async def test_headers_on_every_response_and_then_429(
    limiter: RateLimiter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    inner = App()
    app = RateLimitMiddleware(inner, limiter, settings())
    before = hits()
    for remaining in range(6, -1, -1):
        answer = await get(app)
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer.limits == ("7", str(remaining))
        assert answer.headers["x-own"] == "1"
        assert 0 <= int(answer.headers["x-ratelimit-reset"]) - time.time() - 60 < 2
        clock.advance(1)
    refused = await get(app)
    assert refused.status == 429 and refused.limits == ("7", "0")
    assert refused.headers["retry-after"] == "53"  # when the first of the seven is a minute old
    # and when all of them are
    assert 0 <= int(refused.headers["x-ratelimit-reset"]) - time.time() - 59 < 2
    assert refused.headers["content-type"] == "application/json"
    assert int(refused.headers["content-length"]) == len(refused.body)
    assert json.loads(refused.body) == {
        "error": "rate_limited",
        "detail": "Rate limit exceeded. Try again in 53 seconds.",
        "retry_after": 53,
        "limit": 7,
    }
    assert len(inner.scopes) == 7
    assert hits() == before + 1
    (logged,) = [one for one in caplog.records if one.name == "sluicegate.app"]
    assert logged.levelno == logging.WARNING
    assert logged.getMessage() == "Rate limit exceeded for user ip:198.51.100.7"
    assert {
        name: vars(logged)[name] for name in ("user_id", "limit_type", "current_count", "limit")
    } == {"user_id": "ip:198.51.100.7", "limit_type": "http", "current_count": 7, "limit": 5}
    clock.advance(53)
    assert (await get(app)).limits == ("7", "0")


@pytest.mark.parametrize(
    "path", ["/health", "/metrics", "/docs", "/redoc", "/openapi.json", "/metrics/"]
)
async def test_excluded_paths(limiter: RateLimiter, path: str) -> None:
    app = RateLimitMiddleware(App(), limiter, settings(1, 0))
    for _ in range(3):
        answer = await get(app, path)
        assert answer.status == 200 and "x-ratelimit-remaining" not in answer.headers
    assert (await get(app, "/")).limits == ("1", "0")


@pytest.mark.parametrize("path", ["/healthy", "/docs/deep", "/api/health", "//docs", "", "/"])
async def test_paths_that_are_only_like_them(limiter: RateLimiter, path: str) -> None:
    assert (await get(RateLimitMiddleware(App(), limiter, settings(1, 0)), path)).limits


async def test_a_root_path_is_no_part_of_the_path(limiter: RateLimiter) -> None:
    app = RateLimitMiddleware(App(), limiter, settings(1, 0), rules={"^/search": 9})
    for path, root, limits in (
        ("/api/docs", "/api", None),
        ("/api/docs", "/api/", None),
        ("/docs", "/api", None),
        ("/api/search", "/api", ("9", "8")),
        ("/apidocs", "/api", ("1", "0")),
    ):
        answer = await get(app, path, root_path=root)
        assert answer.limits == limits, (path, root)


async def key_of(limiter: RateLimiter, **scope: Any) -> Any:
    app = RateLimitMiddleware(App(), limiter, settings())
    with record() as made:
        await get(app, **scope)
    return made[0].key


class Numbered(SimpleNamespace):
    is_authenticated = True


class Lazy(BaseUser):
    """Starlette's, with nothing but a name."""

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return "ada"


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (SimpleUser("ada"), "user:ada"),
        (Lazy(), "user:ada"),
        (Numbered(id=42), "user:42"),
        (Numbered(id=0), "user:0"),
        (Numbered(id=UUID(int=1), username="x"), "user:00000000-0000-0000-0000-000000000001"),
        (Numbered(pk=7), "user:7"),
        (Numbered(id="", username="ada"), "user:ada"),
        (Numbered(id="ip:198.51.100.7"), "user:ip:198.51.100.7"),
        (SimpleNamespace(id=42), "user:42"),
        (SimpleNamespace(id=42, is_authenticated=False), "ip:198.51.100.7"),
        (UnauthenticatedUser(), "ip:198.51.100.7"),
        (Numbered(id=object()), "ip:198.51.100.7"),
        (Numbered(id=lambda: 1), "ip:198.51.100.7"),
        (Numbered(), "ip:198.51.100.7"),
        (None, "ip:198.51.100.7"),
    ],
)
async def test_keys_of_users(limiter: RateLimiter, user: Any, key: str) -> None:
    assert await key_of(limiter, user=user) == key


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("198.51.100.7", 5), "ip:198.51.100.7"),
        (("2001:db8:1:2:3:4:5:6", 5), "ip:2001:db8:1:2::/64"),
        (("::ffff:198.51.100.7", 5), "ip:198.51.100.7"),
        (("testclient", 5), "ip:testclient"),
        (("x" * 5000, 5), "ip:" + "x" * 5000),
        (("\ud800", 5), "ip:\ud800"),
        (("", 0), "ip:unknown"),
        (None, "ip:unknown"),
    ],
)
async def test_keys_of_addresses(limiter: RateLimiter, client: Any, key: str) -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.1"), (b"x-real-ip", b"203.0.113.2")]
    assert await key_of(limiter, client=client, headers=headers) == key


async def test_users_count_apart_wherever_they_come_from(limiter: RateLimiter) -> None:
    app = RateLimitMiddleware(App(), limiter, settings(1, 0))
    assert (await get(app, user=SimpleUser("ada"))).status == 200
    assert (await get(app, user=SimpleUser("eve"))).status == 200
    assert (await get(app)).status == 200
    assert (await get(app, user=SimpleUser("ada"), client=("203.0.113.9", 1))).status == 429


async def test_limits_by_endpoint(limiter: RateLimiter, clock: Clock) -> None:
    rules: Mapping[str, Any] = {
        r"^/login$": "2/minute",
        r"^/search/[a-z]+$": EndpointLimit(1, window_seconds=10, burst=1),
        r"^/search": (3, 10),
        r"^/static/": None,
        r"^/feed": 4,
    }
    app = RateLimitMiddleware(App(), limiter, settings(1, 0), rules=rules)

    async def limits(path: str) -> Any:
        return (await get(app, path)).limits

    assert [await limits("/login") for _ in range(3)] == [("2", "1"), ("2", "0"), ("2", "0")]
    # all of a pattern's paths together, and the first pattern that fits
    assert [await limits(f"/search/{x}") for x in "abc"] == [("2", "1"), ("2", "0"), ("2", "0")]
    assert await limits("/search") == ("3", "2")
    assert await limits("/search/1") == ("3", "1")
    assert await limits("/static/x.css") is None
    assert await limits("/feed") == ("4", "3")
    # what has a limit of its own takes nothing of the default
    assert await limits("/other") == ("1", "0")
    assert await limits("/x/login") == ("1", "0")
    clock.advance(10)
    assert await limits("/search/a") == ("2", "1")
    assert await limits("/login") == ("2", "0")


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        ({"(": 5}, ValueError, "no regular expression"),
        ({"^/": 0}, ValueError, "a limit is 1"),
        ({"^/": "soon"}, ValueError, "soon"),
        ({"^/": "5/minute burst 2"}, ValueError, "EndpointLimit"),
        ({"^/": "5/minute using fixed-window"}, ValueError, "EndpointLimit"),
        ({"^/": 1.5}, TypeError, "float"),
        ({"^/": True}, TypeError, "bool"),
    ],
)
def test_rules_that_make_no_sense(
    limiter: RateLimiter, rules: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        RateLimitMiddleware(App(), limiter, settings(), rules=rules)


def test_other_arguments_that_make_no_sense(limiter: RateLimiter) -> None:
    with pytest.raises(TypeError, match="RateLimiter"):
        RateLimitMiddleware(App(), "redis://localhost")  # type: ignore[arg-type]
    nothing = SimpleNamespace(RATE_LIMIT_ENABLED=True, RATE_LIMIT_PER_MINUTE=0, RATE_LIMIT_BURST=0)
    with pytest.raises(ValueError):
        RateLimitMiddleware(App(), limiter, nothing)


async def test_the_settings_come_from_the_environment(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_PER_MINUTE", "3")
    monkeypatch.setenv("RATE_LIMIT_BURST", "1")
    app = RateLimitMiddleware(App(), limiter)
    assert (await get(app)).limits == ("4", "3")
    monkeypatch.setenv("RATE_LIMIT_ENABLED", "false")
    off = RateLimitMiddleware(App(), limiter)
    for _ in range(9):
        assert (await get(off)).limits is None


async def test_what_is_not_http_passes(limiter: RateLimiter) -> None:
    inner = App()
    app = RateLimitMiddleware(inner, limiter, settings(1, 0))
    for kind in ("websocket", "lifespan"):
        for _ in range(3):
            await app({"type": kind, "path": "/"}, None, None)  # type: ignore[arg-type]
    assert len(inner.scopes) == 6
    assert (await get(app)).limits == ("1", "0")


@pytest.mark.parametrize("on_full", ["raise", "deny"])
async def test_a_store_that_fails_lets_requests_through(
    on_full: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(max_keys=1, on_full=on_full)
    await Limiter("1/minute using sliding-log", store=store, name="app").ban("x", 1000)
    app = RateLimitMiddleware(App(), RateLimiter(store), settings(1, 1))
    before = hits()
    for _ in range(5):
        answer = await get(app)
        assert (answer.status, answer.limits) == (200, ("2", "2"))
        assert abs(int(answer.headers["x-ratelimit-reset"]) - time.time()) < 5
    assert hits() == before
    assert not [one for one in caplog.messages if one.startswith("Rate limit exceeded")]


async def test_a_banned_user_is_told_until_when(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    app = RateLimitMiddleware(App(), RateLimiter(store), settings())
    await Limiter("1/minute using sliding-log", store=store, name="app").ban("ip:198.51.100.7", 300)
    answer = await get(app)
    assert (answer.status, answer.limits) == (429, ("7", "0"))
    assert answer.headers["retry-after"] == "300"
    assert 0 <= int(answer.headers["x-ratelimit-reset"]) - time.time() - 300 < 2


async def test_names_cannot_forge_a_line_of_the_log(
    limiter: RateLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    app = RateLimitMiddleware(App(), limiter, settings(1, 0))
    for name in ("ada\nWARNING all is well", "\x1b[2J", "é\ud800", "x" * 999, "%s %d"):
        for _ in range(2):
            await get(app, user=SimpleUser(name))
    assert [one.removeprefix("Rate limit exceeded for user ") for one in caplog.messages] == [
        "ada\\nWARNING all is well",
        "\\x1b[2J",
        "é\\ud800",
        "x" * 128 + "…",
        "%s %d",
    ]
    assert vars(caplog.records[0])["user_id"] == "ada\nWARNING all is well"


async def test_an_answer_without_headers_has_the_limits(limiter: RateLimiter) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})

    answer = await get(RateLimitMiddleware(bare, limiter, settings()))
    assert (answer.status, answer.limits) == (204, ("7", "6"))
