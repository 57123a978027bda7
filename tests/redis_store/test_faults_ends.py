"""Checks that are cancelled in every state, and loops, stores and interpreters that end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import sluicegate.sync
from redis_servers import behaviours
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import Server
from redis_store.watching import MARGIN, eventually, outcomes, tries, watched
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, StoreError

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.5


@pytest.fixture
def proxy(redis_server: Server, proxy_to: Callable[..., Proxy]) -> Proxy:
    return proxy_to(redis_server.port, receive_buffer=4096)


def store_at(port: int, **options: Any) -> RedisStore:
    given: dict[str, Any] = {"timeout": TIMEOUT} | options
    return RedisStore(f"redis://127.0.0.1:{port}", **given)


def limiter_over(store: RedisStore, **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "ends", "timeout": TIMEOUT} | options
    return Limiter("1000/day", store=store, **given)


def held(store: RedisStore, what: str) -> int:
    found = [one for router in store._routers.values() for one in router.connections()]
    return sum(getattr(one, what) for one in found)


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in found), found


# ---- cancelled


async def test_cancelled_before_it_is_sent(redis_server: Server) -> None:
    """Waiting for its turn of the loop: it never leaves, and charges nothing."""
    store = store_at(redis_server.port)
    async with watched(store):
        limiter = limiter_over(store)
        assert await limiter.hit("k")
        tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
        kept = asyncio.create_task(limiter.hit("k"))
        loop = asyncio.get_running_loop()
        for task in tasks:  # in the turn in which they ask, before what they asked leaves
            loop.call_soon(task.cancel)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)
        await kept
        seen = await limiter.peek("k")
        print(f"{998 - seen.remaining} of 100 were charged")
        assert seen.remaining == 998


async def test_cancelled_while_it_connects(redis_server: Server, proxy: Proxy) -> None:
    proxy.behave(behaviours.Delay(0.2))
    store = store_at(proxy.port, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(50)]
        await eventually(lambda: held(store, "waiting") == 50, "they do not wait")
        await cancelled(tasks)
        proxy.behave(behaviours.Pass())
        assert (await limiter.hit("k")).remaining == 999


async def test_cancelled_when_it_was_sent(redis_server: Server, proxy: Proxy) -> None:
    """It may be charged; its reply is taken off the stream, and no other's."""
    store = store_at(proxy.port, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        assert await limiter.hit("a", 100) and await limiter.hit("b", 200)
        proxy.behave(behaviours.Delay(0.15))
        tasks = [asyncio.create_task(limiter.hit("a")) for _ in range(20)]
        kept = [asyncio.create_task(limiter.hit("b")) for _ in range(5)]
        await eventually(lambda: held(store, "flying") == 25, "they do not fly")
        await cancelled(tasks)
        found = await asyncio.gather(*kept)
        assert sorted(one.remaining for one in found) == [795, 796, 797, 798, 799]
        proxy.behave(behaviours.Pass())
        assert (await limiter.peek("a")).remaining == 880  # all had been sent


async def test_cancelled_when_it_was_answered(redis_server: Server) -> None:
    """Its future is done, and its task not yet woken: no other loses anything."""
    store = store_at(redis_server.port)
    async with watched(store):
        limiter = limiter_over(store)
        assert await limiter.hit("k")
        for _ in range(50):
            asked = limiter._ask(1, "k", 1)
            task = asyncio.create_task(_await(asked))
            asked.add_done_callback(lambda _, task=task: task.cancel())
            other = await limiter.hit("k")
            assert other
            await asyncio.gather(task, return_exceptions=True)
        assert (await limiter.peek("k")).remaining == 1000 - 1 - 100


async def _await(future: Any) -> Any:
    return await future


async def test_cancelled_behind_backpressure(redis_server: Server, proxy: Proxy) -> None:
    """The socket is full: what waits behind it never leaves."""
    store = store_at(proxy.port, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        assert await limiter.hit("k")
        proxy.behave(behaviours.Unread())
        tasks: list[asyncio.Task[Any]] = []
        for _ in range(200):
            tasks += [asyncio.create_task(limiter.hit("x" * 100 + str(n))) for n in range(500)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if held(store, "waiting"):
                break
        assert held(store, "waiting"), "the socket never fills"
        behind = [asyncio.create_task(limiter.hit("behind")) for _ in range(20)]
        await asyncio.sleep(0.02)
        await cancelled(behind + tasks)
        proxy.behave(behaviours.Pass())
        assert (await limiter.hit("behind")).remaining == 999


async def test_waits_and_slots_that_are_cancelled(redis_server: Server, proxy: Proxy) -> None:
    store = store_at(proxy.port, timeout=2)
    async with watched(store):
        limiter = limiter_over(store, name="waits", timeout=2)
        slots = ConcurrencyLimiter(1, store=store, name="slots", ttl=1)
        assert await limiter.hit("k", 1000)
        slot = await slots.acquire("k")
        assert slot is not None
        proxy.behave(behaviours.Delay(0.05))
        tasks = [asyncio.create_task(limiter.wait("k", timeout=600)) for _ in range(5)]
        tasks += [asyncio.create_task(slots.acquire("k", timeout=60)) for _ in range(5)]
        for pause in (0.0, 0.02, 0.06, 0.1):
            await asyncio.sleep(pause)
            await cancelled([tasks.pop(), tasks.pop(0)])
        await cancelled(tasks)
        proxy.behave(behaviours.Pass())
        await slots.release(slot)
        # what a cancelled one may have got is given back by the next heartbeat, at the latest
        again = await slots.acquire("k", timeout=5)
        assert again is not None
        await slots.release(again)


# ---- stores that are closed


async def test_closed_in_the_midst_of_checks(redis_server: Server, proxy: Proxy) -> None:
    store = store_at(proxy.port, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        assert await limiter.hit("k")
        proxy.behave(behaviours.Stall())
        tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
        await eventually(lambda: held(store, "flying") == 100, "they do not fly")
        await store.aclose()
        found = await outcomes(tasks, MARGIN)
        assert all(isinstance(one, StoreError) and "closed" in str(one) for one in found)
        proxy.behave(behaviours.Pass())
        # used again, it opens a new one
        assert await tries(lambda: limiter.hit("k"))
        await store.aclose()
        await store.aclose()
        async with store:
            assert await limiter.hit("k")
            assert await store.ping()


async def test_closed_while_it_connects(redis_server: Server, proxy: Proxy) -> None:
    proxy.behave(behaviours.Stall())
    store = store_at(proxy.port, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(10)]
        await eventually(lambda: proxy.connections == 1, "it does not connect")
        await store.aclose()
        found = await outcomes(tasks, MARGIN)
        assert all(isinstance(one, StoreError) for one in found)


async def test_all_tasks_are_cancelled_and_the_loop_goes_on(redis_server: Server) -> None:
    """Also the one that tries whether the server is back."""
    store = store_at(redis_server.port)
    async with watched(store):
        limiter = limiter_over(store)
        assert await limiter.hit("k")
        redis_server.kill()
        for _ in range(2):  # the first hears that the connection has ended
            found = await outcomes([limiter.hit("k")], TIMEOUT + MARGIN)
            assert isinstance(found[0], StoreError)
        own = [task for task in asyncio.all_tasks() if "_opening" in repr(task.get_coro())]
        assert len(own) == 1
        own[0].cancel()
        redis_server.restart()
        assert await tries(lambda: limiter.hit("k"), 5)


# ---- loops that end


def test_loops_that_are_closed_one_after_the_other(redis_server: Server) -> None:
    """A connection is of one loop, and gone with it."""
    store = store_at(redis_server.port)
    limiter = limiter_over(store)

    async def several() -> int:
        found = await asyncio.gather(*(limiter.hit("k") for _ in range(10)))
        return sum(bool(one) for one in found)

    for _ in range(20):
        assert asyncio.run(several()) == 10
    with redis_server.client() as client:
        assert client.info("clients")["connected_clients"] <= 3


def test_loops_in_threads(redis_server: Server) -> None:
    store = store_at(redis_server.port, timeout=10)
    limiter = limiter_over(store, timeout=10)
    found: list[int] = []

    async def several() -> None:
        for _ in range(5):
            got = await asyncio.gather(*(limiter.hit("k") for _ in range(10)))
            found.append(sum(bool(one) for one in got))

    threads = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert sum(found) == 200
    assert sluicegate.sync.Limiter("1000/day", store=store, name="ends").peek("k").remaining == 800
    asyncio.run(store.aclose())


PROGRAMS = {
    "a connection is open": """
        async def main():
            assert await limiter.hit("k")
        asyncio.run(main())
    """,
    "checks in flight": """
        async def main():
            assert await limiter.hit("k")
            global tasks
            tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
            await asyncio.sleep(0)
        asyncio.run(main())
        assert all(task.done() for task in tasks)
    """,
    "checks that wait": """
        async def main():
            global tasks
            tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
        asyncio.run(main())
    """,
    "while it connects": """
        async def main():
            global tasks
            tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(10)]
            await asyncio.sleep(0.0005)
        asyncio.run(main())
    """,
    "while the server is away": """
        away = Limiter("5/minute", store="redis://127.0.0.1:1", name="k", on_store_error="allow")
        async def main():
            assert (await away.hit("k")).degraded
            assert (await away.hit("k")).degraded
        asyncio.run(main())
    """,
    "slots are held": """
        slots = ConcurrencyLimiter(5, store=store, name="slots")
        async def main():
            global slot
            slot = await slots.acquire("k")
            assert await slots.count("k") == 1
        asyncio.run(main())
        async def after():
            assert await slots.count("k") == 0
        asyncio.run(after())
        slot.release_nowait()
    """,
    "from threads": """
        import sluicegate.sync
        other = sluicegate.sync.Limiter("5/minute", store=store, name="sync")
        assert other.hit("k")
    """,
    "it stays a global": """
        async def main():
            global kept
            kept = limiter.hit("k")
            await kept
            kept = limiter, store, store._routers
        asyncio.run(main())
    """,
    "an exception": """
        async def main():
            await limiter.hit("k")
            raise KeyError("of the program")
        try:
            asyncio.run(main())
        except KeyError:
            pass
    """,
    "the loop is closed without more": """
        loop = asyncio.new_event_loop()
        async def main():
            assert await limiter.hit("k")
            await store.aclose()
        loop.run_until_complete(main())
        loop.close()
        asyncio.run(limiter.hit("k"))
    """,
    "uvloop": """
        import uvloop
        async def main():
            assert await limiter.hit("k")
            global tasks
            tasks = [asyncio.create_task(limiter.hit("k")) for _ in range(100)]
            await asyncio.sleep(0)
        uvloop.run(main())
    """,
}

BEGIN = """
import asyncio, sys
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore
store = RedisStore(sys.argv[1])
limiter = Limiter("1000/day", store=store, name="ends", timeout=10)
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_interpreter_that_ends(redis_server: Server, name: str) -> None:
    """No warning, no traceback, no hang, exit code 0."""
    program = BEGIN + textwrap.dedent(PROGRAMS[name])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, redis_server.url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = [line for line in done.stderr.splitlines() if "its store does not decide" not in line]
    assert (done.returncode, lines) == (0, []), done.stderr


def test_a_loop_that_is_closed_and_not_shut_down(redis_server: Server) -> None:
    """asyncio warns of the transport, as it does of any; the store goes on in the next loop."""
    program = BEGIN + textwrap.dedent("""
        for _ in range(3):
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(limiter.hit("k"))
            waits = limiter.hit("k")
            task = loop.create_task(asyncio.wait_for(waits, 5))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            del task, waits
        print(asyncio.run(limiter.hit("k")).allowed)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, redis_server.url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
