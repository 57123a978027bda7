"""Awaited calls: against awaiting an empty `async def` in the same loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sluicegate.cli.loops import awaited_hit

from .harness import Ratio, TimedAsync, alternate_async, awaiting_empty
from .rows import Row, Topic

REFERENCE = "await empty()"


def check_message(messages: int, size: int = 128) -> TimedAsync:
    """One connection, messages and bytes limited, the documented dict returned."""
    from sluicegate import WebSocketLimits, WebSocketRateLimiter

    limits = WebSocketLimits(
        connections_per_minute=1000,
        messages_per_minute=messages,
        bytes_per_minute=messages * 50,
    )
    limiter = WebSocketRateLimiter(limits)
    ready: list[bool] = []

    async def run(count: int) -> float:
        if not ready:
            assert await limiter.check_connection("client")
            assert await limiter.register_connection("connection", "client")
            assert (await limiter.check_message("connection", size))["allowed"]
            ready.append(True)
        made, name = limiter, "connection"
        begin = time.process_time()
        for _ in range(count):
            await made.check_message(name, size)
        spent = time.process_time() - begin
        assert (await limiter.check_message(name, size))["allowed"]
        return spent

    return run


def peer_check_message() -> TimedAsync:
    """ratethrottle's method of the same name, which ours replaces."""
    import logging

    from ratethrottle import WebSocketLimits, WebSocketRateLimiter

    logging.getLogger("ratethrottle").setLevel(logging.ERROR)
    limits = WebSocketLimits(messages_per_minute=10**9, bytes_per_minute=5 * 10**10)
    limiter = WebSocketRateLimiter(limits)
    ready: list[bool] = []

    async def run(count: int) -> float:
        if not ready:
            await limiter.register_connection("connection", "client")
            ready.append(True)
        begin = time.process_time()
        for _ in range(count):
            await limiter.check_message("connection", 128)
        return time.process_time() - begin

    return run


def row(what: str, found: Ratio, target: float | None = None, *, peer: bool = False) -> Row:
    return Row("awaited", what, found.ratio, "x", REFERENCE, target, peer=peer, info=found.info())


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    found = alternate_async(awaited_hit(), awaiting_empty, rounds)
    yield row("awaited hit", found, 1.6)
    timed = check_message(10**9)
    found = alternate_async(timed, awaiting_empty, rounds)
    yield row("awaited check_message (messages and bytes, dict)", found, 3.0)


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    what = "ratethrottle check_message"
    try:
        timed = peer_check_message()
    except ImportError as error:
        yield Row("awaited", what, None, "x", REFERENCE, peer=True, missing=str(error))
        return
    yield row(what, alternate_async(timed, awaiting_empty, rounds), peer=True)


TOPIC = Topic("awaited", "Awaited, memory", measure, peers)
