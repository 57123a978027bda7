"""Every program of app-rate-limiting.txt that is Python, run for real, and what the page says.

What a program leaves open (`redis`, `url`, `logger` ...) is put beside it. Two of them are the
inside of the application's own limiters: these answer the same calls side by side with ours.
"""

from __future__ import annotations

import ast
import inspect
import logging
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import uvicorn
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import serving
from adapters.redis_process import redis_server
from documents import page
from documents.programs import document
from sluicegate import MemoryStore
from sluicegate.app import ConnectionLimiter, RateLimiter, RateLimitMiddleware, RateLimitSettings
from sluicegate.testing import Clock, record

NAME = "app-rate-limiting.txt"


@pytest.fixture
def text() -> str:
    return document(NAME)


@pytest.fixture
def program(text: str) -> Callable[[str], str]:
    return page.programs(text).__getitem__


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RateLimitSettings.model_fields:
        monkeypatch.delenv(name, raising=False)


def run(source: str, **names: Any) -> dict[str, Any]:
    exec(compile(source, f"<{NAME}>", "exec", dont_inherit=True), names)
    return names


def body(text: str, heading: str) -> str:
    return "\n".join(page.sections(text)[heading])


# ---- the programs are those of the page


def test_no_program_of_the_document_is_forgotten(text: str) -> None:
    assert set(page.programs(text)) == {
        "Configuration",
        "Handle Rate Limits",
        "Check Remaining Limit",
        "Sliding Window Algorithm",
        "Connection Limiter",
        "Logs",
        "Test Rate Limiting",
    }
    # nothing that looks like Python stands anywhere else
    others = [one for one in page.sections(text) if one not in page.programs(text)]
    for heading in others:
        assert not re.search(r"^(async |def |import |class |@)", body(text, heading), re.M), heading


def test_only_indentation_is_put_back(text: str) -> None:
    for heading, restored in page.programs(text).items():
        printed = page.block(page.sections(text)[heading])
        assert [line.strip() for line in restored.splitlines()] == printed
        # and no statement has slipped out of its function
        functions = (ast.AsyncFunctionDef, ast.FunctionDef)
        outside = [type(one) for one in ast.parse(restored).body if not isinstance(one, functions)]
        if "def " in restored:
            assert set(outside) <= {ast.Import}, heading


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    while x:\n        if x > 3:\n            break\n        x += 1\n"
        "    # then\n    return x\n",
        "for x in (\n1,\n# two\n2):\n    # a comment\n    print(x)\n# the end\nprint()\n",
        "class A:\n    def f(self):\n        '''\nText:\n# no comment\n'''\n        return 1\n",
    ],
)
def test_indentation_comes_back_by_the_rules(program: str) -> None:
    assert page.indented([line.strip() for line in program.splitlines()]) == program


# ---- settings


@pytest.mark.usefixtures("_no_variables")
def test_configuration(program: Callable[[str], str]) -> None:
    printed = run(program("Configuration"))
    assert set(printed["__annotations__"]) == set(RateLimitSettings.model_fields)
    for name, kind in printed["__annotations__"].items():
        assert RateLimitSettings.model_fields[name].annotation is kind
        assert getattr(RateLimitSettings(), name) == printed[name]


@pytest.mark.usefixtures("_no_variables")
def test_adjusting_limits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = RateLimitSettings()
    exported = {}
    for line in page.block(page.sections(text)["Adjusting Limits"]):
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "export"
            name, _, value = words[1].partition("=")
            exported[name] = value
            monkeypatch.setenv(name, value)
    assert len(exported) == 4
    after = RateLimitSettings()
    for name, value in exported.items():
        assert getattr(after, name) == int(value) != getattr(before, name)


# ---- what a client does


@contextmanager
def served(limiter: RateLimiter, limit: int, burst: int = 0) -> Iterator[str]:
    """The URL of an application behind the middleware: a real server in a thread, so that the
    test has its clock."""

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    app.add_middleware(
        RateLimitMiddleware,
        limiter=limiter,
        settings=RateLimitSettings(RATE_LIMIT_PER_MINUTE=limit, RATE_LIMIT_BURST=burst),
    )
    port = serving.free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws="none", lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        give_up = time.monotonic() + serving.START_SECONDS
        while not server.started:
            assert thread.is_alive() and time.monotonic() < give_up, "it does not serve"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(serving.STOP_SECONDS)
        assert not thread.is_alive()


