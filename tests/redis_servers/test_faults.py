"""What a server answers while something is wrong with it, and after."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from redis_servers import faults
from redis_servers.server import Server, server

pytestmark = pytest.mark.server


@pytest.fixture
def client(redis_server: Server) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


def unanswered(server: Server, *command: str) -> None:
    """Asserts that nothing comes within a tenth of a second."""
    with server.client(socket_timeout=0.1) as hasty, pytest.raises(redis.TimeoutError):
        hasty.execute_command(*command)


def test_a_pause_answers_nobody_until_it_ends(redis_server: Server, client: redis.Redis) -> None:
    begin = time.monotonic()
    with faults.paused(redis_server, 0.3):
        unanswered(redis_server, "PING")
    assert client.ping()
    assert time.monotonic() - begin >= 0.3


def test_a_pause_of_writes_lets_others_read(redis_server: Server, client: redis.Redis) -> None:
    with faults.paused(redis_server, 60, writes=True):
        assert client.get("k") is None
        unanswered(redis_server, "SET", "k", "1")
    assert client.set("k", "2")


def test_a_busy_server_says_so(redis_server: Server, client: redis.Redis) -> None:
    with faults.busy(redis_server), pytest.raises(redis.ResponseError, match=r"busy|BUSY"):
        client.get("k")
    assert client.get("k") is None
    with faults.busy(redis_server):
        redis_server.restart()
        assert client.get("k") is None


def test_a_full_server_takes_no_more(redis_server: Server, client: redis.Redis) -> None:
    with faults.out_of_memory(redis_server):
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("k", "1")
        assert client.get("k") is None
    assert client.set("k", "1")


def test_a_replica_takes_no_write(redis_server: Server, redis_kind: str) -> None:
    with server(redis_kind) as replica, replica.client() as client:
        with faults.read_only(replica, redis_server), pytest.raises(redis.ReadOnlyError):
            client.set("k", "1")
        assert client.set("k", "1")


def test_a_server_that_loads_says_so_and_then_has_its_keys(redis_kind: str) -> None:
    with server(redis_kind, disk=True) as running, running.client() as client:
        client.set("k", "1")
        with faults.loading(running, seconds=0.3), pytest.raises(redis.BusyLoadingError):
            client.get("k")
        assert client.get("k") == b"1"
