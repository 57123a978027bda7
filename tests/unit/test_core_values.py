"""Quota, Decision, Clock and the functions of the extension: plain values."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from sluicegate import _core


def test_quota_shows_its_numbers() -> None:
    quota = _core.Quota(5, 60, burst=20, name="chat")
    assert (quota.limit, quota.period, quota.burst) == (5, 60.0, 20)
    assert (quota.algorithm, quota.name, quota.shadow) == ("gcra", "chat", False)
    assert repr(quota) == "Quota(5, 60.0, burst=20, name='chat')"
    assert _core.Quota(5, 0.1).period == 0.1
    assert _core.Quota(5, 1).burst == 5


def test_quota_is_a_value() -> None:
    one = _core.Quota(5, 60, algorithm="sliding-log", shadow=True)
    same = _core.Quota(5, 60.0, algorithm="sliding-log", shadow=True)
    assert one == same and hash(one) == hash(same) and len({one, same}) == 1
    for other in (_core.Quota(6, 60), _core.Quota(5, 61), _core.Quota(5, 60, name="a")):
        assert one != other
    assert one != object()
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.limit = 6  # type: ignore[misc]
    match one:
        case _core.Quota(limit, period, burst):
            assert (limit, period, burst) == (5, 60.0, 5)
        case _:
            pytest.fail("a quota matches by place")


@pytest.mark.parametrize(
    ("limit", "period", "more"),
    [
        (0, 1, {}),
        (-1, 1, {}),
        (2**40 + 1, 10**6, {}),
        (2**64, 1, {}),
        (10**100, 1, {}),
        (1, 0, {}),
        (1, -1, {}),
        (1, 0.0009, {}),
        (1, math.nan, {}),
        (1, math.inf, {}),
        (1, 1e300, {}),
        (1, 10**400, {}),
        (1, 3660 * 86400 + 1, {}),
        (1, 1, {"burst": 0}),
        (1, 1, {"burst": -5}),
        (1, 1, {"burst": 2**41}),
        (5, 1, {"burst": 6, "algorithm": "fixed-window"}),
        (2_000_000_000, 1, {}),
        (1, 86400 * 366, {"burst": 1000}),
        (1, 1, {"algorithm": "leaky"}),
        (1, 1, {"algorithm": "gcra\0"}),
    ],
)
def test_quota_refuses_bad_numbers(limit: Any, period: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        _core.Quota(limit, period, **more)


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        ((1.0, 1), {}),
        ((True, 1), {}),
        (("5", 1), {}),
        ((None, 1), {}),
        ((1, "1"), {}),
        ((1, True), {}),
        ((1, 1), {"burst": 1.5}),
        ((1, 1), {"burst": True}),
        ((1, 1), {"name": 5}),
        ((1, 1), {"algorithm": None}),
        ((1,), {}),
        ((1, 1, 1), {}),
        ((1, 1), {"colour": 1}),
    ],
)
def test_quota_refuses_wrong_types(arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _core.Quota(*arguments, **more)


def test_decision_by_hand() -> None:
    quota = _core.Quota(5, 60, name="chat")
    decision = _core.Decision(False, quota=quota, retry_after=1 / 3, reset_after=12.0, remaining=2)
    assert not decision
    assert decision.quota is quota
    assert (decision.limit, decision.remaining) == (5, 2)
    assert (decision.retry_after, decision.reset_after) == (1 / 3, 12.0)
    assert (decision.degraded, decision.shadow) == (False, False)
    assert decision.as_dict() == {
        "allowed": False,
        "limit": 5,
        "remaining": 2,
        "retry_after": 1 / 3,
        "reset_after": 12.0,
        "quota": "chat",
        "degraded": False,
        "shadow": False,
    }
    assert _core.Decision(True, limit=7).limit == 7
    assert _core.Decision(False, retry_after=math.inf).as_dict()["retry_after"] is None


def test_decision_is_a_value() -> None:
    one = _core.Decision(False, retry_after=2.5, remaining=1)
    same = _core.Decision(False, retry_after=2.5, remaining=1)
    assert one == same and hash(one) == hash(same)
    assert one != _core.Decision(True, retry_after=2.5, remaining=1)
    assert one != _core.Decision(False, retry_after=2.6, remaining=1)
    assert one != _core.Decision(False, retry_after=2.5, remaining=1, degraded=True)
    assert one != object()
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.copy(one) == one
    with pytest.raises(AttributeError):
        one.allowed = True  # type: ignore[misc]
    assert repr(one) == (
        "Decision(False, quota=None, limit=0, remaining=1, retry_after=2.5, reset_after=0.0)"
    )
    match one:
        case _core.Decision(allowed=False, retry_after=wait):
            assert wait == 2.5
        case _:
            pytest.fail("a decision matches by name")


@pytest.mark.parametrize("name", ["retry_after", "reset_after"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_decision_refuses_bad_seconds(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        _core.Decision(True, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 2**64])
def test_decision_refuses_bad_units(value: int) -> None:
    with pytest.raises(ValueError, match="remaining"):
        _core.Decision(True, remaining=value)
    with pytest.raises(TypeError):
        _core.Decision(True, quota="5/second")  # type: ignore[arg-type]


def test_a_decision_of_a_limiter_is_pickled_as_it_is() -> None:
    limiter = _core.Limiter(
        _core.Table(["gcra"], clock=_core.Clock()), [_core.Quota(3, 7, name="chat")]
    )
    for _ in range(5):
        decision = limiter.hit_nowait("user:42")
        assert pickle.loads(pickle.dumps(decision)) == decision


def test_clock_stands_until_it_is_moved() -> None:
    clock = _core.Clock(1.5)
    assert (clock.time(), clock.ns) == (1.5, 1_500_000_000)
    clock.ns += 1
    assert clock.ns == 1_500_000_001
    clock.ns = -5
    assert clock.time() == -5e-9
    for bad in (math.nan, math.inf, -math.inf, 1e300):
        with pytest.raises(ValueError, match="start"):
            _core.Clock(bad)
    with pytest.raises(ValueError, match="64 bits"):
        clock.ns = 2**63
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError):
            clock.ns = wrong  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        del clock.ns
    assert clock.ns == -5


def test_fingerprint_is_siphash() -> None:
    secret = bytes(range(16))
    digest = _core.fingerprint(secret, "user:42")
    assert len(digest) == 16
    assert digest == _core.fingerprint(secret, b"user:42")
    assert digest != _core.fingerprint(bytes(16), "user:42")
    assert _core.fingerprint(secret, "\ud800") == _core.fingerprint(secret, b"\xed\xa0\x80")
    with pytest.raises(ValueError, match="16 bytes"):
        _core.fingerprint(b"short", "user:42")
    with pytest.raises(TypeError):
        _core.fingerprint(secret, 5)  # type: ignore[arg-type]


def test_errors_are_one_family() -> None:
    assert issubclass(_core.StoreFullError, _core.StoreError)
    assert issubclass(_core.StoreError, Exception)
    assert (_core.COST_MAX, _core.LIMIT_MAX, _core.QUOTAS_MAX) == (2**40, 2**40, 8)


@pytest.mark.parametrize("seconds", [1e-9, 0.1, 1 / 3, 86400.0, 1.0e7, 1.0e8])
def test_retry_after_always_suffices(seconds: float) -> None:
    """Waiting for exactly retry_after is enough, whatever the float rounds to."""
    clock = _core.Clock()
    period = max(0.001, seconds)
    for limit in (1, 3, 7, 11):
        limiter = _core.Limiter(
            _core.Table(["gcra"], clock=clock), [_core.Quota(limit, period, burst=1)]
        )
        assert limiter.hit_nowait("k")
        for step in (1, 3, 1_234_567):
            refused = limiter.hit_nowait("k")
            if refused:
                break
            clock.ns += min(step, round(refused.retry_after * 1e9) // 2)
            refused = limiter.hit_nowait("k")
            assert not refused
            clock.ns += round(refused.retry_after * 1e9)
            assert limiter.hit_nowait("k"), (limit, step)
