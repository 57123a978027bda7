"""Connections that never become WebSockets, that stop amid a message, and that are too many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from adapters.raw import Raw
from attacks.target import PATIENCE, Found, Target, attacker, behind
from attacks.wire import connected, head, pour

SLOW = 1000
HALF_HANDSHAKE = b"GET /ws/held HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
HALF = 100
MANY = 1000


async def calm(target: Target) -> Found:
    """Nobody attacks: to compare with."""
    async with target.attacked() as found:
        await asyncio.sleep(1)
    return found


@asynccontextmanager
async def slow(target: Target, count: int) -> AsyncIterator[list[socket.socket]]:
    """Sockets that have sent the half of a handshake, and now and then one more line of it."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.1)
            for one in sockets:
                with suppress(OSError):  # the server has closed it
                    one.send(b"X-A: b\r\n")

    dripping = asyncio.ensure_future(drip())
    try:
        for _ in range(count):
            one = socket.socket()
            one.setblocking(False)
            sockets.append(one)
            await asyncio.wait_for(loop.sock_connect(one, ("127.0.0.1", target.port)), PATIENCE)
            await loop.sock_sendall(one, HALF_HANDSHAKE)
        yield sockets
    finally:
        dripping.cancel()
        await asyncio.wait((dripping,))
        for one in sockets:
            one.close()


async def slowloris(target: Target, seconds: float = 2.0) -> Found:
    """Handshakes that never end, and those of them that the server has closed meanwhile."""
    async with target.attacked() as found, slow(target, SLOW) as sockets:
        await asyncio.sleep(seconds)
        found.closed = [None for one in sockets if is_closed(one)]
    found.sent = SLOW
    return found


def is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


async def half_frames(target: Target, clients: int = HALF) -> Found:
    """WebSockets that send the head of a message and no more, each of an address of its own."""
    async with target.attacked() as found, AsyncExitStack() as stack:
        for _ in range(clients):
            raw = await stack.enter_async_context(connected(target, "/ws/drop", attacker()))
            await pour(raw, [head(1000)])
        held = (await target.ask("how"))["held"]
        await target.until_free()  # by the server's keepalive, for the clients stay
    assert held == clients, "each holds its place"
    found.sent = clients
    return found


async def flood(target: Target, path: str) -> tuple[Found, dict[str, int]]:
    """Whole handshakes of one address, fifty at a time; the answers by their first line."""
    address, answers, stay = attacker(), {}, []
    gate = asyncio.Semaphore(50)

    async def one() -> None:
        async with gate:
            try:
                raw = await Raw.connect(target.port, path, behind(address))
            except ConnectionError as refused:
                said = str(refused).partition("\r\n")[0]
            else:
                said = "HTTP/1.1 101"
                stay.append(raw)
            answers[said[:12]] = answers.get(said[:12], 0) + 1

    async with target.attacked() as found:
        await asyncio.gather(*(one() for _ in range(MANY)))
        for raw in stay:
            raw.reset()
        await target.until_free()
    found.sent = MANY
    return found, answers
