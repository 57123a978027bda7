"""RateLimiter of sluicegate.quart on routes, blueprints and websocket routes, by Quart's own
test client."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
from quart import Blueprint, Quart, Response, jsonify, request, websocket
from quart.testing.connections import WebsocketResponseError
from werkzeug.exceptions import TooManyRequests

import sluicegate
from sluicegate.quart import (
    RateLimit,
    RateLimiter,
    RateLimitExceeded,
    limit_blueprint,
    rate_exempt,
    rate_limit,
    remote_addr_key,
)
from sluicegate.testing import Clock, record

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def site(*, clock: Clock | None = None, **options: Any) -> Quart:
    """An application with a RateLimiter on a clock that stands."""
    app = Quart(__name__)
    store = sluicegate.MemoryStore(clock=clock or Clock())
    RateLimiter(app, **{"store": store, **options})
    return app


async def get(app: Quart, path: str = "/", peer: str = "192.0.2.1", **more: Any) -> Any:
    return await app.test_client().get(path, scope_base={"client": (peer, 50000)}, **more)


async def statuses(app: Quart, count: int, path: str = "/", **more: Any) -> list[int]:
    return [(await get(app, path, **more)).status_code for _ in range(count)]


def headers(response: Any) -> tuple[str | None, ...]:
    names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
    return tuple(response.headers.get(name) for name in names)


async def handshake(app: Quart, path: str, peer: str = "192.0.2.1", **more: Any) -> Any:
    """The response that refuses a websocket, or None where it was accepted."""
    client = app.test_client()
    try:
        async with client.websocket(path, scope_base={"client": (peer, 50000)}, **more) as one:
            assert await asyncio.wait_for(one.receive(), 10) == "hello"
    except WebsocketResponseError as error:
        return error.response
    return None


def greeting(app: Any, path: str, *marks: Callable[..., Any]) -> None:
    async def greet() -> None:
        await websocket.send("hello")

    view: Any = greet
    for mark in marks:
        view = mark(view)
    app.websocket(path, endpoint=path.strip("/"))(view)


async def test_a_route_and_its_headers() -> None:
    clock = Clock()
    app = site(clock=clock)

    @app.route("/")
    @rate_limit(2, timedelta(seconds=10))
    async def index() -> str:
        return "here"

    assert headers(await get(app)) == ("2", "1", "5", None)
    assert headers(await get(app)) == ("2", "0", "10", None)
    clock.advance(0.5)
    refused = await get(app)
    assert refused.status_code == 429
    assert headers(refused) == ("2", "0", "10", "5")  # 9.5 and 4.5, rounded up
    assert refused.headers["Content-Type"] == "text/html; charset=utf-8"
    clock.advance(4.5)
    assert headers(await get(app)) == ("2", "0", "10", None)
    clock.advance(100)
    assert await statuses(app, 3) == [200, 200, 429]


async def test_retry_after_is_at_least_one() -> None:
    clock = Clock()
    app = site(clock=clock)
    app.route("/")(rate_limit(1, SECOND)(_fresh()))
    await get(app)
    clock.advance(0.999)
    assert headers(await get(app)) == ("1", "0", "1", "1")


async def test_twenty_requests_at_once_with_a_limit_of_one() -> None:
    async def key() -> str:
        await asyncio.sleep(0)  # others come in between
        return "everybody"

    app = site()
    app.route("/")(rate_limit(1, MINUTE, key)(_fresh()))
    answers = await asyncio.gather(*(get(app) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 19


def _fresh() -> Callable[..., Any]:
    async def view() -> str:
        return "here"

    return view


async def test_clients_routes_and_methods() -> None:
    app = site()
    app.route("/", methods=["GET", "POST"])(rate_limit(1, MINUTE)(_fresh()))
    app.add_url_rule("/other", "other", rate_limit(1, MINUTE)(_fresh()))
    assert await statuses(app, 2) == [200, 429]
    assert await statuses(app, 2, "/other") == [200, 429]
    assert await statuses(app, 2, peer="192.0.2.2") == [200, 429]
    assert (await app.test_client().post("/")).status_code == 200  # another peer: the default


async def test_several_limits_are_one_decision() -> None:
    clock = Clock()
    app = site(clock=clock)

    @app.route("/")
    @rate_limit(1, timedelta(seconds=2))
    @rate_limit(3, timedelta(seconds=60))
    async def index() -> str:
        return "here"

    assert headers(await get(app)) == ("1", "0", "2", None)  # of the shortest period
    for _ in range(5):
        assert headers(await get(app)) == ("1", "0", "2", "2")
    clock.advance(2)
    assert (await get(app)).status_code == 200  # the refused ones took nothing of the minute
    clock.advance(2)
    assert (await get(app)).status_code == 200
    clock.advance(2)
    refused = await get(app)  # by the minute: the third comes back after 20 seconds
    assert headers(refused) == ("1", "1", "0", "14")
    clock.advance(14)
    assert (await get(app)).status_code == 200


async def test_a_list_of_limits_and_limits_given_twice() -> None:
    app = site(default_limits=[RateLimit(2, MINUTE)])
    twice = [RateLimit(2, MINUTE), RateLimit(5, timedelta(hours=1)), RateLimit(2, MINUTE)]
    app.route("/")(rate_limit(limits=twice)(_fresh()))
    assert await statuses(app, 3) == [200, 200, 429]


async def test_default_limits_exempt_routes_and_what_is_not_there() -> None:
    app = site(default_limits=[RateLimit(1, MINUTE)])
    app.add_url_rule("/", "index", _fresh())
    app.add_url_rule("/exempt", "exempt", rate_exempt(_fresh()))
    assert await statuses(app, 2) == [200, 429]
    assert await statuses(app, 3, "/exempt") == [200] * 3
    assert headers(await get(app, "/exempt")) == (None,) * 4
    assert await statuses(app, 3, "/nothing") == [404] * 3
    assert headers(await get(app, "/nothing")) == (None,) * 4


async def test_a_blueprint_but_not_those_in_it() -> None:
    app = site()
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/outer")
    outer.add_url_rule("/", "index", _fresh())
    outer.add_url_rule("/second", "second", _fresh())
    inner.add_url_rule("/inner", "index", _fresh())
    assert limit_blueprint(outer, 1, MINUTE) is outer
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert await statuses(app, 2, "/outer/") == [200, 429]
    assert await statuses(app, 2, "/outer/second") == [200, 429]
    assert await statuses(app, 2, "/outer/inner") == [200, 200]


async def test_marks_survive_a_decorator_in_between_and_are_not_shared_by_it() -> None:
    def between(function: Any) -> Any:
        @wraps(function)
        async def inside() -> Any:
            return await function()

        return inside

    app = site()
    view = rate_limit(2, MINUTE)(_fresh())
    app.add_url_rule("/plain", "plain", view)
    app.add_url_rule("/more", "more", rate_limit(1, MINUTE)(between(view)))
    assert await statuses(app, 3, "/plain") == [200, 200, 429]
    assert await statuses(app, 2, "/more") == [200, 429]


async def test_key_functions_of_a_limit_and_of_the_limiter() -> None:
    asked = []

    def by_user() -> str:
        asked.append("user")
        return request.headers["X-User"]

    async def by_team() -> str:
        asked.append("team")
        return request.headers["X-Team"]

    app = site(key_function=by_user)
    app.route("/")(
        rate_limit(
            limits=[RateLimit(2, MINUTE), RateLimit(9, SECOND), RateLimit(3, MINUTE, by_team)]
        )(_fresh())
    )

    async def ask(user: str, team: str) -> int:
        return (await get(app, headers={"X-User": user, "X-Team": team})).status_code

    assert await ask("ada", "red") == 200
    assert sorted(asked) == ["team", "user"]  # each function once
    assert [await ask("ada", "red"), await ask("ada", "red")] == [200, 429]
    assert [await ask("eve", "red"), await ask("eve", "red")] == [200, 429]
    assert await ask("eve", "blue") == 200


async def test_skip_functions() -> None:
    async def is_staff() -> bool:
        return "X-Staff" in request.headers

    def never() -> bool:
        return False

    app = site(skip_function=is_staff)
    app.add_url_rule("/", "index", rate_limit(1, MINUTE)(_fresh()))
    app.add_url_rule("/all", "all", rate_limit(1, MINUTE, skip_function=never)(_fresh()))
    staff = {"headers": {"X-Staff": "1"}}
    assert await statuses(app, 3, **staff) == [200] * 3
    assert headers(await get(app, **staff)) == (None,) * 4
    assert await statuses(app, 2) == [200, 429]
    assert await statuses(app, 2, "/all", **staff) == [200, 429]


async def test_turned_off_and_on() -> None:
    app = site(enabled=False)
    app.route("/")(rate_limit(1, MINUTE)(_fresh()))
    assert await statuses(app, 3) == [200] * 3
    assert headers(await get(app)) == (None,) * 4
    app.config["QUART_RATE_LIMITER_ENABLED"] = True
    assert await statuses(app, 2) == [200, 429]


async def test_the_configuration_and_the_factory_pattern() -> None:
    guard = RateLimiter(store=sluicegate.MemoryStore(clock=Clock()), enabled=False)
    for options, expected in (((), False), ((True,), True)):
        app = Quart(__name__)
        guard.init_app(app, *options)
        assert app.config["QUART_RATE_LIMITER_ENABLED"] is expected
    app = Quart(__name__)
    app.config["QUART_RATE_LIMITER_ENABLED"] = True
    guard.init_app(app)
    guard.init_app(app)  # twice is once
    app.route("/")(rate_limit(2, MINUTE)(_fresh()))
    assert await statuses(app, 3) == [200, 200, 429]


async def test_an_error_handler_of_the_application() -> None:
    app = site()
    app.route("/")(rate_limit(1, MINUTE)(_fresh()))
    caught: list[RateLimitExceeded] = []

    @app.errorhandler(RateLimitExceeded)
    async def slow_down(error: RateLimitExceeded) -> tuple[Response, int]:
        caught.append(error)
        return jsonify(wait=error.retry_after), 429

    await get(app)
    refused = await get(app)
    assert await refused.get_json() == {"wait": 60}
    assert headers(refused) == ("1", "0", "60", "60")
    (error,) = caught
    assert isinstance(error, TooManyRequests)
    assert isinstance(error, sluicegate.RateLimitExceeded)
    assert error.decision.quota == sluicegate.Quota(1, 60)
    assert (error.code, type(error.retry_after)) == (429, int)


def test_the_error_survives_pickling_and_can_be_raised_by_hand() -> None:
    error = pickle.loads(pickle.dumps(RateLimitExceeded(30)))
    assert error.retry_after == 30
    assert not error.decision.allowed and error.decision.retry_after == 30
    assert ("Retry-After", "30") in error.get_headers()


async def test_forwarding_headers_are_not_believed() -> None:
    app = site()
    app.route("/")(rate_limit(1, MINUTE)(_fresh()))
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Remote-Addr")
    answers = [
        (await get(app, headers={name: f"198.51.100.{n}"})).status_code
        for name in names
        for n in range(2)
    ]
    assert answers == [200] + [429] * 7


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("/run/app.sock", "/run/app.sock", True),
        ("<local>", "/run/app.sock", False),
    ],
)
async def test_who_is_one_client(one: str, other: str, same: bool) -> None:
    app = site()
    app.route("/")(rate_limit(1, MINUTE)(_fresh()))
    assert (await get(app, peer=one)).status_code == 200
    assert (await get(app, peer=other)).status_code == (429 if same else 200)


async def test_remote_addr_key_serves_in_key_functions() -> None:
    async def key() -> str:
        return f"guest:{await remote_addr_key()}"

    app = site(key_function=key)
    app.route("/")(rate_limit(1, MINUTE)(_fresh()))
    with record() as decisions:
        await get(app)
    assert [one.key for one in decisions] == ["guest:192.0.2.1"]


async def test_names_of_limiters_tell_where_and_what() -> None:
    app = site()
    app.route("/")(rate_limit(5, MINUTE)(_named_view))
    with record() as decisions:
        await get(app)
    assert [one.limiter.name for one in decisions] == [f"quart:{__name__}:_named_view:5/60.0s"]


async def _named_view() -> str:
    return "here"


async def test_a_store_that_fails_is_no_limit_reached() -> None:
    store = sluicegate.MemoryStore(max_keys=1, on_full="raise")
    app = site(store=store)
    app.route("/")(rate_limit(1, MINUTE)(_named_view))
    bans = sluicegate.Limiter("1/minute", store=store, name=f"quart:{__name__}:_named_view:1/60.0s")
    with pytest.raises(sluicegate.StoreFullError):
        for n in range(1000):  # what is banned is never evicted
            await bans.ban(f"{n}", 3600)
    assert (await get(app)).status_code == 500


async def test_a_ban_refuses_and_counts_down() -> None:
    clock = Clock()
    store = sluicegate.MemoryStore(clock=clock)
    app = site(store=store)
    app.route("/")(rate_limit(5, MINUTE)(_named_view))
    bans = sluicegate.Limiter("5/minute", store=store, name=f"quart:{__name__}:_named_view:5/60.0s")
    await bans.ban("192.0.2.1", 100)
    clock.advance(9.5)
    assert headers(await get(app)) == ("5", "0", "91", "91")


# ---- connections


async def test_a_limit_on_a_websocket_route_limits_its_connections() -> None:
    clock = Clock()
    app = site(clock=clock)
    greeting(app, "/ws", rate_limit(2, MINUTE))
    assert [await handshake(app, "/ws") for _ in range(2)] == [None, None]
    refused = await handshake(app, "/ws")
    assert refused.status_code == 429
    assert headers(refused) == ("2", "0", "60", "30")
    assert await handshake(app, "/ws", peer="192.0.2.2") is None
    clock.advance(30)
    assert await handshake(app, "/ws") is None


async def test_twenty_handshakes_at_once_with_a_limit_of_one() -> None:
    app = site()
    greeting(app, "/ws", rate_limit(1, MINUTE))
    refused = await asyncio.gather(*(handshake(app, "/ws") for _ in range(20)))
    assert sum(one is None for one in refused) == 1


async def test_defaults_and_blueprints_hold_for_websocket_routes() -> None:
    app = site(default_limits=[RateLimit(2, MINUTE)])
    blueprint = Blueprint("blue", __name__)
    limit_blueprint(blueprint, 1, MINUTE)
    greeting(app, "/plain")
    greeting(blueprint, "/blue")
    app.register_blueprint(blueprint)
    assert [await handshake(app, "/plain") is None for _ in range(3)] == [True, True, False]
    assert [await handshake(app, "/blue") is None for _ in range(2)] == [True, False]


async def test_a_websocket_route_that_is_exempt() -> None:
    app = site(default_limits=[RateLimit(1, MINUTE)])
    greeting(app, "/ws", rate_exempt)
    assert [await handshake(app, "/ws") for _ in range(3)] == [None] * 3


async def test_functions_that_are_written_for_requests(caplog: pytest.LogCaptureFixture) -> None:
    """Handshakes are limited all the same: by address, and none is skipped."""

    async def user() -> str:
        return request.headers["X-User"]

    async def is_staff() -> bool:
        return "X-Staff" in request.headers

    for options in ({"key_function": user}, {"skip_function": is_staff}):
        caplog.clear()
        app = site(default_limits=[RateLimit(2, MINUTE)], **options)
        greeting(app, "/ws")
        mine = {"headers": {"X-User": "ada", "X-Staff": "1"}}
        assert [await handshake(app, "/ws", **mine) is None for _ in range(3)] == [
            True, True, False,
        ]  # fmt: skip
        assert await handshake(app, "/ws", peer="192.0.2.2", **mine) is None
        (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert "which has no request" in said

    app = site()  # one that is of the limit itself is not gone round
    greeting(app, "/ws", rate_limit(2, MINUTE, user))
    assert (await handshake(app, "/ws")).status_code == 500


# ---- what is refused when it is made


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RateLimit(0, MINUTE), ValueError),
        (lambda: RateLimit(-1, MINUTE), ValueError),
        (lambda: RateLimit(1, timedelta(0)), ValueError),
        (lambda: RateLimit(1, timedelta(seconds=-1)), ValueError),
        (lambda: RateLimit(1, 60), TypeError),
        (lambda: RateLimit("1", MINUTE), TypeError),
        (lambda: RateLimit(True, MINUTE), TypeError),
        (lambda: rate_limit(), ValueError),
        (lambda: rate_limit(1), ValueError),
        (lambda: rate_limit(period=MINUTE), ValueError),
        (lambda: rate_limit(1, MINUTE, limits=[]), ValueError),
        (lambda: rate_limit(1, MINUTE, limit=1), ValueError),
        (lambda: rate_limit(limits=[5]), TypeError),
        (lambda: limit_blueprint(Blueprint("b", __name__)), ValueError),
        (lambda: RateLimiter(default_limits=[(1, MINUTE)]), TypeError),
        (lambda: RateLimiter(key_function="user"), TypeError),
        (lambda: RateLimiter(skip_function=True), TypeError),
        (lambda: RateLimiter(store="nothing://"), ValueError),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_made(
    make: Callable[[], Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make()


def test_both_names_of_the_count() -> None:
    for named in ({"count": 5}, {"limit": 5}):
        view: Any = rate_limit(**named, period=MINUTE)(SimpleNamespace())
        (found,) = vars(view).values()
        assert found == (RateLimit(5, MINUTE),)
    assert RateLimit(5, MINUTE).inverse == 12
