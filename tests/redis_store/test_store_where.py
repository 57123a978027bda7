"""Where it runs: by URL and by another library's client, each against a server of its kind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import redis

from redis_servers.certificates import Certificates
from redis_servers.cluster import Cluster
from redis_servers.sentinel import NAME, Sentinel
from redis_servers.server import LIMITER, PASSWORD, WITHOUT_SCRIPTS, Server
from redis_store.public import eventually, fresh, left
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, StoreError
from sluicegate.stores import open_store


async def works(source: Any, **options: Any) -> RedisStore:
    """Decides by that store, which it returns, closed."""
    async with RedisStore(source, timeout=5, **options) as store:
        assert await store.ping()
        limiter = Limiter("2/hour", store=store, name=fresh(), timeout=5)
        assert [bool(await limiter.hit("a")) for _ in range(3)] == [True, True, False]
        places = ConcurrencyLimiter(1, store=store, name=fresh())
        async with places.hold("a"):
            assert await places.acquire("a") is None
        assert await places.count("a") == 0
    return store


async def fails(source: Any, match: str, **options: Any) -> None:
    async with RedisStore(source, timeout=2, **options) as store:
        limiter = Limiter("2/hour", store=store, name=fresh(), timeout=2)
        for _ in range(2):
            with pytest.raises(StoreError, match=match) as error:
                await limiter.hit("a")
            assert PASSWORD not in str(error.value)


# ---- by URL


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_one_server(redis_server: Server, scheme: str) -> None:
    await works(redis_server.url.replace("redis", scheme))
    await works(f"{scheme}://localhost:{redis_server.port}/0")


async def test_a_unix_socket(redis_server: Server, guarded_server: Server) -> None:
    await works(redis_server.unix_url)
    await works(guarded_server.unix_url)


async def test_a_database(redis_server: Server) -> None:
    await works(redis_server.url_as(database=3))
    await works(f"{redis_server.unix_url}?db=4")
    with redis_server.client(db=3) as three, redis_server.client() as zero:
        assert three.dbsize() == redis_server_keys(redis_server, 4) == 1
        assert zero.dbsize() == 0
    await fails(redis_server.url_as(database=99), "DB index is out of range")


def redis_server_keys(server: Server, database: int) -> int:
    with server.client(db=database) as client:
        return int(client.dbsize())


async def test_passwords_and_users(guarded_server: Server) -> None:
    await works(guarded_server.url)
    await works(guarded_server.url_as(LIMITER))
    with guarded_server.client() as client:
        users = {one["user"] for one in client.client_list()}
        assert "default" in users
    await fails(f"redis://127.0.0.1:{guarded_server.port}", "NOAUTH|Authentication required")
    await fails(f"redis://:wrong@127.0.0.1:{guarded_server.port}", "WRONGPASS|invalid")
    await fails(guarded_server.url_as(LIMITER), "NOPERM|permission", prefix="elsewhere")
    await fails(guarded_server.url_as(WITHOUT_SCRIPTS), "NOPERM|permission")


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_tls(tls_server: Server, certificates_of_run: Certificates, scheme: str) -> None:
    url = tls_server.url.replace("rediss", scheme)
    await works(f"{url}?ssl_ca_certs={certificates_of_run.authority}")
    await works(f"{url}?ssl_cert_reqs=none")
    context = ssl.create_default_context(cafile=str(certificates_of_run.authority))
    await works(url, tls=context)


async def test_a_bad_certificate_is_refused(
    tls_server: Server, certificates_of_run: Certificates
) -> None:
    await fails(tls_server.url, "(?i)certificate")  # known to no authority of the system
    await fails(f"{tls_server.url}?ssl_ca_certs={certificates_of_run.stranger}", "(?i)certificate")
    ours = f"ssl_ca_certs={certificates_of_run.authority}"
    other = tls_server.url.replace("127.0.0.1", "127.1")  # the same host by another name
    await fails(f"{other}?{ours}", "(?i)certificate")
    await works(f"{other}?{ours}&ssl_check_hostname=false")
    await fails(f"redis://127.0.0.1:{tls_server.port}", "could not be asked")


async def test_sentinel(redis_sentinel: Sentinel) -> None:
    store = await works(redis_sentinel.url)
    assert store.settings.master == NAME
    await fails(redis_sentinel.url.replace(NAME, "nobody"), "knows no master 'nobody'")


async def test_a_failover_is_found(redis_sentinel: Sentinel) -> None:
    async with RedisStore(redis_sentinel.url, timeout=1) as store:
        limiter = Limiter("5/hour", store=store, name=fresh(), timeout=1)
        assert await limiter.hit("a", 3)
        with redis_sentinel.master.client() as client:
            client.wait(1, 5000)
        lost = redis_sentinel.kill_master()
        with pytest.raises(StoreError):
            await limiter.hit("a")

        async def decides() -> bool:
            try:
                await limiter.peek("a")
            except StoreError:
                return False
            return True

        await eventually(decides, "the new master is not found", 30)
        assert redis_sentinel.wait_for_new_master(lost)
        assert await left(limiter) == 2
        assert await limiter.hit("a", 2)


async def test_a_cluster(redis_cluster: Cluster) -> None:
    await works(redis_cluster.url)
    await works(redis_cluster.url.replace("redis", "valkey"))
    # from any one node
    for server in redis_cluster.servers:
        await works(f"redis+cluster://{server.address}")
    node = next(one for one in redis_cluster.masters)
    async with RedisStore(node.url, timeout=2) as store:
        limiter = Limiter("2/hour", store=store, name=fresh(), timeout=2)
        with pytest.raises(StoreError, match=r"redis\+cluster://"):
            for number in range(20):  # one of them is another node's
                await limiter.hit(f"user:{number}")


# ---- by the client of another library

LIBRARIES = ["redis", "valkey"]


def client_of(module: ModuleType, kind: str) -> Callable[..., Any]:
    """Redis or Valkey, of the library's synchronous part or of its asyncio."""
    name = {"redis": "Redis", "valkey": "Valkey"}[module.__name__.partition(".")[0]]
    found: Callable[..., Any] = getattr(module, name if kind == "one" else f"{name}Cluster")
    return found


