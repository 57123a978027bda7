"""The limiter of the extension: keys, costs, numbers of one call, counters, full tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sluicegate import _core

ALGORITHMS = ["gcra", "fixed-window", "sliding-window", "sliding-log"]
ODD_KEYS: list[str | bytes] = ["", b"", "a\0b", "é", "\U0001f600", "\ud800", b"\xff\xfe"]
ODD_KEYS.append("x" * 2**20)


def limiter_of(
    *quotas: _core.Quota | None, clock: Any = None, algorithms: list[str] | None = None, **more: Any
) -> _core.Limiter:
    if algorithms is None:
        algorithms = [quota.algorithm for quota in quotas if quota is not None]
    table = {name: more.pop(name) for name in ("max_keys", "max_bytes", "on_full") if name in more}
    return _core.Limiter(_core.Table(algorithms, clock=clock, **table), quotas, **more)


@pytest.fixture
def clock() -> _core.Clock:
    return _core.Clock()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_admits_its_limit(algorithm: str, clock: _core.Clock) -> None:
    quota = _core.Quota(5, 10, algorithm=algorithm)
    limiter = limiter_of(quota, clock=clock)
    decisions = [limiter.hit_nowait("user:42") for _ in range(7)]
    assert [bool(decision) for decision in decisions] == [True] * 5 + [False] * 2
    assert [decision.remaining for decision in decisions] == [4, 3, 2, 1, 0, 0, 0]
    assert all(decision.quota is quota and decision.limit == 5 for decision in decisions)
    assert decisions[0].retry_after == 0.0 and decisions[-1].retry_after > 0
    clock.ns += round(decisions[-1].retry_after * 1e9)
    assert limiter.hit_nowait("user:42")
    assert limiter.hit_nowait("user:43")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_counts_for_itself(key: str | bytes, clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(2, 10), clock=clock)
    assert [bool(limiter.hit_nowait(key)) for _ in range(3)] == [True, True, False]
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    assert not limiter.hit_nowait(data)
    assert not limiter.bind(key).hit_nowait()
    assert limiter.hit_nowait(b"another" + data[:100])


@pytest.mark.parametrize("key", [None, 5, 5.0, bytearray(b"k"), memoryview(b"k"), ("k",), object()])
def test_other_keys_are_type_errors(key: Any) -> None:
    limiter = limiter_of(_core.Quota(2, 10))
    for method in ("hit_nowait", "peek_nowait", "penalize_nowait", "reset_nowait", "bind"):
        with pytest.raises(TypeError, match="str or bytes"):
            getattr(limiter, method)(key)
    with pytest.raises(TypeError, match="str or bytes"):
        limiter.hit_many_nowait([("a", 1), (key, 1)])
    assert limiter.table.keys == 0


class Indexed:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_costs(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(10, 10), clock=clock)
    assert limiter.hit_nowait("k", 3).remaining == 7
    assert limiter.hit_nowait("k", cost=Indexed(2)).remaining == 5  # type: ignore[arg-type]
    assert limiter.hit_nowait("k", 0).remaining == 5
    assert not limiter.hit_nowait("k", 6)
    assert limiter.hit_nowait("k", 11).retry_after == math.inf
    assert limiter.hit_nowait("k", 2**40).retry_after == math.inf
    assert limiter.hit_nowait("k", 5).remaining == 0
    assert limiter.hit_nowait("k", 0)


@pytest.mark.parametrize("cost", [-1, 2**40 + 1, 2**63, -(2**63), 10**100, Indexed(-1)])
def test_costs_outside_are_value_errors(cost: Any) -> None:
    limiter = limiter_of(_core.Quota(10, 10))
    for method in ("hit_nowait", "peek_nowait", "reserve_nowait", "penalize_nowait"):
        with pytest.raises(ValueError, match=r"0 to 2\*\*40"):
            getattr(limiter, method)("k", cost)
    assert limiter.table.keys == 0


@pytest.mark.parametrize("cost", [1.0, True, False, "1", None, [1], object(), math.nan])
def test_costs_of_other_types_are_type_errors(cost: Any) -> None:
    limiter = limiter_of(_core.Quota(10, 10))
    for method in ("hit_nowait", "peek_nowait", "reserve_nowait", "reward_nowait"):
        with pytest.raises(TypeError, match="cost"):
            getattr(limiter, method)("k", cost)


def test_costs_by_name(clock: _core.Clock) -> None:
    messages, size = _core.Quota(5, 10, name="messages"), _core.Quota(1000, 10, name="bytes")
    limiter = limiter_of(messages, size, clock=clock)
    assert limiter.hit_nowait("k", {"bytes": 300}).quota is size
    assert limiter.peek_nowait("k", {"bytes": 700, "messages": 4})
    assert not limiter.peek_nowait("k", {"bytes": 701})
    assert not limiter.peek_nowait("k", {"messages": 5})
    with pytest.raises(ValueError, match="'messages', 'bytes'"):
        limiter.hit_nowait("k", {"byte": 300})
    with pytest.raises(TypeError, match="names"):
        limiter.hit_nowait("k", {1: 300})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="int"):
        limiter.hit_nowait("k", {"bytes": 1.5})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="has a name"):
        limiter_of(_core.Quota(5, 10)).hit_nowait("k", {"bytes": 1})


def test_all_quotas_or_none(clock: _core.Clock) -> None:
    fast, slow = _core.Quota(2, 1), _core.Quota(3, 100)
    limiter = limiter_of(fast, slow, clock=clock)
    assert limiter.hit_nowait("k") and limiter.hit_nowait("k")
    refused = limiter.hit_nowait("k")
    assert refused.quota is fast
    clock.ns += 1_000_000_000
    assert limiter.hit_nowait("k")
    assert limiter.hit_nowait("k").quota is slow


def test_a_hole_is_unlimited() -> None:
    quota = _core.Quota(2, 10, name="messages")
    limiter = limiter_of(None, quota, algorithms=["gcra", "gcra"])
    assert limiter.quotas == (None, quota)
    assert [bool(limiter.hit_nowait("k")) for _ in range(3)] == [True, True, False]
    open_one = limiter_of(None, algorithms=["gcra"])
    decision = open_one.hit_nowait("k", 10**9)
    assert decision and decision.quota is None and decision.remaining == 2**40
    assert open_one.table.keys == 0


def test_numbers_of_one_call(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(2, 10), clock=clock)
    larger = _core.Quota(5, 10)
    assert limiter.hit_nowait("k", quotas=[larger]).quota is larger
    assert limiter.hit_nowait("k", quotas=(None,)).quota is None
    for bad in ([], [larger, larger], [_core.Quota(5, 10, algorithm="sliding-log")]):
        with pytest.raises(ValueError, match="quota"):
            limiter.hit_nowait("k", quotas=bad)
    for wrong in ("5/second", larger, [5], 5):
        with pytest.raises(TypeError):
            limiter.hit_nowait("k", quotas=wrong)  # type: ignore[arg-type]


def test_a_longer_quota_of_one_call_is_not_forgotten(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(1, 1, algorithm="fixed-window"), clock=clock, max_keys=100)
    day = [_core.Quota(1, 86400, algorithm="fixed-window")]
    assert limiter.hit_nowait("k", quotas=day)
    clock.ns += 10_000_000_000
    for i in range(200):
        limiter.hit_nowait(f"other:{i}")
    clock.ns += 3600_000_000_000
    assert not limiter.hit_nowait("k", quotas=day)


def test_constructor_checks() -> None:
    table = _core.Table(["gcra"])
    quota = _core.Quota(1, 1)
    for quotas in ([], [quota, quota], [_core.Quota(1, 1, algorithm="sliding-log")]):
        with pytest.raises(ValueError, match="quota"):
            _core.Limiter(table, quotas)
    for wrong in (quota, "5/second", [5], 5, None):
        with pytest.raises(TypeError):
            _core.Limiter(table, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Table"):
        _core.Limiter(object(), [quota])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="slots"):
        _core.Limiter(_core.Table([]), [])
    bare = _core.Limiter.__new__(_core.Limiter)
    for method in ("hit_nowait", "peek_nowait", "reserve_nowait", "unban_nowait", "bind"):
        with pytest.raises(RuntimeError, match="__init__"):
            getattr(bare, method)("k")
    with pytest.raises(RuntimeError, match="__init__"):
        bare.project_nowait("k", [{"a": 1}])
    with pytest.raises(RuntimeError, match="__init__"):
        bare.hit_awaitable("k").send(None)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="__init__"):
        _core.hit_all_nowait([(bare, "k", 1)])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"algorithms": ["leaky"]}, ValueError),
        ({"algorithms": ["gcra"] * 9}, ValueError),
        ({"algorithms": "gcra"}, TypeError),
        ({"algorithms": [1]}, TypeError),
        ({"max_keys": 0}, ValueError),
        ({"max_keys": -1}, ValueError),
        ({"max_keys": 1.5}, TypeError),
        ({"max_bytes": 0}, ValueError),
        ({"on_full": "explode"}, ValueError),
        ({"on_full": None}, ValueError),
        ({"clock": 5}, TypeError),
        ({"secret": b"short"}, ValueError),
        ({"secret": "s" * 16}, TypeError),
    ],
)
def test_table_checks(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        _core.Table(**{"algorithms": ["gcra"], **arguments})


def test_wrong_calls() -> None:
    limiter = limiter_of(_core.Quota(1, 1))
    for call in (
        lambda: limiter.hit_nowait(),  # type: ignore[call-arg]
        lambda: limiter.hit_nowait("k", 1, None),  # type: ignore[call-arg]
        lambda: limiter.hit_nowait("k", key="k"),  # type: ignore[misc]
        lambda: limiter.hit_nowait("k", costs=1),  # type: ignore[call-arg]
        lambda: limiter.hit_awaitable(),  # type: ignore[call-arg]
        lambda: limiter.bind("k").hit_nowait(1, 2),  # type: ignore[call-arg]
        lambda: limiter.hit_many_nowait([("k",)]),  # type: ignore[list-item]
        lambda: limiter.hit_many_nowait(5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    assert limiter.hit_nowait(key="k", cost=1)


def test_bans(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 1), clock=clock)
    limiter.ban_nowait("k", 30)
    refused = limiter.hit_nowait("k", 0)
    assert not refused and refused.quota is None and refused.retry_after == 30.0
    assert (refused.limit, refused.remaining) == (0, 0)
    clock.ns += 29_000_000_000
    assert limiter.peek_nowait("k").retry_after == 1.0
    clock.ns += 1_000_000_000
    assert limiter.hit_nowait("k")
    limiter.ban_nowait("k", 0.5)
    limiter.unban_nowait("k")
    assert limiter.hit_nowait("k")
    assert limiter.table.counters()["banned"] == 1
    for bad in (0, -1, math.nan, math.inf, 1e300, 10**400):
        with pytest.raises(ValueError, match="10 years"):
            limiter.ban_nowait("k", bad)
        with pytest.raises(ValueError, match="10 years"):
            limiter.reserve_nowait("k", 1, bad)
    for wrong in ("5", None, True):
        with pytest.raises(TypeError):
            limiter.ban_nowait("k", wrong)  # type: ignore[arg-type]


def test_penalty_reward_reset_project(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 5), clock=clock)
    limiter.penalize_nowait("k", 7)
    assert limiter.hit_nowait("k").retry_after == pytest.approx(3.0)
    limiter.reward_nowait("k", 3)
    assert limiter.hit_nowait("k")
    assert limiter.project_nowait("k", [1, 1, 2]) == pytest.approx(4.0)
    assert limiter.project_nowait("k", []) == 0.0
    assert limiter.project_nowait("k", [6]) == math.inf
    limiter.reset_nowait("k")
    assert limiter.hit_nowait("k").remaining == 4


def test_disabled_and_shadow(clock: _core.Clock) -> None:
    quota = _core.Quota(1, 10)
    shadow = limiter_of(quota, clock=clock, shadow=True)
    assert shadow.hit_nowait("k").shadow is False
    turned = shadow.hit_nowait("k")
    assert turned and turned.shadow and turned.retry_after == 0.0 and turned.quota is quota
    assert shadow.table.counters()["shadow_refused"] == 1
    assert shadow.peek_nowait("k").shadow
    limiter = limiter_of(quota, clock=clock, enabled=False)
    assert all(limiter.hit_nowait("k") for _ in range(3))
    limiter.penalize_nowait("k", 5)
    assert limiter.table.keys == 0 and limiter.project_nowait("k", [1, 1]) == 0.0
    decision, receipt = limiter.reserve_nowait("k")
    assert decision and receipt is not None and not receipt.open and receipt.reserved == (0,)
    receipt.settle_nowait(5)
    limiter.enabled = True
    assert [bool(limiter.hit_nowait("k")) for _ in range(2)] == [True, False]
    watched = limiter_of(_core.Quota(1, 10, shadow=True), _core.Quota(5, 10), clock=clock)
    watched.hit_nowait("k")
    second = watched.hit_nowait("k")
    assert second and second.shadow


@pytest.mark.parametrize("on_full", ["deny", "allow", "raise"])
def test_a_table_full_of_bans(on_full: str, clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 1), clock=clock, max_keys=3, on_full=on_full)
    for i in range(3):
        limiter.ban_nowait(f"bad:{i}", 100)
    if on_full == "raise":
        with pytest.raises(_core.StoreFullError, match="max_keys"):
            limiter.hit_nowait("k")
    else:
        decision = limiter.hit_nowait("k")
        assert decision.degraded and decision.quota is None
        assert decision.allowed == (on_full == "allow")
        assert decision.retry_after == (0.0 if on_full == "allow" else 1.0)
    assert limiter.table.counters()["full"] == 1
    with pytest.raises(_core.StoreFullError, match="max_keys"):
        limiter.ban_nowait("bad:3", 100)
    assert not limiter.hit_nowait("bad:0")
    limiter.unban_nowait("bad:0")
    assert limiter.hit_nowait("k")


def test_counters_and_top(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(3, 10), clock=clock)
    for _ in range(5):
        limiter.hit_nowait("hot")
    limiter.hit_nowait("x" * 100)
    table = limiter.table
    counters = table.counters()
    assert (counters["admitted"], counters["refused"], counters["keys"]) == (4, 2, 2)
    assert table.top(2) == [(b"hot", False, 5), (b"x" * 64, True, 1)]
    assert table.top(refused=True) == [(b"hot", False, 2)]
    assert table.top(0) == []
    with pytest.raises(ValueError, match="negative"):
        table.top(-1)
    table.clear()
    assert table.keys == 0 and limiter.hit_nowait("hot").remaining == 2


def test_max_keys_bounds_a_flood(clock: _core.Clock) -> None:
    limiter = limiter_of(_core.Quota(5, 60), clock=clock, max_keys=1000)
    for i in range(20_000):
        assert limiter.hit_nowait(f"user:{i}")
    assert limiter.table.keys <= 1000
    assert limiter.table.counters()["evictions"] >= 19_000


def test_time_of_any_clock() -> None:
    times = [100.0]
    limiter = limiter_of(_core.Quota(1, 10), clock=lambda: times[0])
    assert limiter.table.now() == 100.0
    assert limiter.hit_nowait("k") and not limiter.hit_nowait("k")
    times[0] = 110.0
    assert limiter.hit_nowait("k")
    for huge in (-1e18, 1e18, -1e9, 1e300, -1e300, 0.0):
        times[0] = huge
        limiter.hit_nowait("k")
        limiter.bind("k").hit_nowait()
        assert limiter.hit_nowait("k").retry_after >= 0
    for bad in (math.nan, math.inf):
        times[0] = bad
        with pytest.raises(ValueError, match="finite"):
            limiter.hit_nowait("k")
    times[0] = "noon"  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        limiter.hit_nowait("k")
    with pytest.raises(ZeroDivisionError):
        limiter_of(_core.Quota(1, 10), clock=lambda: 1 / 0)


@pytest.mark.parametrize("ns", [-(2**63), 2**63 - 1, 0])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_at_its_ends(ns: int, algorithm: str) -> None:
    clock = _core.Clock()
    limiter = limiter_of(_core.Quota(3, 10, algorithm=algorithm), clock=clock)
    limiter.hit_nowait("k")
    clock.ns = ns
    assert sum(bool(limiter.hit_nowait("k")) for _ in range(10)) <= 3
    assert limiter.project_nowait("new", [1, 1]) == 0.0
    limiter.ban_nowait("k", 10)
    assert not limiter.hit_nowait("k")


def test_subclasses_and_rebind(clock: _core.Clock) -> None:
    class Mine(_core.Limiter):
        def __init__(self, limit: int) -> None:
            quota = _core.Quota(limit, 10)
            super().__init__(_core.Table([quota.algorithm], clock=clock), [quota])

    limiter = Mine(2)
    handle = limiter.bind("k")
    assert handle.hit_nowait() and limiter.hit_nowait("k") and not handle.hit_nowait()
    larger = _core.Quota(3, 10)
    limiter._rebind(limiter.table, [larger])
    assert limiter.quotas == (larger,)
    other = _core.Table(["gcra"], clock=clock)
    limiter._rebind(other, [larger])
    assert handle.hit_nowait().remaining == 2 and limiter.hit_nowait("k").remaining == 1
    with pytest.raises(ValueError, match="quotas"):
        limiter._rebind(other, [])
    assert limiter.table is other and handle.limiter is limiter and handle.key == "k"


def test_a_method_of_a_subclass() -> None:
    class Mine(_core.Limiter):
        __slots__ = ()

    class Other(_core.Limiter):
        pass

    class User(Mine):
        pass

    hit = _core.own_method(Mine, _core.Limiter.hit_nowait)
    Mine.hit = hit  # type: ignore[attr-defined]
    table, quotas = _core.Table(["gcra"]), [_core.Quota(9, 60)]
    assert Mine(table, quotas).hit("k").remaining == 8  # type: ignore[attr-defined]
    assert User(table, quotas).hit(key="k", cost=2).remaining == 6  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Mine"):
        hit(Other(table, quotas), "k")
    for cls, method in ((int, _core.Limiter.hit_nowait), (Mine, len), (Mine, Mine.__init__)):
        with pytest.raises(TypeError):
            _core.own_method(cls, method)
    with pytest.raises(TypeError):
        _core.own_method(5, hit)  # type: ignore[arg-type]


def test_a_handle_follows_its_limiter_from_table_to_table(clock: _core.Clock) -> None:
    quota = _core.Quota(9, 60)
    limiter = limiter_of(quota, clock=clock)
    handle = limiter.bind("k")
    for _ in range(50):  # a new table often lies where the last one was
        handle.hit_nowait()
        limiter._rebind(_core.Table(["gcra"], clock=clock), [quota])
        assert handle.hit_nowait() and limiter.hit_nowait("k").remaining == 7