@pytest.mark.server
def test_handle_rate_limits(
    program: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    call = run(program("Handle Rate Limits"))["api_call_with_retry"]
    slept: list[int] = []
    step = 20.0

    def sleep(seconds: int) -> None:
        slept.append(seconds)
        clock.advance(step)

    limiter = RateLimiter(MemoryStore(clock=clock))
    with served(limiter, 2, burst=1) as url, monkeypatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        for _ in range(3):
            assert call(url, {}).text == "hello"
        assert slept == []
        # full for a minute: told so each time, and truly
        response = call(url, {}, max_retries=4)
        assert (response.status_code, slept) == (200, [60, 40, 20])
        printed = capsys.readouterr().out.splitlines()
        assert printed == [f"Rate limited. Waiting {n}s..." for n in (60, 40, 20)]
        for _ in range(2):
            call(url, {})
        step = 0.0
        with pytest.raises(Exception, match="Max retries exceeded"):
            call(url, {})
        assert slept[3:] == [60] * 3


@pytest.mark.server
def test_check_remaining_limit(
    program: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[int] = []
    with served(RateLimiter(MemoryStore(clock=Clock())), 5, burst=2) as url:
        for _ in range(8):
            run(
                program("Check Remaining Limit"),
                requests=requests,
                url=url,
                headers={},
                time=SimpleNamespace(sleep=slept.append),
            )
    printed = capsys.readouterr().out.splitlines()
    left = (4, 3, 2, 1, 0, 0)  # of 6 and 5 it says nothing
    assert printed == [f"Warning: Only {n} requests remaining" for n in left]
    assert slept == [1] * 6


# ---- the inside, beside ours


@pytest.fixture
def redis_port() -> Iterator[int]:
    """Of a Redis that ends with the test."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    port = serving.free_port()
    with redis_server(port):
        yield port


@pytest.fixture
async def redis(redis_port: int) -> AsyncIterator[Any]:
    import redis.asyncio

    client = redis.asyncio.Redis(port=redis_port)
    yield client
    await client.aclose()


def same_parameters(printed: Any, ours: Any) -> None:
    """A call that fits the printed function fits ours, and means the same."""

    def parameters(function: Any) -> list[tuple[str, Any]]:
        found = inspect.signature(function).parameters.values()
        return [(one.name, one.default) for one in found]

    assert parameters(ours) == parameters(printed)


@pytest.mark.server
async def test_sliding_window_algorithm(program: Callable[[str], str], redis: Any) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    chance = random.Random(seed)
    clock = Clock()
    ours = RateLimiter(MemoryStore(clock=clock))
    names = run(
        program("Sliding Window Algorithm"),
        redis=redis,
        uuid=uuid,
        time=SimpleNamespace(time=lambda: 1e6 + clock.time()),
    )
    printed = names["check_rate_limit"]
    same_parameters(printed, RateLimiter.check_rate_limit)
    outcomes = set()
    for _ in range(600):
        clock.advance(round(chance.expovariate(1.0), 3) + 0.0005)
        window = chance.choice((7, 60))
        numbers = (f"user:{window}", chance.randint(1, 9), window, chance.choice((0, 0, 2)))
        expected = await printed(None, *numbers)
        assert await ours.check_rate_limit(*numbers) == expected
        outcomes.add(expected)
    assert len(outcomes) > 5


@pytest.mark.server
async def test_connection_limiter(program: Callable[[str], str], redis: Any) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    chance = random.Random(seed)
    ours = ConnectionLimiter(MemoryStore(), max_connections=3)
    printed = run(program("Connection Limiter"), redis=redis)["add_connection"]
    same_parameters(printed, ConnectionLimiter.add_connection)
    answers = set()
    for _ in range(300):
        user, connection = chance.choice("ab"), chance.choice("123456")
        if chance.random() < 0.3:
            await redis.srem(f"ws:connections:{user}", connection)
            await ours.remove_connection(user, connection)
        else:
            expected = await printed(ours, user, connection)
            assert await ours.add_connection(user, connection) is expected
            answers.add(expected)
        count = await redis.scard(f"ws:connections:{user}")
        assert await ours.get_connection_count(user) == count
    assert answers == {True, False}


# ---- the test that the page prints


TEST = """\
from sluicegate import MemoryStore
from sluicegate.app.utils.rate_limiter import RateLimiter
{redis}

{program}
"""


def run_printed_test(folder: Path, program: str, redis: str) -> None:
    path = folder / "test_printed.py"
    path.write_text(TEST.format(redis=redis, program=program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, path],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_test_rate_limiting(program: Callable[[str], str], tmp_path: Path) -> None:
    run_printed_test(tmp_path, program("Test Rate Limiting"), "redis = MemoryStore()")


@pytest.mark.server
def test_test_rate_limiting_over_redis(
    program: Callable[[str], str], tmp_path: Path, redis_port: int
) -> None:
    run_printed_test(
        tmp_path,
        program("Test Rate Limiting"),
        f"import redis.asyncio\nredis = redis.asyncio.Redis(port={redis_port})",
    )


# ---- what is seen


async def call(app: Any, path: str, **scope: Any) -> tuple[int, dict[str, str]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "client": ("198.51.100.7", 1), **scope}, None, send)
    return sent[0]["status"], {n.decode(): v.decode() for n, v in sent[0]["headers"]}


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def limited(limit: int, burst: int = 0) -> RateLimitMiddleware:
    return RateLimitMiddleware(
        inner,
        RateLimiter(MemoryStore(clock=Clock())),
        RateLimitSettings(RATE_LIMIT_PER_MINUTE=limit, RATE_LIMIT_BURST=burst),
    )


FIELDS = ("user_id", "limit_type", "current_count", "limit")


async def test_logs(program: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    app = limited(3, 2)
    user = SimpleNamespace(id="ada", is_authenticated=True)
    for _ in range(6):
        status, _ = await call(app, "/", user=user)
    assert status == 429
    run(
        program("Logs"),
        logger=logging.getLogger("application"),
        user_id="ada",
        current_count=5,
        limit=3,
    )
    ours, printed = caplog.records
    assert ours.getMessage() == printed.getMessage()
    assert ours.levelno == printed.levelno
    for name in FIELDS:
        assert vars(ours)[name] == vars(printed)[name]


async def test_prometheus_metrics(text: str) -> None:
    lines = page.block(page.sections(text)["Prometheus Metrics"])
    printed = [
        sample
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    ]
    assert len(printed) == 3

    def exposed() -> dict[str, float]:
        families = text_string_to_metric_families(generate_latest(REGISTRY).decode())
        return {
            sample.labels["limit_type"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == printed[0].name
        }

    before = exposed()
    assert set(before) == {sample.labels["limit_type"] for sample in printed}
    app = limited(1)
    for _ in range(4):
        await call(app, "/")
    assert exposed() == {**before, "http": before["http"] + 3}


async def test_excluded_paths(text: str) -> None:
    paths = re.findall(r"(/[a-z.]+)- ", body(text, "Excluded Paths"))
    assert len(paths) == 5 and "/redoc" in paths
    app = limited(1)
    await call(app, "/")
    for path in paths:
        assert (await call(app, path))[0] == 200
        assert (await call(app, path))[0] == 200
    assert (await call(app, "/"))[0] == 429


async def test_keys(text: str) -> None:
    stated = re.search(r"^Key: (\S+) or (\S+) for", "\n".join(text.splitlines()), re.M)
    assert stated is not None
    with record() as made:
        await call(limited(1), "/", user=SimpleNamespace(id=7, is_authenticated=True))
        await call(limited(1), "/")
    expected = (
        stated[1].format(user_id=7),
        stated[2].format(ip_address="198.51.100.7"),
    )
    assert tuple(one.key for one in made) == expected


async def test_per_endpoint_limits(text: str) -> None:
    """What the page has not: other numbers for an endpoint, in keys of its own."""
    assert "Currently not supported" in body(text, "Per-Endpoint Limits")
    app = RateLimitMiddleware(
        inner,
        RateLimiter(MemoryStore(clock=Clock())),
        RateLimitSettings(RATE_LIMIT_PER_MINUTE=2, RATE_LIMIT_BURST=0),
        rules={"^/login": 1},
    )
    statuses = [(await call(app, path))[0] for path in ("/login", "/login", "/", "/", "/")]
    assert statuses == [200, 429, 200, 200, 429]
