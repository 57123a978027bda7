"""Decisions as header fields."""

from __future__ import annotations

import math
import time

import pytest

from sluicegate import Decision, Limiter, MemoryStore, Quota
from sluicegate.headers import retry_after_seconds
from sluicegate.testing import Clock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=Clock())


def test_ietf(store: MemoryStore) -> None:
    limiter = Limiter("chat: 100/minute", store=store)
    assert limiter.hit_nowait("a").headers() == {
        "RateLimit-Policy": '"chat";q=100;w=60',
        "RateLimit": '"chat";r=99;t=1',
    }
    assert limiter.hit_nowait("a", 99).headers("ietf")["RateLimit"] == '"chat";r=0;t=60'
    assert limiter.hit_nowait("a", 50).headers("ietf") == {
        "RateLimit-Policy": '"chat";q=100;w=60',
        "RateLimit": '"chat";r=0;t=30',
        "Retry-After": "30",
    }


def test_a_default_name_and_the_unit_of_bytes(store: MemoryStore) -> None:
    assert Limiter("5/s", store=store).hit_nowait("a").headers()["RateLimit"] == (
        '"default";r=4;t=1'
    )
    policy = Limiter("1KB/minute", store=store).hit_nowait("a").headers()["RateLimit-Policy"]
    assert policy == '"bytes";q=1024;qu="content-bytes";w=60'


def test_x(store: MemoryStore) -> None:
    limiter = Limiter("5/minute", store=store)
    before = time.time()
    headers = limiter.hit_nowait("a", 5).headers("x")
    assert set(headers) == {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("5", "0")
    assert before + 60 <= int(headers["X-RateLimit-Reset"]) <= time.time() + 61
    assert limiter.hit_nowait("a").headers("x")["Retry-After"] == "12"


def test_retry_after_is_whole_rounded_up_at_least_1_and_never_inf(store: MemoryStore) -> None:
    limiter = Limiter("10/second burst 1", store=store)
    limiter.hit_nowait("a")
    assert limiter.hit_nowait("a").headers()["Retry-After"] == "1"
    never = limiter.hit_nowait("b", 2).headers()
    assert "Retry-After" not in never
    assert ";t=" not in never["RateLimit"]
    assert retry_after_seconds(Decision(False, retry_after=1.00001)) == 2
    assert retry_after_seconds(Decision(False, retry_after=math.inf)) is None
    assert retry_after_seconds(Decision(True)) is None


def test_under_a_ban_and_where_nothing_is_limited(store: MemoryStore) -> None:
    limiter = Limiter("10/second", store=store)
    limiter.ban_nowait("a", 90.5)
    assert limiter.hit_nowait("a").headers() == {"Retry-After": "91"}
    assert limiter.hit_nowait("a").headers("x") == {"Retry-After": "91"}
    limiter.enabled = False
    assert limiter.hit_nowait("a").headers() == {}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ('say "hi"\\', '"say \\"hi\\"\\\\"'),
        ("a\r\nSet-Cookie: x", '"a%0D%0ASet-Cookie: x"'),
        ("über", '"%C3%BCber"'),
        ("100%", '"100%25"'),
        ("\ud800", '"%ED%A0%80"'),
    ],
)
def test_a_name_cannot_leave_its_string(store: MemoryStore, name: str, field: str) -> None:
    headers = Limiter(Quota(5, 1, name=name), store=store).hit_nowait("a").headers()
    assert headers["RateLimit"] == f"{field};r=4;t=1"
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_parts_of_seconds_are_rounded_up(store: MemoryStore) -> None:
    decision = Limiter("1/250ms", store=store).hit_nowait("a")
    assert decision.headers()["RateLimit-Policy"] == '"default";q=1;w=1'


def test_another_style_is_an_error() -> None:
    with pytest.raises(ValueError, match="'ietf' or 'x'"):
        Decision(True).headers("github")  # type: ignore[arg-type]
