"""What servers carry: a small simulation of queues, from the costs that redis_costs.py measures.

    python tests/bench/capacity.py             the tables of docs/capacity.md, from capacity.json
    python tests/bench/capacity.py --measure   measures first, and writes both files anew

The model. Checks come to a process at random (Poisson). Its loop takes all that has come since its
last turn, works on them, and sends what is for one server in one write: in as few commands as the
256 checks of one script allow, or over a cluster in one a check, since keys drawn at random have
slots of their own. A server does one thing at a time, in the order in which it comes: to be woken
by a write costs it so much, a command so much, and each check in it so much. A check's latency runs
from when it is made to when the reply is there.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

BATCH = 256  # checks that one script takes
NETWORK_US = 100.0  # from a process to a server, and as long back: assumed
FULL = 0.6  # of a server's time, above which nothing is planned
CHECKS = 30_000  # that are simulated
LEASE, LEASE_SECONDS = 100, 1.0
MILLION, KEYS = 1_000_000, 100_000_000


@dataclass(frozen=True)
class Costs:
    """µs of a processor, but for the last."""

    wake_us: float  # a server: to read what a process has sent, and to write the replies
    command_us: float  # each script that is called
    check_us: float  # each check in it
    turn_us: float  # a process: a turn of the loop, for each server that it writes to
    client_us: float  # each check
    client_cluster_us: float  # each check that is a command of its own
    bytes_a_key: float  # of a gcra quota


@dataclass(frozen=True)
class Outcome:
    server: float  # share of its time that a server works
    client: float  # and a process
    p50_us: float
    p99_us: float


# ---- costs


def solved(rows: Sequence[Sequence[float]]) -> list[float]:
    """x of three equations a·x0 + b·x1 + c·x2 = d, by Cramer's rule."""

    def determinant(m: Sequence[Sequence[float]]) -> float:
        (a, b, c), (d, e, f), (g, h, i) = m
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    left = [[*row[:3]] for row in rows]
    whole = determinant(left)
    found = []
    for column in range(3):
        changed = [[*row] for row in left]
        for row, given in zip(changed, rows, strict=True):
            row[column] = given[3]
        found.append(determinant(changed) / whole)
    return found


# ---- the simulation


def process(
    rng: random.Random,
    rate: float,
    burst: int,
    servers: int,
    costs: Costs,
    clustered: bool,
    seconds: float,
) -> tuple[list[tuple[float, int, list[float]]], float]:
    """What one process sends: (when, to which server, when its checks were made), in µs; and the
    share of its time that it works. Of its checks `burst` are made at a time."""
    each = costs.client_cluster_us if clustered else costs.client_us
    until, mean = seconds * 1e6, burst * 1e6 / rate
    draw, choose = rng.expovariate, rng.randrange
    sent: list[tuple[float, int, list[float]]] = []
    free = busy = 0.0
    made = draw(1 / mean)
    while made < until:
        begin = max(free, made)
        groups: dict[int, list[float]] = {}
        count = 0
        while made <= begin:
            for _ in range(burst):
                groups.setdefault(choose(servers), []).append(made)
            count += burst
            made += draw(1 / mean)
        spent = costs.turn_us * len(groups) + each * count
        busy += spent
        free = begin + spent
        sent += [(free, server, times) for server, times in groups.items()]
    return sent, busy / max(until, free)


