"""Rules of the ASGI door: what they are made of, and what they refuse to be."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from sluicegate.asgi import Rule
from sluicegate.asgi.rule import RULENAMES, TTL


def test_a_rule_as_it_is_made() -> None:
    rule = Rule(1, 2, 3, 4, 5, "admin", "GET", "api", 60)
    assert rule == Rule(
        group="admin", method="GET", zone="api", block_time=60,
        second=1, minute=2, hour=3, day=4, month=5,
    )  # fmt: skip
    assert rule.limits() == dict(zip(RULENAMES, (1, 2, 3, 4, 5), strict=True))
    assert TTL["month"] == 31 * 24 * 3600
    assert Rule().group == "default"
    assert (Rule().method, Rule().zone, Rule().block_time) == (None, None, None)
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert len({rule, Rule(second=1), Rule(second=1)}) == 2


def test_a_rule_without_a_limit_is_unlimited() -> None:
    assert Rule(group="admin").unlimited
    assert Rule(group="admin", zone="api").unlimited
    assert not Rule(month=1).unlimited


def test_a_rule_is_for_any_method_or_for_one() -> None:
    assert Rule().only_method() is Rule(method="*").only_method() is None
    assert Rule(method="get").only_method() == "GET"


def test_the_keys_for_a_backend_of_ones_own() -> None:
    assert Rule(second=1, hour=5, method="GET").ruleset("/towns", "ada") == {
        "/towns:GET:ada:second": (1, 1),
        "/towns:GET:ada:hour": (5, 3600),
    }


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"second": 0}, ValueError, "second is 1 to"),
        ({"minute": -1}, ValueError, "minute is 1 to"),
        ({"hour": 2**40 + 1}, ValueError, "hour is 1 to"),
        ({"day": 1.5}, TypeError, "not float"),
        ({"month": True}, TypeError, "not bool"),
        ({"second": "admin"}, TypeError, "name the arguments"),
        ({"group": None}, TypeError, "group is a str, not NoneType"),
        ({"group": ""}, ValueError, "group is not empty"),
        ({"method": 1}, TypeError, "method is a str or None"),
        ({"zone": ""}, ValueError, "zone is not empty"),
        ({"second": 1, "block_time": -1}, ValueError, "at least 0"),
        ({"second": 1, "block_time": float("nan")}, ValueError, "block_time"),
        ({"second": 1, "block_time": float("inf")}, ValueError, "ten years"),
        ({"second": 1, "block_time": 10**12}, ValueError, "ten years"),
        ({"second": 1, "block_time": "60"}, TypeError, "block_time"),
        ({"block_time": 60}, ValueError, "without a limit"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Rule(**given)


def test_a_block_time_of_nothing_blocks_nobody() -> None:
    assert not Rule(second=1, block_time=0).block_time
