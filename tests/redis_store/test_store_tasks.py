"""Who asks: tasks, several loops and threads, forked children, another loop's implementation."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import pytest
import uvloop

from redis_servers.server import Server
from redis_store.public import fresh, left
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, sync

# ---- tasks


async def test_charges_when_awaited_never_when_called(store: RedisStore) -> None:
    limiter = Limiter("3/hour", store=store, name=fresh())
    for make in (limiter.hit, limiter.bind("a").hit):
        call = make("a") if make == limiter.hit else make()  # type: ignore[operator,call-arg]
        assert await left(limiter) == 3
        call.close()
    later = limiter.hit("a")
    assert await limiter.hit("a", 3)
    assert not await later
    assert await left(limiter, "b") == 3


async def test_what_it_returns_works_wherever_a_coroutine_does(store: RedisStore) -> None:
    limiter = Limiter("100/hour using fixed-window", store=store, name=fresh(), timeout=5)
    handle = limiter.bind("a")
    assert await asyncio.create_task(limiter.hit("a"))
    assert all(await asyncio.gather(limiter.hit("a"), handle.hit(), limiter.hit("a", 2)))
    assert await asyncio.wait_for(limiter.hit("a"), 10)
    assert await asyncio.shield(limiter.hit("a"))
    assert await asyncio.ensure_future(handle.hit())
    done, _ = await asyncio.wait([asyncio.create_task(limiter.hit("a")) for _ in range(3)])
    assert len(done) == 3
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(limiter.hit("a")) for _ in range(5)]
        assert all(task.result() for task in tasks)
    else:
        assert all(await asyncio.gather(*(limiter.hit("a") for _ in range(5))))
    assert await left(limiter) == 100 - 16


async def test_a_cancelled_one_leaves_the_stream_intact(store: RedisStore) -> None:
    limiter = Limiter("1000/hour using fixed-window", store=store, name=fresh(), timeout=5)
    for turns in range(6):  # before it is sent, on its way, and answered
        tasks = [asyncio.create_task(limiter.hit(f"user:{number}")) for number in range(40)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(one.remaining == 999 - turns for one in results[1::2])  # type: ignore[union-attr]
        assert all(await asyncio.gather(*(limiter.peek(f"user:{n}") for n in range(40))))


# ---- loops and threads


def test_any_number_of_loops_one_after_the_other(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)  # made where no loop runs
    limiter = Limiter("4/hour", store=store, name=fresh(), timeout=5)
    assert [bool(asyncio.run(limiter.hit("a"))) for _ in range(5)] == [True] * 4 + [False]

    async def tidy() -> None:
        assert not await limiter.hit("a")
        await store.aclose()
        assert not await limiter.hit("a")  # used again, it opens another connection
        await store.aclose()

    asyncio.run(tidy())
    loop = asyncio.new_event_loop()  # the same by hand
    assert not loop.run_until_complete(limiter.hit("a"))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    gc.collect()
    assert not asyncio.run(limiter.hit("a"))


def connections(server: Server) -> int:
    with server.client() as client:
        return len(client.client_list(_type="normal")) - 1


def test_several_loops_in_several_threads(single: str, redis_server: Server) -> None:
    store = RedisStore(single, timeout=5)
    limiter = Limiter("900/day using fixed-window", store=store, name=fresh(), timeout=5)
    counts: list[int] = []
    before = connections(redis_server)  # of threads of other tests
    meet = threading.Barrier(6, timeout=30)

    def run() -> None:
        async def main() -> int:
            assert await limiter.peek("a")
            meet.wait()
            made = await asyncio.gather(*(limiter.hit("a") for _ in range(200)))
            meet.wait()
            if threading.current_thread() is threads[0]:
                assert connections(redis_server) == before + 6  # one a loop
            meet.wait()
            return sum(map(bool, made))

        counts.append(asyncio.run(main()))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 6
    assert sum(counts) == 900
    assert connections(redis_server) == before  # gone with their loops


async def test_aclose_reaches_the_loops_of_other_threads(single: str, redis_server: Server) -> None:
    store = RedisStore(single, timeout=5)
    limiter = Limiter("9/hour", store=store, name=fresh(), timeout=5)
    ready, over = threading.Event(), threading.Event()
    before = connections(redis_server)

    def run() -> None:
        async def main() -> None:
            assert await limiter.hit("a")
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, over.wait, 30)

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert await limiter.hit("a")
        assert await asyncio.to_thread(ready.wait, 30)
        assert connections(redis_server) == before + 2
        await store.aclose()
        for _ in range(500):
            if connections(redis_server) == before:
                break
            await asyncio.sleep(0.01)
        assert connections(redis_server) == before
    finally:
        over.set()
        await asyncio.to_thread(thread.join, 30)


def test_sync_from_many_threads_is_exact(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    limiter = sync.Limiter("100/day", store=store, name=fresh(), timeout=5)
    handle = limiter.bind("a")
    counts: list[int] = []

    def run() -> None:
        hits = [handle.hit() if number % 2 else limiter.hit("a") for number in range(20)]
        counts.append(sum(map(bool, hits)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 100
    assert [one.allowed for one in limiter.hit_many([("b", 60), ("b", 60)])] == [True, False]
    assert not limiter.peek("a")
    assert handle.peek().remaining == 0
    with pytest.raises(sync.RateLimitExceeded):
        limiter.check("a")
    limiter.reset("a")
    limiter.ban("a", 60)
    assert not limiter.hit("a")
    limiter.unban("a")
    limiter.penalize("a", 30)
    limiter.reward("a", 10)
    assert limiter.peek("a", 0).remaining == 80
    limiter.update("200/day")
    assert limiter.hit("a", quotas="300/day").limit == 300
    # the same state as that of the asynchronous one
    other = Limiter("200/day", store=store, name=limiter.name, timeout=5)
    assert asyncio.run(left(other)) == limiter.peek("a", 0).remaining


async def test_sync_inside_a_loop_beside_it(store: RedisStore) -> None:
    """It blocks the loop that calls it, as anything of a thread does, and never hangs."""
    limiter = sync.Limiter("9/hour", store=store, name=fresh(), timeout=5)
    with pytest.raises(RuntimeError, match="would block this event loop"):
        limiter.hit("a")
    with pytest.raises(RuntimeError, match="would block this event loop"):
        limiter.peek("a")
    places = sync.ConcurrencyLimiter(9, store=store, name=fresh())
    with pytest.raises(RuntimeError, match="would block this event loop"):
        places.acquire("a")
    assert await asyncio.to_thread(limiter.hit, "a")


# ---- fork


def in_child(work: Callable[[], object]) -> None:
    """Does it in a forked child; AssertionError where it failed there or took too long."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (2,)).start()
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@FORKS
def test_a_forked_child_and_its_parent_both_go_on(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    limiter = sync.Limiter("1000000/day using fixed-window", store=store, name=fresh(), timeout=5)
    places = sync.ConcurrencyLimiter(9, store=store, name=fresh())
    assert limiter.hit("a")
    slot = places.acquire("a")
    assert slot is not None

    def work() -> None:
        assert all(limiter.hit("a") for _ in range(50))
        assert places.count("a") == 1
        mine = places.acquire("a")
        assert mine is not None
        assert places.count("a") == 2
        places.release(mine)

    # The parent asks on while the child lives: no byte of one is in the other's connection.
    going = threading.Event()
    hits: list[bool] = []

    def ask() -> None:
        while not going.is_set():
            hits.append(bool(limiter.hit("a")))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(3):
            in_child(work)
    finally:
        going.set()
        thread.join(30)
    assert all(hits)
    assert limiter.peek("a", 0).remaining == 1000000 - 1 - 150 - len(hits)
    assert places.count("a") == 1
    places.release(slot)
    assert places.count("a") == 0


@FORKS
async def test_forked_inside_a_running_loop(store: RedisStore, anywhere: str) -> None:
    limiter = Limiter("100/day using fixed-window", store=store, name=fresh(), timeout=5)
    flying = [asyncio.create_task(limiter.hit("a")) for _ in range(10)]
    for _ in range(3):
        await asyncio.sleep(0)

    def work() -> None:
        # As a server's worker does: the parent's loop is none of the child's.
        asyncio.events._set_running_loop(None)

        async def main() -> None:
            assert all(await asyncio.gather(*(limiter.hit("a") for _ in range(20))))
            await store.aclose()

        asyncio.run(main())

    in_child(work)
    assert all(await asyncio.gather(*flying))  # what was on its way comes to the parent
    assert all(await asyncio.gather(*(limiter.hit("a") for _ in range(10))))
    assert await left(limiter) == 60
    assert await store.ping()


@FORKS
async def test_a_child_does_not_keep_its_parents_connection_open(
    single: str, redis_server: Server
) -> None:
    before = connections(redis_server)
    store = RedisStore(single, timeout=5)
    limiter = Limiter("9/hour", store=store, name=fresh(), timeout=5)
    assert await limiter.hit("a")
    assert connections(redis_server) == before + 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # till its parent lets it go, or is gone
        os._exit(0)
    try:
        os.close(read)
        assert await limiter.hit("a")
        await store.aclose()
        for _ in range(500):
            if connections(redis_server) == before:
                break
            await asyncio.sleep(0.01)
        assert connections(redis_server) == before
    finally:
        os.close(write)
        await asyncio.to_thread(os.waitpid, child, 0)


# ---- another loop


def test_on_uvloop(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    limiter = Limiter("100/day; 500/day using sliding-log", store=store, name=fresh(), timeout=5)
    places = ConcurrencyLimiter(3, store=store, name=fresh())

    async def main() -> None:
        made = await asyncio.gather(*(limiter.hit("a") for _ in range(150)))
        assert sum(map(bool, made)) == 100
        assert len(await limiter.hit_many([("b", 1)] * 700)) == 700
        async with await limiter.reserve("c", 5) as reservation:
            await reservation.settle(2)
        assert await left(limiter, "c") == 98
        assert not await limiter.wait("a", timeout=0.01)
        slots = await asyncio.gather(*(places.acquire("a") for _ in range(5)))
        assert [slot is not None for slot in slots] == [True] * 3 + [False] * 2
        kept.extend(slots)

    kept: list[object] = []
    uvloop.run(main())
    assert uvloop.run(places.count("a")) == 0  # given back with the loop
    for slot in kept:
        if slot is not None:
            slot.release_nowait()  # type: ignore[attr-defined]
    uvloop.run(store.aclose())


def test_a_process_ends_cleanly_with_what_is_open(single: str) -> None:
    """No traceback, no hang, and what it held is given back: after a loop, and by threads."""
    code = (
        "import asyncio\n"
        "from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, sync\n"
        f"store = RedisStore({single!r})\n"
        "limiter = Limiter('5/hour', store=store, name='ends')\n"
        "places = ConcurrencyLimiter(5, store=store, name='ends')\n"
        "threads = sync.Limiter('5/hour', store=store, name='ends')\n"
        "held = sync.ConcurrencyLimiter(5, store=store, name='ends')\n"
        "async def main():\n"
        "    assert await limiter.hit('a')\n"
        "    return await places.acquire('a')\n"
        "slot = asyncio.run(main())\n"
        "assert threads.hit('a')\n"
        "slots = held.acquire('a'), slot\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    store = RedisStore(single, timeout=5)
    assert asyncio.run(ConcurrencyLimiter(5, store=store, name="ends").count("a")) == 0


async def test_a_store_that_is_dropped_leaves_no_connection(redis_server: Server) -> None:
    with redis_server.client() as client:

        def connected() -> set[str]:
            return {one["id"] for one in client.client_list()}

        before = connected()

        async def use() -> set[str]:
            store = RedisStore(redis_server.url)
            limiter = Limiter("5/hour", store=store, name=fresh())
            assert await limiter.hit("a")
            return connected() - before

        made = await use()
        assert len(made) == 1
        for _ in range(100):
            gc.collect()
            await asyncio.sleep(0.02)
            if not made & connected():
                break
        assert not made & connected()
