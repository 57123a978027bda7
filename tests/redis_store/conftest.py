"""One codec and one server of each kind for all tests here, and stores over real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

import redis_servers.server
from redis_store import servers
from redis_store.codec import Codec, build
from redis_store.engine import Server
from sluicegate import RedisStore


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Codec]:
    codec = Codec(build(Path(tmp_path_factory.mktemp("codec"))))
    yield codec
    codec.close()


@pytest.fixture(scope="session", params=servers.KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with servers.server(request.param) as client:
        yield client


@pytest.fixture
def server(client: redis.Redis, codec: Codec) -> Server:
    client.flushall()
    return Server(client, codec)


@pytest.fixture
def single(redis_server: redis_servers.server.Server) -> str:
    """The URL of one server, of each kind."""
    return redis_server.url


@pytest.fixture(params=["single", "cluster"])
def anywhere(request: pytest.FixtureRequest, redis_kind: str) -> str:
    """The URL of one server, and of a cluster, of each kind; empty."""
    found = request.getfixturevalue(f"redis_{'server' if request.param == 'single' else 'cluster'}")
    url: str = found.url
    return url


@pytest.fixture
async def store(anywhere: str) -> AsyncIterator[RedisStore]:
    """A store on one server, and on a cluster, of each kind."""
    async with RedisStore(anywhere, timeout=5) as store:
        yield store
