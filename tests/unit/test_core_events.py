"""Several events at once, reservations, slots, observers of the extension."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from typing import Any

import pytest

from sluicegate import _core

ALGORITHMS = ["gcra", "fixed-window", "sliding-window", "sliding-log"]


@pytest.fixture
def clock() -> _core.Clock:
    return _core.Clock()


def limiter_of(*quotas: _core.Quota, clock: Any = None, **more: Any) -> _core.Limiter:
    table = {name: more.pop(name) for name in ("max_keys", "on_full") if name in more}
    return _core.Limiter(
        _core.Table([quota.algorithm for quota in quotas], clock=clock, **table), quotas, **more
    )


# ---- hit_many


def test_hit_many_is_each_by_itself(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10, name="m"), clock=clock)
    decisions = limiter.hit_many_nowait([("a", 2), (b"a", 2), ("b", {"m": 3}), ("a", 1)])
    assert [bool(decision) for decision in decisions] == [True, False, True, True]
    assert limiter.hit_many_nowait([]) == []
    assert len(limiter.hit_many_nowait((f"k{i}", 1) for i in range(1000))) == 1000


def test_hit_many_charges_nothing_if_one_is_wrong() -> None:
    limiter = limiter_of(_core.Quota(3, 10))
    for bad in (("b", -1), ("b", 1.5), (5, 1), ("b",), "b1"):
        with pytest.raises((TypeError, ValueError)):
            limiter.hit_many_nowait([("a", 1), bad])  # type: ignore[list-item]
    assert limiter.table.keys == 0


# ---- hit_all


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hit_all_is_all_or_none(algorithm: str, clock: _core.Clock) -> None:
    room = limiter_of(_core.Quota(5, 10, algorithm=algorithm), clock=clock)
    user = limiter_of(_core.Quota(2, 10, algorithm=algorithm), clock=clock)
    for left in (1, 0):
        decision, index = _core.hit_all_nowait([(room, "lobby", 1), (user, "anna", 1)])
        assert decision and index == 1 and decision.remaining == left
    decision, index = _core.hit_all_nowait([(room, "lobby", 1), (user, "anna", 1)])
    assert not decision and index == 1 and decision.quota is user.quotas[0]
    assert room.peek_nowait("lobby", 0).remaining == 3
    assert (room.table.counters()["refused"], user.table.counters()["refused"]) == (0, 1)
    assert room.table.counters()["admitted"] == 2
    clock.ns += 20_000_000_000
    assert _core.hit_all_nowait([(room, "lobby", 5), (user, "anna", 2)])[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hit_all_adds_up_one_key(algorithm: str, clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 10, algorithm=algorithm), clock=clock)
    assert not _core.hit_all_nowait([(limiter, "k", 3), (limiter, "k", 3)])[0]
    assert limiter.peek_nowait("k", 5)
    decision, _ = _core.hit_all_nowait([(limiter, "k", 3), (limiter, b"k", 2)])
    assert decision and decision.remaining == 0
    other = _core.Limiter(limiter.table, limiter.quotas)
    assert not _core.hit_all_nowait([(limiter, "new", 3), (other, "new", 3)])[0]
    assert limiter.peek_nowait("new", 5)
    assert _core.hit_all_nowait([(limiter, "new", 3), (other, "new", 2)])[0]
    assert not limiter.peek_nowait("new", 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("on_full", ["deny", "raise", "allow"])
def test_hit_all_gives_back_when_a_store_is_full(
    algorithm: str, on_full: str, clock: _core.Clock
) -> None:
    quota = _core.Quota(5, 10, algorithm=algorithm)
    first = limiter_of(quota, clock=clock)
    full = limiter_of(quota, clock=clock, max_keys=1, on_full=on_full)
    full.ban_nowait("somebody", 1000)
    first.hit_nowait("k", 1)
    triples = [(first, "k", 2), (full, "k", 1)]
    if on_full == "raise":
        with pytest.raises(_core.StoreFullError):
            _core.hit_all_nowait(triples)
    else:
        decision, index = _core.hit_all_nowait(triples)
        assert decision.degraded and decision.allowed == (on_full == "allow")
        assert index == (0 if on_full == "allow" else 1)
    assert first.peek_nowait("k", 0).remaining == (2 if on_full == "allow" else 4)


def test_hit_all_with_shadow_and_disabled(clock: _core.Clock) -> None:
    quota = _core.Quota(1, 10)
    real = limiter_of(_core.Quota(9, 10), clock=clock)
    shadow = limiter_of(quota, clock=clock, shadow=True)
    off = limiter_of(quota, clock=clock, enabled=False)
    triples = [(off, "k", 5), (shadow, "k", 1), (real, "k", 1)]
    assert not _core.hit_all_nowait(triples)[0].shadow
    decision, index = _core.hit_all_nowait(triples)
    assert decision and decision.shadow and index == 1
    assert shadow.table.counters()["shadow_refused"] == 1
    assert real.peek_nowait("k", 0).remaining == 7


def test_hit_all_checks() -> None:
    limiter = limiter_of(_core.Quota(3, 10))
    with pytest.raises(ValueError, match="at least one"):
        _core.hit_all_nowait([])
    for bad in ((limiter, "k"), (None, "k", 1), (limiter, 5, 1), (limiter, "k", -1), 5):
        with pytest.raises((TypeError, ValueError)):
            _core.hit_all_nowait([(limiter, "a", 1), bad])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="add up"):
        _core.hit_all_nowait([(limiter, "k", 2**40), (limiter, "k", 1)])
    assert limiter.table.keys == 0


def test_hit_all_leaves_nothing_pinned(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 10), clock=clock, max_keys=2)
    for i in range(50):
        assert _core.hit_all_nowait([(limiter, f"a{i}", 1), (limiter, f"b{i}", 1)])[0]
    assert limiter.table.keys <= 2


# ---- reservations


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reservations(algorithm: str, clock: _core.Clock) -> None:
    quota = _core.Quota(10, 10, algorithm=algorithm, name="units")
    limiter = limiter_of(quota, clock=clock)
    decision, receipt = limiter.reserve_nowait("k", 8)
    assert decision and receipt is not None and receipt.open and receipt.reserved == (8,)
    refused, none = limiter.reserve_nowait("k", 3)
    assert not refused and none is None
    receipt.settle_nowait({"units": 3})
    receipt.settle_nowait(0)
    assert not receipt.open and limiter.peek_nowait("k", 0).remaining == 7
    _, receipt = limiter.reserve_nowait("k", 2)
    assert receipt is not None
    receipt.settle_nowait(5)
    assert limiter.peek_nowait("k", 0).remaining == 2
    _, receipt = limiter.reserve_nowait("k", cost=2, ttl=1.0)
    assert receipt is not None
    for bad in (-1, 1.5, True, {"other": 1}):
        with pytest.raises((TypeError, ValueError)):
            receipt.settle_nowait(bad)
    assert receipt.open
    clock.ns += 1_000_000_000
    before = limiter.peek_nowait("k", 0).remaining
    receipt.settle_nowait(0)
    assert limiter.peek_nowait("k", 0).remaining == before


def test_what_is_forgotten_gives_nothing_back(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(10, 10), clock=clock)
    for forget in (lambda: limiter.reset_nowait("k"), limiter.table.clear):
        _, receipt = limiter.reserve_nowait("k", 8)
        assert receipt is not None
        forget()
        limiter.hit_nowait("k", 5)
        receipt.settle_nowait(0)
        assert limiter.peek_nowait("k", 0).remaining == 5
        limiter.reset_nowait("k")


def test_settling_after_an_update_makes_no_unit(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(10, 1), clock=clock)
    _, receipt = limiter.reserve_nowait("k", 1)
    limiter._rebind(limiter.table, [_core.Quota(1000, 3600)])
    while limiter.hit_nowait("k", 10):
        pass
    left = limiter.peek_nowait("k", 0).remaining
    assert receipt is not None
    receipt.settle_nowait(0)
    assert limiter.peek_nowait("k", 0).remaining <= left + 1
    limiter._rebind(_core.Table(["gcra"], clock=clock), [_core.Quota(5, 1)])
    _, receipt = limiter.reserve_nowait("k", 5)
    limiter._rebind(_core.Table(["gcra"], clock=clock), [_core.Quota(5, 1)])
    limiter.hit_nowait("k", 5)
    assert receipt is not None
    receipt.settle_nowait(0)
    assert not limiter.hit_nowait("k")


# ---- slots


def test_slots() -> None:
    slots = _core.Slots(_core.Table([]), 2)
    one, two = slots.acquire_nowait("k"), slots.acquire_nowait(b"k")
    assert one is not None and two is not None and one.held and one.key == "k"
    assert slots.acquire_nowait("k") is None and slots.count_nowait("k") == 2
    assert slots.acquire_nowait("k", limit=1) is None
    three = slots.acquire_nowait("k", 3)
    assert three is not None and slots.count_nowait("k") == 3
    assert one.release_nowait() and not one.release_nowait() and not one.held
    assert slots.count_nowait("k") == 2 and slots.count_nowait("other") == 0
    two.release_nowait()
    three.release_nowait()
    assert slots.count_nowait("k") == 0 and "released" in repr(one)


def test_a_forgotten_slot_is_given_back() -> None:
    slots = _core.Slots(_core.Table([]), 1)
    with pytest.warns(ResourceWarning, match="a slot of 'k' was forgotten"):
        slots.acquire_nowait("k")
    assert slots.count_nowait("k") == 0

    class Key(str):
        slot: Any

    key = Key("cycle")
    key.slot = slots.acquire_nowait(key)
    assert slots.count_nowait("cycle") == 1
    del key
    with pytest.warns(ResourceWarning, match="forgotten"):
        gc.collect()
    assert slots.count_nowait("cycle") == 0


def test_slots_of_a_cleared_table_take_none_away() -> None:
    table = _core.Table([])
    slots = _core.Slots(table, 1)
    old = slots.acquire_nowait("k")
    table.clear()
    new = slots.acquire_nowait("k")
    assert old is not None and new is not None
    old.release_nowait()
    assert slots.acquire_nowait("k") is None
    new.release_nowait()


@pytest.mark.parametrize("on_full", ["deny", "allow", "raise"])
def test_slots_of_a_full_table(on_full: Any) -> None:
    slots = _core.Slots(_core.Table([], max_keys=1, on_full=on_full), 5)
    held = slots.acquire_nowait("a")
    assert held is not None
    if on_full == "raise":
        with pytest.raises(_core.StoreFullError):
            slots.acquire_nowait("b")
    else:
        slot = slots.acquire_nowait("b")
        assert (slot is None) == (on_full == "deny")
        if slot is not None:
            assert slot.release_nowait() and slots.count_nowait("b") == 0
    assert held.release_nowait()


def test_slots_checks() -> None:
    for limit in (0, -1, 2**41, 10**100):
        with pytest.raises(ValueError, match="limit"):
            _core.Slots(_core.Table([]), limit)
    for wrong in (1.0, True, None):
        with pytest.raises(TypeError):
            _core.Slots(_core.Table([]), wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="own"):
        _core.Slots(_core.Table(["gcra"]), 1)
    with pytest.raises(TypeError, match="str or bytes"):
        _core.Slots(_core.Table([]), 1).acquire_nowait(5)  # type: ignore[arg-type]


# ---- the observer


@pytest.fixture
def observed() -> Iterator[list[tuple[Any, Any, _core.Decision]]]:
    seen: list[tuple[Any, Any, _core.Decision]] = []
    _core.set_observer(lambda limiter, key, decision: seen.append((limiter, key, decision)))
    try:
        yield seen
    finally:
        _core.set_observer(None)


def test_the_observer_sees_every_decision(observed: list[Any], clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10), clock=clock)
    handle = limiter.bind(b"h")
    decisions = [limiter.hit_nowait("a"), handle.hit_nowait()]
    decisions += limiter.hit_many_nowait([("b", 1), ("c", 4)])
    decision, _ = limiter.reserve_nowait("d")
    decisions += [decision, _core.hit_all_nowait([(limiter, "e", 1)])[0]]
    limiter.peek_nowait("f")
    assert [key for _, key, _ in observed] == ["a", b"h", "b", "c", "d", "e"]
    assert [one for *_, one in observed] == decisions
    assert all(one is limiter for one, *_ in observed)


def test_an_observer_that_fails_is_heard(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10), clock=clock)
    _core.set_observer(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            limiter.hit_nowait("k")
        with pytest.raises(ZeroDivisionError):
            limiter.hit_many_nowait([("k", 1)])
        with pytest.raises(ZeroDivisionError):
            limiter.reserve_nowait("k")
    finally:
        _core.set_observer(None)
    with pytest.raises(TypeError, match="callable"):
        _core.set_observer(5)  # type: ignore[arg-type]


# ---- callbacks that call back


def test_a_clock_that_calls_back(clock: _core.Clock) -> None:
    depth = [0]
    limiters: list[_core.Limiter] = []

    def now() -> float:
        if limiters and depth[0] < 3:
            depth[0] += 1
            limiters[0].hit_nowait("k")
            limiters[0].reset_nowait("other")
        return 5.0

    limiters.append(limiter_of(_core.Quota(3, 10), clock=now))
    assert limiters[0].hit_nowait("k").remaining == 0
    assert not limiters[0].hit_nowait("k")


def test_a_clock_that_rebinds() -> None:
    limiters: list[_core.Limiter] = []
    left = [3]
    busy = [False]

    def now() -> float:
        if limiters and left[0] > 0 and not busy[0]:
            left[0] -= 1
            busy[0] = True
            table = _core.Table(["gcra", "gcra"], clock=now)
            busy[0] = False
            limiters[0]._rebind(table, [_core.Quota(2, 10), _core.Quota(1, 10)])
        return 5.0

    limiters.append(limiter_of(_core.Quota(3, 10), clock=now))
    assert limiters[0].hit_nowait("k").limit == 1
    left[0] = 1000
    with pytest.raises(RuntimeError, match="changes the limiter"):
        limiters[0].hit_nowait("k")


def test_costs_that_call_back(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10, name="m"), clock=clock)

    class Cost:
        def __index__(self) -> int:
            limiter._rebind(_core.Table(["gcra"], clock=clock), [_core.Quota(5, 10, name="m")])
            return 1

    class Bad:
        def __index__(self) -> int:
            raise KeyError("cost")

    class Costs(dict[str, Any]):
        def items(self) -> Any:
            limiter.reset_nowait("k")
            gc.collect()
            return [("m", 2)]

    with pytest.raises(RuntimeError, match="changes the limiter"):
        limiter.hit_nowait("k", Cost())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="change"):
        limiter.hit_many_nowait([("a", 1), ("b", Cost())])  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="change"):
        limiter.project_nowait("k", [Cost()])  # type: ignore[list-item]
    with pytest.raises(KeyError):
        limiter.hit_nowait("k", Bad())  # type: ignore[arg-type]
    assert limiter.hit_nowait("k", Costs()).remaining == 3


def test_an_observer_that_calls_back(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10), clock=clock)

    def again(one: _core.Limiter, key: Any, decision: _core.Decision) -> None:
        _core.set_observer(None)
        one._rebind(_core.Table(["gcra"], clock=clock), [_core.Quota(9, 10)])
        one.hit_nowait(key)

    _core.set_observer(again)
    try:
        assert limiter.hit_nowait("k").limit == 3
    finally:
        _core.set_observer(None)
    assert limiter.hit_nowait("k").remaining == 7


def test_cycles_through_a_clock_are_collected() -> None:
    class Holder:
        limiter: Any

        def time(self) -> float:
            return 1.0

    for _ in range(3):
        holder = Holder()
        holder.limiter = limiter_of(_core.Quota(3, 10), clock=holder.time)
        holder.limiter.hit_nowait("k")
    del holder
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Holder)]


def test_infinity_never_comes() -> None:
    limiter = limiter_of(_core.Quota(3, 10))
    assert limiter.project_nowait("k", [4]) == math.inf


def test_hit_all_by_every_path_counts_alike(clock: _core.Clock) -> None:
    """New keys and known ones, in one table and in two, by reservations or at once."""
    quota = _core.Quota(1000, 3600)
    one, two = limiter_of(quota, clock=clock), limiter_of(quota, clock=clock)
    log = limiter_of(_core.Quota(1000, 3600, algorithm="sliding-log"), clock=clock)
    charged: dict[tuple[int, str], int] = {}
    for step in range(40):
        triples = [
            (one, f"a{step // 4}", 1),
            (two, "always", 2),
            (one, f"b{step // 10}", 1),
            (log, f"c{step // 3}", step % 3),
            (two, f"d{step % 5}", 0),
        ][: 1 + step % 5]
        decision, index = _core.hit_all_nowait(triples)
        assert decision and 0 <= index < len(triples)
        for limiter, key, cost in triples:
            charged[id(limiter), key] = charged.get((id(limiter), key), 0) + cost
        for limiter in (one, two, log):
            for (name, key), units in charged.items():
                if name == id(limiter):
                    assert limiter.peek_nowait(key, 0).remaining == 1000 - units
    assert sum(limiter.table.counters()["admitted"] for limiter in (one, two, log)) == 120
