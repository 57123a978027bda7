"""What on_violation hears, and that it changes nothing; what happens when the store fails."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from sluicegate import MemoryStore, StoreFullError, WebSocketLimits, WebSocketRateLimiter
from sluicegate.testing import Clock

LIMITS = WebSocketLimits(
    connections_per_minute=2,
    messages_per_minute=2,
    bytes_per_minute=100,
    max_concurrent_connections=1,
    max_message_size=80,
)


async def violate(limiter: WebSocketRateLimiter) -> list[bool]:
    """One violation of each type, in the order below."""
    allowed = [await limiter.check_connection("ada"), await limiter.register_connection("c", "ada")]
    allowed.append(await asyncio.create_task(limiter.check_connection("ada")))
    for size in (81, 60, 60, 1, 1):
        allowed.append((await limiter.check_message("c", size))["allowed"])
    await limiter.unregister_connection("c")
    for _ in range(2):
        allowed.append(await asyncio.create_task(limiter.check_connection("ada")))
    return allowed


EXPECTED = [True, True, False, False, True, False, True, False, True, False]
TYPES = ["concurrent_connections", "message_size", "bandwidth", "message_rate", "connection_rate"]


@pytest.mark.parametrize("style", ["plain", "async"])
async def test_it_hears_of_each_type(sluice_store: MemoryStore, style: str) -> None:
    heard: list[dict[str, Any]] = []

    async def later(info: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        heard.append(info)

    limiter = WebSocketRateLimiter(
        LIMITS, sluice_store, heard.append if style == "plain" else later
    )
    before = time.time()
    assert await violate(limiter) == EXPECTED
    assert [info["type"] for info in heard] == TYPES
    assert {info["client_id"] for info in heard} == {"ada"}
    assert [info["connection_id"] for info in heard] == [None, "c", "c", "c", None]
    assert [info["limit"] for info in heard] == [1, 80, 100, 2, 2]
    assert [info["retry_after"] for info in heard] == [None, None, 60, 60, 60]
    assert all(before <= info["timestamp"] <= time.time() for info in heard)
    assert {frozenset(info) for info in heard} == {
        frozenset(("type", "client_id", "connection_id", "timestamp", "limit", "retry_after"))
    }
    assert limiter.get_statistics()["violations"] == dict.fromkeys(TYPES, 1)


@pytest.mark.parametrize("style", ["plain", "async"])
async def test_one_that_raises_is_logged_and_changes_no_decision(
    style: str, caplog: pytest.LogCaptureFixture, sluice_store: MemoryStore
) -> None:
    def fails(info: dict[str, Any]) -> None:
        raise ZeroDivisionError

    async def fails_later(info: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    limiter = WebSocketRateLimiter(LIMITS, sluice_store, fails if style == "plain" else fails_later)
    assert await violate(limiter) == EXPECTED
    assert len(caplog.records) == 5
    assert all(record.exc_info is not None for record in caplog.records)


async def test_one_that_reenters(sluice_store: MemoryStore) -> None:
    limiter = WebSocketRateLimiter(LIMITS, sluice_store)
    results: list[Any] = []

    async def leaves(info: dict[str, Any]) -> None:
        await limiter.unregister_connection("c")
        results.append(await limiter.check_message("c", 1))

    limiter.on_violation = leaves
    await limiter.register_connection("c", "ada")
    assert (await limiter.check_message("c", 81))["reason"] == "message_too_large"
    assert [result["reason"] for result in results] == ["connection_not_found"]
    assert await limiter.count("ada") == 0


async def test_one_that_hangs_holds_no_decision_for_long(
    monkeypatch: pytest.MonkeyPatch, sluice_store: MemoryStore
) -> None:
    monkeypatch.setattr("sluicegate.websocket.violations.PATIENCE", 0.01)
    hanging = asyncio.Event()

    async def hangs(info: dict[str, Any]) -> None:
        await hanging.wait()

    limiter = WebSocketRateLimiter(LIMITS, sluice_store, hangs)
    assert await asyncio.wait_for(violate(limiter), 5) == EXPECTED
    hanging.set()
    await asyncio.sleep(0)


async def test_callbacks_that_hang_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sluicegate.websocket.violations.PATIENCE", 0.001)
    monkeypatch.setattr("sluicegate.websocket.violations.RUNNING_MAX", 3)
    hanging = asyncio.Event()
    started = 0

    async def hangs(info: dict[str, Any]) -> None:
        nonlocal started
        started += 1
        await hanging.wait()

    limiter = WebSocketRateLimiter(LIMITS, on_violation=hangs)
    await limiter.register_connection("c", "ada")
    for _ in range(10):
        await limiter.check_message("c", 81)
    assert started == 3
    assert len(caplog.records) == 1
    hanging.set()
    for _ in range(5):
        await asyncio.sleep(0)
    await limiter.check_message("c", 81)
    assert started == 4


async def test_a_cancelled_check_does_not_cancel_the_callback() -> None:
    done = asyncio.Event()
    gate = asyncio.Event()

    async def slow(info: dict[str, Any]) -> None:
        await gate.wait()
        done.set()

    limiter = WebSocketRateLimiter(LIMITS, on_violation=slow)
    await limiter.register_connection("c", "ada")
    check = asyncio.ensure_future(limiter.check_message("c", 81))
    await asyncio.sleep(0.001)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    gate.set()
    await asyncio.wait_for(done.wait(), 5)


# ---- the store is full of slots, which are never evicted


def full(policy: Any, on_full: Any = "raise") -> tuple[WebSocketRateLimiter, MemoryStore]:
    store = MemoryStore(max_keys=1, on_full=on_full, clock=Clock())
    return WebSocketRateLimiter(WebSocketLimits(), store, on_store_error=policy), store


async def fill(limiter: WebSocketRateLimiter) -> None:
    assert await limiter.register_connection("first", "first")


async def test_raise() -> None:
    limiter, _ = full("raise")
    await fill(limiter)
    with pytest.raises(StoreFullError):
        await limiter.check_connection("ada")
    with pytest.raises(StoreFullError):
        await limiter.register_connection("c", "ada")


async def test_deny(caplog: pytest.LogCaptureFixture) -> None:
    limiter, _ = full("deny")
    await fill(limiter)
    assert not await limiter.check_connection("ada")
    assert not await limiter.register_connection("c", "ada")
    assert limiter.get_statistics()["violations"]["connection_rate"] == 0
    assert len(caplog.records) == 1  # once for the change, not for each decision


async def test_allow() -> None:
    limiter, _ = full("allow")
    await fill(limiter)
    assert (await limiter.decide_connection("ada")).degraded
    assert await limiter.register_connection("c", "ada")
    await limiter.unregister_connection("c")


async def test_local_holds_the_whole_limits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    limiter, _ = full("local")
    await fill(limiter)
    assert [await limiter.register_connection(n, "ada") for n in range(11)] == [True] * 10 + [False]
    await limiter.unregister_connection("first")
    assert await limiter.check_connection("eve")
    assert ["full" in caplog.messages[0], "again" in caplog.messages[1]] == [True, True]


def ban_fills(limiter: WebSocketRateLimiter) -> None:
    """The table of messages full of a ban, which is never evicted."""
    from sluicegate import Limiter

    table = limiter.tables["messages"]
    Limiter.__base__.ban_nowait(  # type: ignore[union-attr]
        limiter._plans.of(limiter.limits).messages,  # type: ignore[arg-type]
        "somebody",
        3600,
    )
    assert table.keys == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("deny", {"allowed": False, "reason": "internal_error"}),
        ("allow", {"allowed": True, "reason": "ok", "remaining": None, "degraded": True}),
        ("local", {"allowed": True, "reason": "ok", "remaining": None, "degraded": True}),
    ],
)
async def test_messages_when_the_store_is_full(policy: str, expected: dict[str, Any]) -> None:
    limiter, _ = full(policy)
    await fill(limiter)
    ban_fills(limiter)
    assert await limiter.check_message("first", 10) == expected
    info = limiter.get_connection_info("first")
    assert info is not None
    assert info.message_count == limiter.total_messages == int(expected["allowed"])
    assert (await limiter.check_message("first", 70000))["reason"] == "message_too_large"


async def test_messages_are_limited_locally_when_the_store_is_full() -> None:
    store = MemoryStore(max_keys=1, on_full="raise", clock=Clock())
    limiter = WebSocketRateLimiter(WebSocketLimits(messages_per_minute=3), store)
    await fill(limiter)
    ban_fills(limiter)
    results = [await limiter.check_message("first", 10) for _ in range(5)]
    assert [result["allowed"] for result in results] == [True] * 3 + [False] * 2
    assert results[-1] == {"allowed": False, "reason": "rate_limit_exceeded", "retry_after": 60}


async def test_raise_for_messages() -> None:
    limiter, _ = full("raise")
    await fill(limiter)
    ban_fills(limiter)
    with pytest.raises(StoreFullError):
        await limiter.check_message("first", 10)


async def test_a_full_store_that_denies_is_no_limit_reached() -> None:
    limiter, _ = full("raise", on_full="deny")
    await fill(limiter)
    ban_fills(limiter)
    assert await limiter.check_message("first", 10) == {
        "allowed": False,
        "reason": "internal_error",
    }
    assert sum(limiter.get_statistics()["violations"].values()) == 0
