"""Concurrency over servers: held, renewed, given back, and never lost for longer than the ttl."""

from __future__ import annotations

import asyncio

import pytest

import redis_servers.server
from redis_store.public import eventually, fresh
from sluicegate import ConcurrencyLimiter, RateLimitExceeded, RedisStore, StoreError, sync


async def test_at_most_its_limit_at_once(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(2, store=store, name=fresh())
    first, second = await limiter.acquire("a"), await limiter.acquire("a")
    assert first is not None
    assert second is not None
    assert await limiter.acquire("a") is None
    assert await limiter.count("a") == 2
    other = await limiter.acquire("b")
    assert other is not None
    assert await limiter.release(first) is True
    assert await limiter.release(first) is False  # harmless
    assert await limiter.count("a") == 1
    third = await limiter.acquire(b"a")
    assert third is not None
    for slot in (second, third, other):
        await limiter.release(slot)
    assert await limiter.count("a") == 0


async def test_many_tasks_reach_the_limit_and_no_more(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(7, store=store, name=fresh())
    slots = await asyncio.gather(*(limiter.acquire("a") for _ in range(64)))
    held = [slot for slot in slots if slot is not None]
    assert len(held) == await limiter.count("a") == 7
    await asyncio.gather(*(limiter.release(slot) for slot in held))
    assert await limiter.count("a") == 0


async def test_hold_gives_back_however_it_ends(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store, name=fresh())
    async with limiter.hold("a") as slot:
        assert slot.held
        with pytest.raises(RateLimitExceeded, match="1 slot held at once") as error:
            async with limiter.hold("a"):
                pytest.fail("held twice")
        assert error.value.retry_after == float("inf")
    assert await limiter.count("a") == 0
    with pytest.raises(KeyError):
        async with limiter.hold("a"):
            raise KeyError
    assert await limiter.count("a") == 0
    inside = asyncio.Event()

    async def held() -> None:
        async with limiter.hold("a"):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(held())
    await asyncio.wait_for(inside.wait(), 10)
    assert await limiter.count("a") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await limiter.count("a") == 0


async def test_acquire_waits_for_as_long_as_it_is_told(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store, name=fresh())
    held = await limiter.acquire("a")
    assert held is not None
    assert await limiter.acquire("a", timeout=0.15) is None
    waits = asyncio.create_task(limiter.acquire("a", timeout=None))
    await asyncio.sleep(0.05)
    assert not waits.done()
    await limiter.release(held)
    slot = await asyncio.wait_for(waits, 10)
    assert slot is not None
    await limiter.release(slot)


async def test_what_another_process_gives_back_is_seen(anywhere: str, store: RedisStore) -> None:
    name = fresh()
    limiter = ConcurrencyLimiter(1, store=store, name=name)
    async with RedisStore(anywhere, timeout=5) as other:
        theirs = ConcurrencyLimiter(1, store=other, name=name)
        slot = await theirs.acquire("a")
        assert slot is not None
        assert await limiter.acquire("a") is None
        waits = asyncio.create_task(limiter.acquire("a", timeout=20))
        await asyncio.sleep(0.05)
        await theirs.release(slot)
        mine = await waits
        assert mine is not None
        assert await theirs.acquire("a") is None
        await limiter.release(mine)


async def test_acquiring_that_is_cancelled_holds_nothing(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(3, store=store, name=fresh(), ttl=0.3)
    for _ in range(8):
        task = asyncio.create_task(limiter.acquire("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is on its way
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def none() -> bool:
        return await limiter.count("a") == 0

    # whether the server took it for held is put right by the heartbeat
    await eventually(none, "a cancelled one is still counted")


async def test_a_forgotten_slot_is_given_back_with_a_warning(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(1, store=store, name=fresh())
    slots = [await limiter.acquire("a")]
    with pytest.warns(ResourceWarning, match="forgotten"):
        slots.clear()
    assert await limiter.count("a") == 0


async def test_a_live_process_renews_and_a_dead_ones_lapse(anywhere: str) -> None:
    name = fresh()
    async with RedisStore(anywhere, timeout=5) as looks:
        watch = ConcurrencyLimiter(9, store=looks, name=name, ttl=0.3)
        store = RedisStore(anywhere, timeout=5)
        limiter = ConcurrencyLimiter(9, store=store, name=name, ttl=0.3)
        slots = [await limiter.acquire("a") for _ in range(2)]
        mine = await watch.acquire("a")
        for _ in range(7):  # more than twice its ttl
            await asyncio.sleep(0.1)
            assert await watch.count("a") == 3
        # As if it were dead: nothing is renewed, nothing given back.
        store._router(asyncio.get_running_loop()).end()

        async def lapsed() -> bool:
            return await watch.count("a") == 1

        await eventually(lapsed, "a dead process still holds its slots")
        assert mine is not None
        await watch.release(mine)
        for slot in slots:
            assert slot is not None
            slot.release_nowait()  # harmless
        assert await watch.count("a") == 0
        await store.aclose()


async def test_aclose_gives_all_back_at_once(anywhere: str, store: RedisStore) -> None:
    name = fresh()
    watch = ConcurrencyLimiter(9, store=store, name=name)
    other = RedisStore(anywhere, timeout=5)
    limiter = ConcurrencyLimiter(9, store=other, name=name)
    slots = [await limiter.acquire(key) for key in "aab"]
    assert (await watch.count("a"), await watch.count("b")) == (2, 1)
    await other.aclose()
    assert (await watch.count("a"), await watch.count("b")) == (0, 0)
    for slot in slots:
        assert slot is not None
        slot.release_nowait()
    # used again, it opens a new connection
    again = await limiter.acquire("a")
    assert again is not None
    assert await watch.count("a") == 1
    await limiter.release(again)
    await other.aclose()


def test_the_end_of_a_loop_gives_all_back(anywhere: str) -> None:
    store = RedisStore(anywhere, timeout=5)
    limiter = ConcurrencyLimiter(9, store=store, name=fresh())
    slots = []

    async def takes() -> None:
        slots.extend([await limiter.acquire("a") for _ in range(3)])
        assert await limiter.count("a") == 3

    asyncio.run(takes())
    assert asyncio.run(limiter.count("a")) == 0
    for slot in slots:
        slot.release_nowait()
    assert asyncio.run(limiter.count("a")) == 0


def test_by_threads(anywhere: str) -> None:
    limiter = sync.ConcurrencyLimiter(2, store=RedisStore(anywhere, timeout=5), name=fresh())
    with limiter.hold("a"):
        slot = limiter.acquire("a")
        assert slot is not None
        assert limiter.acquire("a", timeout=0.05) is None
        with pytest.raises(RateLimitExceeded), limiter.hold("a"):
            pytest.fail("held three times")
        assert limiter.count("a") == 2
        assert limiter.release(slot)
    assert limiter.count("a") == 0


async def test_what_is_done_at_once_says_where_to_ask(store: RedisStore) -> None:
    limiter = ConcurrencyLimiter(2, store=store, name=fresh())
    with pytest.raises(RuntimeError, match="await acquire"):
        limiter.acquire_nowait("a")
    with pytest.raises(RuntimeError, match="await count"):
        limiter.count_nowait("a")
    with pytest.raises(ValueError, match="needs a name"):
        ConcurrencyLimiter(2, store=store)


async def test_one_heartbeat_renews_all_keys_of_a_limiter(
    redis_server: redis_servers.server.Server,
) -> None:
    ttl, keys = 0.6, 200
    async with RedisStore(redis_server.url, timeout=5) as store:
        limiter = ConcurrencyLimiter(3, store=store, name=fresh(), ttl=ttl)
        slots = await asyncio.gather(
            *(limiter.acquire(f"user:{number}") for number in range(keys) for _ in range(2))
        )
        await asyncio.sleep(ttl / 2)  # the first has passed
        with redis_server.client() as client:
            client.config_resetstat()
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(ttl * 2)
            seconds = asyncio.get_running_loop().time() - began
            stats = client.info("commandstats")
        calls = {name: told["calls"] for name, told in stats.items() if "eval" in name}
        assert 1 <= sum(calls.values()) <= seconds / (ttl / 3) + 1, (calls, seconds)
        assert await limiter.count(f"user:{keys - 1}") == 2
        for slot in slots:
            assert slot is not None
            await limiter.release(slot)


async def test_a_key_that_is_none_of_ours(redis_server: redis_servers.server.Server) -> None:
    async with RedisStore(redis_server.url, timeout=5) as store:
        limiter = ConcurrencyLimiter(3, store=store, name="c")
        with redis_server.client() as client:
            client.set("sg:{c:a}:slots", "xyz")
        with pytest.raises(StoreError, match="not sluicegate's"):
            await limiter.acquire("a")
        with pytest.raises(StoreError, match="not sluicegate's"):
            await limiter.count("a")
