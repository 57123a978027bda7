"""So many keys that the table grows, splits, sweeps and shrinks: each keeps its own state."""

from __future__ import annotations

import random

import pytest

from model.pair import Pair
from reference import ALGORITHMS, Quota


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "all"])
def test_each_key_keeps_its_state(algorithm: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    kinds = ALGORITHMS if algorithm == "all" else (algorithm,)
    pair = Pair([Quota(5, 60, 0, kind) for kind in kinds])
    for step in range(12_000):
        # Waves: many new keys, then the same ones again, while the oldest expire.
        key = f"{step // 3000}:{rng.randrange(2500)}"
        pair.hit(key, rng.choice([1, 1, 2, 5]))
        if rng.random() < 0.01:
            pair.clock.ns += rng.randint(0, 3 * 10**9)
    for known in pair.model.subjects:
        pair.peek(known)
    assert pair.table.counters()["evictions"] == 0


def test_a_table_without_a_bound_in_reach_loses_no_key() -> None:
    pair = Pair([Quota(1, 86400)])
    keys = [f"key {i}" for i in range(50_000)]
    assert all(pair.core.hit_many_nowait([(key, 1) for key in keys]))
    assert pair.table.keys == len(keys)
    assert not any(pair.core.hit_many_nowait([(key, 1) for key in keys]))
    for i, key in enumerate(keys):
        if i % 3:
            pair.core.reset_nowait(key)
    assert pair.table.keys == len(range(0, len(keys), 3))
    passed = pair.core.hit_many_nowait([(key, 1) for key in keys])
    assert [bool(one) for one in passed] == [i % 3 != 0 for i in range(len(keys))]
