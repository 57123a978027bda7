"""Other limiters on the same server, each driven as its own documentation says, with limits that
admit all that is measured.

An adapter imports its package inside, so that one that is not installed is only named. `open(url)`
returns a check: an awaitable function of a key that says whether it was admitted. `enter`, where
there is one, is awaited by each task before its first check.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from .harness import no_gc, worker
from .peers import version_of
from .redis_one import compared
from .redis_setup import (
    LIMIT,
    BlockingLoop,
    Check,
    Setup,
    Tally,
    all_at_once,
    alternating,
    names,
    new_loop,
    one_by_one,
    ours_over,
    plain_gcra,
    rates,
    setup,
    words_of,
)
from .rows import Row

__all__ = ["REDIS_PEERS", "many_at_once", "one_at_a_time"]

SECONDS = 0.4  # a round takes about that long
PATIENCE = 300  # seconds for one peer


class Limits:
    package = "limits"

    async def open(self, url: str) -> Check:
        from limits import parse
        from limits.aio import storage, strategies

        kept = storage.RedisStorage("async+redis+" + url)  # on coredis, its default
        limiter = strategies.FixedWindowRateLimiter(kept)
        item = parse(f"{LIMIT}/hour")
        return lambda key: limiter.hit(item, key)


class Throttled:
    package = "throttled-py"

    async def open(self, url: str) -> Check:
        from throttled.asyncio import RateLimiterType, Throttled, rate_limiter, store

        throttle = Throttled(
            using=RateLimiterType.GCRA.value,
            quota=rate_limiter.per_hour(LIMIT, burst=LIMIT),
            store=store.RedisStore(server=url),
        )

        async def check(key: str) -> bool:
            return not (await throttle.limit(key)).limited

        return check


class Pyrate:
    """A bucket a key, by a BucketFactory, as its documentation has it for several keys."""

    package = "pyrate-limiter"

    async def open(self, url: str) -> Check:
        from pyrate_limiter import BucketFactory, Duration, Limiter, Rate, RateItem, RedisBucket
        from redis.asyncio import ConnectionPool, Redis

        client = Redis(connection_pool=ConnectionPool.from_url(url))
        rates = [Rate(LIMIT, Duration.HOUR)]
        first = await RedisBucket.init(rates, client, "first")

        class Buckets(BucketFactory):  # type: ignore[misc]
            def __init__(self) -> None:
                self.made: dict[str, Any] = {}

            def wrap_item(self, name: str, weight: int = 1) -> Any:
                return RateItem(name, first.now(), weight=weight)

            def get(self, item: Any) -> Any:
                bucket = self.made.get(item.name)
                if bucket is None:
                    bucket = RedisBucket(rates, client, item.name, first.script_hash)
                    self.made[item.name] = bucket
                return bucket

        limiter = Limiter(Buckets())
        return lambda key: limiter.try_acquire_async(key, blocking=False)


class FastapiLimiter:
    """WebSocketRateLimiter over the bucket of a pyrate-limiter, which all keys share."""

    package = "fastapi-limiter"

    async def open(self, url: str) -> Check:
        from fastapi import HTTPException
        from fastapi_limiter.depends import WebSocketRateLimiter
        from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
        from redis.asyncio import ConnectionPool, Redis

        client = Redis(connection_pool=ConnectionPool.from_url(url))
        bucket = await RedisBucket.init([Rate(10**9, Duration.HOUR)], client, "fastapi")

        async def identifier(websocket: Any) -> str:
            key: str = websocket
            return key

        limit = WebSocketRateLimiter(limiter=Limiter(bucket), identifier=identifier)

        async def check(key: str) -> bool:
            try:
                await limit(key)
            except HTTPException:
                return False
            return True

        return check


class Ratethrottle:
    package = "ratethrottle"

    async def open(self, url: str) -> Check:
        from ratethrottle import RateThrottleRule, create_async_limiter

        logging.getLogger("ratethrottle").setLevel(logging.CRITICAL)
        core = await create_async_limiter("redis", url)
        core.add_rule(RateThrottleRule(name="api", limit=LIMIT, window=3600))

        async def check(key: str) -> bool:
            allowed: bool = (await core.check_rate_limit(key, "api")).allowed
            return allowed

        return check


class QuartRateLimiter:
    """What it does before a request of a Quart app, without the request: `preprocess_request`."""

    package = "quart-rate-limiter"

    def __init__(self) -> None:
        self.key: ContextVar[str] = ContextVar("key")
        self.app: Any = None

    async def open(self, url: str) -> Check:
        from quart import Quart
        from quart_rate_limiter import RateLimiter, RateLimitExceeded, rate_limit
        from quart_rate_limiter.redis_store import RedisStore

        self.app = Quart("app")

        async def key() -> str:
            return self.key.get()

        @self.app.get("/")
        @rate_limit(LIMIT, timedelta(hours=1))
        async def index() -> str:
            return ""

        limiter = RateLimiter(self.app, key_function=key, store=RedisStore(url))
        await limiter.store.before_serving()

        async def check(key: str) -> bool:
            self.key.set(key)
            try:
                await self.app.preprocess_request()
            except RateLimitExceeded:
                return False
            return True

        return check

    async def enter(self) -> None:
        """A request of this task's own, which is not timed."""
        await self.app.test_request_context("/").push()


