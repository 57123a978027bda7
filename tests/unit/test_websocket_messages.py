"""WebSocketRateLimiter.check_message: reasons, their order, one decision, the counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from sluicegate import (
    ConnectionInfo,
    InMemoryStorage,
    MemoryStore,
    StorageError,
    WebSocketLimits,
    WebSocketRateLimiter,
)
from sluicegate.testing import Clock, record


def make(store: MemoryStore | None = None, /, **limits: Any) -> WebSocketRateLimiter:
    return WebSocketRateLimiter(WebSocketLimits(**limits), store)


async def connected(limiter: WebSocketRateLimiter, *ids: str, client: str = "ada") -> None:
    for connection_id in ids:
        assert await limiter.register_connection(connection_id, client)


async def test_an_admitted_message() -> None:
    limiter = make(messages_per_minute=3)
    await connected(limiter, "c")
    results = [await limiter.check_message("c", 10) for _ in range(3)]
    assert results == [{"allowed": True, "reason": "ok", "remaining": n} for n in (2, 1, 0)]


async def test_results_are_not_one_object() -> None:
    limiter = make()
    await connected(limiter, "c")
    first = await limiter.check_message("c", 1)
    first["allowed"] = False
    first["mine"] = 1
    second = await limiter.check_message("c", 1)
    assert second == {"allowed": True, "reason": "ok", "remaining": 998}


async def test_600_of_1000_bytes_pass_600_more_do_not_400_do(sluice_store: MemoryStore) -> None:
    limiter = make(sluice_store, messages_per_minute=1000, bytes_per_minute=1000)
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 600))["allowed"]
    assert await limiter.check_message("c", 600) == {
        "allowed": False,
        "reason": "bandwidth_exceeded",
        "remaining_bytes": 400,
        "retry_after": 60,
    }
    assert await limiter.check_message("c", 400) == {
        "allowed": True,
        "reason": "ok",
        "remaining": 998,
    }


async def test_a_message_refused_for_its_bytes_is_not_charged_as_a_message() -> None:
    limiter = make(messages_per_minute=2, bytes_per_minute=100)
    await connected(limiter, "c")
    for _ in range(50):
        assert (await limiter.check_message("c", 101))["reason"] == "bandwidth_exceeded"
    assert [(await limiter.check_message("c", 50))["allowed"] for _ in range(2)] == [True, True]


async def test_one_refused_as_a_message_is_not_charged_its_bytes(
    sluice_clock: Clock, sluice_store: MemoryStore
) -> None:
    limiter = make(sluice_store, messages="1/second using sliding-log", bytes_per_minute=100)
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 50))["allowed"]
    for _ in range(50):
        assert (await limiter.check_message("c", 50))["reason"] == "rate_limit_exceeded"
    sluice_clock.advance(1)
    assert (await limiter.check_message("c", 50))["allowed"]


async def test_reasons_are_tried_in_the_documented_order() -> None:
    limiter = make(messages_per_minute=1, bytes_per_minute=100, max_message_size=200)
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 100))["allowed"]
    # all three hold it back
    assert await limiter.check_message("c", 201) == {
        "allowed": False,
        "reason": "message_too_large",
        "max_size": 200,
    }
    # messages and bytes do; bytes alone never admit 150
    result = await limiter.check_message("c", 150)
    assert (result["reason"], result["retry_after"]) == ("rate_limit_exceeded", None)
    assert (await limiter.check_message("nobody", 201)) == {
        "allowed": False,
        "reason": "connection_not_found",
    }


async def test_sizes_at_the_edge() -> None:
    limiter = make(max_message_size=100)
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 100))["allowed"]
    assert (await limiter.check_message("c", 101))["reason"] == "message_too_large"
    assert (await limiter.check_message("c", 2**80))["reason"] == "message_too_large"
    assert (await limiter.check_message("c"))["allowed"]  # a size of 0, as in the source


@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), (-(2**70), ValueError), (1.5, TypeError), ("1", TypeError)],
)
async def test_sizes_that_are_none(size: Any, error: type[Exception]) -> None:
    limiter = make()
    await connected(limiter, "c")
    with pytest.raises(error, match="message_size"):
        await limiter.check_message("c", size)


async def test_a_size_beyond_any_cost_without_a_bound_is_refused() -> None:
    limiter = make(max_message_size=None)
    await connected(limiter, "c")
    with pytest.raises(ValueError, match="2\\*\\*40"):
        await limiter.check_message("c", 2**41)


async def test_retry_after_is_whole_seconds_rounded_up_and_at_least_1(
    sluice_clock: Clock, sluice_store: MemoryStore
) -> None:
    limiter = make(sluice_store, messages_per_minute=1)
    await connected(limiter, "c")
    await limiter.check_message("c", 1)
    for passed, expected in ((0, 60), (0.5, 60), (0.6, 59), (58.8, 1), (0.0999, 1)):
        sluice_clock.advance(passed)
        result = await limiter.check_message("c", 1)
        assert result["retry_after"] == expected
        assert type(result["retry_after"]) is int
    sluice_clock.advance(0.0001)
    assert (await limiter.check_message("c", 1))["allowed"]


async def test_no_minute_has_more_than_the_limit(
    sluice_clock: Clock, sluice_store: MemoryStore
) -> None:
    limiter = make(sluice_store, messages_per_minute=7)
    await connected(limiter, "c")
    admitted: list[float] = []
    for _ in range(3000):
        sluice_clock.advance(0.1)
        if (await limiter.check_message("c", 1))["allowed"]:
            admitted.append(sluice_clock.time())
    assert len(admitted) == 7 * 5
    for early, late in zip(admitted, admitted[7:], strict=False):
        assert late - early >= 60 - 1e-9


async def test_the_rate_is_a_clients_over_all_its_connections() -> None:
    limiter = make(messages_per_minute=4)
    await connected(limiter, "c1", "c2")
    await connected(limiter, "other", client="eve")
    results = [(await limiter.check_message(c, 1))["allowed"] for c in ("c1", "c2") * 3]
    assert results == [True] * 4 + [False] * 2
    assert (await limiter.check_message("other", 1))["allowed"]


async def test_a_new_connection_brings_no_new_quota() -> None:
    limiter = make(messages_per_minute=2)
    for n in range(5):
        await connected(limiter, f"c{n}")
        allowed = (await limiter.check_message(f"c{n}", 1))["allowed"]
        assert allowed == (n < 2)
        await limiter.unregister_connection(f"c{n}")


@pytest.mark.parametrize(
    ("limits", "remaining"),
    [
        ({"messages_per_minute": None}, None),
        ({"messages_per_minute": None, "bytes_per_minute": 10}, None),
        ({"messages_per_minute": 10, "bytes_per_minute": 2}, 9),  # bytes bind
    ],
)
async def test_remaining_is_of_messages(limits: dict[str, Any], remaining: int | None) -> None:
    limiter = make(**limits)
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 1))["remaining"] == remaining


async def test_unlimited_is_unlimited() -> None:
    limiter = make(messages_per_minute=None, max_message_size=None)
    await connected(limiter, "c")
    for _ in range(2000):
        assert (await limiter.check_message("c", 10**9))["allowed"]


async def test_rate_strings_with_several_quotas() -> None:
    limiter = make(messages="2/second burst 3; 4/hour", bytes="1KB/second; 2KB/hour")
    await connected(limiter, "c")
    assert [(await limiter.check_message("c", 100))["allowed"] for _ in range(4)] == [
        True,
        True,
        True,
        False,
    ]


async def test_it_charges_when_awaited_and_not_when_called() -> None:
    limiter = make(messages_per_minute=1)
    await connected(limiter, "c")
    waiting = [limiter.check_message("c", 1) for _ in range(3)]
    assert limiter.total_messages == 0
    assert [(await one)["allowed"] for one in waiting] == [True, False, False]


async def test_it_works_in_tasks_gather_and_wait_for() -> None:
    limiter = make(messages_per_minute=4)
    await connected(limiter, "c")

    def check() -> Coroutine[Any, Any, dict[str, Any]]:
        return limiter.check_message("c", 1)  # type: ignore[return-value]

    results = [
        await asyncio.create_task(check()),
        *await asyncio.gather(check(), check()),
        await asyncio.wait_for(check(), 5),
        await asyncio.create_task(check()),
        await asyncio.wait_for(check(), 5),
    ]
    assert [result["allowed"] for result in results] == [True] * 4 + [False] * 2


async def test_the_counters_of_a_connection(sluice_clock: Clock, sluice_store: MemoryStore) -> None:
    limiter = make(sluice_store, messages_per_minute=2)
    before = time.time()
    assert await limiter.register_connection("c", "ada", {"room": 1})
    info = limiter.get_connection_info("c")
    assert isinstance(info, ConnectionInfo)
    assert before <= info.connected_at <= time.time()
    assert (info.connection_id, info.client_id, info.metadata) == ("c", "ada", {"room": 1})
    assert (info.message_count, info.bytes_sent, info.last_message_time) == (0, 0, None)
    for size in (10, 20, 40):
        await limiter.check_message("c", size)
    assert (info.message_count, info.bytes_sent) == (2, 30)
    sluice_clock.advance(5)
    last = info.last_message_time
    assert last is not None
    assert time.time() - 5 == pytest.approx(last, abs=1)
    assert info.last_message_time == last
    info.last_message_time = 3.5
    assert info.last_message_time == 3.5
    assert limiter.get_connection_info("nobody") is None


def test_a_connection_info_made_by_hand() -> None:
    info = ConnectionInfo(client_id="ada", connected_at=12.5)
    assert (info.connection_id, info.client_id, info.connected_at) == (None, "ada", 12.5)
    assert (info.message_count, info.bytes_sent, info.last_message_time) == (0, 0, None)
    assert info.metadata == {}
    assert "ada" in repr(info)
    with pytest.raises(TypeError, match="connected_at"):
        ConnectionInfo(client_id="ada")


async def test_statistics() -> None:
    limiter = make(messages_per_minute=2, max_message_size=100)
    await connected(limiter, "c1", "c2")
    await connected(limiter, "e", client="eve")
    for size in (10, 200, 20, 30, 5):
        await limiter.check_message("c1", size)
    await limiter.unregister_connection("c2")
    stats = limiter.get_statistics()
    assert {name: value for name, value in stats.items() if name != "limits"} == {
        "active_connections": 2,
        "unique_clients": 2,
        "total_messages": 2,
        "total_bytes_sent": 30,
        "violations": {
            "concurrent_connections": 0,
            "connection_rate": 0,
            "message_size": 1,
            "message_rate": 2,
            "bandwidth": 0,
        },
    }
    assert stats["limits"]["messages_per_minute"] == 2
    assert stats["limits"]["max_concurrent"] == 10
    assert set(stats["limits"]) == {*WebSocketLimits.__dataclass_fields__, "max_concurrent"}
    assert await limiter.statistics() == stats


async def test_limits_by_client() -> None:
    def limits(client_id: str | bytes) -> WebSocketLimits:
        if client_id == "gold":
            return WebSocketLimits(messages="10/minute burst 3", max_message_size=10)
        return WebSocketLimits(messages_per_minute=1, max_concurrent_connections=1)

    limiter = WebSocketRateLimiter(limits)
    await connected(limiter, "g1", "g2", client="gold")
    await connected(limiter, "s1", client="iron")
    assert not await limiter.register_connection("s2", "iron")
    assert [(await limiter.check_message("g1", 1))["allowed"] for _ in range(4)] == [
        True,
        True,
        True,
        False,
    ]
    assert (await limiter.check_message("g1", 11))["max_size"] == 10
    assert [(await limiter.check_message("s1", 1))["allowed"] for _ in range(2)] == [True, False]
    stats = limiter.get_statistics()
    assert set(stats["limits"]) == {*WebSocketLimits.__dataclass_fields__, "max_concurrent"}


async def test_limits_that_return_something_else() -> None:
    limiter = WebSocketRateLimiter(lambda client_id: 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="WebSocketLimits"):
        await limiter.check_connection("ada")


async def test_max_refusals_tell_to_close(sluice_clock: Clock, sluice_store: MemoryStore) -> None:
    limiter = WebSocketRateLimiter(
        WebSocketLimits(max_message_size=10), sluice_store, max_refusals="3/minute"
    )
    await connected(limiter, "c1", "c2")
    results = [await limiter.check_message("c1", 11) for _ in range(5)]
    assert ["close" in result for result in results] == [False] * 3 + [True] * 2
    assert results[-1]["close"] is True
    # it is a connection that is refused, not a client
    assert "close" not in await limiter.check_message("c2", 11)
    assert "close" not in await limiter.check_message("c1", 10)
    await limiter.unregister_connection("c1")
    await connected(limiter, "c1")
    assert "close" not in await limiter.check_message("c1", 11)


async def test_decide_message_with_a_cost() -> None:
    limiter = make(messages_per_minute=10, bytes_per_minute=1000)
    await connected(limiter, "c")
    decision, result = await limiter.decide_message("c", 100, cost=8)
    assert decision.allowed
    assert result["reason"] == "ok"
    decision, result = await limiter.decide_message("c", 100, cost=3)
    assert (decision.allowed, decision.remaining, result["reason"]) == (
        False,
        2,
        "rate_limit_exceeded",
    )
    assert (await limiter.decide_message("c", 100, cost=0))[0].allowed
    decision, result = await limiter.decide_message("c", 10**6, cost=1)
    assert (decision.allowed, decision.limit, decision.retry_after) == (False, 65536, float("inf"))
    assert result["reason"] == "message_too_large"
    decision, result = await limiter.decide_message("nobody", 1)
    assert (decision.allowed, result["reason"]) == (False, "connection_not_found")


async def test_record_sees_the_decisions() -> None:
    limiter = make(messages_per_minute=1)
    await connected(limiter, "c")
    with record() as decisions:
        await limiter.check_message("c", 1)
        await limiter.check_message("c", 1)
    assert [(one.key, one.decision.allowed) for one in decisions] == [("ada", True), ("ada", False)]


async def test_one_name_on_one_store_shares_and_without_a_store_nothing_is_shared() -> None:
    store = MemoryStore()
    first, second = (make(store, messages_per_minute=1) for _ in range(2))
    other = WebSocketRateLimiter(WebSocketLimits(messages_per_minute=1), store, name="other")
    alone = [make(messages_per_minute=1) for _ in range(2)]
    allowed = []
    for limiter in (first, second, other, *alone):
        await connected(limiter, "c")
        allowed.append((await limiter.check_message("c", 1))["allowed"])
    assert allowed == [True, False, True, True, True]


def test_two_shapes_under_one_name_are_an_error() -> None:
    store = MemoryStore()
    make(store)
    with pytest.raises(ValueError, match=r"websocket\.messages"):
        make(store, algorithm="gcra")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"limits": 5}, TypeError),
        ({"on_violation": 5}, TypeError),
        ({"storage": 5}, TypeError),
        ({"storage": "mysql://"}, ValueError),
        ({"name": ""}, ValueError),
        ({"on_store_error": "retry"}, ValueError),
        ({"max_refusals": "5"}, ValueError),
    ],
)
def test_wrong_arguments_are_refused_when_it_is_made(
    wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        WebSocketRateLimiter(**wrong)


async def test_the_old_name_of_the_memory_store() -> None:
    limiter = WebSocketRateLimiter(storage=InMemoryStorage())
    await connected(limiter, "c")
    assert (await limiter.check_message("c", 1))["allowed"]
    assert isinstance(limiter.store, MemoryStore)


def test_storage_error_is_the_store_error() -> None:
    from sluicegate import StoreError

    assert StorageError is StoreError
