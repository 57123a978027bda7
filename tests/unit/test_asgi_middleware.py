"""The ASGI door on a clock: which rule holds, what is counted together, and who is blocked."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from calling import Answer, call, hello
from sluicegate import Decision, Limiter, MemoryStore, StoreError, StoreFullError, open_store
from sluicegate.asgi import (
    BaseBackend,
    EmptyInformation,
    MemoryBackend,
    RateLimitMiddleware,
    Rule,
    StoreBackend,
)
from sluicegate.testing import Clock, override, record


class Door:
    """A middleware on a clock, before an application that says hello. A request is of the user
    and group that its headers name."""

    def __init__(self, config: Any, store: MemoryStore | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock) if store is None else store
        self.asked = 0
        options.setdefault("backend", MemoryBackend(self.store))
        self.app = RateLimitMiddleware(hello, self.who, config=config, **options)

    async def who(self, scope: Any) -> tuple[str, str]:
        self.asked += 1
        await asyncio.sleep(0)
        named = {name: value.decode() for name, value in scope["headers"]}
        if b"user" not in named:
            raise EmptyInformation(scope)
        return named[b"user"], named.get(b"group", "default")

    async def get(
        self, path: str, user: str = "ada", group: str = "default", method: str = "GET"
    ) -> Answer:
        headers = [(b"user", user.encode()), (b"group", group.encode())]
        return await call(self.app, path, method, headers=headers)

    async def passes(self, *requests: str | tuple[str, ...]) -> list[bool]:
        answers = [await self.get(*([one] if isinstance(one, str) else one)) for one in requests]
        assert {answer.status for answer in answers} <= {200, 429}
        return [answer.status == 200 for answer in answers]


# ---- windows


async def test_a_window_starts_at_a_users_first_request() -> None:
    door = Door({r"^/towns": [Rule(second=2)]})
    door.clock.advance(0.7)
    assert await door.passes("/towns", "/towns", "/towns") == [True, True, False]
    door.clock.advance(0.999)
    assert (await door.get("/towns")).status == 429
    door.clock.advance(0.001)
    assert await door.passes("/towns", "/towns", "/towns") == [True, True, False]


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400), ("month", 31 * 86400)],
)
async def test_each_unit_is_as_long_as_it_says(unit: str, seconds: int) -> None:
    door = Door({"/": [Rule(**{unit: 1})]})
    assert (await door.get("/")).status == 200
    door.clock.advance(seconds / 4)
    refused = await door.get("/")
    assert (refused.status, refused.retry_after) == (429, max(1, -(-seconds * 3 // 4)))
    door.clock.advance(seconds * 3 / 4 - 0.5)
    assert (await door.get("/")).retry_after == 1
    door.clock.advance(0.5)
    assert (await door.get("/")).status == 200


async def test_retry_after_is_true_whole_and_at_least_one() -> None:
    door = Door({"/": [Rule(minute=1)]})
    await door.get("/")
    for elapsed, told in ((0, 60), (0.25, 60), (0.75, 59), (58, 1), (0.999, 1)):
        door.clock.advance(elapsed)
        assert (await door.get("/")).retry_after == told
    door.clock.advance(0.001)
    assert (await door.get("/")).status == 200


async def test_the_units_of_a_rule_are_one_decision() -> None:
    door = Door({"/": [Rule(second=2, minute=5)]})
    for expected in ([True, True, False, False], [True, True, False, False], [True, False]):
        assert await door.passes(*["/"] * len(expected)) == expected
        door.clock.advance(1)
    # of the two that were refused a second none was charged to the minute: five have passed
    refused = await door.get("/")
    assert refused.retry_after == 57  # the longer of the two waits
    door.clock.advance(57)
    assert await door.passes("/", "/", "/") == [True, True, False]


async def test_a_refused_request_charges_nothing() -> None:
    door = Door({"/": [Rule(second=1, hour=3)]})
    for _ in range(3):
        assert await door.passes("/", "/", "/", "/") == [True, False, False, False]
        door.clock.advance(1)
    assert (await door.get("/")).status == 429


async def test_of_twenty_at_once_one_passes() -> None:
    door = Door({"/": [Rule(minute=1)]})
    answers = await asyncio.gather(*(door.get("/") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [429] * 19


async def test_requests_are_counted_by_path_method_and_user() -> None:
    door = Door({r"^/towns": [Rule(minute=1)], "/posts": [Rule(minute=1, method="POST")]})
    assert await door.passes("/towns/1", "/towns/2", "/towns/1") == [True, True, False]
    assert await door.passes(("/towns/1", "eve"), ("/towns/1", "eve")) == [True, False]
    # a rule for any method counts them together
    assert (await door.get("/towns/1", method="POST")).status == 429
    # one for a method leaves the others alone
    assert [(await door.get("/posts", method="POST")).status for _ in range(2)] == [200, 429]
    assert [(await door.get("/posts")).status for _ in range(3)] == [200] * 3


async def test_no_user_and_path_are_another_ones_counter() -> None:
    door = Door({"": [Rule(minute=1)]})
    for path, user in (
        ("/a", "b"), ("/a b", ""), ("/ /a", "b"), ("/a", "b "), ("/a", "b%20"), ("/a", "b%2520"),
        ("/a", "b /"), ("/", "b /a"), ("/a:b", "c"), ("/a", "b:c"), ("/A", "b"), ("/a/b", "c"),
    ):  # fmt: skip
        assert await door.passes((path, user), (path, user)) == [True, False], (path, user)


# ---- which rule


async def test_the_first_pattern_with_a_rule_for_the_group_holds() -> None:
    door = Door(
        {
            r"^/towns/big": [Rule(minute=3, group="admin")],
            r"^/towns": [Rule(minute=1), Rule(minute=2), Rule(group="guest")],
            r"^/": [Rule(minute=2, group="admin"), Rule(minute=1, group="guest")],
        }
    )
    assert await door.passes(*["/towns/big"] * 2) == [True, False]
    assert await door.passes(*[("/towns/big", "root", "admin")] * 4) == [True] * 3 + [False]
    assert await door.passes(*[("/towns", "root", "admin")] * 3) == [True] * 2 + [False]
    assert await door.passes(*[("/towns", "zoe", "guest")] * 9) == [True] * 9
    assert await door.passes(*["/elsewhere"] * 9) == [True] * 9  # no rule for that group
    assert await door.passes(*[("/elsewhere", "eve", "unheard-of")] * 9) == [True] * 9


async def test_patterns_match_from_the_start() -> None:
    door = Door({r"/towns": [Rule(minute=1)], re.compile("/FORESTS", re.I): [Rule(minute=1)]})
    assert await door.passes("/x/towns", "/x/towns") == [True, True]
    assert await door.passes("/towns", "/towns") == [True, False]
    assert await door.passes("/forests", "/forests") == [True, False]


async def test_a_rule_for_another_method_does_not_end_the_search() -> None:
    door = Door({"/a": [Rule(minute=1, method="POST")], "/": [Rule(minute=1)]})
    assert await door.passes(*[("/a", "ada", "default", "GET")] * 2) == [True, False]
    assert await door.passes(*[("/a", "ada", "default", "POST")] * 2) == [True, False]


async def test_who_it_is_is_asked_once_and_only_where_it_matters() -> None:
    door = Door({"/a": [Rule(group="other")], "/ab": [Rule(group="other")], "/": [Rule(minute=9)]})
    await door.get("/ab")
    assert door.asked == 1
    door = Door({"/a": [Rule(minute=1)]})
    assert (await call(door.app, "/elsewhere")).status == 200
    assert door.asked == 0


async def test_a_group_without_a_limit_is_never_refused_and_never_counted() -> None:
    door = Door({"/": [Rule(second=1), Rule(group="admin")]})
    with record() as decisions:
        assert await door.passes(*[("/", "root", "admin")] * 50) == [True] * 50
    assert decisions == []


# ---- zones


async def test_rules_of_a_zone_share_a_pool() -> None:
    door = Door(
        {
            r"/user/\d+": [Rule(minute=3, zone="api"), Rule(minute=4, zone="api", group="admin")],
            r"/users": [Rule(minute=3, zone="api", method="GET")],
            r"/alone": [Rule(minute=1)],
        }
    )
    assert await door.passes("/user/1", "/user/2", "/users", "/user/3", "/users") == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert await door.passes("/alone", ("/user/1", "eve")) == [True, True]
    # the pool is the user's, of whatever group he is just then
    assert await door.passes(*[("/user/1", "ada", "admin")] * 2) == [True, False]


async def test_rules_of_a_zone_share_the_units_that_they_have_in_common() -> None:
    door = Door(
        {
            "/a": [Rule(minute=3, zone="z")],
            "/b": [Rule(second=2, minute=3, zone="z")],
            "/c": [Rule(second=2, zone="z")],
        }
    )
    assert await door.passes("/a", "/b", "/c", "/c", "/a", "/a") == [
        True, True, True, False, True, False,
    ]  # fmt: skip
    door.clock.advance(1)
    assert await door.passes("/b", "/c", "/c", "/c") == [False, True, True, False]


async def test_a_zone_is_no_path() -> None:
    door = Door({"/towns": [Rule(minute=1)], "/forests": [Rule(minute=1, zone="/towns")]})
    assert await door.passes("/towns", "/forests", "/towns", "/forests") == [
        True, True, False, False,
    ]  # fmt: skip


# ---- blocks


async def test_a_block_is_user_wide_and_counts_down() -> None:
    door = Door(
        {
            "/login": [Rule(second=2, block_time=60), Rule(group="admin")],
            "/": [Rule(minute=99), Rule(group="admin")],
        }
    )
    assert await door.passes("/login", "/login") == [True, True]
    refused = await door.get("/login")
    assert (refused.status, refused.retry_after) == (429, 60)
    door.clock.advance(10)
    for path in ("/login", "/other", "/login"):  # refusals lengthen it by nothing
        assert (await door.get(path)).retry_after == 50
    assert (await door.get("/login", "eve")).status == 200
    assert (await door.get("/other", "ada", "admin")).status == 200  # an exempt group
    door.clock.advance(49.5)
    assert (await door.get("/other")).retry_after == 1
    door.clock.advance(0.5)
    assert await door.passes("/login", "/other") == [True, True]


async def test_a_blocked_request_charges_nothing() -> None:
    door = Door({"/login": [Rule(second=1, block_time=10)], "/": [Rule(hour=2)]})
    await door.passes("/login", "/login")
    assert await door.passes(*["/x"] * 5) == [False] * 5
    door.clock.advance(10)
    assert await door.passes("/x", "/x", "/x") == [True, True, False]


async def test_a_block_that_ends_before_the_window_does() -> None:
    door = Door({"/": [Rule(minute=1, block_time=5)]})
    assert (await door.get("/")).status == 200
    assert (await door.get("/")).retry_after == 5
    door.clock.advance(2)
    assert (await door.get("/")).retry_after == 3
    door.clock.advance(3)
    # the window is still full, so that he is blocked anew
    assert (await door.get("/")).retry_after == 5
    door.clock.advance(55)
    assert (await door.get("/")).status == 200


async def test_twenty_refused_at_once_block_once() -> None:
    door = Door({"/": [Rule(second=1, block_time=30)]})
    answers = await asyncio.gather(*(door.get("/") for _ in range(20)))
    assert [answer.retry_after for answer in answers].count(30) == 19
    door.clock.advance(30)
    assert (await door.get("/")).status == 200


async def test_a_block_holds_in_every_middleware_of_the_backend_and_in_no_other() -> None:
    door = Door({"/": [Rule(second=1, block_time=30)]})
    await door.passes("/", "/")
    for backend, status in (
        (door.app.backend, 429),
        (door.store, 429),
        (MemoryBackend(), 200),
        (StoreBackend(door.store, name="other"), 200),
    ):
        other = RateLimitMiddleware(hello, door.who, backend, {"/": [Rule(minute=9)]})
        assert (await call(other, "/x", headers=[(b"user", b"ada")])).status == status


async def test_blocks_by_hand() -> None:
    door = Door({"/": [Rule(minute=9)]})
    backend = door.app.backend
    assert isinstance(backend, StoreBackend)
    assert await backend.is_blocking("ada") == 0
    await backend.set_block_time("ada", 4.5)
    assert await backend.is_blocking("ada") == 5
    assert (await door.get("/")).retry_after == 5
    await backend.blocked.unban("ada")
    assert (await door.get("/")).status == 200


# ---- handlers


async def test_without_a_handler_the_error_goes_on() -> None:
    door = Door({"/": [Rule(minute=1)]})
    with pytest.raises(EmptyInformation) as raised:
        await call(door.app, headers=[(b"cookie", b"secret")])
    assert raised.value.scope["path"] == "/"
    assert "secret" not in str(raised.value)


async def unauthorized(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 401})
    await send({"type": "http.response.body", "body": b"who?"})


class Unauthorized:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert isinstance(self.error, EmptyInformation)
        await unauthorized(scope, receive, send)


async def later(error: Exception) -> Any:
    await asyncio.sleep(0)
    return Unauthorized(error)


@pytest.mark.parametrize("handler", [unauthorized, Unauthorized, later, lambda error: unauthorized])
async def test_an_error_of_authenticate_is_handled(handler: Any) -> None:
    door = Door({"/": [Rule(minute=1)]}, on_auth_error=handler)
    answer = await call(door.app)
    assert (answer.status, answer.body) == (401, b"who?")
    assert await door.passes("/", "/") == [True, False]


@pytest.mark.parametrize("handler", [1, "app", lambda: None, lambda a, b: None])
def test_what_is_no_handler_is_refused(handler: Any) -> None:
    with pytest.raises(TypeError, match="on_auth_error"):
        RateLimitMiddleware(hello, on_auth_error=handler)


async def test_an_error_of_the_application_is_none_of_authenticate() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise EmptyInformation(scope)

    app = RateLimitMiddleware(broken, config={"/": [Rule(minute=9)]}, on_auth_error=unauthorized)
    with pytest.raises(EmptyInformation):
        await call(app)


@pytest.mark.parametrize(
    "found",
    [None, "ada", ("ada",), (None, "default"), (True, "default"), ("ada", None), ("ada", ["x"]),
     (object(), "default"), (b"ada", "default")],
)  # fmt: skip
async def test_what_is_no_user_and_group_is_an_error_of_authenticate(found: Any) -> None:
    app = RateLimitMiddleware(
        hello, lambda scope: found, config={"/": [Rule(minute=1)]}, on_auth_error=unauthorized
    )
    assert (await call(app)).status == 401


@pytest.mark.parametrize("user", ["ada", 42, UUID(int=7)])
async def test_authenticate_may_be_plain_and_a_user_a_number(user: Any) -> None:
    def who(scope: Any) -> tuple[Any, str]:
        return user, "default"

    app = RateLimitMiddleware(hello, who, config={"/": [Rule(minute=1)]})
    assert [(await call(app)).status for _ in range(2)] == [200, 429]


async def test_the_refusal_by_default() -> None:
    door = Door({"/": [Rule(minute=1)]})
    await door.get("/")
    answer = await door.get("/")
    assert (answer.status, answer.body) == (429, b"")
    assert answer.headers == {"retry-after": "60", "content-length": "0"}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_refusal_may_be_ones_own(asynchronous: bool) -> None:
    told = []

    def blocked(retry_after: int) -> Any:
        assert type(retry_after) is int
        told.append(retry_after)
        return unauthorized

    async def blocked_later(retry_after: int) -> Any:
        return blocked(retry_after)

    door = Door({"/": [Rule(minute=1)]}, on_blocked=blocked_later if asynchronous else blocked)
    await door.get("/")
    assert (await door.get("/")).body == b"who?"
    assert told == [60]


async def test_what_a_handler_returns_is_an_app() -> None:
    door = Door({"/": [Rule(minute=1)]}, on_blocked=lambda retry_after: None)
    await door.get("/")
    with pytest.raises(TypeError, match="not an ASGI app"):
        await door.get("/")


# ---- what it is made of


async def test_other_scopes_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    door = RateLimitMiddleware(app, config={"": [Rule(second=1)]})
    for kind in ("lifespan", "websocket", "something-new"):
        scope, receive, send = {"type": kind, "path": "/"}, object(), object()
        await door(scope, receive, send)  # type: ignore[arg-type]
        assert seen.pop() == (scope, receive, send)
        assert scope == {"type": kind, "path": "/"}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"config": [Rule()]}, TypeError, "config maps"),
        ({"config": {"(": [Rule()]}}, ValueError, r"'\(' is no regular expression"),
        ({"config": {b"/": [Rule()]}}, TypeError, "a pattern is a str"),
        ({"config": {"/": Rule()}}, TypeError, "'/' has a list of rules"),
        ({"config": {"/": "5/second"}}, TypeError, "'/' has a list of rules"),
        ({"config": {"/": [{"second": 1}]}}, TypeError, "not dict"),
        ({"authenticate": ("ada", "default")}, TypeError, "authenticate is a function"),
        ({"on_blocked": 429}, TypeError, "on_blocked is a function"),
        ({"backend": 5}, TypeError, "store"),
        ({"backend": "nonsense"}, ValueError, "store"),
    ],
)
def test_what_makes_no_middleware_is_refused(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        RateLimitMiddleware(hello, **given)


async def test_a_backend_may_be_a_url_or_a_store() -> None:
    clock = Clock()
    config = {"/": [Rule(minute=1)]}
    for backend in (
        "memory://?max_keys=77",
        MemoryStore(clock=clock),
        MemoryBackend(),
        StoreBackend("memory://?max_keys=78"),
        None,
    ):
        app = RateLimitMiddleware(hello, None, backend, config)
        assert [(await call(app)).status for _ in range(2)] == [200, 429]
    # of one store, one pool; of None, one's own
    shared = RateLimitMiddleware(hello, None, "memory://?max_keys=77", config)
    assert (await call(shared)).status == 429
    assert (await call(RateLimitMiddleware(hello, None, None, config))).status == 200
    assert StoreBackend().store is open_store()


async def test_a_backend_of_ones_own() -> None:
    asked: list[tuple[str, Any, Rule]] = []

    class Mine(BaseBackend):
        async def retry_after(self, path: str, user: str, rule: Rule) -> int:
            asked.append((path, user, rule))
            return 7 * (len(asked) > 1)

    rule, zoned = Rule(minute=1), Rule(minute=1, zone="api")
    door = Door({"/a": [rule], "/": [zoned]}, backend=Mine())
    assert (await door.get("/a")).status == 200
    assert (await door.get("/b")).retry_after == 7
    assert asked == [("/a", "ada", rule), ("api", "ada", zoned)]


async def test_a_backend_asked_by_hand() -> None:
    clock = Clock()
    backend = MemoryBackend(MemoryStore(clock=clock))
    for n in range(1000):  # rules that are made anew each time are not kept for ever
        rule = Rule(minute=n + 1)
        assert await backend.retry_after(f"/{n}", "ada", rule) == 0
    assert len(backend._prepared) <= 256
    rule = Rule(minute=1, block_time=9)
    assert [await backend.retry_after("/", "ada", rule) for _ in range(2)] == [0, 9]
    assert await backend.retry_after("/", "ada", Rule()) == 0


async def test_every_limit_is_the_cores() -> None:
    door = Door({"/": [Rule(second=1, minute=5)]})
    with record() as decisions:
        await door.passes("/", "/")
    assert {one.limiter.name for one in decisions} <= {
        "asgi:second", "asgi:minute", "asgi:blocked",
    }  # fmt: skip
    other = MemoryStore(clock=door.clock)
    with override(store=other):
        assert (await door.get("/")).status == 200
    assert (await door.get("/")).status == 429


async def test_a_store_that_is_full_is_no_limit_reached() -> None:
    clock = Clock()
    store = MemoryStore(max_keys=16, on_full="raise", clock=clock)
    door = Door({"/": [Rule(second=1, block_time=60)]}, store)
    with pytest.raises(StoreFullError):
        for n in range(1000):
            for _ in range(2):
                await door.get("/", f"user{n}")
    assert issubclass(StoreFullError, StoreError)


async def test_a_store_that_cannot_decide_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def denied(*charges: Any) -> Decision:
        return Decision(False, degraded=True, retry_after=float("inf"))

    door = Door({"/": [Rule(minute=9, block_time=60)]})
    with monkeypatch.context() as patch:
        patch.setattr(Limiter, "hit_all", staticmethod(denied))
        patch.setattr(Limiter, "hit", denied)
        answer = await door.get("/")
    assert (answer.status, answer.retry_after) == (429, 1)
    assert (await door.get("/")).status == 200


async def test_endless_paths_fill_nothing_but_the_bounded_table() -> None:
    store = MemoryStore(max_keys=1000, clock=Clock())
    door = Door({"/": [Rule(minute=5, hour=50, block_time=5)]}, store)

    async def ask(first: int) -> int:
        for n in range(first, first + 5000):
            await door.get(f"/{n}/{'x' * 200}")
        gc.collect()
        return len(gc.get_objects())

    before = await ask(0)
    tables = {name: table.bytes for name, table in store.tables()}
    # One object a path would be 5000; what the loop and earlier tests leave comes and goes.
    assert await ask(5000) <= before + 500
    assert all(table.keys <= 1000 for _, table in store.tables())
    assert {name: table.bytes for name, table in store.tables()} == tables
    assert len(tables) == 3


def test_importing_takes_no_framework() -> None:
    program = (
        "import asyncio, sys; before = set(sys.modules)\n"
        "import sluicegate.asgi\n"
        "from sluicegate.asgi.auths import create_jwt_auth, from_user, from_session\n"
        "sluicegate.asgi.RateLimitMiddleware(None)\n"
        "print({m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "      & {'starlette', 'fastapi', 'redis', 'jwt', 'itsdangerous', 'django', 'anyio'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "set()", done.stderr


# ---- who it is, where nobody says


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (("203.0.113.9", 1), ("203.0.113.9", 2), True),
        (("203.0.113.9", 1), ("203.0.113.10", 1), False),
        (("2001:db8:0:1::1", 1), ("2001:db8:0:1:ffff::2", 1), True),
        (("2001:db8:0:1::1", 1), ("2001:db8:0:2::1", 1), False),
        (("::ffff:203.0.113.9", 1), ("203.0.113.9", 1), True),
        (("fe80::1%eth0", 1), ("fe80::1%eth1", 1), True),
        (("testclient", 1), ("testclient", 2), True),
        (("testclient", 1), None, False),
        (None, ("", 0), True),
    ],
)
async def test_without_authenticate_it_is_the_peer(first: Any, second: Any, same: bool) -> None:
    app = RateLimitMiddleware(hello, config={"/": [Rule(minute=1)]})
    junk = [(b"x-real-ip", b"8.8.8.8"), (b"x-forwarded-for", b"8.8.4.4, junk")]
    assert (await call(app, client=first)).status == 200
    assert (await call(app, client=second, headers=junk)).status == (429 if same else 200)
