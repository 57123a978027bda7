"""Servers that cannot be reached, or are something else than was said."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from redis_servers import behaviours
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import Server
from redis_store.watching import MARGIN, eventually, outcomes, tries, watched
from sluicegate import Limiter, RedisStore, StoreError

pytestmark = [
    pytest.mark.server,
    # what is tested comes before a server is reached
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.3


def limiter_over(store: RedisStore, **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "connecting", "timeout": TIMEOUT} | options
    return Limiter("1000/minute", store=store, **given)


async def fails(limiter: Limiter, *words: str) -> str:
    """All of several checks fail in time, with a text that has the words."""
    found = await outcomes([limiter.hit("k") for _ in range(20)], limiter.timeout + MARGIN)
    assert all(isinstance(one, StoreError) for one in found)
    text = str(found[0])
    assert all(word in text for word in words), text
    return text


async def test_a_name_that_nobody_knows(redis_kind: str) -> None:
    store = RedisStore("redis://no-such-host.invalid:6379", timeout=TIMEOUT)
    async with watched(store) as watch:
        await fails(limiter_over(store), "redis://no-such-host.invalid:6379", "could not be asked")
        assert len(watch.lines) == 1
        with pytest.raises(StoreError):
            await store.ping()


async def test_nobody_listens_and_then_somebody_does(redis_server: Server, free_port: int) -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port}", timeout=TIMEOUT)
    async with watched(store):
        limiter = limiter_over(store)
        begin = time.monotonic()
        await fails(limiter, f"redis://127.0.0.1:{free_port}")
        assert time.monotonic() - begin < TIMEOUT + MARGIN
        with Forward(free_port, redis_server.port):
            decision = await tries(lambda: limiter.hit("k"))
            assert decision.allowed
            await store.aclose()


class Forward:
    """A proxy at a port that is given."""

    def __init__(self, port: int, target: int) -> None:
        self._proxy = Proxy(target)
        self._proxy.port = port

    def __enter__(self) -> Proxy:
        return self._proxy.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._proxy.__exit__(*exception)


@pytest.mark.parametrize("by_reset", [False, True])
async def test_who_accepts_and_closes(
    redis_server: Server, proxy_to: Callable[..., Proxy], by_reset: bool
) -> None:
    proxy = proxy_to(redis_server.port)
    proxy.behave(behaviours.Refuse(by_reset))
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT)
    async with watched(store):
        limiter = limiter_over(store)
        await fails(limiter)
        before = proxy.connections
        await fails(limiter)  # at once, by what is known
        assert proxy.connections - before <= 1
        proxy.behave(behaviours.Pass())
        assert await tries(lambda: limiter.hit("k"))


@pytest.mark.parametrize("behaviour", [behaviours.Stall(), behaviours.HalfOpen()], ids=repr)
async def test_who_accepts_and_says_nothing(
    redis_server: Server, proxy_to: Callable[..., Proxy], behaviour: behaviours.Behaviour
) -> None:
    """Neither a check hangs nor what opens the connection: it is tried anew, again and again."""
    proxy = proxy_to(redis_server.port)
    proxy.behave(behaviour)
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT)
    async with watched(store):
        limiter = limiter_over(store)
        await fails(limiter)
        await eventually(lambda: proxy.connections >= 3, "it is not tried again")
        # those that are open keep silent for ever: only a new one can help
        for number in range(1, proxy.connections + 1):
            proxy.behave(behaviour, connection=number)
        proxy.behave(behaviours.Pass())
        begin = time.monotonic()
        assert await tries(lambda: limiter.hit("k"))
        assert time.monotonic() - begin < 1 + MARGIN
        proxy.close_connections()  # a half-open one it would keep


async def test_a_backlog_that_is_full(redis_kind: str) -> None:
    """A port that completes no handshake more, as behind a firewall that drops."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            store = RedisStore(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout=TIMEOUT)
            async with watched(store):
                await fails(limiter_over(store))
        finally:
            for one in fillers:
                one.close()


async def test_tls_to_a_port_that_has_none(redis_server: Server) -> None:
    store = RedisStore(
        f"rediss://127.0.0.1:{redis_server.port}?ssl_cert_reqs=none", timeout=TIMEOUT
    )
    async with watched(store):
        await fails(limiter_over(store), f"rediss://127.0.0.1:{redis_server.port}")


async def test_no_tls_to_a_port_that_wants_it(tls_server: Server) -> None:
    store = RedisStore(f"redis://127.0.0.1:{tls_server.port}", timeout=TIMEOUT)
    async with watched(store):
        await fails(limiter_over(store), f"redis://127.0.0.1:{tls_server.port}")


@pytest.mark.parametrize(
    "behaviour", [behaviours.Stall(), behaviours.Cut(0), behaviours.Replace(b"junk")], ids=repr
)
async def test_a_tls_handshake_that_comes_to_nothing(
    tls_server: Server, proxy_to: Callable[..., Proxy], behaviour: behaviours.Behaviour
) -> None:
    proxy = proxy_to(tls_server.port)
    store = RedisStore(
        f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={tls_server.certificates.authority}",  # type: ignore[union-attr]
        timeout=TIMEOUT,
    )
    async with watched(store):
        limiter = limiter_over(store)
        proxy.behave(behaviour)
        await fails(limiter)
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert await tries(lambda: limiter.hit("k"))


async def test_a_certificate_of_strangers(tls_server: Server) -> None:
    certificates = tls_server.certificates
    assert certificates is not None
    store = RedisStore(
        f"rediss://127.0.0.1:{tls_server.port}?ssl_ca_certs={certificates.stranger}",
        timeout=TIMEOUT,
    )
    async with watched(store):
        await fails(limiter_over(store), "certificate")


async def test_a_web_server(redis_kind: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}", timeout=TIMEOUT)
        async with watched(store):
            await fails(limiter_over(store), "not the protocol of Redis")


async def test_a_socket_that_is_not_there(redis_kind: str, tmp_path: Any) -> None:
    store = RedisStore(f"unix://{tmp_path}/nobody.sock", timeout=TIMEOUT)
    async with watched(store):
        await fails(limiter_over(store), f"unix://{tmp_path}/nobody.sock")


async def test_a_node_of_a_cluster_by_a_plain_url(
    redis_server: Server, proxy_to: Callable[..., Proxy]
) -> None:
    """It sends every key elsewhere: the error says so at once, and what to write."""
    proxy = proxy_to(redis_server.port)
    proxy.behave(Moving())
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT)
    async with watched(store):
        begin = time.monotonic()
        await fails(limiter_over(store, timeout=30), "node of a cluster", "redis+cluster://")
        assert time.monotonic() - begin < 10


@dataclass
class Moving(behaviours.Behaviour):
    """Answers as a cluster's node to what is asked about keys of another."""

    def reply(self, data: bytes) -> bytes:
        return data.replace(b"-NOSCRIPT", b"-MOVED 5 127.0.0.1:7000 -")
