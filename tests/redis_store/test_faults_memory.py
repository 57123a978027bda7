"""Faults without end take no more memory, and leave no object behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from redis_servers import behaviours
from redis_servers.behaviours import Behaviour
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import Server
from redis_store.watching import MARGIN, outcomes, rss_bytes, tries, watched
from sluicegate import Limiter, RedisStore, StoreError

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.05
MIB = 1 << 20
# What the tests keep themselves, and weak references of abstract classes to what they have seen.
OTHERS = {"LogRecord", "ReferenceType", "builtin_function_or_method"}


@pytest.fixture
def proxy(redis_server: Server, proxy_to: Callable[..., Proxy]) -> Proxy:
    return proxy_to(redis_server.port, receive_buffer=4096)


def limiter_over(store: RedisStore, **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "memory", "timeout": TIMEOUT} | options
    return Limiter("1000000/day", store=store, **given)


async def settled() -> Counter[str]:
    """The objects that there are, by type, once what is over has gone."""
    loop: Any = asyncio.get_running_loop()
    # asyncio keeps cancelled timers until they would be due, or are many
    loop._scheduled = sorted(one for one in loop._scheduled if not one.cancelled())
    loop._timer_cancelled_count = 0
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects())


async def stays_flat(round_: Callable[[], Awaitable[None]], rounds: int) -> None:
    """Runs it, first to warm up, then `rounds` times; what grows with each is found."""
    for _ in range(2):
        await round_()
    before, bytes_before = await settled(), rss_bytes()
    for _ in range(rounds):
        await round_()
    after, bytes_after = await settled(), rss_bytes()
    grown = {
        name: count
        for name, count in (after - before).items()
        if count >= rounds and name not in OTHERS
    }
    print(f"{rounds} rounds: {(bytes_after - bytes_before) / MIB:+.1f} MiB, more objects: {grown}")
    assert grown == {}
    assert bytes_after - bytes_before < 16 * MIB


FAULTS: dict[str, Callable[[], Behaviour]] = {
    "closed": lambda: behaviours.Cut(7),
    "refused": lambda: behaviours.Refuse(True),
    "junk": lambda: behaviours.Replace(b"junk\r\n"),
    "stalled": behaviours.Stall,
    "replies lost": behaviours.LoseReplies,
    "endless text": behaviours.endless_text,
    "nested bomb": behaviours.nested_bomb,
    "unread": behaviours.Unread,
}


@pytest.mark.parametrize(
    ("name", "policy"),
    [*((name, "local") for name in FAULTS), ("closed", "raise"), ("stalled", "raise")],
)
async def test_a_fault_again_and_again(
    redis_server: Server, proxy: Proxy, name: str, policy: Any
) -> None:
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=0.5)
    async with watched(store):
        limiter = limiter_over(store, on_store_error=policy)

        async def round_() -> None:
            proxy.behave(FAULTS[name]())
            found = await outcomes([limiter.hit("k") for _ in range(50)], TIMEOUT + MARGIN)
            assert all(isinstance(one, StoreError) or one.degraded for one in found)
            proxy.behave(behaviours.Pass())
            proxy.close_connections()
            await tries(lambda: limiter.peek("k"))  # each round ends with a connection

        await tries(lambda: limiter.peek("k"))
        await stays_flat(round_, 5)


async def test_a_socket_that_stays_full(redis_server: Server, proxy: Proxy) -> None:
    """Nobody reads what is asked, and more and more is: it waits for its timeout, no longer."""
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=0.2, on_store_error="allow")
        assert not (await limiter.hit("k")).degraded
        proxy.behave(behaviours.Unread())
        most = 0
        bytes_before = rss_bytes()
        end = time.monotonic() + 2
        tasks: set[asyncio.Task[Any]] = set()
        asked = 0
        while time.monotonic() < end:
            for number in range(200):
                task = asyncio.create_task(_hit(limiter, f"{'x' * 100}{number}"))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                asked += 1
            most = max(most, len(tasks))
            await asyncio.sleep(0.005)
        assert not tasks or (await asyncio.wait(tasks, timeout=0.2 + MARGIN))[1] == set()
        grown = (rss_bytes() - bytes_before) / MIB
        print(f"{asked} asked, at most {most} at a time, {grown:+.1f} MiB")
        assert grown < 48
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        await tries(lambda: limiter.peek("k"))


async def _hit(limiter: Limiter, key: str) -> None:
    assert (await limiter.hit(key)).allowed


async def test_outages_again_and_again(redis_server: Server, proxy: Proxy) -> None:
    """Stores that are opened and closed while their server is away."""
    proxy.behave(behaviours.Refuse())

    async def round_() -> None:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=0.5)
        limiter = limiter_over(store, on_store_error="deny")
        for _ in range(3):
            assert (await limiter.hit("k")).degraded
        await store.aclose()

    async with watched():
        await stays_flat(round_, 20)


async def test_cancelled_checks_again_and_again(redis_server: Server, proxy: Proxy) -> None:
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)

        async def round_() -> None:
            tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
            await asyncio.sleep(0.0005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await limiter.peek("k")

        await stays_flat(round_, 30)
