"""Keys and costs of somebody who means harm."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from reference import ALGORITHMS
from sluicegate import Limiter, MemoryStore, Quota, _core
from sluicegate.testing import Clock

DAY = 86400
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


def random_pairs(count: int) -> Iterator[tuple[bytes, int]]:
    """(key, cost) of 8 random bytes and 1 to 255, made at the speed of C."""
    noise = os.urandom(count * 9).replace(b"\0", b"\1")
    return struct.iter_unpack("8sB", noise)


# ---- floods of keys


@pytest.mark.slow
def test_ten_million_random_keys_stay_within_the_bound() -> None:
    clock = Clock()
    store = MemoryStore(max_keys=100_000, clock=clock)
    limiter = Limiter(Quota(1000, DAY), store=store, name="flooded")
    other = Limiter(Quota(10, DAY), store=store, name="quiet")
    for i in range(1000):
        other.hit_nowait(f"user {i}", 7)
    for _ in range(950):
        limiter.hit_nowait("heavy")
    limiter.ban_nowait("banned", DAY)
    decision, receipt = limiter.reserve_nowait("reserved", 1, DAY)
    assert decision
    table, quiet = limiter.table, other.table
    before, seen, most = quiet.bytes, 953, 0
    for _ in range(1000):
        limiter.hit_many_nowait(random_pairs(10_000))
        seen += 10_000
        assert table.keys <= 100_000
        most = max(most, table.bytes)
    assert seen >= 10_000_000
    assert table.keys >= 99_000
    assert most <= 100_000 * 48, f"{most / 100_000:.1f} bytes a key"
    # Nothing lapses within the test, so each key that came and is not there was evicted.
    counters = table.counters()
    assert counters["evictions"] >= 10_000_000 * 0.999 - table.keys
    assert counters["evictions"] + table.keys <= seen
    # The used most, the banned and the reserved are still there, and the other limiter whole.
    assert limiter.peek_nowait("heavy").remaining == 50
    assert not limiter.hit_nowait("banned")
    assert receipt is not None
    assert receipt.open
    assert quiet.keys == 1000
    assert quiet.bytes == before
    assert quiet.counters()["evictions"] == 0
    assert all(other.peek_nowait(f"user {i}").remaining == 3 for i in range(1000))


@algorithms
def test_a_bound_in_bytes_holds_for_logs_and_all(algorithm: str) -> None:
    store = MemoryStore(max_bytes=1_000_000, clock=Clock())
    limiter = Limiter(Quota(1000, DAY, algorithm=algorithm), store=store)
    for _ in range(300):
        limiter.hit_nowait("heavy", 3)
    for _ in range(100):
        limiter.hit_many_nowait(random_pairs(2000))
        assert limiter.table.bytes <= 1_000_000
    assert limiter.table.counters()["evictions"] > 0
    assert limiter.peek_nowait("heavy").remaining == 100


@algorithms
def test_the_least_used_goes_first(algorithm: str) -> None:
    """A flood of one-hit keys displaces one-hit keys, never one of the hundred that were used
    to half; and of these none, though they were there first."""
    store = MemoryStore(max_keys=2000, clock=Clock())
    limiter = Limiter(Quota(100, DAY, algorithm=algorithm), store=store)
    for i in range(100):
        limiter.hit_nowait(f"used {i}", 50)
    limiter.hit_many_nowait([(key, 1) for key, _ in random_pairs(30_000)])
    assert limiter.table.keys <= 2000
    assert all(limiter.peek_nowait(f"used {i}").remaining == 50 for i in range(100))


@algorithms
def test_what_expired_goes_before_what_lives(algorithm: str) -> None:
    clock = Clock()
    limiter = Limiter(
        Quota(100, 60, algorithm=algorithm), store=MemoryStore(max_keys=1000, clock=clock)
    )
    limiter.hit_many_nowait([(f"old {i}", 100) for i in range(500)])
    clock.advance(121)
    limiter.hit_many_nowait([(f"new {i}", 1) for i in range(700)])
    assert limiter.table.counters()["evictions"] == 0
    assert all(limiter.peek_nowait(f"new {i}").remaining == 99 for i in range(700))


def test_where_nothing_may_go_on_full_decides() -> None:
    for on_full, allowed in (("deny", False), ("allow", True), ("raise", None)):
        store = MemoryStore(max_keys=50, on_full=on_full, clock=Clock())  # type: ignore[arg-type]
        limiter = Limiter(Quota(5, 60), store=store)
        for i in range(50):
            limiter.ban_nowait(f"banned {i}", 3600)
        if allowed is None:
            with pytest.raises(_core.StoreFullError):
                limiter.hit_nowait("one more")
        else:
            decision = limiter.hit_nowait("one more")
            assert decision.allowed is allowed
            assert decision.degraded
            assert limiter.table.counters()["full"] == 1
        assert not limiter.hit_nowait("banned 7")
        assert limiter.table.counters()["evictions"] == 0
        with pytest.raises(_core.StoreFullError):
            limiter.ban_nowait("one more", 60)


def test_memory_returns_after_a_flood() -> None:
    clock = Clock()
    limiter = Limiter(Quota(300, 1), store=MemoryStore(clock=clock))
    for _ in range(20):
        limiter.hit_many_nowait(random_pairs(10_000))
    full = limiter.table.bytes
    assert full > 200_000 * 24
    for _ in range(20):  # inserts sweep
        clock.advance(10)
        limiter.hit_many_nowait([(key, 1) for key, _ in random_pairs(10_000)])
    assert limiter.table.bytes < full / 3


# ---- keys

NASTY: list[Any] = [
    "",
    "a",
    "\0",
    "a\0b",
    "a\0c",
    "\ud800",
    "\udfff",
    "x\udc80y",
    "é",
    "\U0010ffff",
    "k" * 1_000_000,
    b"\xff" * 1_000_000,
    b"\xff\xfe",
    b"\0\0",
    "{}${jndi}%s%n",
]


@algorithms
def test_every_key_is_its_own(algorithm: str) -> None:
    limiter = Limiter(Quota(3, DAY, algorithm=algorithm))
    for key in NASTY:
        for left in (2, 1, 0):
            assert limiter.hit_nowait(key).remaining == left
        assert not limiter.hit_nowait(key)
        assert not limiter.bind(key).hit_nowait()
    assert limiter.table.keys == len(NASTY)


def test_text_and_its_bytes_are_one_key() -> None:
    limiter = Limiter(Quota(2, DAY))
    for key in NASTY:
        if isinstance(key, str):
            limiter.reset_nowait(key)
            assert limiter.hit_nowait(key)
            assert limiter.hit_nowait(key.encode("utf-8", "surrogatepass"))
            assert not limiter.hit_nowait(key)


@pytest.mark.parametrize("key", [None, 1, 1.5, ["a"], ("a",), bytearray(b"a"), memoryview(b"a")])
def test_what_is_no_key_is_refused(key: Any) -> None:
    limiter = Limiter(Quota(2, DAY))
    for call in (limiter.hit_nowait, limiter.peek_nowait, limiter.reset_nowait, limiter.bind):
        with pytest.raises(TypeError):
            call(key)
    assert limiter.table.keys == 0


# ---- costs


class Odd:
    def __index__(self) -> int:
        raise RuntimeError("odd")


@algorithms
def test_costs_that_are_none(algorithm: str) -> None:
    limiter = Limiter(Quota(5, DAY, algorithm=algorithm, name="n"))
    calls = [
        limiter.hit_nowait,
        limiter.peek_nowait,
        limiter.penalize_nowait,
        limiter.reward_nowait,
        limiter.reserve_nowait,
        limiter.bind("key").hit_nowait,
        lambda key, cost: limiter.hit_many_nowait([(key, 1), (key, cost)]),
        lambda key, cost: _core.hit_all_nowait([(limiter, key, 1), (limiter, key, cost)]),
        lambda key, cost: limiter.project_nowait(key, [cost]),
    ]
    for call in calls:
        takes_key = getattr(call, "__qualname__", "").split(".")[0] != "Handle"
        for cost, error in [
            (-1, ValueError),
            (2**40 + 1, ValueError),
            (2**63, ValueError),
            (2**64, ValueError),
            (-(2**70), ValueError),
            (1.0, TypeError),
            (float("nan"), TypeError),
            ("1", TypeError),
            (True, TypeError),
            ([1], TypeError),
            (Odd(), RuntimeError),
            ({"m": 1}, ValueError),
            ({"n": -1}, ValueError),
            ({"n": 1.5}, TypeError),
            ({1: 1}, TypeError),
        ]:
            with pytest.raises(error):
                call("key", cost) if takes_key else call(cost)  # type: ignore[operator]
    assert limiter.peek_nowait("key").remaining == 5, "a bad cost charged something"


@algorithms
def test_costs_at_the_edges(algorithm: str) -> None:
    limiter = Limiter(Quota(5, DAY, algorithm=algorithm))
    never = limiter.hit_nowait("key", 2**40)
    assert not never
    assert never.retry_after == float("inf")
    assert never.as_dict()["retry_after"] is None
    assert limiter.hit_nowait("key", 5)
    assert limiter.hit_nowait("key", 0), "a cost of 0 passes at the limit"
    limiter.penalize_nowait("key", 2**40)
    assert limiter.hit_nowait("key", 0)
    assert limiter.hit_nowait("key").retry_after <= 2 * DAY
    limiter.ban_nowait("key", 60)
    assert not limiter.hit_nowait("key", 0)
    limiter.unban_nowait("key")
    limiter.reward_nowait("key", 2**40)
    assert limiter.hit_nowait("key", 5)
    assert not limiter.hit_nowait("key")
    large = Limiter(Quota(2**40, 316_224_000.0, algorithm=algorithm))
    assert large.hit_nowait("key", 2**40)
    assert not large.hit_nowait("key")
