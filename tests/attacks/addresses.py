"""Addresses that a client makes up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import count, islice
from typing import Any

from attacks.app import MAX_KEYS, QUOTA
from attacks.headers import status
from attacks.target import Found, Target
from attacks.watching import resident
from sluicegate import Limiter, MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.identity import address

REAL = 20_000  # requests to a server
MILLION = 1_000_000  # to the middleware itself
AT_ONCE = 100  # requests of one pipeline


def spoofed() -> Iterator[str]:
    """Addresses of the internet, none twice."""
    for n in count(11 << 24):
        yield f"{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def of_one_subscriber(network: str = "2001:db8:1:2::") -> Iterator[str]:
    """Addresses of one /64."""
    return (str(IPv6Address(n)) for n in count(int(IPv6Address(network))))


async def requests(target: Target, path: str, addresses: Iterable[str]) -> Counter[int]:
    """One request for each address, in pipelines on one connection; the statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    found: Counter[int] = Counter()
    try:
        left = iter(addresses)
        while batch := list(islice(left, AT_ONCE)):
            writer.write(
                b"".join(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {one}\r\n\r\n".encode()
                    for one in batch
                )
            )
            for _ in batch:
                found[await status(reader)] += 1
    finally:
        writer.close()
        await writer.wait_closed()
    return found


async def spoofing(
    target: Target, path: str, addresses: Iterator[str], number: int = REAL
) -> tuple[Found, Counter[int]]:
    """So many requests, each with another address in X-Forwarded-For."""
    async with target.attacked() as found:
        statuses = await requests(target, path, islice(addresses, number))
    found.sent = number
    return found, statuses


@dataclass
class Million:
    """What a million calls of the middleware came to."""

    admitted: int = 0
    keys: int = 0
    bytes: int = 0
    evictions: int = 0
    grown: int = 0  # bytes of the process
    slowest: float = 0.0  # seconds of the slowest call
    busiest: float = 0.0  # seconds of the processor in a call, at the most
    seconds: float = 0.0


async def million(
    addresses: Iterator[str], trusted_proxies: tuple[str, ...], number: int = MILLION
) -> Million:
    """The middleware itself, without a server, asked for each address once."""
    store, found = MemoryStore(max_keys=MAX_KEYS), Million()

    async def ok(scope: Any, receive: Any, send: Any) -> None:
        found.admitted += 1

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        pass

    app = RateLimitMiddleware(
        ok,
        backend=store,
        config={r"^/": [Rule(key="ip", group="*", requests=f"{QUOTA}/day")]},
        on_blocked=lambda seconds: refuse,
        address=address(trusted_proxies),
    )
    limiter = Limiter(f"{QUOTA}/day", store=store, name="asgi:requests:ip:gcra")
    before, clock, began = resident(), time.perf_counter, time.perf_counter()
    for one in islice(addresses, number):
        headers = [(b"x-forwarded-for", one.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }
        at, spent = clock(), time.thread_time()
        await app(scope, None, None)
        found.busiest = max(found.busiest, time.thread_time() - spent)
        found.slowest = max(found.slowest, clock() - at)
    found.seconds = clock() - began
    counters = limiter.table.counters()
    found.keys, found.bytes = counters["keys"], counters["bytes"]
    found.evictions, found.grown = counters["evictions"], resident() - before
    return found
