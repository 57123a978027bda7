"""A connection that is opened to a server that does not do as it should, and then does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import redis_servers.server
from redis_store.public import eventually, fresh
from sluicegate import Limiter, RedisStore, StoreError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def door(to: int, first: Handler) -> AsyncIterator[int]:
    """A port before that of a server: `first` has the first connection, the others pass."""
    tasks: set[asyncio.Task[None]] = set()
    came = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == 1:
            first(reader, writer)
            return
        there, back = await asyncio.open_connection("127.0.0.1", to)
        for one, other in ((reader, back), (there, writer)):
            tasks.add(asyncio.create_task(passes(one, other)))

    async def passes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _kept.append(writer)


def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


_kept: list[asyncio.StreamWriter] = []


@pytest.mark.parametrize("first", [says_nothing, closes])
async def test_it_is_tried_anew(redis_server: redis_servers.server.Server, first: Handler) -> None:
    async with (
        door(redis_server.port, first) as port,
        RedisStore(f"redis://127.0.0.1:{port}", timeout=0.3) as store,
    ):
        limiter = Limiter("5/hour", store=store, name=fresh(), timeout=0.3)
        with pytest.raises(StoreError) as error:
            await asyncio.wait_for(limiter.hit("a"), 10)
        assert "whether it has charged" not in str(error.value)  # it was not even sent

        async def decides() -> bool:
            try:
                return bool(await limiter.hit("a"))
            except StoreError:
                return False

        await eventually(decides, "a new connection is not opened")
    while _kept:
        _kept.pop().close()
