"""An outage costs one timeout, not one a message; and its end is soon noticed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import pytest

import sluicegate.sync
from redis_servers import faults
from redis_servers.kinds import KINDS
from redis_servers.server import Server
from redis_servers.waiting import until
from redis_store.watching import MARGIN, Watch, outcomes, tries, watched
from sluicegate import Limiter, RedisStore, StoreError, WebSocketLimits, WebSocketRateLimiter

pytestmark = [
    pytest.mark.server,
    # what the server itself does in a fault, with both kinds: test_faults_server.py
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.4
MESSAGES = 10_000
QUOTA = 1_500
Policy = Literal["raise", "allow", "deny", "local"]
POLICIES: tuple[Policy, ...] = ("raise", "allow", "deny", "local")


@contextmanager
def writes_paused(running: Server) -> Iterator[None]:
    """It still answers what only reads."""
    with faults.paused(running, 60, writes=True):
        yield


OUTAGES: dict[str, Callable[[Server], AbstractContextManager[None]]] = {
    "killed": faults.killed,
    "stopped": faults.stopped,
    "writes paused": writes_paused,
}


class Times:
    """Messages one after the other, and how long each took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.results: list[Any] = []

    async def send(self, message: Callable[[], Any], count: int) -> None:
        for number in range(count):
            begin = time.monotonic()
            try:
                result = await message()
            except StoreError as error:
                result = error
            self.seconds.append(time.monotonic() - begin)
            self.results.append(result)
            if number % 100 == 0:
                await asyncio.sleep(0)  # what is in memory never lets the loop run

    @property
    def waited(self) -> int:
        """How many were held up by the server: for (nearly) a timeout."""
        return sum(one > 0.9 * TIMEOUT for one in self.seconds)

    def report(self, what: str, admitted: int) -> None:
        print(
            f"{what}: {admitted} of {len(self.seconds)} admitted in {sum(self.seconds):.2f} s; "
            f"{self.waited} waited for {TIMEOUT} s"
        )


def told(watch: Watch, name: str) -> list[str]:
    return [line for line in watch.lines if repr(name) in line]


async def noticed(check: Callable[[], Any]) -> None:
    """The end of an outage, within a second of it."""
    begin = time.monotonic()
    await tries(check)
    assert time.monotonic() - begin < 1 + MARGIN


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("outage", ["killed", "stopped"])
async def test_ten_thousand_messages(redis_server: Server, outage: str, policy: Policy) -> None:
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    times = Times()
    async with watched(store) as watch:
        limiter = Limiter(
            f"{QUOTA}/day", store=store, name="messages", on_store_error=policy, timeout=TIMEOUT
        )
        assert not (await limiter.hit("other")).degraded
        with OUTAGES[outage](redis_server):
            await times.send(lambda: limiter.hit("k"), MESSAGES)
        failed = [one for one in times.results if isinstance(one, StoreError)]
        decided = [one for one in times.results if not isinstance(one, StoreError)]
        admitted = sum(one.allowed for one in decided)
        times.report(f"{outage}, {policy}", admitted)
        assert len(failed) == (MESSAGES if policy == "raise" else 0)
        assert admitted == {"raise": 0, "allow": MESSAGES, "deny": 0, "local": QUOTA}[policy]
        assert all(one.degraded for one in decided)
        assert times.waited <= 2
        await noticed(lambda: limiter.hit("k"))
        after = await limiter.hit("k")
        # what the server has counted: the one that it got before it stood was done when it woke
        assert not after.degraded
        assert after.remaining in ({QUOTA - 2} if outage == "killed" else {QUOTA - 2, QUOTA - 3})
        assert len(told(watch, "messages")) == len(watch.lines) == 2, watch.lines


@pytest.mark.parametrize("outage", OUTAGES)
async def test_messages_that_go_on_for_seconds(redis_server: Server, outage: str) -> None:
    """Those that try whether the server is back are few, whatever it still answers."""
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    times = Times()
    async with watched(store) as watch:
        limiter = Limiter(
            "100000/day", store=store, name="going", on_store_error="local", timeout=TIMEOUT
        )
        assert not (await limiter.hit("k")).degraded
        with OUTAGES[outage](redis_server):
            end = time.monotonic() + 2
            while time.monotonic() < end:
                await times.send(lambda: limiter.hit("k"), 10)
                await asyncio.sleep(0.01)
        times.report(outage, sum(bool(one) for one in times.results))
        assert all(one.degraded for one in times.results)
        assert times.waited <= 2
        await noticed(lambda: limiter.hit("k"))
        assert len(watch.lines) == 2, watch.lines


