"""Of several servers that a URL names, the next good one is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from redis_servers import behaviours
from redis_servers.cluster import Cluster
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.sentinel import Sentinel
from redis_store.watching import MARGIN, outcomes, tries, watched
from sluicegate import Limiter, RedisStore

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.3

BAD: dict[str, behaviours.Behaviour | None] = {
    "nobody listens": None,
    "it closes": behaviours.Refuse(),
    "it says nothing": behaviours.Stall(),
    "it is something else": behaviours.Replace(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


@pytest.fixture
def bad(request: pytest.FixtureRequest, proxy_to: Callable[..., Proxy]) -> Callable[[int], int]:
    """The port of a server that is none."""

    def port(target: int) -> int:
        behaviour = BAD[request.param]
        if behaviour is None:
            return 1
        proxy = proxy_to(target)
        proxy.behave(behaviour)
        return proxy.port

    return port


def limiter_over(store: RedisStore, **options: Any) -> Limiter:
    return Limiter("1000/day", store=store, name="next", timeout=4 * TIMEOUT + 1, **options)


@pytest.mark.parametrize("bad", BAD, indirect=True)
async def test_sentinels(redis_sentinel: Sentinel, bad: Callable[[int], int]) -> None:
    good = redis_sentinel.sentinels[0]
    url = f"redis+sentinel://127.0.0.1:{bad(good.port)},{good.address}/mymaster"
    store = RedisStore(url, timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = limiter_over(store)
        found = await outcomes([limiter.hit(f"k{n}") for n in range(20)], limiter.timeout + MARGIN)
        assert all(one.allowed for one in found), found
        # the next time it is the good one that is asked first
        for router in store._routers.values():
            router.connections()[0]._abandon("as if it had failed")
        begin = time.monotonic()
        assert await tries(lambda: limiter.hit("k"))
        assert time.monotonic() - begin < MARGIN
        assert len(watch.lines) in (0, 2)


@pytest.mark.parametrize("bad", BAD, indirect=True)
async def test_seeds_of_a_cluster(redis_cluster: Cluster, bad: Callable[[int], int]) -> None:
    good = redis_cluster.masters[0]
    url = f"redis+cluster://127.0.0.1:{bad(good.port)},{good.address}"
    store = RedisStore(url, timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = limiter_over(store)
        found = await outcomes([limiter.hit(f"k{n}") for n in range(20)], limiter.timeout + MARGIN)
        assert all(getattr(one, "allowed", False) for one in found), found
        assert watch.lines == []
