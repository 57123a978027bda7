"""A limit that was reached and a store that failed are never taken for each other; and what the
failure says names the server and never a password."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import redis

from redis_servers import behaviours, faults
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import LIMITER, PASSWORD, WITHOUT_SCRIPTS, Server, server
from redis_store.watching import MARGIN, Watch, outcomes, tries, watched
from sluicegate import (
    Limiter,
    RateLimitExceeded,
    RedisStore,
    StorageError,
    StoreError,
    WebSocketLimits,
    WebSocketRateLimiter,
    open_store,
)

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.3
SECRET = "hunter2-verily"  # begins with no word that a server says
LONG = SECRET + "x" * 300  # servers cut what they repeat


def forms(secret: str) -> set[str]:
    """How a text may give it away."""
    return {secret, repr(secret)[1:-1], quote(secret, safe=""), secret.encode().hex(), secret[:14]}


def no_secret(text: str, *secrets: str) -> None:
    for secret in secrets or (SECRET,):
        assert not any(form in text for form in forms(secret)), text


def all_of(error: BaseException) -> str:
    """What a log of it shows."""
    return "".join(traceback.format_exception(error)) + repr(error)


@asynccontextmanager
async def failing(store: RedisStore, *secrets: str) -> AsyncIterator[list[str]]:
    """Asks in all ways; yields the texts of what failed, which have no secret."""
    texts: list[str] = []
    async with watched(store) as watch:
        limiter = Limiter("5/minute", store=store, name="secrets", timeout=TIMEOUT)
        for _ in range(2):
            found = await outcomes(
                [limiter.hit("k"), limiter.peek("k"), limiter.reset("k"), store.ping()],
                2 * TIMEOUT + MARGIN,
            )
            assert all(isinstance(one, StoreError) for one in found), found
            texts += [str(one) for one in found]
            for one in found:
                no_secret(all_of(one), *secrets)
        for text in [*watch.lines, repr(store), repr(limiter), repr(store.settings)]:
            no_secret(text, *secrets)
        for router in store._routers.values():
            for connection in router.connections():
                no_secret(f"{connection.where} {connection.down} {connection!r}", *secrets)
        yield texts


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:{}@127.0.0.1:1/3",
        "redis://:{}@127.0.0.1:1",
        "rediss://user:{}@127.0.0.1:1?ssl_cert_reqs=none",
        "redis+sentinel://user:{0}@127.0.0.1:1,127.0.0.1:2/main?sentinel_password={0}",
        "redis+cluster://user:{}@127.0.0.1:1,127.0.0.1:2",
        "unix://user:{}@/nowhere/at/all.sock",
        "valkey://user:{}@no-such-host.invalid",
    ],
)
async def test_urls(redis_kind: str, url: str) -> None:
    async with failing(RedisStore(url.format(SECRET), timeout=TIMEOUT)) as texts:
        places = ("127.0.0.1:1", "127.0.0.1:2", "no-such-host.invalid:6379", "/nowhere/at/all.sock")
        assert all(any(place in text for place in places) for text in texts), set(texts)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:{}@127.0.0.1:port",
        "redis://user:{}@127.0.0.1:1/notadb",
        "redis://user:{}@[::1",
        "redis://user:{}@127.0.0.1:1?password=1",
        "redis://user:{}#@127.0.0.1:1",
        "redis://a:{}@h:1,i:2",
        "redis+sentinel://user:{}@127.0.0.1:1",
        "redis+cluster://user:{}@127.0.0.1:1/4",
        "redis://user:{}/x@127.0.0.1:1",
        "redis://user:x/{}@127.0.0.1:1",
        "redis://user:1/{}@127.0.0.1:1",
        "redis://user:x?{}@127.0.0.1:1",
        "redis://user:x?{}=1@127.0.0.1:1",
        "redis://user:1#{}@127.0.0.1:1",
        "redis://user:{}\u2100@127.0.0.1:1",
        "redis://user:[{}@127.0.0.1:1",
        "mysql://user:{}@127.0.0.1",
        "user:{}@127.0.0.1:1",
    ],
)
def test_urls_that_make_no_sense(redis_kind: str, url: str) -> None:
    with pytest.raises(ValueError) as bad:
        open_store(url.format(SECRET))
    no_secret(all_of(bad.value))


async def test_clients(redis_kind: str) -> None:
    client = redis.Redis(host="127.0.0.1", port=1, username="user", password=SECRET)
    async with failing(RedisStore(client, timeout=TIMEOUT)):
        pass
    client.close()


async def test_logins(guarded_server: Server) -> None:
    wrong = LIMITER._replace(password=SECRET)
    async with failing(RedisStore(guarded_server.url_as(wrong), timeout=TIMEOUT)) as texts:
        assert all(guarded_server.address in text for text in texts)
        assert any("WRONGPASS" in text for text in texts)
    url = guarded_server.url_as(WITHOUT_SCRIPTS)
    store = RedisStore(url, timeout=TIMEOUT)
    async with watched(store):
        limiter = Limiter("5/minute", store=store, name="secrets", timeout=TIMEOUT)
        found = await outcomes([limiter.hit("k")], TIMEOUT + MARGIN)
        assert isinstance(found[0], StoreError) and "NOPERM" in str(found[0])
        no_secret(all_of(found[0]), WITHOUT_SCRIPTS.password, PASSWORD)


@pytest.mark.parametrize("secret", [SECRET, LONG, "s3cret'\"\\ \u00fc-verily"], ids=len)
async def test_a_server_that_repeats_what_it_was_told(redis_kind: str, secret: str) -> None:
    """One that has no AUTH says what it was given: "unknown command 'AUTH', with args ..."."""
    with server(redis_kind, rename_command='AUTH ""') as running:
        url = f"redis://user:{quote(secret, safe='')}@{running.address}"
        async with failing(RedisStore(url, timeout=TIMEOUT), secret) as texts:
            assert all(running.address in text for text in texts)
            assert any("AUTH" in text for text in texts)


@dataclass
class Echo(behaviours.Behaviour):
    """Says in an error all that it was told."""

    word: bytes

    def request(self, data: bytes) -> bytes:
        self.told = data.replace(b"\r\n", b" ")
        return b""

    def more(self) -> bytes:
        told, self.told = getattr(self, "told", b""), b""
        return b"-" + self.word + b" " + told + b"\r\n" if told else b""


@pytest.mark.parametrize("word", [b"ERR", b"WRONGPASS", b"NOAUTH", b""])
async def test_a_hostile_echo(
    redis_server: Server, proxy_to: Callable[..., Proxy], word: bytes
) -> None:
    proxy = proxy_to(redis_server.port)
    proxy.behave(Echo(word))
    async with failing(
        RedisStore(f"redis://user:{SECRET}@127.0.0.1:{proxy.port}", timeout=TIMEOUT)
    ):
        pass


# ---- a limit and a failure


def test_the_types_have_nothing_in_common(redis_kind: str) -> None:
    assert StorageError is StoreError
    assert not issubclass(StoreError, RateLimitExceeded)
    assert not issubclass(RateLimitExceeded, StoreError)
    error = pickle.loads(pickle.dumps(StoreError("a text")))
    assert type(error) is StoreError and str(error) == "a text"


async def test_a_limit_and_a_failure(redis_server: Server) -> None:
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    async with watched(store):
        limiters = {
            policy: Limiter(
                "5/hour", store=store, name="both", timeout=TIMEOUT, on_store_error=policy
            )
            for policy in ("raise", "allow", "deny", "local")
        }
        assert await limiters["raise"].hit("full", 5)
        for limiter in limiters.values():
            with pytest.raises(RateLimitExceeded) as reached:
                await limiter.check("full")
            decision = reached.value.decision
            assert not decision.degraded and decision.quota is not None and decision.limit == 5
        with faults.busy(redis_server):
            with pytest.raises(StoreError, match="BUSY"):
                await limiters["raise"].check("full")
            allowed = await limiters["allow"].check("full")
            assert allowed.allowed and allowed.degraded
            with pytest.raises(RateLimitExceeded) as denied:
                await limiters["deny"].check("full")
            assert denied.value.decision.degraded and denied.value.decision.quota is None
            for _ in range(5):
                here = await limiters["local"].check("full")
                assert here.degraded and here.quota is not None
            with pytest.raises(RateLimitExceeded) as reached:
                await limiters["local"].check("full")
            assert reached.value.decision.degraded and reached.value.decision.limit == 5


@pytest.mark.parametrize("policy", ["raise", "allow", "deny", "local"])
async def test_results_of_web_sockets(redis_server: Server, policy: Any) -> None:
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    violations: list[Any] = []
    async with watched(store) as watch:
        limiter = WebSocketRateLimiter(
            WebSocketLimits(messages_per_minute=3, bytes_per_minute=100),
            store,
            violations.append,
            name="results",
            on_store_error=policy,
        )
        assert await limiter.check_connection("c")
        assert await limiter.register_connection("one", "c")
        for size in (10, 10):
            assert (await limiter.check_message("one", size))["allowed"]
        result = await limiter.check_message("one", 90)
        assert result["reason"] == "bandwidth_exceeded" and "degraded" not in result
        assert (await limiter.check_message("one", 10))["allowed"]
        result = await limiter.check_message("one", 10)
        assert result["reason"] == "rate_limit_exceeded"
        seen = len(violations)
        with faults.busy(redis_server):
            await results_while_it_fails(limiter, policy)
        assert len(violations) - seen == (1 if policy == "local" else 0)
        _, result = await tries(lambda: decided(limiter))
        assert result["reason"] == "rate_limit_exceeded"
        told_by_name(watch)
        await limiter.unregister_connection("one")


async def decided(limiter: WebSocketRateLimiter) -> Any:
    decision, result = await limiter.decide_message("one", 10)
    if decision.degraded:
        raise StoreError("not yet")
    return decision, result


def told_by_name(watch: Watch) -> None:
    assert sum("'results.messages'" in line for line in watch.lines) == 2, watch.lines


async def results_while_it_fails(limiter: WebSocketRateLimiter, policy: str) -> None:
    if policy == "raise":
        with pytest.raises(StoreError):
            await limiter.check_message("one", 10)
        with pytest.raises(StoreError):
            await limiter.check_connection("c")
        return
    found = [await limiter.check_message("one", 10) for _ in range(4)]
    reasons = [one["reason"] for one in found]
    assert (
        reasons
        == {
            "allow": ["ok"] * 4,
            "deny": ["internal_error"] * 4,
            "local": ["ok"] * 3 + ["rate_limit_exceeded"],
        }[policy]
    )
    assert all(one.get("degraded") for one in found if one["allowed"])
    task = asyncio.create_task(limiter.check_connection("other"))
    assert await task is (policy != "deny")
