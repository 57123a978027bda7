"""Decisions as HTTP answers, read as a client reads them: by a parser of structured fields."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import Decision, Limiter, MemoryStore, Quota
from sluicegate.http import PROBLEM_JSON, Answers, raw_headers
from sluicegate.testing import Clock

INTEGER_MAX = 999_999_999_999_999


def read(field: str) -> list[tuple[str, dict[str, Any]]]:
    """A List of Items, as RateLimit-Policy and RateLimit are; ValueError where it is none."""
    found: Any = http_sf.parse(field.encode("ascii"), tltype="list")
    return list(found)


def check_grammar(headers: dict[str, str]) -> None:
    """What draft-ietf-httpapi-ratelimit-headers-10 asks of the two fields."""
    ((policy, of_policy),) = read(headers["RateLimit-Policy"])
    ((name, state),) = read(headers["RateLimit"])
    assert policy == name
    assert type(policy) is str  # a String, not a Token
    assert set(of_policy) <= {"q", "qu", "w"} and "q" in of_policy
    assert set(state) <= {"r", "t"} and "r" in state
    for key, value in {**of_policy, **state}.items():
        assert type(value) is str if key == "qu" else type(value) is int and value >= 0
    assert of_policy.get("qu", "request") in ("request", "content-bytes", "concurrent-requests")


@pytest.fixture
def limiter() -> Limiter:
    return Limiter("search: 5/minute", store=MemoryStore(clock=Clock()))


def test_the_styles(limiter: Limiter) -> None:
    decision = limiter.hit_nowait("a", 5)
    ietf = {"RateLimit-Policy": '"search";q=5;w=60', "RateLimit": '"search";r=0;t=60'}
    before = time.time()
    x = Answers("x").headers(decision)
    assert (x["X-RateLimit-Limit"], x["X-RateLimit-Remaining"]) == ("5", "0")
    assert before + 60 <= int(x["X-RateLimit-Reset"]) <= time.time() + 61
    assert set(x) == {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert Answers().headers(decision) == Answers("ietf").headers(decision) == ietf
    assert set(Answers("both").headers(decision)) == {*ietf, *x}
    assert Answers("none").headers(decision) == Answers(None).headers(decision) == {}


@pytest.mark.parametrize("style", ["ietf", "x", "both", "none", None])
def test_a_refusal_always_tells_when_to_come_again(style: Any, limiter: Limiter) -> None:
    limiter.hit_nowait("a", 5)
    refused = limiter.hit_nowait("a")
    assert Answers(style).headers(refused)["Retry-After"] == "12"
    assert Answers(style).refusal(refused).headers["Retry-After"] == "12"
    never = limiter.hit_nowait("b", 6)
    assert math.isinf(never.retry_after)
    assert Answers(style).headers(never)["Retry-After"] == "60"
    limiter.ban_nowait("c", 90.5)
    assert Answers(style).headers(limiter.hit_nowait("c"))["Retry-After"] == "91"
    endless = Decision(False, retry_after=math.inf)
    assert Answers(style).headers(endless) == {"Retry-After": "60"}


def test_jitter_is_added_and_only_to_retry_after(limiter: Limiter) -> None:
    limiter.hit_nowait("a", 5)
    refused = limiter.hit_nowait("a")
    for chance, seconds in ((0.0, 12), (0.5, 17), (0.999, 22)):
        answers = Answers(jitter=10, chance=lambda chance=chance: chance)  # type: ignore[misc]
        refusal = answers.refusal(refused)
        assert refusal.headers["Retry-After"] == str(seconds)
        assert refusal.problem["retry_after"] == seconds
        assert refusal.headers["RateLimit"] == '"search";r=0;t=12'
    told = {Answers(jitter=30).headers(refused)["Retry-After"] for _ in range(200)}
    assert len(told) > 5 and {int(one) for one in told} <= set(range(12, 43))


def test_the_problem_of_a_refusal(limiter: Limiter) -> None:
    limiter.hit_nowait("a", 5)
    refusal = Answers().refusal(limiter.hit_nowait("a"))
    assert refusal.status == 429
    assert json.loads(refusal.body) == refusal.problem == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Come again in 12 seconds.",
        "violated-policies": ["search"],
        "retry_after": 12,
    }  # fmt: skip
    assert PROBLEM_JSON == "application/problem+json"
    limiter.ban_nowait("b", 1)
    banned = Answers().refusal(limiter.hit_nowait("b"))
    assert (banned.status, banned.problem["violated-policies"]) == (429, [])
    assert banned.problem["detail"] == "Come again in 1 second."


def test_a_store_that_failed_is_no_limit_that_was_reached() -> None:
    failed = Decision(False, retry_after=1.0, degraded=True)
    refusal = Answers().refusal(failed)
    assert refusal.status == refusal.problem["status"] == 503
    assert refusal.problem["type"].endswith("#temporary-reduced-capacity")
    assert refusal.headers == {"Retry-After": "1"}
    local = Decision(False, quota=Quota(5, 60), limit=5, retry_after=3.0, degraded=True)
    assert Answers().refusal(local).status == 429


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"headers": "github"}, ValueError),
        ({"headers": 7}, TypeError),
        ({"jitter": -1}, ValueError),
        ({"jitter": math.inf}, ValueError),
        ({"jitter": math.nan}, ValueError),
        ({"jitter": "1"}, TypeError),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, error: Any) -> None:
    with pytest.raises(error):
        Answers(**arguments)


def test_raw_headers() -> None:
    assert raw_headers({"Retry-After": "3"}) == [(b"retry-after", b"3")]


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    quota = Quota(
        draw(st.integers(1, 10_000_000)),
        draw(st.floats(1, 315_360_000)),
        name=draw(st.one_of(st.none(), st.just("bytes"), st.text(min_size=1, max_size=30))),
    )
    waits = st.one_of(st.floats(0, 1e18), st.just(math.inf))
    return Decision(
        draw(st.booleans()),
        quota=quota,
        limit=quota.limit,
        remaining=draw(st.integers(0, 2**40)),
        retry_after=draw(waits),
        reset_after=draw(waits),
        degraded=draw(st.booleans()),
    )


@given(decisions())
def test_whatever_is_decided_is_well_formed(decision: Decision) -> None:
    headers = Answers("both", jitter=5).headers(decision)
    check_grammar(headers)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert decision.allowed != ("Retry-After" in headers)
    if not decision.allowed:
        refusal = Answers().refusal(decision)
        ((_, state),) = read(refusal.headers["RateLimit"])
        # the draft: Retry-After is no earlier than the end of the window that is told
        assert int(refusal.headers["Retry-After"]) >= min(state.get("t", 0), INTEGER_MAX)
        name = read(headers["RateLimit-Policy"])[0][0]
        assert json.loads(refusal.body)["violated-policies"] == [name]