@pytest.fixture(params=[f"{name}{part}" for name in LIBRARIES for part in ("", ".asyncio")])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """redis, redis.asyncio, valkey, valkey.asyncio"""
    name: str = request.param
    return import_module(name)


async def closed(client: Any) -> None:
    done = client.aclose() if hasattr(client, "aclose") else client.close()
    if asyncio.iscoroutine(done):
        await done


async def works_as_client(client: Any) -> RedisStore:
    """It lends its settings and never a connection: it may be closed before."""
    try:
        store = open_store(client)
    finally:
        await closed(client)
    async with store:
        assert await Limiter("1/hour", store=store, name=fresh(), timeout=5).hit("a")
    assert PASSWORD not in repr(store)
    found: RedisStore = store
    return found


async def test_clients_of_one_server(
    library: ModuleType, redis_server: Server, guarded_server: Server
) -> None:
    make = client_of(library, "one")
    store = await works_as_client(make(host="127.0.0.1", port=redis_server.port, db=2))
    assert store.settings.db == 2
    with redis_server.client(db=2) as client:
        assert client.dbsize() == 1
    await works_as_client(make(unix_socket_path=str(redis_server.socket)))
    await works_as_client(make(host="127.0.0.1", port=guarded_server.port, password=PASSWORD))
    await works_as_client(
        make(
            host="127.0.0.1", port=guarded_server.port,
            username=LIMITER.name, password=LIMITER.password,
        )
    )  # fmt: skip
    await works_as_client(make.from_url(redis_server.url))  # type: ignore[attr-defined]


async def test_clients_with_tls(
    library: ModuleType, tls_server: Server, certificates_of_run: Certificates
) -> None:
    make = client_of(library, "one")
    await works_as_client(
        make(
            host="127.0.0.1", port=tls_server.port, ssl=True,
            ssl_ca_certs=str(certificates_of_run.authority),
        )
    )  # fmt: skip
    await works_as_client(
        make(host="127.0.0.1", port=tls_server.port, ssl=True, ssl_cert_reqs="none",
             ssl_check_hostname=False)
    )  # fmt: skip
    client = make(
        host="127.0.0.1", port=tls_server.port, ssl=True,
        ssl_ca_certs=str(certificates_of_run.stranger),
    )  # fmt: skip
    await fails(client, "(?i)certificate")
    await closed(client)


async def test_clients_of_sentinels(library: ModuleType, redis_sentinel: Sentinel) -> None:
    sentinels = import_module(f"{library.__name__}.sentinel").Sentinel(
        [("127.0.0.1", one.port) for one in redis_sentinel.sentinels]
    )
    store = await works_as_client(sentinels.master_for(NAME))
    assert store.settings.kind == "sentinel"
    assert len(store.settings.nodes) == 3
    for one in sentinels.sentinels:
        await closed(one)


async def test_clients_of_clusters(library: ModuleType, redis_cluster: Cluster) -> None:
    make = client_of(import_module(f"{library.__name__}.cluster")
                     if "asyncio" not in library.__name__ else library, "cluster")  # fmt: skip
    store = await works_as_client(make(host="127.0.0.1", port=redis_cluster.servers[0].port))
    assert store.settings.kind == "cluster"


async def test_what_is_no_client(single: str) -> None:
    for other in (object(), 5, redis):
        with pytest.raises(TypeError, match="client of the packages redis or valkey"):
            open_store(other)
    with pytest.raises(TypeError, match="client of the packages redis or valkey"):
        RedisStore(object())
