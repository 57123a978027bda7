"""WebSocketLimits: what is a limit and what is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sluicegate import Quota, WebSocketLimits

MINUTE_FIELDS = ("connections_per_minute", "messages_per_minute", "bytes_per_minute")
FIELDS = (*MINUTE_FIELDS, "max_concurrent_connections", "max_message_size")


def test_defaults_are_those_of_the_source() -> None:
    limits = WebSocketLimits()
    assert [getattr(limits, name) for name in FIELDS] == [60, 1000, None, 10, 65536]
    assert limits == WebSocketLimits(60, 1000, None, 10, 65536)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [0, -1, 2**63, -(2**70)])
def test_numbers_that_are_no_limit_are_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        WebSocketLimits(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "5", True, b"1"])
def test_what_is_no_int_is_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        WebSocketLimits(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
def test_none_is_unlimited(name: str) -> None:
    unlimited: dict[str, Any] = {name: None}
    assert getattr(WebSocketLimits(**unlimited), name) is None


def test_minute_fields_are_sliding_logs_of_a_minute() -> None:
    limits = WebSocketLimits(bytes_per_minute=5000)
    for kind, limit in (("messages", 1000), ("bytes", 5000), ("connections", 60)):
        (quota,) = limits.quotas_of(kind)
        assert (quota.limit, quota.period, quota.algorithm) == (limit, 60.0, "sliding-log")


def test_algorithm_is_that_of_all_three() -> None:
    limits = WebSocketLimits(bytes_per_minute=5000, algorithm="fixed-window")
    assert {
        limits.quotas_of(kind)[0].algorithm for kind in ("messages", "bytes", "connections")
    } == {"fixed-window"}
    with pytest.raises(ValueError, match="sliding-log"):
        WebSocketLimits(algorithm="leaky")


def test_rate_strings_replace_the_minute_fields() -> None:
    limits = WebSocketLimits(
        messages="5/second burst 20; 200/minute",
        bytes="1MB/minute; 10MB/hour",
        connections="3/second",
    )
    assert [getattr(limits, name) for name in MINUTE_FIELDS] == [None, None, None]
    assert [(q.limit, q.burst) for q in limits.quotas_of("messages")] == [(5, 20), (200, 200)]
    assert [q.limit for q in limits.quotas_of("bytes")] == [2**20, 10 * 2**20]
    assert [q.limit for q in limits.quotas_of("connections")] == [3]


def test_a_quota_and_several_will_do_for_a_rate_string() -> None:
    quota = Quota(5, 1.0)
    assert WebSocketLimits(messages=quota).quotas_of("messages")[0].limit == 5
    assert len(WebSocketLimits(messages=(quota, "9/minute")).quotas_of("messages")) == 2


@pytest.mark.parametrize("kind", ["messages", "bytes", "connections"])
@pytest.mark.parametrize("rate", ["", "5", "5/fortnight", "0/second", "-1/second", "5/second;;"])
def test_bad_rate_strings_are_refused_at_once(kind: str, rate: str) -> None:
    with pytest.raises(ValueError, match="rate string"):
        WebSocketLimits(**{kind: rate})  # type: ignore[arg-type]


def test_two_quotas_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="named"):
        WebSocketLimits(messages="x: 5/second", bytes="x: 1MB/minute")


def test_more_quotas_than_a_limiter_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="quotas"):
        WebSocketLimits(messages="; ".join(f"{n}/minute" for n in range(1, 9)), bytes="1MB/minute")


def test_limits_are_values() -> None:
    limits = WebSocketLimits(messages_per_minute=5)
    assert hash(limits) == hash(WebSocketLimits(messages_per_minute=5))
    assert dataclasses.replace(limits, max_message_size=10).messages_per_minute == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.messages_per_minute = 6  # type: ignore[misc]