async def test_messages_that_come_at_once(redis_server: Server) -> None:
    """All of them are over after one timeout."""
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = Limiter(
            f"{QUOTA}/day", store=store, name="crowd", on_store_error="local", timeout=TIMEOUT
        )
        assert not (await limiter.hit("other")).degraded
        with faults.stopped(redis_server):
            begin = time.monotonic()
            found = await outcomes(
                [limiter.hit("k") for _ in range(MESSAGES)], TIMEOUT + 2 * MARGIN
            )
            print(f"{MESSAGES} at once: {time.monotonic() - begin:.2f} s")
            assert sum(one.allowed for one in found) == QUOTA
        await noticed(lambda: limiter.hit("k"))
        assert len(watch.lines) == 2, watch.lines


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("outage", ["killed", "stopped"])
async def test_messages_of_web_sockets(redis_server: Server, outage: str, policy: Policy) -> None:
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    times = Times()
    async with watched(store) as watch:
        limiter = WebSocketRateLimiter(
            WebSocketLimits(messages_per_minute=QUOTA, bytes_per_minute=10**9),
            store,
            name="ws",
            on_store_error=policy,
        )
        assert await limiter.check_connection("client")
        assert await limiter.register_connection("c1", "client")
        assert (await limiter.check_message("c1", 10))["allowed"]
        with OUTAGES[outage](redis_server):
            await times.send(lambda: limiter.check_message("c1", 10), MESSAGES)
        results = [one for one in times.results if not isinstance(one, StoreError)]
        admitted = sum(one["allowed"] for one in results)
        times.report(f"web sockets, {outage}, {policy}", admitted)
        assert admitted == {"raise": 0, "allow": MESSAGES, "deny": 0, "local": QUOTA}[policy]
        assert len(results) == (0 if policy == "raise" else MESSAGES)
        reasons = {one["reason"] for one in results if not one["allowed"]}
        refused = {"deny": {"internal_error"}, "local": {"rate_limit_exceeded"}}
        assert reasons == refused.get(policy, set())
        assert all(one.get("degraded") for one in results if one["allowed"])
        remaining = [one["remaining"] for one in results if one["allowed"]]
        assert remaining == {
            "allow": [None] * MESSAGES,  # nobody counts
            "local": [*range(QUOTA - 1, -1, -1)],
        }.get(policy, [])
        assert times.waited <= 2

        async def again() -> Any:
            decision, _ = await limiter.decide_message("c1", 10)
            return decision

        await noticed(again)
        result = await limiter.check_message("c1", 10)
        assert result["allowed"] and "degraded" not in result
        assert len(told(watch, "ws.messages")) == 2, watch.lines
        await limiter.unregister_connection("c1")


def test_messages_of_threads(redis_server: Server) -> None:
    """Threads ask over one connection: what they wait is counted once for each, at most."""
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    limiter = sluicegate.sync.Limiter(
        f"{QUOTA}/day", store=store, name="threads", on_store_error="local", timeout=TIMEOUT
    )
    assert not limiter.hit("other").degraded
    took: list[float] = []
    admitted: list[bool] = []

    def send() -> None:
        for _ in range(600):
            begin = time.monotonic()
            decision = limiter.hit("k")
            took.append(time.monotonic() - begin)
            admitted.append(decision.allowed)
            assert decision.degraded

    with faults.stopped(redis_server):
        threads = [threading.Thread(target=send) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(30)
    assert (len(admitted), sum(admitted)) == (2400, QUOTA)
    assert sum(one > 0.9 * TIMEOUT for one in took) <= 8
    until(lambda: not limiter.peek("k").degraded, "the end of the outage is not noticed")
    asyncio.run(store.aclose())


@pytest.mark.parametrize("policy", POLICIES)
async def test_connections_of_web_sockets(redis_server: Server, policy: Policy) -> None:
    """Places that were not had of the store are not given back to it, and none is left there."""
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = WebSocketRateLimiter(
            WebSocketLimits(max_concurrent_connections=2, connections_per_minute=100),
            store,
            name="ws",
            on_store_error=policy,
        )

        async def connect(name: str) -> Any:
            try:
                return await limiter.check_connection("client") and (
                    await limiter.register_connection(name, "client")
                )
            except StoreError:
                return "failed"

        async def connected(*names: str) -> list[Any]:
            return [await asyncio.create_task(connect(name)) for name in names]

        assert await connected("before") == [True]
        with faults.stopped(redis_server):
            begin = time.monotonic()
            found = await connected("a", "b", "c", "d")
            assert (
                found
                == {
                    "raise": ["failed"] * 4,
                    "allow": [True] * 4,
                    "deny": [False] * 4,
                    "local": [True, True, False, False],  # the whole limit, here
                }[policy]
            )
            assert time.monotonic() - begin < 2 * TIMEOUT + MARGIN
        await tries(store.ping)
        for name in ("before", "a", "b", "c", "d"):
            await limiter.unregister_connection(name)
        # what the server did when it woke is put right by a heartbeat, and by closing
        await store.aclose()
        assert await connected("e", "f", "g") == [True, True, False]
        assert await limiter.count("client") == 2
        for name in ("e", "f"):
            await limiter.unregister_connection(name)
        assert await limiter.count("client") == 0
        assert len([line for line in watch.lines if "limiter 'ws' " in line]) == 2, watch.lines
