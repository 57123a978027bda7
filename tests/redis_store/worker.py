"""A process of a test: `python worker.py JSON`. Prints "ready", waits for a line, prints JSON.

What it does stands under "work"; 64 tasks of one loop do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sluicegate import (
    ConcurrencyLimiter,
    Limiter,
    RedisStore,
    StoreError,
    WebSocketLimits,
    WebSocketRateLimiter,
)
from sluicegate.websocket import places

TASKS = 64
UNKNOWN = "is not known"  # what the error says of a check that may be charged

Given = dict[str, Any]


async def line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def rates(given: Given, store: RedisStore) -> Given:
    """Each task hits, by the costs given in turn, until each of the keys has refused a unit.

    Told: units admitted by key, units of checks whose reply was lost, how many were, and when
    each was admitted (seconds of the machine's monotonic clock, units left) where asked for.
    """
    limiter = Limiter(given["quotas"], store=store, name="exact", timeout=given.get("timeout", 5))
    costs, pause, keys = given.get("costs", [1]), given.get("pause", 0), given.get("keys", ["k"])
    unit = given.get("unit", 1)  # what one unit of the counted quota costs, by name or number
    units = dict.fromkeys(keys, 0)
    lost: list[int] = []
    events: list[tuple[float, int, int]] = []
    others: list[str] = []

    async def task(number: int) -> None:
        turn = number
        for key in keys[number % len(keys) :] + keys[: number % len(keys)]:
            large = True
            while True:
                cost = costs[turn % len(costs)] if large else 1
                turn += 1
                try:
                    decision = await limiter.hit(key, cost if unit == 1 else {unit: cost})
                except StoreError as error:
                    if UNKNOWN in str(error):
                        lost.append(cost)
                    else:
                        others.append(str(error))
                    await asyncio.sleep(0.01)
                    continue
                if decision:
                    units[key] += cost
                    if given.get("events"):
                        events.append((time.monotonic(), cost, decision.remaining))
                elif cost == 1:
                    break
                else:
                    large = False  # what is left is less than that, but not nothing
                if pause:
                    await asyncio.sleep(pause)

    await asyncio.gather(*map(task, range(TASKS)))
    return {"units": units, "lost": sum(lost), "replies": len(lost), "unsent": len(others),
            "events": events}  # fmt: skip


async def slots(given: Given, store: RedisStore) -> Given:
    """Each task takes a slot, holds it for a moment, gives it back, so many times: when from and
    until when each was held."""
    limiter = ConcurrencyLimiter(given["limit"], store=store, name="exact", ttl=5)
    held: list[tuple[float, float]] = []

    async def task() -> None:
        for _ in range(given["times"]):
            slot = await limiter.acquire("k")
            if slot is None:
                await asyncio.sleep(0.002)
                continue
            since = time.monotonic()
            await asyncio.sleep(given["hold"])
            held.append((since, time.monotonic()))
            await limiter.release(slot)

    await asyncio.gather(*(task() for _ in range(TASKS)))
    return {"held": held}


async def connections(given: Given, store: RedisStore) -> Given:
    """The same with connections of a WebSocketRateLimiter, reserved and then registered."""
    limiter = WebSocketRateLimiter(
        WebSocketLimits(
            connections_per_minute=None, messages_per_minute=given.get("messages"),
            max_concurrent_connections=given["limit"],
        ),
        store, on_store_error="raise", name="exact",
    )  # fmt: skip
    held: list[tuple[float, float]] = []
    admitted = 0

    async def task(number: int) -> None:
        nonlocal admitted
        for turn in range(given["times"]):
            connection = (number, turn)
            if not await limiter.check_connection("k"):
                await asyncio.sleep(0.002)
                continue
            since = time.monotonic()
            assert await limiter.register_connection(connection, "k")
            result = await limiter.check_message(connection, 10)
            admitted += result["allowed"]
            await asyncio.sleep(given["hold"])
            held.append((since, time.monotonic()))
            await limiter.unregister_connection(connection)

    await asyncio.gather(*(asyncio.create_task(task(number)) for number in range(TASKS)))
    return {"held": held, "messages": admitted}


async def holding(given: Given, store: RedisStore) -> Given:
    """Holds slots and places, by a short ttl, until a line comes or it is killed."""
    places.TTL = given["ttl"]
    limiter = ConcurrencyLimiter(given["limit"], store=store, name="exact", ttl=given["ttl"])
    door = WebSocketRateLimiter(storage=store, name="exact", on_store_error="raise")
    taken = [await limiter.acquire("k") for _ in range(given["each"])]
    for number in range(given["each"]):
        assert await door.check_connection("k")
        assert await door.register_connection(number, "k")
    say({"held": sum(slot is not None for slot in taken)})
    await line()
    for slot in taken:
        if slot is not None:
            await limiter.release(slot)
    for number in range(given["each"]):
        await door.unregister_connection(number)
    return {}


WORK: dict[str, Callable[[Given, RedisStore], Awaitable[Given]]] = {
    "rates": rates, "slots": slots, "connections": connections, "holding": holding,
}  # fmt: skip


async def main(given: Given) -> None:
    async with RedisStore(given["url"], timeout=given.get("timeout", 5)) as store:
        with contextlib.suppress(StoreError):
            await store.ping()
        say("ready")
        await line()
        say(await WORK[given["work"]](given, store))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
