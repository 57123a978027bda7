"""One codec and one server of each kind for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from redis_store import servers
from redis_store.codec import Codec, build
from redis_store.engine import Server


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