class AsgiRatelimit:
    package = "asgi-ratelimit"

    async def open(self, url: str) -> Check:
        from ratelimit import Rule
        from ratelimit.backends.redis import RedisBackend
        from redis.asyncio import StrictRedis

        backend, rule = RedisBackend(StrictRedis.from_url(url)), Rule(hour=LIMIT)

        async def check(key: str) -> bool:
            return not await backend.retry_after("/", key, rule)

        return check


REDIS_PEERS: dict[str, Any] = {
    "limits (asyncio), fixed window": Limits(),
    "throttled-py, gcra": Throttled(),
    "pyrate-limiter, a bucket a key": Pyrate(),
    "ratethrottle": Ratethrottle(),
    "quart-rate-limiter": QuartRateLimiter(),
    "asgi-ratelimit": AsgiRatelimit(),
    "fastapi-limiter, one bucket": FastapiLimiter(),
}


# ---- in a process of its own


class Opened:
    """A peer on an event loop."""

    def __init__(self, name: str, url: str) -> None:
        peer = REDIS_PEERS[name]
        self.loop = new_loop("asyncio")
        self.check: Check = self.loop.run_until_complete(peer.open(url))
        self.enter: Callable[[], Awaitable[None]] | None = getattr(peer, "enter", None)

    async def _one_by_one(self, subjects: list[str], tally: Tally) -> float:
        if self.enter is not None:
            await self.enter()
        return await one_by_one(self.check, subjects, tally)

    def one(self, subjects: list[str], tally: Tally) -> float:
        return self.loop.run_until_complete(self._one_by_one(subjects, tally))

    def many(self, subjects: list[str], tally: Tally) -> float:
        checks = all_at_once(self.check, subjects, tally, enter=self.enter)
        return self.loop.run_until_complete(checks)


def one(name: str, made: dict[str, str], rounds: int) -> dict[str, Any]:
    """One check at a time, against the blocking loop of our script."""
    from .redis_one import QUOTA

    place = Setup(**made)
    opened = Opened(name, place.url)
    spent = opened.one(["user:1"] * 100, Tally())
    count = max(100, int(SECONDS / spent * 100))
    limiter = ours_over(place.url, QUOTA, "one")

    async def hit() -> None:
        await limiter.hit("user:42")

    opened.loop.run_until_complete(hit())
    words = words_of(place, lambda: opened.loop.run_until_complete(hit()))
    tally = Tally()
    with BlockingLoop(place, words) as reference:
        # Other keys each round: it is to admit them all.
        return compared(
            lambda turn: opened.one(names(count, turn), tally), reference, tally, rounds, count
        )


def many(name: str, made: dict[str, str], rounds: int) -> dict[str, Any]:
    """512 at once, against redis-benchmark."""
    place = Setup(**made)
    opened, reference = Opened(name, place.url), plain_gcra(place)
    spent = opened.many(names(2000, -1), Tally())
    count, their_count = max(600, int(SECONDS / spent * 2000)), 50_000
    drawn = [names(count, turn) for turn in range(rounds)]
    tally = Tally()
    with no_gc():
        a, b = alternating(
            lambda turn: opened.many(drawn[turn], tally),
            lambda turn: reference(their_count),
            rounds,
        )
    value, info = rates(a, count, b, their_count)
    return {"ratio": value, "trouble": tally.trouble(), "failed": tally.failed, "info": info}


# ---- rows


def rows(job: str, topic: str, reference: str, rounds: int, *, at_least: bool) -> Iterator[Row]:
    with setup() as made:
        for name, peer in REDIS_PEERS.items():
            row = Row(topic, name, None, "x", reference, at_least=at_least, peer=True)
            if version_of(peer.package) is None:
                row.missing = f"not installed (pip install {peer.package})"
            else:
                try:
                    found = worker(
                        f"redis_peers.{job}", name, asdict(made), rounds, timeout=PATIENCE
                    )
                except Exception as error:  # whatever another package does
                    row.missing = str(error)
                else:
                    row.info = found["info"]
                    if found["trouble"]:
                        row.info["trouble"] = found["trouble"]
                    if found["failed"]:  # what raises has no rate
                        row.missing = found["trouble"]
                    else:
                        row.value = found["ratio"]
            yield row


def one_at_a_time(topic: str, reference: str, rounds: int) -> Iterator[Row]:
    yield from rows("one", topic, reference, rounds, at_least=False)


def many_at_once(topic: str, reference: str, rounds: int) -> Iterator[Row]:
    yield from rows("many", topic, reference, rounds, at_least=True)
