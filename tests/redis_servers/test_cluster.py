"""A cluster whose slots move, by hand and by tool, and whose masters are lost."""

from __future__ import annotations

import time

import pytest
import redis
from redis.cluster import RedisCluster

from redis_servers.cluster import SLOTS, Cluster, cluster
from redis_servers.server import PASSWORD
from redis_servers.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def connected(made: Cluster) -> RedisCluster:
    address = made.url.removeprefix("redis+cluster://").partition(",")[0]
    return RedisCluster.from_url(f"redis://{address}", socket_timeout=10)


def test_masters_share_all_slots_and_each_has_a_replica(redis_cluster: Cluster) -> None:
    masters = redis_cluster.masters
    assert len(masters) == 3 and len(redis_cluster.servers) == 6
    owned = [redis_cluster.slots_of(one) for one in masters]
    assert sorted(slot for slots in owned for slot in slots) == list(range(SLOTS))
    replicas = [one for master in masters for one in redis_cluster.replicas_of(master)]
    assert {*replicas} == {*redis_cluster.servers} - {*masters}
    assert redis_cluster.slot_of("123456789") == 12739
    client = connected(redis_cluster)
    for number in range(20):
        client.set(f"k{number}", number)
        slot = redis_cluster.slot_of(f"k{number}")
        with redis_cluster.owner(slot).client() as direct:
            assert direct.get(f"k{number}") == b"%d" % number
    client.close()


def test_a_slot_is_moved_step_by_step(redis_cluster: Cluster) -> None:
    slot = redis_cluster.slot_of("{a}")
    keys = [f"{{a}}{number}" for number in range(5)]
    step = redis_cluster.migration(
        slot, next(one for one in redis_cluster.masters if one is not redis_cluster.owner(slot))
    )
    with step.source.client() as source, step.target.client() as target:
        for key in keys:
            source.set(key, "1")
        with pytest.raises(redis.exceptions.MovedError):
            target.get(keys[0])
        step.open()
        assert step.carry(2) == 2
        asked = 0
        for key in keys:
            try:
                assert source.get(key) == b"1"
            except redis.exceptions.AskError as error:
                assert (error.slot_id, error.port) == (slot, step.target.port)
                asked += 1
        assert asked == 2
        assert step.carry() == 3 and step.carry() == 0
        step.close()
        for one in redis_cluster.masters:  # at once, not when they come to talk of it
            owners = [node for node in redis_cluster.seen_by(one) if slot in node.slots]
            assert [node.port for node in owners] == [step.target.port]
        with pytest.raises(redis.exceptions.MovedError) as moved:
            source.get(keys[0])
        assert moved.value.port == step.target.port
        assert {target.get(key) for key in keys} == {b"1"}
    assert redis_cluster.owner(slot) is step.target
    redis_cluster.wait_ready()  # all others know it


def test_a_move_that_is_given_up_changes_nothing(redis_cluster: Cluster) -> None:
    source, target, _ = redis_cluster.masters
    slot = min(redis_cluster.slots_of(source))
    step = redis_cluster.migration(slot, target)
    for _ in range(2):
        step.open()
        step.abandon()
    step.open()
    redis_cluster.heal()  # ends it as well
    for one in (source, target):
        with one.client() as client:
            assert "[" not in str(client.execute_command("CLUSTER", "NODES"))
    assert redis_cluster.owner(slot) is source


def test_ranges_move_with_their_keys_and_by_the_tool(redis_cluster: Cluster) -> None:
    source, target, _ = redis_cluster.masters
    client = connected(redis_cluster)
    for number in range(500):
        client.set(f"k{number}", number)
    slots = sorted(redis_cluster.slots_of(source))[:50]
    redis_cluster.move(slots, target)
    assert redis_cluster.slots_of(target) >= set(slots)
    before = len(redis_cluster.slots_of(source))
    redis_cluster.reshard(30, source, target)
    redis_cluster.wait_ready()
    assert len(redis_cluster.slots_of(source)) == before - 30
    assert [client.get(f"k{number}") for number in range(500)] == [
        b"%d" % number for number in range(500)
    ]
    client.close()


def test_a_replica_takes_over_and_the_old_master_follows_it(redis_cluster: Cluster) -> None:
    lost = redis_cluster.masters[0]
    slots = redis_cluster.slots_of(lost)
    (replica,) = redis_cluster.replicas_of(lost)
    lost.kill()
    assert redis_cluster.wait_for_failover(lost) is replica
    assert redis_cluster.slots_of(replica) == slots
    assert len(redis_cluster.masters) == 3
    redis_cluster.heal()
    assert redis_cluster.replicas_of(replica) == [lost]


def test_a_master_that_is_kept_waiting_stays_one(redis_cluster: Cluster) -> None:
    before = redis_cluster.masters
    before[0].stop()
    until(
        lambda: any("fail" in node.flags for node in redis_cluster.seen_by(before[1])),
        "nobody misses it",
    )
    time.sleep(2)  # in which its replica would have asked for votes
    redis_cluster.heal()
    assert redis_cluster.masters == before


def test_masters_alone_make_a_cluster_that_asks_for_a_password(redis_kind: str) -> None:
    lenient = cluster(redis_kind, replicas=0, password=PASSWORD, cluster_require_full_coverage="no")
    with lenient as made:
        source, target, last = made.masters
        assert len(made.servers) == 3
        assert made.url.startswith(f"redis+cluster://{source.userinfo()}127.0.0.1:")
        with source.client(password=None) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        slot = min(made.slots_of(source))
        made.reshard(1, source, target)
        assert made.owner(slot) is target
        made.move([slot], source)
        last.kill()
        with made.servers[1].client() as client:  # the others go on
            assert client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        assert made.masters == [source, target]