def simulate(
    rate: float,
    servers: int,
    processes: int,
    costs: Costs,
    *,
    clustered: bool,
    burst: int = 1,
    network_us: float = NETWORK_US,
    checks: int = CHECKS,
    seed: int = 1,
) -> Outcome:
    """`rate` checks a second from so many processes alike, to so many servers alike."""
    rng = random.Random(seed)
    seconds = checks / rate
    queues: list[list[tuple[float, int, list[float]]]] = [[] for _ in range(servers)]
    clients = []
    for number in range(processes):
        sent, busy = process(rng, rate / processes, burst, servers, costs, clustered, seconds)
        clients.append(busy)
        for when, server, times in sent:
            queues[server].append((when + network_us, number, times))
    latencies: list[float] = []
    working, longest = 0.0, seconds * 1e6
    after = longest / 5  # the first fifth only fills the queues
    for queue in queues:
        queue.sort(key=lambda job: job[0])
        now, next_job = 0.0, 0
        while next_job < len(queue):
            now = max(now, queue[next_job][0])
            read, taken, work = set(), next_job, 0.0
            while taken < len(queue) and queue[taken][0] <= now:
                _, number, times = queue[taken]
                commands = len(times) if clustered else math.ceil(len(times) / BATCH)
                work += commands * costs.command_us + len(times) * costs.check_us
                read.add(number)
                taken += 1
            work += len(read) * costs.wake_us
            now += work
            working += work
            for _, _, times in queue[next_job:taken]:
                latencies += [now + network_us - made for made in times if made > after]
            next_job = taken
        longest = max(longest, now)
    latencies.sort()
    return Outcome(
        server=working / servers / longest,
        client=sum(clients) / processes,
        p50_us=latencies[len(latencies) // 2],
        p99_us=latencies[len(latencies) * 99 // 100],
    )


def masters_for(rate: float, processes: int, costs: Costs) -> tuple[int, Outcome]:
    """The fewest masters of a cluster that are no more busy than FULL, and how they are."""
    count = max(3, math.floor(rate * (costs.command_us + costs.check_us) / 1e6 / FULL))
    while simulate(rate, count, processes, costs, clustered=True, checks=CHECKS // 3).server > FULL:
        count += 1
    return count, simulate(rate, count, processes, costs, clustered=True)


# ---- leases


def spent_of_lease(expected: float, lease: int) -> float:
    """Checks that one draw of `lease` units serves, where `expected` more come, at random, before
    it lapses."""
    if expected > lease + 10 * math.sqrt(lease) + 10:
        return float(lease)
    served, below, term = 1.0, 0.0, math.exp(-expected)
    for number in range(lease - 1):
        below += term  # the chance that no more than `number` come
        term *= expected / (number + 1)
        served += 1 - below
    return served


def asked(rate: float, keys: int, processes: int, lease: int, exponent: float) -> float:
    """The share of checks that a server is asked for, where key number n is checked as 1/n to the
    `exponent` (0: all alike), and each process draws for itself."""
    edges = [1.0]
    while edges[-1] < keys + 1:
        edges.append(min(keys + 1.0, max(edges[-1] + 1, math.floor(edges[-1] * 1.05))))
    ranges = [(b - a, (a + b - 1) / 2) for a, b in pairwise(edges)]
    weights = [count * rank**-exponent for count, rank in ranges]
    whole = sum(weights)
    share = 0.0
    for (count, _), weight in zip(ranges, weights, strict=True):
        of_key = rate * weight / whole / count / processes
        share += weight / whole / spent_of_lease(of_key * LEASE_SECONDS, lease)
    return share


# ---- memory

GRIDS = (1.048576, 8.388608, 134.217728, 17179.869184)  # seconds; see prelude.lua


def alive(rate: float, keys: int, interval: float, capacity: float) -> float:
    """Keys that a server has state of, of so many that are checked alike: one unit counts for
    `interval` seconds, and the key stays until the next step of a grid that suits `capacity`
    seconds, the interval times the burst."""
    grid = max((step for step in GRIDS if step <= capacity / 4), default=GRIDS[0])
    return keys * -math.expm1(-rate / keys * (interval + grid / 2))


# ---- the tables

HEADS = ("what", "checks a second", "processes", "servers", "servers busy", "processes busy",
         "median", "99th percentile")  # fmt: skip
# checks a second, processes, checks that a process makes at a time
SINGLE = ((10_000, 4, 1), (25_000, 4, 1), (50_000, 8, 1), (75_000, 8, 1), (100_000, 8, 1),
          (100_000, 8, 32), (300_000, 8, 256))  # fmt: skip
QUOTAS = (("5/second burst 20", 0.2, 4.0), ("100/minute", 0.6, 60.0), ("1000/day", 86.4, 86400.0))
CLUSTERS = ((100_000, 8), (300_000, 16), (MILLION, 64))


def line(what: str, rate: float, processes: int, servers: int, found: Outcome) -> tuple[str, ...]:
    return (
        what,
        f"{rate:,.0f}",
        str(processes),
        str(servers),
        f"{found.server:.0%}",
        f"{found.client:.0%}",
        f"{found.p50_us / 1000:.2f} ms",
        f"{found.p99_us / 1000:.2f} ms",
    )


def lines(costs: Costs) -> Iterator[tuple[str, ...]]:
    """The table of the page, a row an entry."""
    for rate, processes, burst in SINGLE:
        found = simulate(rate, 1, processes, costs, clustered=False, burst=burst)
        what = "one Redis" if burst == 1 else f"one Redis, {burst} checks at a time"
        yield line(what, rate, processes, 1, found)
    for rate, processes in CLUSTERS:
        masters, found = masters_for(rate, processes, costs)
        yield line("a cluster", rate, processes, masters, found)
    for exponent, keys in ((0.0, "keys all alike"), (1.0, "key number n checked as 1/n")):
        share = asked(MILLION, KEYS, 64, LEASE, exponent)
        masters, found = masters_for(MILLION * share, 64, costs)
        what = f"a cluster, lease={LEASE}, {keys}: asked for {share:.0%}"
        yield line(what, MILLION, 64, masters, found)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    ruled = ["---" if number == 0 else "---:" for number in range(len(heads))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ruled, *rows)) + "\n"


def tables(figures: dict[str, object]) -> dict[str, str]:
    """By the names of their places in the page."""
    costs, ways = Costs(**figures["costs"]), figures["ways"]  # type: ignore[arg-type]
    assert isinstance(ways, list)
    ways_table = table(
        ("checks come", "server, µs a check", "by the fit", "process, µs a check",
         "checks a read", "checks a command"),
        [
            (
                way["way"],
                f"{way['server_us']:.2f}",
                f"{predicted(costs, way['reads'], way['commands']):.2f}",
                f"{way['client_us']:.2f}",
                f"{1 / way['reads']:.0f}",
                f"{1 / way['commands']:.0f}",
            )
            for way in ways
        ],
    )  # fmt: skip
    fitted = table(
        ("a server reads", "a command", "a check", "a turn of a process",
         "a check there", "over a cluster", "bytes a key"),
        [[*(f"{value:.2f} µs" for value in [*asdict(costs).values()][:-1]),
          f"{costs.bytes_a_key:.0f}"]],
    )  # fmt: skip
    kept = [
        (quota, alive(MILLION, KEYS, interval, capacity)) for quota, interval, capacity in QUOTAS
    ]
    memory = table(
        ("quota", "keys with state", "memory of all servers"),
        [(q, f"{n / 1e6:,.1f} million", f"{n * costs.bytes_a_key / 1e9:.1f} GB") for q, n in kept],
    )
    carried = table(HEADS, [*lines(costs)])
    return {"costs": ways_table, "fit": fitted, "capacity": carried, "memory": memory}


def predicted(costs: Costs, reads: float, commands: float) -> float:
    """µs of a server for a check."""
    return reads * costs.wake_us + commands * costs.command_us + costs.check_us


# ---- measured

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "capacity.json"
PAGE = HERE.parent.parent / "docs" / "capacity.md"


def measured(rounds: int) -> dict[str, object]:
    """The ways that redis_costs.py measures, the costs that explain three of them, and bytes."""
    from .harness import worker
    from .redis_costs import WAYS, measure_costs
    from .redis_memory import CASES
    from .redis_setup import setup

    found = {one.way: one for one in measure_costs(rounds)}
    alone, batches, once, cluster = (
        found[way] for way in ("alone", "batches", "at once", "cluster")
    )
    wake, command, check = solved(
        [(one.reads, one.commands, 1.0, one.server_us) for one in (alone, batches, cluster)]
    )
    with setup() as made:
        held = worker("redis_memory.held", asdict(made), CASES[0])
    costs = Costs(
        wake_us=wake,
        command_us=command,
        check_us=check,
        turn_us=max(0.0, alone.client_us - once.client_us),
        client_us=once.client_us,
        client_cluster_us=cluster.client_us,
        bytes_a_key=held["bytes"],
    )
    ways = [{**asdict(one), "way": WAYS[one.way]} for one in found.values()]
    return {"costs": asdict(costs), "ways": ways}


def put(page: str, made: dict[str, str]) -> str:
    """The page with its tables anew, each between its two marks."""
    for name, text in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for {name}")
        page = before + begin + text + end + after
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="capacity", description="What servers carry.")
    parser.add_argument(
        "--measure", action="store_true", help="measure; write capacity.json and docs/capacity.md"
    )
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args(arguments)
    if given.measure:
        figures = measured(given.rounds)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    else:
        figures = json.loads(FIGURES.read_text("utf-8"))
    made = tables(figures)
    if given.measure and PAGE.exists():
        PAGE.write_text(put(PAGE.read_text("utf-8"), made), "utf-8")
    sys.stdout.write("\n".join(made.values()))
    return 0


if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)
    from bench.capacity import main as of_package

    raise SystemExit(of_package())
