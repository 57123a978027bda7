"""Exact in a cluster: while slots move by hand and by a reshard, and when a master is lost."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from redis_servers.cluster import Cluster
from redis_store.processes import together, workers
from redis_store.test_exact import LIMIT, PROCESSES, gathered, meanwhile, most_at_once, quota

KEYS = 40


def name(key: str) -> str:
    """What the worker's limiter calls it."""
    return f"sg:{{exact:{key}}}"


def keys_in(cluster: Cluster, slots: frozenset[int], count: int) -> list[str]:
    """Subjects whose keys are in these slots."""
    numbers = (f"k{number}" for number in itertools.count())
    return list(itertools.islice((k for k in numbers if cluster.slot_of(name(k)) in slots), count))


@pytest.mark.parametrize("algorithm", ["gcra", "sliding-log"])
def test_exact_while_a_slot_moves_round(redis_cluster: Cluster, algorithm: str) -> None:
    """By hand, key by key; each step is seen by checks: MOVED, ASK, TRYAGAIN."""
    slot = redis_cluster.slot_of(name("k"))
    masters = redis_cluster.masters

    def move() -> None:
        here = redis_cluster.owner(slot)
        step = redis_cluster.migration(slot, masters[(masters.index(here) + 1) % len(masters)])
        step.open()
        time.sleep(0.005)
        while step.carry(1):
            time.sleep(0.005)
        time.sleep(0.005)
        step.close()

    with workers(
        PROCESSES, work="rates", url=redis_cluster.url, quotas=quota(algorithm), pause=0.3,
        costs=[1, 2],
    ) as made, meanwhile(move, 0.01) as moves:  # fmt: skip
        together(made)
        found = gathered([one.read() for one in made])
        moved = moves()
    print(f"{algorithm}: the slot moved {moved} times")
    assert found == ({"k": LIMIT}, 0, 0)
    assert moved >= 3


def test_exact_while_slots_are_resharded(redis_cluster: Cluster) -> None:
    algorithm = "sliding-log"
    source, target, _ = sorted(redis_cluster.masters, key=lambda one: one.port)
    count = 120
    moving = frozenset(sorted(redis_cluster.slots_of(source))[:count])
    keys = keys_in(redis_cluster, moving, KEYS // 2)
    keys += [f"other{number}" for number in range(KEYS // 2)]
    limit = 60
    with workers(
        PROCESSES, work="rates", url=redis_cluster.url, quotas=quota(algorithm, limit),
        keys=keys, pause=0.1,
    ) as made:  # fmt: skip
        together(made)
        redis_cluster.reshard(count, source, target)
        found = gathered([one.read() for one in made])
    assert found == (dict.fromkeys(keys, limit), 0, 0)
    assert moving <= redis_cluster.slots_of(target)


def test_when_a_master_is_killed_only_its_unreplicated_writes_are_admitted_twice(
    redis_cluster: Cluster,
) -> None:
    master = redis_cluster.owner(redis_cluster.slot_of(name("k")))
    limit = 4000
    with workers(
        PROCESSES, work="rates", url=redis_cluster.url, quotas=quota("fixed-window", limit),
        pause=0.05, events=True, timeout=0.5,
    ) as made:  # fmt: skip
        together(made)
        time.sleep(0.35)
        master.kill()
        killed = time.monotonic()
        redis_cluster.wait_for_failover(master)
        told: list[dict[str, Any]] = [one.read() for one in made]
    units, lost, replies = gathered(told)
    events = sorted(tuple(event) for one in told for event in one["events"])
    # For a second and more nobody decides: what came before that was the old master's.
    before = [event for event in events if event[0] < killed + 0.5]
    after = events[len(before) :]
    assert before
    assert after
    # How much the new one knew when it began to decide, by what it had left then.
    known = limit - max(remaining + cost for _, cost, remaining in after)
    unreplicated = max(sum(cost for _, cost, _ in before) - known, 0)
    print(f"{sum(cost for _, cost, _ in before)} units admitted before the kill, of which "
          f"{unreplicated} were not replicated; {units['k']} of {limit} in all; "
          f"{lost} units in {replies} checks whose reply was lost")  # fmt: skip
    assert sum(cost for _, cost, _ in after) <= limit - known
    assert limit - lost <= units["k"] <= limit + unreplicated


def test_slots_held_stay_held_while_their_slot_moves(redis_cluster: Cluster) -> None:
    slot = redis_cluster.slot_of(name("k"))
    masters = redis_cluster.masters

    def move() -> None:
        here = redis_cluster.owner(slot)
        target = masters[(masters.index(here) + 1) % len(masters)]
        redis_cluster.move([slot], target)

    with workers(
        PROCESSES, work="slots", url=redis_cluster.url, limit=9, times=40, hold=0.02
    ) as made, meanwhile(move, 0.01) as moves:  # fmt: skip
        together(made)
        held = [span for one in made for span in one.read()["held"]]
        moved = moves()
    assert most_at_once(held) == 9
    assert moved >= 3
