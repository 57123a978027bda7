"""Every program of asgi-ratelimit.md, run for real with its import root changed.

What a program leaves open (ASGI_APP, a user, what `...` elides) is put in its place. One that
is the inside of a call is run in that call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import serving
from calling import Answer, call, hello
from documents.programs import document, fenced_blocks, moved
from redis_store import servers
from sluicegate import MemoryStore
from sluicegate.asgi import MemoryBackend, RateLimitMiddleware, Rule
from sluicegate.asgi.auths import EmptyInformation
from sluicegate.asgi.types import Receive, Scope, Send
from sluicegate.testing import Clock

Serve = Callable[..., serving.Server]

CALL = "RateLimitMiddleware(ASGI_APP, AUTH_FUNCTION, BACKEND,"


def blocks() -> dict[str, list[str]]:
    return fenced_blocks(document("asgi-ratelimit.md"))


@pytest.fixture
def program() -> Callable[..., str]:
    found = blocks()

    def find(heading: str, place: int = 0) -> str:
        return moved(found[heading][place], "ratelimit", "sluicegate.asgi")

    return find


async def by_headers(scope: Any) -> tuple[str, str]:
    named = {name: value.decode() for name, value in scope["headers"]}
    if b"user" not in named:
        raise EmptyInformation(scope)
    return named[b"user"], named.get(b"group", "default")


class Run:
    """What a program is run among, and the middleware that it makes."""

    def __init__(self, **names: Any) -> None:
        self.clock = Clock()
        self.names: dict[str, Any] = {
            "ASGI_APP": hello,
            "AUTH_FUNCTION": by_headers,
            "BACKEND": MemoryBackend(MemoryStore(clock=self.clock)),
            "RateLimitMiddleware": RateLimitMiddleware,
            "Rule": Rule,
            "Scope": Scope,
            "Receive": Receive,
            "Send": Send,
            **names,
        }

    def __call__(self, source: str) -> dict[str, Any]:
        exec(compile(source, "<document>", "exec"), self.names)
        return self.names

    async def get(self, path: str, user: str = "ada", group: str = "default") -> Answer:
        headers = [(b"user", user.encode()), (b"group", group.encode())]
        return await call(self.names["rate_limit"], path, headers=headers)

    async def passes(self, count: int, path: str, user: str = "ada", group: str = "default") -> int:
        """How many of that many requests pass."""
        answers = [await self.get(path, user, group) for _ in range(count)]
        assert {answer.status for answer in answers} <= {200, 429}
        return sum(answer.status == 200 for answer in answers)


def in_a_call(inside: str) -> str:
    """A program that is the inside of a call, with `...` before and after it."""
    lines = inside.strip("\n").splitlines()
    assert lines[0] == lines[-1] == "    ..."
    return f"rate_limit = {CALL}\n" + "\n".join(lines[1:-1]) + "\n)\n"


def without_elision(source: str) -> str:
    assert source.count("RateLimitMiddleware(...,") == 1
    return source.replace(
        "RateLimitMiddleware(...,", f'rate_limit = {CALL} {{"^/towns": [Rule(minute=1)]}},'
    )


def test_no_program_of_the_document_is_forgotten() -> None:
    assert {heading: len(found) for heading, found in blocks().items()} == {
        "Usage": 3,
        "Customizable rules": 3,
        "Custom block handler": 1,
        "Client IP": 1,
        "Starlette Session": 1,
        "Json Web Token": 1,
        "Custom auth error handler": 2,
    }


# ---- usage


@contextmanager
def redis_url() -> Iterator[str]:
    if not servers.KINDS:
        pytest.fail("no redis-server was found")
    with servers.server(servers.KINDS[0]) as client:
        yield f"unix://{client.connection_pool.connection_kwargs['path']}"


@pytest.mark.server
@pytest.mark.parametrize("app", ["rate_limit", "app"])
async def test_usage(program: Callable[..., str], serve: Serve, tmp_path: Path, app: str) -> None:
    """Both ways to install it, over a real Redis (of the test's own, not of port 6379)."""
    with redis_url() as url:
        (tmp_path / "printed.py").write_text(
            "from starlette.applications import Starlette\n"
            "from starlette.responses import PlainTextResponse\n"
            "from starlette.routing import Route\n"
            "from sluicegate.testing import override\n"
            "\n"
            f"elsewhere = override(store={url!r})\n"
            "elsewhere.__enter__()\n"
            "\n"
            "async def hello(request): return PlainTextResponse('hello')\n"
            "app = Starlette(routes=[Route('/{path:path}', hello)])\n"
            "ASGI_APP = Starlette(routes=[Route('/{path:path}', hello)])\n"
            "\n"
            "async def AUTH_FUNCTION(scope):\n"
            "    named = {name: value.decode() for name, value in scope['headers']}\n"
            "    return named[b'user'], named[b'group']\n"
            "\n" + program("Usage"),
            encoding="utf-8",
        )
        server = serve(f"printed:{app}", app_dir=tmp_path)
        async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:

            async def get(path: str, user: str = "ada", group: str = "default") -> httpx.Response:
                return await http.get(path, headers={"user": user, "group": group})

            answers = await asyncio.gather(*(get("/forests") for _ in range(20)))
            assert sorted(answer.status_code for answer in answers) == [200] + [429] * 19
            assert 59 <= int((await get("/forests")).headers["retry-after"]) <= 60
            assert (await get("/forests", "eve")).text == "hello"
            for _ in range(2):
                answers = await asyncio.gather(*(get("/towns") for _ in range(3)))
                assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
                await asyncio.sleep(1)
            for path in ("/towns", "/forests", "/elsewhere"):
                answers = [await get(path, "root", "admin") for _ in range(5)]
                assert {answer.status_code for answer in answers} == {200}
            assert [(await get("/elsewhere")).status_code for _ in range(3)] == [200] * 3


async def test_an_auth_function(program: Callable[..., str]) -> None:
    printed = program("Usage", 1)
    elided = "RateLimitMiddleware(ASGI_APP, AUTH_FUNCTION, ...)"
    assert printed.count(elided) == 1
    run = Run(USER_UNIQUE_ID="ada", GROUP_NAME="default")
    run("from typing import Tuple")
    names = run(printed.replace(elided, f'{CALL} {{"/": [Rule(minute=1)]}})'))
    assert await names["AUTH_FUNCTION"]({}) == ("ada", "default")
    assert await run.passes(3, "/") == 1


async def test_a_group_of_users(program: Callable[..., str]) -> None:
    inside, function = program("Usage", 2).split("\n\n\n")
    # what it elides at its top: who the user is
    opened = function.replace(
        "    ...\n",
        "    user = user_unique_id = dict(scope['headers'])[b'user'].decode()\n"
        "    user_group = 'admin'\n",
        1,
    )
    run = Run(admins_group={"root"})
    run("from typing import Tuple")
    run(opened)
    run(in_a_call(inside))
    assert await run.names["AUTH_FUNCTION"]({"headers": [(b"user", b"eve")]}) == ("eve", "default")
    assert await run.passes(20, "/towns", "eve") == 1
    assert await run.passes(20, "/towns", "root") == 10
    run.clock.advance(1)
    assert await run.passes(20, "/towns", "eve") == 1


# ---- rules


async def test_several_units_in_a_rule(program: Callable[..., str]) -> None:
    run = Run()
    run(in_a_call(program("Customizable rules")))
    passed = 0
    for _ in range(30):
        admitted = await run.passes(15, "/towns")
        assert admitted == (10 if passed < 200 else 0)
        passed += admitted
        run.clock.advance(1)
    assert passed == 200  # what the seconds refused was not charged to the minute
    run.clock.advance(30)
    assert await run.passes(15, "/towns") == 10


async def test_a_group_with_higher_limits(program: Callable[..., str]) -> None:
    run = Run()
    run(in_a_call(program("Customizable rules", 1)))
    passed = {"default": 0, "admin": 0}
    for second in range(180):
        for group, limit, by_minute in (("default", 10, 200), ("admin", 25, 500)):
            admitted = await run.passes(limit + 1, "/towns", group, group)
            passed[group] += admitted
            if second % 60 < by_minute // limit and passed["default"] < 400:
                assert admitted == limit
        run.clock.advance(1)
    assert passed == {"default": 400, "admin": 1500}


async def test_a_zone(program: Callable[..., str]) -> None:
    run = Run()
    run(in_a_call(program("Customizable rules", 2)))
    passed = [await run.passes(50, f"/user/{n}") for n in range(6)]
    assert passed == [50, 50, 50, 50, 0, 0]
    assert await run.passes(300, "/user/1", "root", "admin") == 100
    assert await run.passes(300, "/user/2", "root", "admin") == 0
    assert await run.passes(3, "/user/2", "eve") == 3


async def test_block_time() -> None:
    """`Rule(second=5, block_time=60)`, which the document explains in a sentence."""
    rule = "Rule(second=5, block_time=60)"
    assert rule in document("asgi-ratelimit.md")
    run = Run()
    run(f'rate_limit = {CALL} {{"/": [{rule}]}})')
    assert await run.passes(5, "/") == 5
    for elapsed in (0, 0.5, 30, 29, 0.499):
        run.clock.advance(elapsed)
        assert await run.passes(2, "/") == 0
    run.clock.advance(0.001)
    assert await run.passes(6, "/") == 5


# ---- handlers


async def test_a_custom_block_handler(program: Callable[..., str]) -> None:
    run = Run()
    run(without_elision(program("Custom block handler")))
    assert (await run.get("/towns")).body == b"hello"
    refused = await run.get("/towns")
    assert (refused.status, refused.body) == (429, b"custom 429 page")
    assert run.names["rate_limit"].on_blocked is run.names["yourself_429"]


async def test_a_custom_auth_error_handler(program: Callable[..., str]) -> None:
    run = Run()
    run(without_elision(program("Custom auth error handler")))
    answer = await call(run.names["rate_limit"], "/towns")
    assert (answer.status, answer.body) == (401, b'{"message":"Unauthorized access."}')
    assert await run.passes(2, "/towns") == 1


async def test_an_auth_error_handler_that_answers_by_itself(program: Callable[..., str]) -> None:
    printed = program("Custom auth error handler", 1)
    # what it leaves to do is what it has in its comment, and the end of the answer
    example = "        # await send("
    assert printed.count(example) == 1
    opened = printed.replace(example, "        await send(").replace(
        "    return response",
        '        await send({"type": "http.response.body", "body": b"by itself"})\n'
        "    return response",
    )
    run = Run()
    run(opened)
    run(f'rate_limit = {CALL} {{"/": [Rule(minute=1)]}}, on_auth_error=handle_auth_error)')
    answer = await call(run.names["rate_limit"], "/")
    assert (answer.status, answer.body) == (429, b"by itself")


# ---- auths


async def test_client_ip(program: Callable[..., str]) -> None:
    run = Run()
    run(program("Client IP"))
    run.names["AUTH_FUNCTION"] = run.names["client_ip"]
    run(f'rate_limit = {CALL} {{"/": [Rule(minute=1)]}})')
    app, proxied = run.names["rate_limit"], [(b"x-real-ip", b"8.8.8.8")]
    assert [(await call(app, client=("1.1.1.1", n))).status for n in range(2)] == [200, 429]
    for status in (200, 429):
        assert (await call(app, client=("127.0.0.1", 1), headers=proxied)).status == status
    # "will not work if your IP address [...] is not allocated for public networks"
    with pytest.raises(EmptyInformation):
        await call(app, client=("127.0.0.1", 1))


@pytest.mark.server
async def test_a_session(program: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "printed.py").write_text(
        program("Starlette Session") + "from starlette.applications import Starlette\n"
        "from starlette.middleware.sessions import SessionMiddleware\n"
        "from starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\n"
        "from sluicegate.asgi import RateLimitMiddleware, Rule\n"
        "\n"
        "async def log_in(request):\n"
        "    request.session.update(request.query_params)\n"
        "    return PlainTextResponse('welcome')\n"
        "\n"
        "async def hello(request): return PlainTextResponse('hello')\n"
        "\n"
        "app = Starlette(routes=[Route('/log-in', log_in), Route('/', hello)])\n"
        "app.add_middleware(\n"
        "    RateLimitMiddleware,\n"
        "    authenticate=from_session,\n"
        "    config={'/$': [Rule(minute=2), Rule(minute=1, group='small')]},\n"
        "    on_auth_error=PlainTextResponse('who?', 401),\n"
        ")\n"
        "app.add_middleware(SessionMiddleware, secret_key='not told')\n",
        encoding="utf-8",
    )
    server = serve("printed:app", app_dir=tmp_path)
    for params, expected in (
        ({}, [401, 401, 401]),
        ({"user": "ada"}, [200, 200, 429]),
        ({"user": "eve", "group": "small"}, [200, 429, 429]),
        ({"group": "small"}, [401, 401, 401]),
    ):
        async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
            await http.get("/log-in", params=params)
            assert [(await http.get("/")).status_code for _ in range(3)] == expected


# the key that the document prints is too short for PyJWT's taste
@pytest.mark.filterwarnings("ignore:The HMAC key is")
async def test_json_web_tokens(program: Callable[..., str]) -> None:
    import jwt

    run = Run()
    run(program("Json Web Token"))
    run.names["AUTH_FUNCTION"] = run.names["jwt_auth"]
    run(f'rate_limit = {CALL} {{"/": [Rule(minute=2), Rule(minute=1, group="small")]}})')

    async def statuses(key: str, **claims: Any) -> list[int]:
        token = jwt.encode(claims, key, "HS256").encode()
        headers = [(b"authorization", b"Bearer " + token)]
        app = run.names["rate_limit"]
        return [(await call(app, headers=headers)).status for _ in range(3)]

    assert await statuses("KEY", user="ada") == [200, 200, 429]
    assert await statuses("KEY", user="eve", group="small") == [200, 429, 429]
    with pytest.raises(jwt.InvalidSignatureError):
        await statuses("another key", user="ada")
    with pytest.raises(jwt.ExpiredSignatureError):
        await statuses("KEY", user="ada", exp=time.time() - 1)
    with pytest.raises(EmptyInformation):
        await call(run.names["rate_limit"])
