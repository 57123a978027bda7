"""What keys are called on a server, that each has an expiry, and what clears them."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator

import pytest
import redis

import redis_servers.server
from redis_store.public import ALGORITHMS, fresh, left
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, StoreError, WebSocketRateLimiter
from sluicegate.stores import open_store


@pytest.fixture
def raw(redis_server: redis_servers.server.Server) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


def names(raw: redis.Redis) -> set[bytes]:
    return set(raw.keys("*"))


async def test_keys_are_readable(single: str, raw: redis.Redis) -> None:
    async with RedisStore(single) as store:
        await Limiter("5/hour", store=store, name="chat").hit("user:42")
        assert names(raw) == {b"sg:{chat:user:42}"}
        log = Limiter("100/hour using sliding-log", store=store, name="log")
        for _ in range(40):  # each at a time of its own
            assert await log.hit("user:42")
        assert names(raw) == {
            b"sg:{chat:user:42}", b"sg:{log:user:42}", b"sg:{log:user:42}:log0",
        }  # fmt: skip
        await log.reset("user:42")
        slot = await ConcurrencyLimiter(5, store=store, name="places").acquire("user:42")
        assert names(raw) == {b"sg:{chat:user:42}", b"sg:{places:user:42}:slots"}
        assert slot is not None
        slot.release_nowait()


async def test_no_two_share_a_key(single: str, raw: redis.Redis) -> None:
    """Whatever stands in prefix, name and subject."""
    texts = ["a", "a:b", "a}", "{a", "%", "%3a", "a:{b", "#", "#aa", "b:a", "é", "\x00", "\n", "*"]
    subjects = [*texts, "", b"\xff", b"\xfe\x00", "x" * 128, "x" * 129, "x" * 130, "é" * 64,
                "é" * 65, b"y" * 5000, b"\xff" * 128, "#" + "0" * 32]  # fmt: skip
    stores = [RedisStore(single, prefix=prefix) for prefix in ("sg", "sg:", "s:g", "{sg", "*")]
    try:
        made = 0
        for store in stores:
            limiters = [Limiter("1/hour", store=store, name=text) for text in texts]
            for limiter in limiters:
                decisions = await limiter.hit_many([(subject, 1) for subject in subjects])
                assert all(decisions)
                made += len(decisions)
                assert not any(await limiter.hit_many([(subject, 1) for subject in subjects]))
        found = names(raw)
        assert len(found) == made
        assert max(map(len, found)) < 3 * 128 + 40
        assert all(raw.pttl(name) > 0 for name in found)
        # text and its bytes in UTF-8 are one subject
        assert not await limiters[0].hit("é".encode())
        # a long subject has the same digest in any process
        again = RedisStore(single)
        assert not await Limiter("1/hour", store=again, name="a").hit("x" * 129)
        await again.aclose()
        # clear touches its prefix alone, though that is also a pattern
        for store in reversed(stores):
            await store.clear()
            made -= len(texts) * len(subjects)
            assert len(names(raw)) == made
    finally:
        for store in stores:
            await store.aclose()


async def test_a_subject_that_is_none(store: RedisStore) -> None:
    limiter = Limiter("5/hour", store=store, name=fresh())
    for bad in (None, 5, ("a",), bytearray(b"a")):
        with pytest.raises(TypeError):
            await limiter.hit(bad)  # type: ignore[arg-type]
    # what no encoding has is a subject like any other
    assert await limiter.hit("\ud800", 5)
    assert not await limiter.hit("\ud800")
    assert await limiter.hit("\ud801", 5)


async def test_every_key_has_an_expiry(single: str, raw: redis.Redis) -> None:
    async with RedisStore(single) as store:
        for algorithm in ALGORITHMS:
            limiter = Limiter(
                f"400/hour using {algorithm}; 500/day", store=store, name=f"l-{algorithm}"
            )
            alone = Limiter(f"400/hour using {algorithm}", store=store, name=f"a-{algorithm}")
            for one in (limiter, alone):
                await one.hit("hit", 3)
                await one.hit_many([("many", 1)] * 300)
                await one.ban("ban", 60)
                await one.penalize("penalize", 5)
                await one.hit("reward", 5)
                await one.reward("reward", 2)
                await one.reserve("open", 5)
                await (await one.reserve("settled", 5)).settle(7)
                await one.hit("unban")
                await one.ban("unban", 1000)
                await one.unban("unban")
                assert await one.hit("numbers", 1, quotas=one.quotas)
        places = ConcurrencyLimiter(5, store=store, name="places", ttl=20)
        slots = [await places.acquire("a") for _ in range(3)]
        door = WebSocketRateLimiter(storage=store)
        assert await door.check_connection("ada")
        assert await door.register_connection("c", "ada")
        assert (await door.check_message("c", 100))["allowed"]
        found = names(raw)
        assert len(found) > 70
        lives = {name: raw.pttl(name) for name in found}
        # a little past what they are for: of a day, with an eighth
        assert all(0 < life <= 86_400_000 * 1.3 for life in lives.values()), lives
        assert lives[b"sg:{places:a}:slots"] <= 21_000
        assert lives[b"sg:{a-gcra:ban}"] <= 62_000 * 1.3
        await door.unregister_connection("c")
        for slot in slots:
            assert slot is not None
            await places.release(slot)
        assert b"sg:{places:a}:slots" not in names(raw)


async def test_state_that_counts_no_more_is_gone(single: str, raw: redis.Redis) -> None:
    async with RedisStore(single) as store:
        for algorithm in ALGORITHMS:
            limiter = Limiter(f"5/hour using {algorithm}", store=store, name=f"l-{algorithm}")
            await (await limiter.reserve("a", 5)).cancel()
            await limiter.hit("b", 2)
            await limiter.reward("b", 2)
            await limiter.hit("c")
            await limiter.reset("c")
            await limiter.peek("d")
            await limiter.hit("e", 0)
            await limiter.hit("f", 6)
            await limiter.unban("g")
            await limiter.reward("h")
            assert names(raw) == set(), algorithm


async def test_clear_touches_its_prefix_alone(store: RedisStore, anywhere: str) -> None:
    name = fresh()
    limiter = Limiter("100/hour", store=store, name=name)
    slots = ConcurrencyLimiter(2, store=store, name=name)
    async with RedisStore(anywhere, prefix="sg2", timeout=5) as other:
        kept = Limiter("100/hour", store=other, name=name)
        pairs = [(f"user:{number}", 60) for number in range(1500)]
        assert all(await limiter.hit_many(pairs))
        assert all(await kept.hit_many(pairs))
        assert not any(await limiter.hit_many(pairs))
        slot = await slots.acquire("a")
        await store.clear()
        assert all(await limiter.hit_many(pairs))
        assert not any(await kept.hit_many(pairs))
        assert await slots.count("a") == 0
        assert slot is not None
        await slots.release(slot)


async def test_ping(store: RedisStore, redis_server: redis_servers.server.Server) -> None:
    assert await store.ping() is True
    async with RedisStore("redis://127.0.0.1:1", timeout=0.5) as nobody:
        with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1\b"):
            await nobody.ping()


def test_no_password_is_told() -> None:
    secret = "s3cret%3A%2F%40"
    for url in (
        f"redis://:{secret}@host/3", f"rediss://user:{secret}@host:7/1?prefix=p",
        f"unix://user:{secret}@/run/redis.sock?db=2", f"valkey://:{secret}@[::1]:7",
        f"redis+sentinel://:{secret}@a,b:3/main/1?sentinel_password={secret}",
        f"redis+cluster://user:{secret}@a:1,b:2",
    ):  # fmt: skip
        store = RedisStore(url)
        limiter = Limiter("1/s", store=store, name=fresh())
        places = ConcurrencyLimiter(1, store=store, name=fresh())
        for text in map(repr, (store, limiter, places, store.settings)):
            assert "s3cret" not in text
        with pytest.raises((TypeError, pickle.PicklingError)):
            pickle.dumps(store)
    for bad in (f"redis://:{secret}@host/x", f"redis://:{secret}@host:0", f"http://:{secret}@h"):
        with pytest.raises(ValueError) as error:
            open_store(bad)
        assert "s3cret" not in str(error.value)


async def test_two_of_one_url_are_one_store(single: str) -> None:
    store = open_store(single)
    assert open_store(single) is store
    first, second = (Limiter("5/hour", store=single, name="same") for _ in range(2))
    assert first.store is second.store is store
    assert await first.hit("a", 5)
    assert await left(second) == 0
    await asyncio.gather(store.aclose(), store.aclose())
