"""Floods on one connection: messages, pieces of messages, messages of many megabytes, pings."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence

from attacks.target import Found, Target, attacker
from attacks.wire import (
    BINARY,
    CONTINUATION,
    END,
    PING,
    PONG,
    closed_with,
    connected,
    frame,
    frames_of,
    head,
    pour,
    talk,
)

FRAMES = 100_000
UNREAD = 500_000
ENDLESS = 5_000_000
MB = 1 << 20
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


async def many(target: Target, how: str) -> Found:
    """Messages of one byte, as fast as they go in."""
    async with target.attacked() as found, connected(target, f"/ws/{how}", attacker()) as raw:
        back = await talk(raw, [frame(b"x") * 1000] * (FRAMES // 1000))
        await target.until_free()  # by then all that was sent is decided
    found.sent, found.closed = FRAMES, [closed_with(back)]
    return found


async def unlimited(target: Target) -> Found:
    """The same where no rule limits it, to compare with."""
    async with target.attacked() as found, connected(target, "/ws/free", attacker()) as raw:
        await pour(raw, [frame(b"x") * 1000] * (FRAMES // 1000))
        await target.until(lambda said: said["handled"].get("/ws/free") == FRAMES)
    found.sent = FRAMES
    return found


async def held_back(target: Target) -> Found:
    """The same where reading stops, by a client that waits for nothing."""
    async with target.attacked() as found:
        async with connected(target, "/ws/delay", attacker()) as raw:
            await pour(raw, [frame(b"x") * 1000] * (FRAMES // 1000))
            await asyncio.sleep(0.5)
            assert (await target.ask("how"))["held"] == 1, "the connection was closed"
        await target.until_free()
    found.sent = FRAMES
    return found


async def pieces(target: Target, piece: bytes, count: int = FRAMES) -> Found:
    """One message in so many pieces. One of empty pieces is none that is too large."""
    between = frame(piece, CONTINUATION, fin=False) * 1000
    parts = [frame(piece, fin=False), *[between] * (count // 1000), frame(b"", CONTINUATION)]
    async with target.attacked() as found, connected(target, "/ws/size", attacker()) as raw:
        back = await talk(raw, parts, b"" if piece else END)
        await target.until_free()
    found.sent, found.closed = count, [closed_with(back)]
    return found


async def huge(target: Target, size: int, clients: int = 4) -> Found:
    """A message of so many bytes on each of some connections."""
    return await _large(target, [head(size, BINARY), *[b"\0" * MB] * (size // MB)], clients)


async def bombs(target: Target, size: int, clients: int = 4) -> Found:
    """The same, compressed to a thousandth."""
    packer = zlib.compressobj(9, wbits=-12)
    packed = packer.compress(b"\0" * size) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = packed.removesuffix(b"\0\0\xff\xff")  # RFC 7692
    return await _large(target, [head(len(packed), BINARY | 0x40) + packed], clients, DEFLATE)


async def _large(target: Target, parts: Sequence[bytes], clients: int, headers: str = "") -> Found:
    async with target.attacked() as found:

        async def one() -> int | None:
            async with connected(target, "/ws/size", attacker(), headers) as raw:
                return closed_with(await talk(raw, parts, b""))

        found.closed = await asyncio.gather(*(one() for _ in range(clients)))
        await target.until_free()
    found.sent = clients
    return found


async def pings(target: Target) -> tuple[Found, int]:
    """Pings of 125 bytes, by a client that reads the pongs; how many these were."""
    async with target.attacked() as found, connected(target, "/ws/drop", attacker()) as raw:
        back = await talk(raw, [frame(b"p" * 125, PING) * 1000] * (FRAMES // 1000))
        await target.until_free()
    found.sent = FRAMES
    return found, sum(opcode == PONG for opcode, _ in frames_of(back))


async def unread_pings(target: Target, count: int) -> Found:
    """Pings by a client that never reads a pong, and stays; found.sent is how many went in."""
    flood = frame(b"p" * 125, PING) * 1000

    def parts() -> Iterator[bytes]:
        while found.sent < count:
            yield flood
            found.sent += 1000

    async with target.attacked() as found:
        async with connected(target, "/ws/drop", attacker()) as raw:
            await pour(raw, parts())
            held = (await target.ask("how"))["held"]
        await target.until_free()
    assert held == 1, "a place is held as long as the connection is"
    return found
