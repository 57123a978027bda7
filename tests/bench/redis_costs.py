"""What a check costs a server: µs of its processor, by how checks come to it.

The figure is the server's own (used_cpu_user and used_cpu_sys of INFO), over the checks made
meanwhile: it does not depend on how many cores servers and clients share, but for the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from .harness import median, worker
from .redis_many import FEW_KEYS, LOG_QUOTA, Ours, fill_logs, seconds_for
from .redis_setup import (
    KEYS,
    KIND,
    QUOTA,
    WIDTH,
    Setup,
    Tally,
    all_at_once,
    closed,
    names,
    new_loop,
    one_by_one,
    ours_over,
    plain_gcra,
    setup,
    why_not,
)
from .rows import Row, Topic

__all__ = ["WAYS", "Found", "measure_costs"]

ALONE, BATCHES, AT_ONCE, CLUSTER, REPLICAS = "alone", "batches", "at once", "cluster", "replicas"
WAYS = {
    ALONE: "one at a time",
    BATCHES: "256 in one command, one such at a time",
    AT_ONCE: "512 at once, one server",
    CLUSTER: "512 at once, a cluster of three masters",
    REPLICAS: "the same with a replica each, the masters alone",
}


@dataclass(frozen=True)
class Found:
    """Of one way in which checks come: medians of some rounds, each a check."""

    way: str
    server_us: float  # all servers that decide
    client_us: float
    reads: float  # times that a server was woken, a check
    commands: float
    per_second: float


def spent(sockets: list[str]) -> tuple[float, int, int]:
    """Of servers since their start: seconds of processor, reads, script calls."""
    import redis

    seconds, reads, commands = 0.0, 0, 0
    for socket in sockets:
        with redis.Redis(unix_socket_path=socket) as client:
            told = client.info("everything")
        seconds += told["used_cpu_user"] + told["used_cpu_sys"]
        reads += told["total_reads_processed"]
        commands += told.get("cmdstat_evalsha", {"calls": 0})["calls"]
    return seconds, reads, commands


def cost(
    url: str, sockets: list[str], way: str, kind: str, rounds: int, count: int
) -> list[dict[str, float]]:
    """In a process of its own: a round an entry."""
    loop = new_loop(kind)
    limiter = ours_over(url, QUOTA, "cost")
    tally = Tally()
    hit = limiter.hit

    async def in_batches(subjects: list[str]) -> None:
        for first in range(0, len(subjects), 256):
            await limiter.hit_many([(name, 1) for name in subjects[first : first + 256]])

    async def run(subjects: list[str]) -> None:
        if way == ALONE:
            await one_by_one(hit, subjects, tally)
        elif way == BATCHES:
            await in_batches(subjects)
        else:
            await all_at_once(hit, subjects, tally, WIDTH)

    # Every key is there before.
    loop.run_until_complete(all_at_once(hit, [f"user:{n}" for n in range(KEYS)], Tally()))
    found = []
    for turn in range(rounds):
        drawn = names(count, turn)
        before, wall, own = spent(sockets), time.perf_counter(), time.process_time()
        loop.run_until_complete(run(drawn))
        own, wall = time.process_time() - own, time.perf_counter() - wall
        after = spent(sockets)
        found.append(
            {
                "server_us": (after[0] - before[0]) / count * 1e6,
                "client_us": own / count * 1e6,
                "reads": (after[1] - before[1]) / count,
                "commands": (after[2] - before[2]) / count,
                "per_second": count / wall,
            }
        )
    closed(loop)
    if tally.refused or tally.failed:
        raise AssertionError(tally.trouble())
    return found


def found_of(way: str, told: list[dict[str, float]]) -> Found:
    return Found(way, **{name: median(one[name] for one in told) for name in told[0]})


def measure_costs(rounds: int, kind: str = "asyncio") -> Iterator[Found]:
    """Each way in turn; RuntimeError."""
    from redis_servers.cluster import cluster

    with setup() as made:
        for way, count in ((ALONE, 10_000), (BATCHES, 100_000), (AT_ONCE, 100_000)):
            told = worker("redis_costs.cost", made.url, [made.socket], way, kind, rounds, count)
            yield found_of(way, told)
    for way, replicas in ((CLUSTER, 0), (REPLICAS, 1)):
        with cluster(KIND, masters=3, replicas=replicas) as running:
            masters = [str(one.socket) for one in running.masters]
            told = worker("redis_costs.cost", running.url, masters, way, kind, rounds, 50_000)
        yield found_of(way, told)


# ---- beside them


def of_reference(made: dict[str, str], rounds: int, count: int) -> float:
    """In a process of its own: µs of the server for a check of reference.lua."""
    place = Setup(**made)
    run = plain_gcra(place)
    run(3 * KEYS)
    return _median_of(place, lambda turn: run(count), rounds, count)


def of_full_logs(made: dict[str, str], rounds: int, count: int) -> float:
    """The same for a check of a log that stays full; see redis_many.logs."""
    place = Setup(**made)
    log = Ours(place, "asyncio", LOG_QUOTA, "log")
    fill_logs(place, log, FEW_KEYS)
    seconds, begun = seconds_for(count, FEW_KEYS), time.perf_counter()

    def run(turn: int) -> None:
        time.sleep(max(0.0, begun + (turn + 2) * seconds - time.perf_counter()))
        log.run(names(count, turn, FEW_KEYS))

    run(-2), run(-1)
    value = _median_of(place, run, rounds, count)
    closed(log.loop)
    return value


def _median_of(place: Setup, run: Callable[[int], object], rounds: int, count: int) -> float:
    found = []
    for turn in range(rounds):
        before = spent([place.socket])[0]
        run(turn)
        found.append((spent([place.socket])[0] - before) / count * 1e6)
    return median(found)


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    why = why_not()
    if why is not None:
        yield Row("redis-costs", "a check", None, "µs", missing=why)
        return
    try:
        for found in measure_costs(rounds):
            info = {
                "checks_a_read": round(1 / found.reads),
                "checks_a_command": round(1 / found.commands),
                "rate": round(found.per_second),
                "client_us": round(found.client_us, 2),
            }
            yield Row("redis-costs", WAYS[found.way], found.server_us, "µs", info=info)
        with setup() as made:
            for what, job in (
                ("512 at once of logs that stay full (1000/minute)", "of_full_logs"),
                ("redis-benchmark -P 64 -c 1 of reference.lua", "of_reference"),
            ):
                value = worker(f"redis_costs.{job}", asdict(made), rounds, 100_000)
                yield Row("redis-costs", what, value, "µs")
    except RuntimeError as error:
        yield Row("redis-costs", "a check", None, "µs", missing=str(error))


TOPIC = Topic("redis-costs", "Redis, what a check costs the server", measure)
