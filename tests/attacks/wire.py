"""Frames of RFC 6455 as an attacker makes them, and how they are sent."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from adapters.raw import MASK, Raw
from attacks.target import PATIENCE, Target, behind

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
STUCK = 2.0  # seconds


def head(size: int, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """All of a frame but its payload, masked by zeros."""
    first = opcode | (FIN if fin else 0)
    if size < 126:
        return bytes((first, 0x80 | size)) + MASK
    if size < 65536:
        return bytes((first, 0xFE)) + size.to_bytes(2, "big") + MASK
    return bytes((first, 0xFF)) + size.to_bytes(8, "big") + MASK


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    return head(len(payload), opcode, fin=fin) + payload


END = frame((1000).to_bytes(2, "big"), CLOSE)


@asynccontextmanager
async def connected(target: Target, path: str, address: str, headers: str = "") -> Any:
    """A bare connection of that address, which vanishes at the end."""
    raw = await Raw.connect(target.port, path, behind(address) + headers)
    try:
        yield raw
    finally:
        raw.reset()


async def pour(raw: Raw, parts: Iterable[bytes]) -> None:
    """Sends all of it as fast as it goes, in a thread of its own, and reads nothing.

    It ends early where the server has closed, or where nothing goes in for STUCK seconds.
    """
    other = raw.socket.dup()
    try:
        await asyncio.to_thread(_pour, other, parts)
    finally:
        other.close()


async def talk(raw: Raw, parts: Iterable[bytes], end: bytes = END) -> bytes:
    """The same with a close frame at the end; what the server sends until it closes the connection,
    or where nothing is the end, until it sends a close frame."""
    back = bytearray()
    reader = asyncio.ensure_future(_drain(raw.socket, back, to_close_frame=not end))
    try:
        await pour(raw, (*parts, end))
        await asyncio.wait((reader,), timeout=PATIENCE)
        assert reader.done(), "the server has not closed"
    finally:
        reader.cancel()
        await asyncio.wait((reader,))
    return bytes(back)


def _pour(connection: socket.socket, parts: Iterable[bytes]) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            try:
                view = view[connection.send(view) :]
            except BlockingIOError:
                if not select.select((), (connection,), (), STUCK)[1]:
                    return
            except OSError:  # it has closed
                return


async def _drain(connection: socket.socket, back: bytearray, *, to_close_frame: bool) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while part := await loop.sock_recv(connection, 1 << 18):
            back += part
            if to_close_frame and closed_with(back) is not None:
                return


def frames_of(received: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each whole frame that a server sent."""
    at = 0
    while at + 2 <= len(received):
        size, start = received[at + 1] & 0x7F, at + 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            size, start = int.from_bytes(received[start : start + wide], "big"), start + wide
        if start + size > len(received):
            return
        yield received[at] & 0x0F, bytes(received[start : start + size])
        at = start + size


def closed_with(received: bytes | bytearray) -> int | None:
    """The code of the close frame that a server sent."""
    for opcode, payload in frames_of(received):
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big")
    return None
