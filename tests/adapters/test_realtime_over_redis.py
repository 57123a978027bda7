"""Socket.IO and Channels over a store that two server processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import serving
from adapters.test_channels_door import press
from adapters.test_socketio_door import burst, client
from redis_store import servers

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture
def store() -> Iterator[str]:
    with servers.server(servers.KINDS[0]) as redis:
        yield f"unix://{redis.connection_pool.connection_kwargs['path']}"


def two(app: str, store: str, stack: ExitStack) -> list[serving.Server]:
    options = ("--lifespan", "off")
    env = {"LIMITS_STORE": store}
    return [
        stack.enter_context(serving.uvicorn(app, *options, app_dir=HERE, env=env)) for _ in "12"
    ]


async def test_socketio(store: str) -> None:
    with ExitStack() as processes:
        pair = two("socketio_app:app", store, processes)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(client(server, "hundred", "ada"))
                for server in pair * 2
            ]
            assert sum(await asyncio.gather(*(burst(one, 40) for one in clients))) == 100
            await stack.enter_async_context(client(pair[0], "hundred", "ada"))
            from socketio.exceptions import ConnectionError as Refused

            for server in pair:
                with pytest.raises(Refused):
                    await stack.enter_async_context(client(server, "hundred", "ada"))
        async with client(pair[1], "hundred", "ada"):
            pass


async def test_channels(store: str) -> None:
    with ExitStack() as processes:
        pair = two("channels_app:application", store, processes)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(f"{server.ws}/echo/ada"))
                for server in (*pair, pair[0])
            ]
            found = await asyncio.gather(*(press(one, 60) for one in clients))
            assert sum(got.count("x") for got in found) == 100
            async with connect(f"{pair[1].ws}/echo/ada") as refused:
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(refused.recv(), 20)
                assert refused.close_code == 1008
