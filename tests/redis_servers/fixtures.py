"""Servers that all tests of a run share, each started when first asked for, and proxies.

What a fixture gives is as it was at the start: without keys, and with all its processes running.
Each is there once for Redis and, where it is installed, once for Valkey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from redis_servers import certificates
from redis_servers.certificates import Certificates
from redis_servers.cluster import Cluster, cluster
from redis_servers.group import Group
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.sentinel import Sentinel, sentinel
from redis_servers.server import LIMITER, PASSWORD, WITHOUT_SCRIPTS, Server, server


@pytest.fixture(scope="session", params=KINDS)
def redis_kind(request: pytest.FixtureRequest) -> str:
    """ "redis-server" or "valkey-server": a test that asks for it runs with both."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def certificates_of_run(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(Path(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="session")
def _server(redis_kind: str) -> Iterator[Server]:
    with server(redis_kind) as running:
        yield running


@pytest.fixture
def redis_server(_server: Server) -> Server:
    """A server that asks for no password and keeps nothing on disk."""
    _server.reset()
    return _server


@pytest.fixture(scope="session")
def _guarded(redis_kind: str) -> Iterator[Server]:
    with server(redis_kind, password=PASSWORD, users=(LIMITER, WITHOUT_SCRIPTS)) as running:
        yield running


@pytest.fixture
def guarded_server(_guarded: Server) -> Server:
    """A server with a password, and the users `server.LIMITER` and `server.WITHOUT_SCRIPTS`."""
    _guarded.reset()
    return _guarded


@pytest.fixture(scope="session")
def _tls(redis_kind: str, certificates_of_run: Certificates) -> Iterator[Server]:
    with server(redis_kind, certificates=certificates_of_run) as running:
        yield running


@pytest.fixture
def tls_server(_tls: Server) -> Server:
    """A server whose port speaks TLS; `.certificates` has the authority that it goes by."""
    _tls.reset()
    return _tls


@pytest.fixture(scope="session")
def _sentinel(redis_kind: str, request: pytest.FixtureRequest) -> Iterator[Group[Sentinel]]:
    with closing(Group(lambda: sentinel(redis_kind), request.config)) as group:
        yield group


@pytest.fixture
def redis_sentinel(_sentinel: Group[Sentinel]) -> Sentinel:
    """A master, two replicas and three sentinels."""
    return _sentinel.healed()


@pytest.fixture(scope="session")
def _cluster(redis_kind: str, request: pytest.FixtureRequest) -> Iterator[Group[Cluster]]:
    with closing(Group(lambda: cluster(redis_kind), request.config)) as group:
        yield group


@pytest.fixture
def redis_cluster(_cluster: Group[Cluster]) -> Cluster:
    """Three masters with a replica each. Slots are where the last test left them."""
    return _cluster.healed()


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., Proxy]]:
    """`proxy_to(port or path of a Unix socket)`: a proxy that ends with the test."""
    with ExitStack() as stack:

        def start(target: int | str, *, receive_buffer: int | None = None) -> Proxy:
            return stack.enter_context(Proxy(target, receive_buffer=receive_buffer))

        yield start
