"""Headers without end, and headers that are long to read."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from attacks.target import PATIENCE, Found, Target

REQUESTS = 1000
LONG = 15_000  # bytes of one header line

# Of the right length, each of the worst kind for who reads it: all hops are trusted, no hop ends,
# a quoted string with a quote in it, and again.
WORST = (
    "X-Forwarded-For: " + "127.0.0.1," * (LONG // 10) + "127.0.0.1",
    "X-Forwarded-For: " + "1" * LONG,
    "Forwarded: " + 'for="\\"' * (LONG // 7),
    "Forwarded: " + "for=127.0.0.1;a=b;" * (LONG // 18),
    "X-Real-IP: " + ":" * LONG,
)


async def worst(target: Target) -> tuple[Found, Counter[int]]:
    """Requests of sixty kilobytes of forwarding headers, one after another on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    statuses: Counter[int] = Counter()
    request = "\r\n".join(("GET / HTTP/1.1", "Host: x", *WORST[:4], "", ""))
    async with target.attacked() as found:
        for _ in range(REQUESTS):
            writer.write(request.encode())
            statuses[await status(reader)] += 1
    writer.close()
    await writer.wait_closed()
    found.sent = REQUESTS
    return found, statuses


async def endless(target: Target, most: int = 50 << 20) -> tuple[Found, int]:
    """One request whose headers do not end; and what it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    answer = 0
    async with target.attacked() as found:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        try:
            while found.sent < most and not reader.at_eof():
                writer.write(b"X-More: " + b"a" * 1000 + b"\r\n")
                found.sent += 1010
                await asyncio.wait_for(writer.drain(), PATIENCE)
            answer = await status(reader)
        except ConnectionError:
            pass  # it closes while more is coming in, so that its answer may be lost
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return found, answer


async def status(reader: asyncio.StreamReader) -> int:
    """Reads one response: its status."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head[9:12])
