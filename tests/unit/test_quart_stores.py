"""The stores of sluicegate.quart: its own, those of users, and what it takes for one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from quart import Quart

import sluicegate
from sluicegate.quart import (
    MemoryStore,
    RateLimit,
    RateLimiter,
    RateLimiterStoreABC,
    WebSocketRateLimiter,
    WebSocketRateLimitException,
    rate_limit,
)
from sluicegate.quart.redis_store import RedisStore
from sluicegate.quart.valkey_store import ValkeyStore
from sluicegate.testing import Clock

PEER = SimpleNamespace(remote_addr="192.0.2.1", endpoint="ws")
MINUTE = timedelta(minutes=1)
UTC = timezone.utc


class Arrivals(RateLimiterStoreABC):
    """A store as users write one."""

    def __init__(self) -> None:
        self.times: dict[str, datetime] = {}
        self.calls: list[str] = []

    async def before_serving(self) -> None:
        self.calls.append("before")

    async def after_serving(self) -> None:
        self.calls.append("after")

    async def get(self, key: str, default: datetime) -> datetime:
        return self.times.get(key, default)

    async def set(self, key: str, tat: datetime) -> None:
        self.times[key] = tat

    def pass_time(self, **time: float) -> None:
        """As if that much of it had gone by."""
        for key in self.times:
            self.times[key] -= timedelta(**time)


async def passes(limiter: WebSocketRateLimiter) -> bool:
    try:
        await limiter(PEER)
    except WebSocketRateLimitException:
        return False
    return True


def site(store: Any, *limits: RateLimit) -> Quart:
    app = Quart(__name__)
    RateLimiter(app, store=store)

    @app.route("/")
    @rate_limit(limits=limits)
    async def index() -> str:
        return "here"

    return app


async def get(app: Quart) -> tuple[int, str, str, str, str | None]:
    response = await app.test_client().get("/")
    fields = response.headers
    return (
        response.status_code,
        fields["RateLimit-Limit"],
        fields["RateLimit-Remaining"],
        fields["RateLimit-Reset"],
        fields.get("Retry-After"),
    )


# ---- a user's own


@pytest.mark.parametrize(("times", "seconds"), [(1, 60), (3, 60), (7, 60), (6, 100), (11, 3000)])
async def test_a_users_store_admits_the_limit_and_no_more(times: int, seconds: int) -> None:
    store = Arrivals()
    limiter = WebSocketRateLimiter(times, seconds=seconds, store=store)
    assert limiter.store is store
    assert [await passes(limiter) for _ in range(times + 2)] == [True] * times + [False] * 2
    store.pass_time(seconds=seconds / times)
    assert [await passes(limiter) for _ in range(2)] == [True, False]
    store.pass_time(seconds=2 * seconds)
    assert [await passes(limiter) for _ in range(times + 1)] == [True] * times + [False]


async def test_the_wait_and_the_headers_over_a_users_store() -> None:
    store = Arrivals()
    app = site(store, RateLimit(2, MINUTE))
    assert await get(app) == (200, "2", "1", "30", None)
    assert await get(app) == (200, "2", "0", "60", None)
    assert await get(app) == (429, "2", "0", "60", "30")
    store.pass_time(seconds=10.5)
    assert await get(app) == (429, "2", "0", "50", "20")


async def test_several_limits_over_a_users_store_charge_all_or_none() -> None:
    store = Arrivals()
    app = site(store, RateLimit(1, timedelta(seconds=10)), RateLimit(3, timedelta(hours=1)))
    for _ in range(5):
        await get(app)
    assert len(store.times) == 2
    for _ in range(2):
        store.pass_time(seconds=10)
        assert (await get(app))[0] == 200
    store.pass_time(seconds=10)
    assert await get(app) == (429, "1", "1", "0", "1170")  # 1200 - 30: by the hour


async def test_times_without_a_zone_are_local_ones() -> None:
    class Naive(Arrivals):
        async def get(self, key: str, default: datetime) -> datetime:
            return (await super().get(key, default)).astimezone().replace(tzinfo=None)

    limiter = WebSocketRateLimiter(2, minutes=1, store=Naive())
    assert [await passes(limiter) for _ in range(4)] == [True, True, False, False]


async def test_a_clock_that_was_set_back_does_not_lock_out() -> None:
    store = Arrivals()
    limiter = WebSocketRateLimiter(1, minutes=1, store=store)
    await limiter(PEER)
    store.pass_time(days=-100)
    with pytest.raises(WebSocketRateLimitException) as refused:
        await limiter(PEER)
    assert refused.value.retry_after == 60


async def test_more_than_a_datetime_can_tell_is_still_limited() -> None:
    limiter = WebSocketRateLimiter(5_000_000, seconds=1, store=Arrivals())
    decision = await limiter(PEER)
    assert decision.remaining == 4_999_999
    assert decision.reset_after > 0


async def test_a_users_store_is_told_of_serving() -> None:
    store = Arrivals()
    app = site(store, RateLimit(1, MINUTE))
    async with app.test_app():
        assert store.calls == ["before"]
    assert store.calls == ["before", "after"]


async def test_a_users_store_is_found_by_the_websocket_limiter() -> None:
    store = Arrivals()
    app = site(store, RateLimit(1, MINUTE))
    async with app.app_context():
        limiter = WebSocketRateLimiter(1, minutes=1)
        assert limiter.store is store
        assert [await passes(limiter), await passes(limiter)] == [True, False]
    assert len(store.times) == 1


def test_a_store_that_lacks_something_cannot_be_made() -> None:
    class Half(RateLimiterStoreABC):
        async def get(self, key: str, default: datetime) -> datetime:
            return default

    with pytest.raises(TypeError):
        Half()  # type: ignore[abstract]


# ---- its own


async def test_arrival_times_in_a_store_of_the_package() -> None:
    clock = Clock()
    store: RateLimiterStoreABC = MemoryStore(clock=clock)
    now = datetime.now(UTC)
    assert await store.get("a", now) is now
    await store.set("a", now + timedelta(seconds=100))
    clock.advance(60)
    left = (await store.get("a", now) - datetime.now(UTC)).total_seconds()
    assert 39 < left <= 40
    await store.set("a", datetime.now() + timedelta(seconds=10))  # a naive one is local time
    left = (await store.get("a", now) - datetime.now(UTC)).total_seconds()
    assert 9 < left <= 10
    assert await store.get("b", now) is now
    clock.advance(10)
    assert await store.get("a", now) is now
    await store.set("a", datetime.now(UTC) + timedelta(seconds=10))
    await store.set("a", datetime.now(UTC) - timedelta(seconds=10))
    assert await store.get("a", now) is now


async def test_a_store_that_wraps_one_of_the_package() -> None:
    class Wrapped(Arrivals):
        inner = MemoryStore()

        async def get(self, key: str, default: datetime) -> datetime:
            return await self.inner.get(key, default)

        async def set(self, key: str, tat: datetime) -> None:
            await self.inner.set(key, tat)

    limiter = WebSocketRateLimiter(3, minutes=1, store=Wrapped())
    assert [await passes(limiter) for _ in range(5)] == [True] * 3 + [False] * 2


async def test_a_subclass_with_its_own_get_or_set_is_asked_by_them() -> None:
    class Counting(MemoryStore):
        written = 0

        async def set(self, key: str, tat: datetime) -> None:
            self.written += 1
            await super().set(key, tat)

    store = Counting()
    limiter = WebSocketRateLimiter(3, minutes=1, store=store)
    assert [await passes(limiter) for _ in range(5)] == [True] * 3 + [False] * 2
    assert store.written == 3


async def test_memory_outlives_the_serving() -> None:
    app = site(None, RateLimit(1, MINUTE))
    async with app.test_app():
        assert (await get(app))[0] == 200
    async with app.test_app():
        assert (await get(app))[0] == 429


# ---- on servers: how their arguments are translated (on real ones: tests/adapters)


class Server(sluicegate.MemoryStore):
    """Stands in for the store of the core that speaks to a server."""

    __slots__ = ("address", "closed")

    def __init__(self, address: Any) -> None:
        super().__init__()
        self.address = address
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sluicegate, "RedisStore", Server, raising=False)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("kind", "address"),
    [(RedisStore, "redis://localhost:6379/0"), (ValkeyStore, "valkey://localhost:6379/0")],
)
async def test_a_store_on_a_server_ends_with_the_serving(kind: Any, address: str) -> None:
    store = kind(address)
    assert isinstance(store, RateLimiterStoreABC)
    first = store.native
    assert first.address == address
    app = site(store, RateLimit(1, MINUTE))
    async with app.test_app():
        assert (await get(app))[0] == 200
        assert store.native is first
        async with app.app_context():
            assert WebSocketRateLimiter(1, minutes=1).store is store
    assert first.closed
    async with app.test_app():  # and is there again for the next
        assert (await get(app))[0] == 200  # this one forgets: a real one would not
        assert store.native is not first
        assert store.native.address == address


@pytest.mark.usefixtures("server")
def test_settings_of_the_client_library_are_lent() -> None:
    store = RedisStore("redis://localhost:6379/3", username="ada", socket_timeout=2.5)
    client: Any = store.native
    settings = client.address.connection_pool.connection_kwargs
    assert (settings["username"], settings["socket_timeout"], settings["db"]) == ("ada", 2.5, 3)


@pytest.mark.usefixtures("server")
def test_settings_without_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    monkeypatch.setitem(sys.modules, "valkey.asyncio", None)
    with pytest.raises(ImportError, match="pip install valkey"):
        ValkeyStore("valkey://localhost", socket_timeout=2.5)


# ---- what an import brings


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_quart_the_command_that_adds_it_is_named() -> None:
    said = _run(
        "import sys; sys.modules['quart'] = None\n"
        "import sluicegate\n"
        "try: import sluicegate.quart\n"
        "except ImportError as error: print(error)"
    )
    assert said == 'sluicegate.quart needs Quart: pip install "sluicegate[quart]"'


def test_the_package_imports_no_quart_and_the_door_no_other() -> None:
    assert _run("import sys, sluicegate; print('quart' in sys.modules)") == "False"
    said = _run(
        "import sys, sluicegate.quart.redis_store, sluicegate.quart.valkey_store\n"
        "print(sorted({'fastapi', 'starlette', 'redis', 'valkey', 'sluicegate.fastapi'}"
        " & set(sys.modules)))"
    )
    assert said == "[]"


async def test_twenty_at_once_over_a_store_of_the_package() -> None:
    limiters = [
        WebSocketRateLimiter(1, minutes=1, store="memory://?max_keys=77") for _ in range(20)
    ]
    assert sum(await asyncio.gather(*(passes(one) for one in limiters))) == 1
