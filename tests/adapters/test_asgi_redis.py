"""The ASGI door over real servers of Redis and Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio

import serving
import sluicegate
from calling import call, hello
from redis_store import servers
from sluicegate import StoreError
from sluicegate.asgi import (
    RateLimitMiddleware,
    RedisBackend,
    Rule,
    SlidingRedisBackend,
    StoreBackend,
)

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture(params=servers.KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with servers.server(request.param) as client:
        yield client


def path_of(client: redis.Redis) -> str:
    return str(client.connection_pool.connection_kwargs["path"])


async def who(scope: Any) -> tuple[str, str]:
    return dict(scope["headers"])[b"user"].decode(), "default"


async def statuses(app: Any, path: str, count: int, user: str = "ada") -> list[int]:
    """Of that many requests at once, in order of number."""
    headers = [(b"user", user.encode())]
    answers = await asyncio.gather(*(call(app, path, headers=headers) for _ in range(count)))
    return sorted(answer.status for answer in answers)


MADE: dict[str, Callable[[str], Any]] = {
    "a URL": lambda path: f"unix://{path}",
    "a store": lambda path: sluicegate.RedisStore(f"unix://{path}"),
    "a client": lambda path: redis.Redis(unix_socket_path=path),
    "an asynchronous client": lambda path: redis.asyncio.Redis(unix_socket_path=path),
    "a backend of a URL": lambda path: RedisBackend(f"unix://{path}"),
    "a backend of a client": lambda path: RedisBackend(redis.asyncio.Redis(unix_socket_path=path)),
    "a sliding backend": lambda path: SlidingRedisBackend(f"unix://{path}"),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
async def test_every_kind_of_backend(client: redis.Redis, make: Callable[[str], Any]) -> None:
    app = RateLimitMiddleware(
        hello,
        who,
        make(path_of(client)),
        {
            "/one": [Rule(minute=1)],
            "/units": [Rule(minute=3, day=5)],
            "/zone": [Rule(hour=2, zone="z")],
            "/block": [Rule(hour=1, block_time=20)],
        },
    )
    backend = app.backend
    assert isinstance(backend, StoreBackend)
    async with backend.store:
        assert await statuses(app, "/one", 20) == [200] + [429] * 19
        assert await statuses(app, "/one", 2, "eve") == [200, 429]
        refused = await call(app, "/one", headers=[(b"user", b"ada")])
        assert refused.retry_after is not None
        assert 59 <= refused.retry_after <= 60
        assert await statuses(app, "/units", 9) == [200] * 3 + [429] * 6
        assert (await statuses(app, "/zone/a", 1), await statuses(app, "/zone/b", 2)) == (
            [200],
            [200, 429],
        )
        assert await statuses(app, "/block", 2, "bob") == [200, 429]
        for path in ("/block", "/one"):
            refused = await call(app, path, headers=[(b"user", b"bob")])
            assert (refused.status, refused.retry_after) in ((429, 20), (429, 19))
    keys = list(client.scan_iter())
    assert keys
    assert all(client.ttl(key) > 0 for key in keys)
    assert any(b"ada" in key for key in keys)


async def test_two_processes_share_the_limits(client: redis.Redis) -> None:
    env = {"TEST_STORE": f"unix://{path_of(client)}"}
    tests = str(HERE.parent)
    with (
        serving.uvicorn("adapters.asgi_shared_app:app", env=env, app_dir=tests) as first,
        serving.uvicorn("adapters.asgi_shared_app:app", env=env, app_dir=tests) as second,
    ):
        async with httpx.AsyncClient(timeout=20) as http:

            async def get(server: serving.Server, path: str) -> httpx.Response:
                return await http.get(server.http + path, headers={"user": "ada"})

            answers = await asyncio.gather(*(get(server, "/x") for server in (first, second) * 20))
            assert [answer.status_code for answer in answers].count(200) == 10
            assert [(await get(first, "/block")).status_code for _ in range(2)] == [200, 429]
            refused = await get(second, "/elsewhere")
            assert (refused.status_code, refused.headers["retry-after"]) in (
                (429, "30"),
                (429, "29"),
            )


@pytest.mark.parametrize("policy", ["raise", "allow", "deny", "local"])
async def test_a_server_that_has_gone(policy: Any) -> None:
    with servers.server(servers.KINDS[0]) as client:
        path = path_of(client)
        backend = StoreBackend(f"unix://{path}", on_store_error=policy)
        rules = {"/": [Rule(minute=1, block_time=9)]}
        app = RateLimitMiddleware(hello, who, backend, rules)
        assert await statuses(app, "/", 1) == [200]
    try:
        if policy == "raise":
            with pytest.raises(StoreError):
                await statuses(app, "/", 1)
        else:
            expected = {"allow": [200] * 3, "deny": [429] * 3, "local": [200, 429, 429]}
            assert await statuses(app, "/", 3) == expected[policy]
    finally:
        await backend.store.aclose()
