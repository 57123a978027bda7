"""In shared memory the C agrees with the reference on every field of every decision, as in its
own: the same traces, which tests/model and tests/redis_store draw, over a shared file.

SLUICEGATE_SEED=n repeats a failed trace, whose number stands in the message.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from model.pair import Pair, core_quota, hit_all
from model.test_machine import Machine
from redis_store.test_rule import SEED, Trace
from redis_store.trio import Trio, kinds, row
from reference import ALGORITHMS, Decision, Quota
from shared_store import places
from sluicegate import Limiter, SharedMemoryStore, _core, sync
from sluicegate.testing import Clock

TRACES = 9

_numbers = itertools.count()
_file: list[_core.SharedFile] = []


class SharedPair(Pair):
    """The C's state is in the file that is used just now."""

    def make_table(self, algorithms: Sequence[str], max_keys: int) -> _core.Table:
        name = f"pair {next(_numbers)}"
        return _core.Table(algorithms, clock=self.clock, shared=_file[-1], name=name)


class SharedMachine(Machine):
    pair_of = SharedPair

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        path = self.stack.enter_context(places.a_path())
        _file.append(_core.SharedFile(path, places.SIZE))

    def teardown(self) -> None:
        file = _file.pop()
        self.stack.close()
        assert file.check() == []


TestMachine = SharedMachine.TestCase
TestMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


class Double:
    """A limiter of the public interface over a SharedMemoryStore, and a Pair in private memory:
    Trace does the same to both."""

    def __init__(self, path: str, quotas: Sequence[Quota | None], names: Sequence[str]) -> None:
        self.clock = Clock()
        self.pair = Pair(quotas, kinds=names, clock=self.clock)
        store = SharedMemoryStore(path, places.SIZE, clock=self.clock)
        # a limiter is made of quotas alone, though some may go later: here at once, and of so
        # short a period that nothing is kept for its sake
        usual = [_core.Quota(1, 0.001, algorithm=name) for name in names]
        self.shared = sync.Limiter(usual, store=store, name="double")
        self.update(quotas, first=True)
        self.store = store

    @property
    def ns(self) -> int:
        return self.clock.ns

    def same(self, seen: _core.Decision, wanted: Decision, quotas: Any = None) -> Decision:
        return self.pair.same(seen, wanted, quotas or self.quotas)

    def update(self, quotas: Sequence[Quota | None], *, first: bool = False) -> None:
        if not first:
            self.pair.update(quotas)
        self.quotas = self.pair.quotas
        self.shared._rebind(self.shared.table, self.quotas)

    def hit(self, key: str, cost: int) -> Decision:
        return self.same(self.shared.hit(key, cost), self.pair.hit(key, cost))

    def hit_by(self, key: str, cost: int, quotas: Sequence[Quota | None]) -> Decision:
        others = [core_quota(one) for one in quotas]
        seen = self.shared.hit(key, cost, quotas=others)
        return self.same(seen, self.pair.hit_by(key, cost, quotas), others)

    def hit_many(self, pairs: Sequence[tuple[str, int]]) -> None:
        found = self.shared.hit_many(pairs)
        for seen, (key, cost) in zip(found, pairs, strict=True):
            self.same(seen, self.pair.hit(key, cost))

    def peek(self, key: str, cost: int) -> Decision:
        return self.same(self.shared.peek(key, cost), self.pair.peek(key, cost))

    def project(self, key: str, costs: list[int]) -> None:
        wanted = self.pair.model.project(key, list(costs), self.ns)
        assert self.shared.project_nowait(key, costs) == wanted

    def penalize(self, key: str, cost: int) -> None:
        self.pair.penalize(key, cost)
        self.shared.penalize(key, cost)

    def reward(self, key: str, cost: int) -> None:
        self.pair.reward(key, cost)
        self.shared.reward(key, cost)

    def ban(self, key: str, seconds: float) -> None:
        self.pair.ban(key, seconds)
        self.shared.ban(key, seconds)

    def unban(self, key: str) -> None:
        self.pair.unban(key)
        self.shared.unban(key)

    def reset(self, key: str) -> None:
        self.pair.reset(key)
        self.shared.reset(key)

    def reserve(self, key: str, cost: int, ttl: float) -> tuple[Any, Any] | None:
        pair = self.pair.reserve(key, cost, ttl)
        reservation = self.shared.reserve(key, cost, ttl=ttl)
        assert bool(reservation) == (pair is not None or reservation.decision.allowed)
        return None if pair is None else (pair, reservation)

    def settle(self, both: tuple[Any, Any], cost: int) -> None:
        self.pair.settle(both[0], cost)
        both[1].settle(cost)

    forget: Any = Trio.forget  # it asks for no more than there is here


class SharedTrace(Trace):
    def __init__(self, path: str, seed: int, algorithms: list[str] | None = None) -> None:
        self.rng = rng = random.Random(seed)
        self.algorithms = algorithms or kinds(rng)
        self.trio: Any = Double(path, row(rng, self.algorithms), self.algorithms)
        self.clock = self.trio.clock
        self.open = []
        self.wait = 0.0


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "mixed"])
def test_traces_agree(algorithm: str) -> None:
    print(f"SLUICEGATE_SEED={SEED}")
    for number in range(TRACES if algorithm == "mixed" else TRACES // 3):
        with places.a_path() as path:
            trace = SharedTrace(path, SEED + number, None if algorithm == "mixed" else [algorithm])
            try:
                trace.run(60)
            except AssertionError as error:
                raise AssertionError(f"SLUICEGATE_SEED={SEED + number} {error}") from error
            assert trace.trio.store.check() == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hit_all_over_shared_and_private_memory(path: str, algorithm: str) -> None:
    """Of three limiters, one of which is in private memory, one event by two keys."""
    _file.append(_core.SharedFile(path, places.SIZE))
    try:
        clock = _core.Clock()
        rng = random.Random(SEED)
        quota = Quota(9, 60, 0, algorithm)
        pairs = [
            SharedPair([quota], clock=clock),
            SharedPair([quota, Quota(20, 60, 0, "sliding-log")], clock=clock),
            Pair([Quota(12, 60, 0, algorithm)], clock=clock),
        ]
        for _ in range(400):
            hit_all(
                [
                    (rng.choice(pairs), rng.choice("ab"), rng.randrange(3))
                    for _ in range(rng.randrange(1, 5))
                ]
            )
            clock.ns += rng.choice((0, 10**6, 10**9, 10**10))
            for pair in pairs:
                pair.peek("a")
    finally:
        _file.pop()


async def test_many_keys_keep_their_own_state(path: str, clock: Clock) -> None:
    """While the file grows full of keys, of which none may be forgotten yet."""
    store = SharedMemoryStore(path, places.SIZE, clock=clock)
    limiter = Limiter("5/minute", store=store, name="many")
    private = Limiter("5/minute")
    rng = random.Random(SEED)
    keys = [f"key {number}" for number in range(3000)]
    for _ in range(20_000):
        key = rng.choice(keys)
        assert bool(await limiter.hit(key)) == bool(await private.hit(key))
    counters = limiter.table.counters()
    assert counters["evictions"] == 0 and counters["keys"] == private.table.keys
    assert store.check() == []
