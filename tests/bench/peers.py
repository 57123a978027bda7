"""Other limiters, each by its documented call, with limits that admit.

An adapter imports its package inside, so that one that is not installed is only named.
`hot(key)` returns a loop over one key; `spread()` returns a function of a key, for a
million of them, that makes whatever that package needs for a key of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from .harness import Timed

__all__ = ["PEERS", "hot_peers", "spread_peers", "version_of"]

PLENTY = 1_000_000_000
Hit = Callable[[str], Any]


def loop(hit: Hit, key: str) -> Timed:
    """For calls of one argument; the others have a loop of their own, for a closure costs."""

    def run(count: int) -> float:
        call, k = hit, key
        begin = time.process_time()
        for _ in range(count):
            call(k)
        return time.process_time() - begin

    return run


class Limits:
    package = "limits"

    def make(self) -> Any:
        from limits import parse, storage, strategies

        return strategies.FixedWindowRateLimiter(storage.MemoryStorage()), parse(f"{PLENTY}/day")

    def hot(self, key: str) -> Timed:
        limiter, item = self.make()

        def run(count: int) -> float:
            made, what, k = limiter, item, key
            begin = time.process_time()
            for _ in range(count):
                made.hit(what, k)
            return time.process_time() - begin

        return run

    def spread(self) -> Hit:
        limiter, item = self.make()
        return lambda key: limiter.hit(item, key)


class LimitsAsync:
    package = "limits"

    def hot(self, key: str) -> Timed:
        from limits import parse
        from limits.aio import storage, strategies

        runner = asyncio.new_event_loop()
        limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
        item = parse(f"{PLENTY}/day")

        async def body(count: int) -> float:
            made, what, k = limiter, item, key
            begin = time.process_time()
            for _ in range(count):
                await made.hit(what, k)
            return time.process_time() - begin

        return lambda count: runner.run_until_complete(body(count))

    # At a million keys each turn of the loop sweeps them all: hundreds of ms a check.
    spread = None


class Throttled:
    package = "throttled-py"

    def make(self, keys: int) -> Any:
        from throttled import RateLimiterType, Throttled, rate_limiter, store

        return Throttled(
            using=RateLimiterType.GCRA.value,
            quota=rate_limiter.per_day(1_000_000, burst=1_000_000),
            store=store.MemoryStore(options={"MAX_SIZE": keys}),
        )

    def hot(self, key: str) -> Timed:
        return loop(self.make(1024).limit, key)

    def spread(self) -> Hit:
        hit: Hit = self.make(2_000_000).limit
        return hit


class Pyrate:
    package = "pyrate-limiter"

    def hot(self, key: str) -> Timed:
        from pyrate_limiter import Duration, Limiter, Rate

        limiter = Limiter(Rate(PLENTY, Duration.SECOND))

        def run(count: int) -> float:
            made, k = limiter, key
            begin = time.process_time()
            for _ in range(count):
                made.try_acquire(k, blocking=False)
            return time.process_time() - begin

        return run

    def spread(self) -> Hit:
        from pyrate_limiter import BucketFactory, Duration, InMemoryBucket, Limiter, Rate, RateItem

        class Buckets(BucketFactory):
            """A bucket a key, as its documentation shows it; nothing leaks them here."""

            def __init__(self) -> None:
                self.buckets: dict[str, Any] = {}
                self.rates = [Rate(1000, Duration.DAY)]

            def wrap_item(self, name: str, weight: int = 1) -> Any:
                return RateItem(name, time.monotonic_ns() // 1_000_000, weight=weight)

            def get(self, item: Any) -> Any:
                found = self.buckets.get(item.name)
                if found is None:
                    found = self.buckets[item.name] = InMemoryBucket(self.rates)
                return found

        limiter = Limiter(Buckets())
        return lambda key: limiter.try_acquire(key, blocking=False)


class Aiolimiter:
    package = "aiolimiter"

    def hot(self, key: str) -> Timed:
        from aiolimiter import AsyncLimiter

        limiter = AsyncLimiter(PLENTY, 1)

        async def body(count: int) -> float:
            made = limiter
            begin = time.process_time()
            for _ in range(count):
                await made.acquire()
            return time.process_time() - begin

        runner = asyncio.new_event_loop()
        return lambda count: runner.run_until_complete(body(count))

    def spread(self) -> Hit:
        from aiolimiter import AsyncLimiter

        made: dict[str, Any] = {}

        async def hit(key: str) -> None:
            limiter = made.get(key)
            if limiter is None:
                limiter = made[key] = AsyncLimiter(1000, 86400)
            await limiter.acquire()

        return hit


class RustPy:
    package = "rust-py-rate-limit"

    def make(self) -> Any:
        from rust_py_rate_limit import RateLimiter

        return RateLimiter(limit=PLENTY, window_seconds=86400)

    def hot(self, key: str) -> Timed:
        limiter = self.make()

        def run(count: int) -> float:
            made, k = limiter, key
            begin = time.process_time()
            for _ in range(count):
                made.allow(k)
            return time.process_time() - begin

        return run

    def spread(self) -> Hit:
        hit: Hit = self.make().allow
        return hit


class RustPyCheck:
    package = "rust-py-rate-limit"

    def hot(self, key: str) -> Timed:
        return loop(RustPy().make().check, key)

    spread = None


class Floodgate:
    package = "floodgate-rs"

    def make(self) -> Any:
        from datetime import timedelta

        from floodgate import FixedMapping

        return FixedMapping(PLENTY, timedelta(days=1))

    def hot(self, key: str) -> Timed:
        mapping = self.make()

        def run(count: int) -> float:
            made, k = mapping, key
            begin = time.process_time()
            for _ in range(count):
                made.trigger(k)
            return time.process_time() - begin

        return run

    def spread(self) -> Hit:
        hit: Hit = self.make().trigger
        return hit


class Ratethrottle:
    package = "ratethrottle"

    def make(self) -> Any:
        import logging

        from ratethrottle import RateThrottleCore, RateThrottleRule

        logging.getLogger("ratethrottle").setLevel(logging.ERROR)
        core = RateThrottleCore()
        core.add_rule(RateThrottleRule(name="api", limit=PLENTY, window=86400))
        return core

    def hot(self, key: str) -> Timed:
        core = self.make()

        def run(count: int) -> float:
            made, k = core, key
            begin = time.process_time()
            for _ in range(count):
                made.check_rate_limit(k, "api")
            return time.process_time() - begin

        return run

    def spread(self) -> Hit:
        core = self.make()
        return lambda key: core.check_rate_limit(key, "api")


class AsgiRatelimit:
    package = "asgi-ratelimit"

    def make(self) -> Any:
        from ratelimit import Rule
        from ratelimit.backends.simple import MemoryBackend

        return MemoryBackend(), Rule(day=PLENTY)

    def hot(self, key: str) -> Timed:
        backend, rule = self.make()

        async def body(count: int) -> float:
            made, what, k = backend, rule, key
            begin = time.process_time()
            for _ in range(count):
                await made.retry_after("/", k, what)
            return time.process_time() - begin

        runner = asyncio.new_event_loop()
        return lambda count: runner.run_until_complete(body(count))

    def spread(self) -> Hit:
        backend, rule = self.make()

        async def hit(key: str) -> None:
            await backend.retry_after("/", key, rule)

        return hit


PEERS: dict[str, Any] = {
    "floodgate-rs (fixed window)": Floodgate(),
    "rust-py-rate-limit allow (bool)": RustPy(),
    "rust-py-rate-limit check (dict)": RustPyCheck(),
    "aiolimiter, awaited": Aiolimiter(),
    "limits, fixed window": Limits(),
    "limits, fixed window, awaited": LimitsAsync(),
    "asgi-ratelimit, awaited": AsgiRatelimit(),
    "throttled-py, gcra": Throttled(),
    "pyrate-limiter": Pyrate(),
    "ratethrottle": Ratethrottle(),
}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def absent(name: str) -> str | None:
    """Why a peer is not measured: it is not installed."""
    package = PEERS[name].package
    return None if version_of(package) else f"not installed (pip install {package})"


def hot_peers() -> Iterator[tuple[str, Callable[[str], Timed] | None, str | None]]:
    for name, peer in PEERS.items():
        why = absent(name)
        yield name, None if why else peer.hot, why


def spread_peers() -> Iterator[tuple[str, str | None]]:
    """The name of each peer that is measured over many keys, and why not, if not."""
    for name, peer in PEERS.items():
        if peer.spread is not None:
            yield name, absent(name)
