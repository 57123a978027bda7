"""Sentinels name a new master when theirs is lost, and the old one follows it."""

from __future__ import annotations

import pytest
from redis.sentinel import Sentinel as Client

from redis_servers.sentinel import NAME, Sentinel, sentinel
from redis_servers.server import PASSWORD

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_a_new_master_is_elected_and_the_old_one_comes_back(redis_sentinel: Sentinel) -> None:
    hosts, _, name = redis_sentinel.url.removeprefix("redis+sentinel://").partition("/")
    assert name == NAME
    addresses = [(host, int(port)) for host, port in (one.split(":") for one in hosts.split(","))]
    assert len(addresses) == 3
    client = Client(addresses, socket_timeout=10)
    first = redis_sentinel.master
    assert client.discover_master(NAME) == ("127.0.0.1", first.port)
    assert sorted(port for _, port in client.discover_slaves(NAME)) == sorted(
        one.port for one in redis_sentinel.replicas
    )
    with first.client() as direct:
        direct.set("k", "1")
        assert direct.wait(2, 5000) == 2

    lost = redis_sentinel.kill_master()
    assert lost is first and not lost.running
    second = redis_sentinel.wait_for_new_master(lost)
    assert second is not first
    assert client.discover_master(NAME) == ("127.0.0.1", second.port)
    with second.client() as direct:
        assert direct.incr("k") == 2

    redis_sentinel.heal()
    assert redis_sentinel.master is second and first in redis_sentinel.replicas
    with first.client() as direct:
        assert direct.info("replication")["master_port"] == second.port
        assert direct.dbsize() == 0
    for one in client.sentinels:
        one.close()


def test_a_master_can_ask_for_a_password_and_one_sentinel_can_be_gone(redis_kind: str) -> None:
    with sentinel(redis_kind, replicas=1, password=PASSWORD) as running:
        assert running.url.startswith(f"redis+sentinel://{running.master.userinfo()}127.0.0.1:")
        running.sentinels[0].kill()
        lost = running.kill_master()
        (other,) = (one for one in running.servers if one is not lost)
        assert running.wait_for_new_master(lost) is other is running.master
