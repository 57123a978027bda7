"""Bytes that a key takes on a server: what it holds in memory, keys and their expiry among it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .harness import worker
from .redis_setup import TIMEOUT, Setup, new_loop, ours_over, setup, why_not
from .rows import Row, Topic

TOPIC_NAME = "redis-memory"
LOOKED_AT = 1000  # keys that are asked one by one

# what, the quotas, keys, hits a key; each hit of a key at a time of its own
CASES: tuple[tuple[str, str, int, int], ...] = (
    ("gcra", "1000/day", 100_000, 1),
    ("fixed-window", "1000/day using fixed-window", 100_000, 1),
    ("sliding-window", "1000/day using sliding-window", 100_000, 1),
    ("two gcra quotas", "1000/day; 100/hour", 100_000, 1),
    ("sliding-log, 1 entry", "1000/day using sliding-log", 100_000, 1),
    ("sliding-log, 16 entries", "1000/day using sliding-log", 20_000, 16),
    ("sliding-log, 256 entries (the most)", "1000/day using sliding-log", 2_000, 256),
)
SLOT = "concurrency, one slot held"
SLOTS = 20_000


def held(made: dict[str, str], case: tuple[str, str, int, int] | None) -> dict[str, Any]:
    """In a process of its own: bytes a key by the server's account of all its memory, and by its
    account of some keys; None: of slots."""
    import redis

    place = Setup(**made)
    with redis.Redis(unix_socket_path=place.socket) as client:
        client.flushall()
        before = client.info("memory")["used_memory"]
        loop = new_loop("asyncio")
        kept: list[object] = []  # slots, which like the loop must not end before
        keys = loop.run_until_complete(_fill(place, case, kept))
        after = client.info("memory")["used_memory"]
        looked_at = usage = 0
        for name in client.scan_iter(match="sg:*", count=1000):
            if looked_at == LOOKED_AT:
                break
            if name.endswith(b":log0"):
                continue
            looked_at += 1
            usage += client.memory_usage(name) + (client.memory_usage(name + b":log0") or 0)
        ends = client.info("keyspace")["db0"]
        if ends["expires"] != ends["keys"]:
            raise AssertionError(f"of {ends['keys']} keys {ends['expires']} expire")
        client.flushall()
    return {"bytes": (after - before) / keys, "usage": usage / looked_at, "keys": keys}


async def _fill(place: Setup, case: tuple[str, str, int, int] | None, kept: list[object]) -> int:
    if case is None:
        from sluicegate import ConcurrencyLimiter, RedisStore

        store = RedisStore(place.url, timeout=TIMEOUT)
        slots = ConcurrencyLimiter(10, store=store, name="places", ttl=600)
        for number in range(SLOTS):
            slot = await slots.acquire(f"user:{number}")
            if slot is None:
                raise AssertionError("no slot")
            kept.append(slot)
        return SLOTS
    _, quotas, keys, hits = case
    limiter = ours_over(place.url, quotas, "chat")
    for _ in range(hits):
        for first in range(0, keys, 1000):
            pairs = [(f"user:{number}", 1) for number in range(first, first + 1000)]
            if not all(await limiter.hit_many(pairs)):
                raise AssertionError("refused")
    return keys


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    """Bytes are no matter of chance: one run."""
    why = why_not()
    if why is not None:
        yield Row(TOPIC_NAME, "bytes a key", None, "bytes", missing=why)
        return
    with setup() as made:
        for case in (*CASES, None):
            what = SLOT if case is None else case[0]
            try:
                found = worker("redis_memory.held", asdict(made), case)
            except RuntimeError as error:
                yield Row(TOPIC_NAME, what, None, "bytes", missing=str(error))
                continue
            info = {"usage_bytes": round(found["usage"], 1), "keys": found["keys"]}
            yield Row(TOPIC_NAME, what, found["bytes"], "bytes", info=info)


TOPIC = Topic(TOPIC_NAME, "Redis, bytes a key", measure)
