"""A million messages, and connections that come and go, and nothing is kept.

python tests/leaks/connections.py [ROUNDS]     (a round is some 100 calls; see everything.py)
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import everything

from sluicegate import ConnectionInfo, MemoryStore, WebSocketLimits, WebSocketRateLimiter
from sluicegate._core import Clock

CLOCK = Clock()
LIMITER = WebSocketRateLimiter(
    WebSocketLimits(
        connections_per_minute=50,
        messages_per_minute=40,
        bytes_per_minute=10_000,
        max_concurrent_connections=3,
        max_message_size=900,
    ),
    MemoryStore(clock=CLOCK),
    lambda info: None,
    max_refusals="5/minute",
)
LOOP = asyncio.new_event_loop()


async def messages() -> None:
    await LIMITER.register_connection("c", "ada")
    for _ in range(15):
        for size in (10, 500, 901, 0):
            await LIMITER.check_message("c", size)
        await LIMITER.check_message("nobody", message_size=1)
    LIMITER.check_message(connection_id="c", message_size=7).close()  # type: ignore[attr-defined]
    for size in (-1, "x", 1.5, None):
        try:
            await LIMITER.check_message("c", size)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        raise AssertionError("no error came")
    await LIMITER.decide_message("c", 5, cost=3)
    await LIMITER.decide_message("c", 5000)
    await LIMITER.unregister_connection("c")
    CLOCK.ns += 5_000_000_000


async def connections() -> None:
    async def connect(n: int) -> None:
        if await LIMITER.check_connection("ada"):
            await LIMITER.register_connection(n, "ada", {"n": n})

    await asyncio.gather(*(connect(n) for n in range(5)))
    await asyncio.create_task(LIMITER.check_connection("eve"))  # type: ignore[arg-type]
    for n in list(LIMITER.active_connections):
        info: Any = LIMITER.get_connection_info(n)
        await LIMITER.rebind(n, "eve")
        assert repr(info) and info.metadata
        info.last_message_time = 5.0
        assert info.last_message_time == 5.0
        info.metadata["itself"] = info
        await LIMITER.unregister_connection(n)
    assert await LIMITER.count("ada") == await LIMITER.count("eve") == 0
    by_hand: Any = ConnectionInfo("c", "ada", 5.0, 1, 2, 3.0, {})
    by_hand.metadata["itself"] = by_hand
    LIMITER.get_statistics()


async def dropped() -> None:
    limiter = WebSocketRateLimiter()
    await limiter.register_connection("c", "ada")
    await limiter.check_connection("eve")
    limiter.itself = limiter  # type: ignore[attr-defined]


def run(work: Any) -> Any:
    return lambda: LOOP.run_until_complete(work())


if __name__ == "__main__":
    everything.EVERYTHING = tuple(run(work) for work in (messages, connections, dropped))
    sys.exit(everything.main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
