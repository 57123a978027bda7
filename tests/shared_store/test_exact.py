"""Exact across processes: four, spawned or forked, of eight threads or thirty-two tasks each, at
one key and at a thousand, in runs too short to refill."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from reference import ALGORITHMS
from shared_store import places, work
from shared_store.crew import Crew, crew
from sluicegate import SharedMemoryStore, sync

pytestmark = pytest.mark.server

PROCESSES = 4
LIMIT = 6000
EACH = 7  # of a thousand keys
KEYS = [f"user:{number}" for number in range(1000)]
SEVERAL = (
    f"a: {2 * LIMIT}/30 days; b: {LIMIT}/30 days using sliding-log; "
    f"c: {3 * LIMIT}/30 days using fixed-window; d: {2 * LIMIT}/30 days using sliding-window"
)

_numbers = itertools.count()


def quota(algorithm: str, limit: int = LIMIT) -> str:
    return f"{limit}/30 days using {algorithm}"


def prepare(made: work.Made) -> None:
    """What a preloading server makes before it forks: every limiter of these tests."""
    for kind in ("threads", "tasks"):
        for algorithm in ALGORITHMS:
            made.limiter(f"one {algorithm}", quota(algorithm), kind)
            made.limiter(f"each {algorithm}", quota(algorithm, EACH), kind)
        made.limiter("several", SEVERAL, kind)
        made.slots(f"slots {kind}", 11, kind)
    for algorithm in ALGORITHMS:
        made.limiter(f"first {algorithm}", quota(algorithm))
        made.limiter(f"second {algorithm}", quota(algorithm))
        made.limiter(f"reserved {algorithm}", quota(algorithm, 10**6))


@pytest.fixture(scope="module", params=["spawn", "fork"])
def processes(request: pytest.FixtureRequest) -> Iterator[tuple[str, Crew]]:
    with places.a_path() as path, crew(path, PROCESSES, request.param, prepare) as made:
        yield path, made
        assert SharedMemoryStore(path).check() == []


@pytest.fixture
def path(processes: tuple[str, Crew]) -> str:
    return processes[0]


@pytest.fixture
def four(processes: tuple[str, Crew]) -> Crew:
    return processes[1]


@pytest.fixture
def key() -> str:
    """That no test had before."""
    return f"key {next(_numbers)}"


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("costs", [[1], [1, 2, 5, 1]], ids=["units", "weights"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exactly_the_limit_is_admitted(
    four: Crew, key: str, algorithm: str, costs: list[int], kind: str
) -> None:
    found = four.do(
        "hits", kind=kind, name=f"one {algorithm}", quotas=quota(algorithm), keys=[key], costs=costs
    )
    shares = [one[key] for one in found]
    print(f"admitted by each process: {shares}")
    assert sum(shares) == LIMIT


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exactly_the_limit_of_each_of_a_thousand_keys(
    four: Crew, key: str, algorithm: str, kind: str
) -> None:
    keys = [f"{key} {one}" for one in KEYS]
    found = four.do(
        "hits", kind=kind, name=f"each {algorithm}", quotas=quota(algorithm, EACH), keys=keys,
        costs=[1, 2],
    )  # fmt: skip
    assert work.summed(found) == dict.fromkeys(keys, EACH)


@pytest.mark.parametrize("by_many", [False, True], ids=["hit", "hit_many"])
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_of_several_quotas_the_smallest_is_exact(
    four: Crew, key: str, kind: str, by_many: bool
) -> None:
    found = four.do(
        "hits", kind=kind, name="several", quotas=SEVERAL, keys=[key], costs=[1, 3], unit="b",
        by_many=by_many,
    )  # fmt: skip
    assert work.summed(found) == {key: LIMIT}


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hit_many_is_exact(four: Crew, key: str, algorithm: str, kind: str) -> None:
    found = four.do(
        "hits", kind=kind, name=f"one {algorithm}", quotas=quota(algorithm), keys=[key],
        costs=[1, 2, 5], by_many=True,
    )  # fmt: skip
    assert work.summed(found) == {key: LIMIT}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hit_all_charges_both_or_none(path: str, four: Crew, algorithm: str) -> None:
    names = [f"first {algorithm}", f"second {algorithm}"]
    admitted = sum(four.do("both", names=names, quotas=[quota(algorithm)] * 2, tries=300))
    assert 0 < admitted <= LIMIT
    store = SharedMemoryStore(path)
    pair = [sync.Limiter(quota(algorithm), store=store, name=name) for name in names]
    left = [one.peek("k", 0).remaining for one in pair]
    print(f"{algorithm}: {admitted} admitted, {left} left of {LIMIT}")
    assert left == [LIMIT - admitted] * 2
    # what two that are under way refused each other was not lost
    rest = sum(bool(sync.hit_all((pair[0], "k", 1), (pair[1], "k", 1))) for _ in range(LIMIT))
    assert admitted + rest == LIMIT


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reservations_end_at_exactly_what_was_settled(
    path: str, four: Crew, algorithm: str
) -> None:
    name = f"reserved {algorithm}"
    found = four.do("reservations", name=name, quotas=quota(algorithm, 10**6), times=60)
    stay = sum(units for units, _ in found)
    limiter = sync.Limiter(quota(algorithm, 10**6), store=SharedMemoryStore(path), name=name)
    assert all(refused == 0 for _, refused in found)
    used = 10**6 - limiter.peek("k", 0).remaining
    # of a gcra quota the time of the run, far below a unit, may have come back
    assert used == stay


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_never_more_held_than_the_limit_which_is_reached(path: str, four: Crew, kind: str) -> None:
    four.held[:] = [0, 0]
    got = four.do("slots", kind=kind, name=f"slots {kind}", limit=11, times=40)
    print(f"{sum(got)} slots were had, {four.held[1]} at once")
    assert four.held[:] == [0, 11]
    assert all(got)
    limiter = sync.ConcurrencyLimiter(11, store=SharedMemoryStore(path), name=f"slots {kind}")
    assert limiter.count("k") == 0
