"""The limiter's own words: SPEC sections 1 and 2."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

import sluicegate
from sluicegate import (
    Decision,
    Limiter,
    MemoryStore,
    Quota,
    RateLimitExceeded,
    _core,
    hit_all,
    sync,
)
from sluicegate.testing import Clock

needs_hiredis = pytest.mark.skipif(not hasattr(_core, "HIREDIS"), reason="built without hiredis")


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def left(limiter: Limiter, key: str) -> int:
    """Units that are there; a decision tells what is left after its event."""
    return (await limiter.peek(key, 0)).remaining


async def test_hit_charges_until_the_burst_is_used(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("5/second burst 3", store=store)
    assert [(await limiter.hit("a")).remaining for _ in range(3)] == [2, 1, 0]
    refused = await limiter.hit("a")
    assert not refused
    assert refused.retry_after == pytest.approx(0.2)
    assert (refused.limit, refused.remaining, refused.quota) == (5, 0, Quota(5, 1, burst=3))
    clock.advance(refused.retry_after)
    assert await limiter.hit("a")
    assert not await limiter.hit("a")
    assert await limiter.hit("b")


async def test_charges_when_awaited_never_when_called(store: MemoryStore) -> None:
    limiter = Limiter("1/hour", store=store)
    call = limiter.hit("a")
    assert await limiter.peek("a")
    assert await limiter.hit("a")
    assert not await call
    forgotten = limiter.hit("b")
    forgotten.close()
    assert await left(limiter, "b") == 1


async def test_what_hit_returns_works_wherever_a_coroutine_does(store: MemoryStore) -> None:
    limiter = Limiter("100/hour", store=store)
    handle = limiter.bind("a")
    for hit in (lambda: limiter.hit("a"), handle.hit):
        assert asyncio.iscoroutine(call := hit())
        assert isinstance(call, Coroutine)
        assert await call
        assert await asyncio.create_task(hit())
        assert await asyncio.wait_for(hit(), 5)
        assert all(await asyncio.gather(hit(), hit()))
        assert await asyncio.shield(hit())
        assert await asyncio.ensure_future(hit())
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(limiter.hit("a"))
        assert task.result()
    loop = asyncio.get_running_loop()
    found: list[Decision] = []

    def other() -> None:
        found.append(asyncio.run_coroutine_threadsafe(limiter.hit("a"), loop).result(5))

    thread = threading.Thread(target=other)
    thread.start()
    await asyncio.to_thread(thread.join, 5)
    assert found[0]


async def test_all_quotas_admit_or_none_is_charged(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("messages: 5/second burst 20; bytes: 1KB/minute", store=store)
    assert await limiter.hit("a", cost={"bytes": 1000})
    refused = await limiter.hit("a", cost={"bytes": 100})
    assert not refused
    assert refused.quota is not None
    assert refused.quota.name == "bytes"
    admitted = await limiter.hit("a", cost={"bytes": 24})
    assert admitted
    assert admitted.remaining == 0
    peeked = await limiter.peek("a", cost={"bytes": 0})
    assert peeked
    # the refused one charged no message: 18 are left of 20
    assert await limiter.hit("a", cost={"bytes": 0, "messages": 18})
    assert not (await limiter.hit("a", cost={"bytes": 0, "messages": 1}))


async def test_an_int_costs_every_quota(store: MemoryStore) -> None:
    limiter = Limiter("messages: 5/second; bytes: 10/minute", store=store)
    assert await limiter.hit("a", 5)
    assert not await limiter.hit("a", 5)


async def test_unknown_names_in_a_cost_are_refused_with_the_known(store: MemoryStore) -> None:
    limiter = Limiter("messages: 5/second; bytes: 10/minute", store=store)
    with pytest.raises(ValueError, match=r"'byte'.*messages.*bytes|messages.*bytes.*'byte'"):
        await limiter.hit("a", {"byte": 3})
    assert (await limiter.peek("a", 5)).allowed


@pytest.mark.parametrize("cost", [-1, 2**40 + 1, 2**63, 2**64, {"bytes": -1}])
async def test_costs_out_of_range(store: MemoryStore, cost: Any) -> None:
    limiter = Limiter("bytes: 10/minute", store=store)
    for call in (limiter.hit, limiter.peek, limiter.wait, limiter.reserve, limiter.check):
        with pytest.raises(ValueError):
            await call("a", cost)
    assert await left(limiter, "a") == 10


@pytest.mark.parametrize("cost", [1.0, "1", None, True, [1]])
async def test_costs_of_a_wrong_type(store: MemoryStore, cost: Any) -> None:
    limiter = Limiter("bytes: 10/minute", store=store)
    for call in (limiter.hit, limiter.peek, limiter.wait, limiter.reserve):
        with pytest.raises(TypeError):
            await call("a", cost)


@pytest.mark.parametrize("key", [1, None, 1.5, ("a",), bytearray(b"a")])
async def test_keys_of_a_wrong_type(store: MemoryStore, key: Any) -> None:
    limiter = Limiter("10/minute", store=store)
    for call in (limiter.hit, limiter.peek, limiter.wait, limiter.reserve, limiter.reset):
        with pytest.raises(TypeError):
            await call(key)


@pytest.mark.parametrize("key", ["", "\ud800", "\0", "x" * 1_000_000, "é", b"", b"\xff\0"])
async def test_any_str_or_bytes_is_a_key(store: MemoryStore, key: str | bytes) -> None:
    limiter = Limiter("2/minute", store=store)
    other = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    assert await limiter.hit(key)
    assert await limiter.wait(other)
    assert not await limiter.hit(key)
    await limiter.reset(key)
    assert await limiter.reserve(key)


async def test_a_cost_of_zero_is_admitted_unless_banned(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/minute", store=store)
    assert await limiter.hit("a")
    assert await limiter.hit("a", 0)
    await limiter.ban("a", 30)
    assert not await limiter.hit("a", 0)


async def test_never_is_inf(store: MemoryStore) -> None:
    limiter = Limiter("5/second burst 20", store=store)
    refused = await limiter.hit("a", 21)
    assert math.isinf(refused.retry_after)
    assert refused.as_dict()["retry_after"] is None
    assert await limiter.hit("a", 20)
    assert (await limiter.wait("a", 21)).retry_after == math.inf


async def test_peek_charges_nothing(store: MemoryStore) -> None:
    limiter = Limiter("2/minute", store=store)
    for _ in range(5):
        assert (await limiter.peek("a", 2)).allowed
    assert not (await limiter.peek("a", 3)).allowed
    assert (await limiter.peek("a")).remaining == 2  # as it stands, since nothing is charged
    assert await limiter.hit("a", 2)
    assert not (await limiter.peek("a")).allowed


async def test_check_raises_with_the_decision(store: MemoryStore) -> None:
    limiter = Limiter("chat: 5/minute", store=store)
    assert (await limiter.check("a", 5)).allowed
    with pytest.raises(RateLimitExceeded, match=r"chat: 5 per minute\); retry after 12 sec") as e:
        await limiter.check("a")
    assert e.value.decision.retry_after == pytest.approx(12)
    assert e.value.retry_after == e.value.decision.retry_after
    again = pickle.loads(pickle.dumps(e.value))
    assert (type(again), str(again), again.decision) == (
        RateLimitExceeded,
        str(e.value),
        e.value.decision,
    )
    with pytest.raises(RateLimitExceeded, match="never"):
        await limiter.check("b", 6)
    await limiter.ban("c", 90)
    with pytest.raises(RateLimitExceeded, match="retry after 90 seconds"):
        await limiter.check("c")


def test_an_exceeded_error_shares_a_class_with_a_frameworks() -> None:
    class FrameworkError(Exception):
        code = 429

        def __init__(self, description: str, response: object = None) -> None:
            super().__init__(description)
            self.response = response

    class Both(RateLimitExceeded, FrameworkError):
        def __init__(self, decision: Decision) -> None:
            FrameworkError.__init__(self, "slow down")
            self.decision = decision

    error = Both(Decision(False, retry_after=3.0))
    assert (error.code, str(error), error.retry_after) == (429, "slow down", 3.0)
    assert isinstance(error, RateLimitExceeded)


async def test_hit_many_decides_each_by_itself_in_order(store: MemoryStore) -> None:
    limiter = Limiter("2/minute", store=store)
    decisions = await limiter.hit_many([("a", 1), ("b", 3), ("a", 1), ("a", 1), (b"b", 2)])
    assert [bool(decision) for decision in decisions] == [True, False, True, False, True]
    assert await limiter.hit_many(iter([])) == []


async def test_hit_all_charges_every_one_or_none(store: MemoryStore) -> None:
    user, room = Limiter("5/minute", store=store), Limiter("2/minute", store=store)
    assert await hit_all((user, "u", 1), (room, "r", 2))
    refused = await Limiter.hit_all((user, "u", 1), (room, "r", 1))
    assert not refused
    assert refused.limit == 2
    assert await left(user, "u") == 4
    assert sync.hit_all((user, "u", 4), (room, "s", 1))
    assert await left(user, "u") == 0
    with pytest.raises((TypeError, ValueError)):
        await hit_all((user, "u"))  # type: ignore[arg-type]


async def test_penalize_reward_reset(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("10/minute", store=store)
    await limiter.penalize("a", 15)
    assert (await limiter.hit("a")).retry_after == pytest.approx(36)
    await limiter.penalize("a", 1000)  # at most one burst past the limit
    assert (await limiter.hit("a")).retry_after == pytest.approx(66)
    await limiter.reward("a", 11)
    assert await left(limiter, "a") == 1
    await limiter.reward("a", 1000)  # at most to full
    assert await left(limiter, "a") == 10
    await limiter.hit("a", 10)
    await limiter.ban("a", 60)
    await limiter.reset("a")
    assert await left(limiter, "a") == 10


async def test_a_ban_counts_down_and_is_of_one_limiter(store: MemoryStore, clock: Clock) -> None:
    limiter, other = Limiter("10/minute", store=store), Limiter("10/minute", store=store)
    await limiter.ban("a", 30)
    refused = await limiter.hit("a")
    assert (refused.allowed, refused.quota, refused.retry_after) == (False, None, 30)
    clock.advance(20)
    assert (await limiter.peek("a")).retry_after == pytest.approx(10)
    assert await other.hit("a")
    clock.advance(10)
    assert (await limiter.hit("a")).remaining == 9
    await limiter.ban("a", 30)
    await limiter.unban("a")
    assert (await limiter.hit("a")).remaining == 8


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
async def test_a_ban_has_a_length(store: MemoryStore, seconds: float) -> None:
    with pytest.raises(ValueError):
        await Limiter("1/s", store=store).ban("a", seconds)


async def test_bind_prepares_a_key(store: MemoryStore) -> None:
    limiter = Limiter("bytes: 10/minute", store=store)
    handle = limiter.bind("a")
    assert (handle.key, handle.limiter) == ("a", limiter)
    assert (await handle.hit()).remaining == 9
    assert (await handle.hit({"bytes": 4})).remaining == 5
    assert handle.hit_nowait(2).remaining == 3
    assert (await handle.peek(3)).allowed
    assert (await limiter.hit("a", 3)).remaining == 0
    assert not await handle.hit()
    with pytest.raises(TypeError):
        limiter.bind(7)  # type: ignore[arg-type]


async def test_other_numbers_for_one_event(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("10/minute", store=store)
    assert (await limiter.hit("a", 5)).remaining == 5
    assert (await limiter.hit("a", quotas="20/minute")).limit == 20
    assert (await limiter.hit("a", quotas=Quota(20, 60))).limit == 20
    assert limiter.hit_nowait("a", quotas=["20/minute"]).limit == 20
    assert (await limiter.peek("a")).limit == 10
    with pytest.raises(ValueError, match=r"gcra.*sliding-log"):
        await limiter.hit("a", quotas="20/minute using sliding-log")
    with pytest.raises(ValueError, match=r"1 quota .*2 quotas"):
        await limiter.hit("a", quotas="20/minute; 5/second")
    with pytest.raises(ValueError, match="rate string"):
        await limiter.hit("a", quotas="nonsense")
    with pytest.raises(TypeError):
        await limiter.hit("a", quotas=5)


async def test_named_quotas_of_one_event_find_their_place(store: MemoryStore) -> None:
    limiter = Limiter("messages: 5/hour; bytes: 1KB/hour", store=store)
    assert await limiter.hit("a", {"bytes": 1024})
    # gcra keeps the time at which it is whole: an hour away, whatever the numbers
    refused = await limiter.hit("a", {"bytes": 1}, quotas="bytes: 2KB/hour; messages: 5/hour")
    assert refused.quota == Quota(2048, 3600, name="bytes")
    assert await limiter.hit("a", {"bytes": 0}, quotas="bytes: 2KB/hour; messages: 5/hour")


async def test_update_changes_numbers_and_keeps_state(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("10/minute", store=store)
    await limiter.hit("a", 10)
    handle = limiter.bind("a")
    limiter.update("20/minute")
    assert limiter.quotas == (Quota(20, 60),)
    clock.advance(6)  # whole again in 54 s, of which 20/minute has used 18
    assert await left(limiter, "a") == 2
    assert (await handle.hit()).limit == 20
    await limiter.update(Quota(30, 60))  # may be awaited
    assert (await limiter.peek("a")).limit == 30
    window = Limiter("5/minute using fixed-window", store=store)
    await window.hit("a", 5)
    window.update("6/minute using fixed-window")
    assert (await window.hit("a")).remaining == 0
    assert not await window.hit("a")
    log = Limiter("5/minute using sliding-log", store=store)
    await log.hit("a", 5)
    log.update("6/30 seconds using sliding-log")
    assert await log.hit("a")
    assert not await log.hit("a")
    clock.advance(30)
    assert await left(log, "a") == 6
    with pytest.raises(ValueError, match=r"fixed-window.*gcra"):
        window.update("5/minute")
    with pytest.raises(ValueError, match=r"1 quota .*2 quotas"):
        limiter.update("5/minute; 6/hour")
    assert limiter.quotas == (Quota(30, 60),)


def test_one_name_shares_sync_and_async_alike(store: MemoryStore) -> None:
    first = Limiter("10/minute", store=store, name="chat")
    second = sync.Limiter("20/hour", store=store, name="chat")
    assert first.hit_nowait("a", 10)
    assert not second.hit("a", 20)
    assert first.table is second.table
    assert Limiter("10/minute", store=store).hit_nowait("a")
    assert Limiter("10/minute", store=store, name="other").hit_nowait("a")
    del first, second
    gc.collect()
    assert not Limiter("10/minute", store=store, name="chat").hit_nowait("a")


def test_two_shapes_under_one_name_are_an_error_that_shows_both(store: MemoryStore) -> None:
    Limiter("messages: 10/minute; 1MB/minute", store=store, name="chat")
    with pytest.raises(
        ValueError, match=r"'chat' keeps 2 quotas \(messages: gcra; bytes: gcra\).*1 quota"
    ):
        Limiter("10/minute", store=store, name="chat")
    with pytest.raises(ValueError, match=r"sliding-log"):
        sync.Limiter("10/minute; 5/second using sliding-log", store=store, name="chat")
    with pytest.raises(ValueError, match=r"'chat'"):
        Limiter("10/minute", store=store, name="chat")
    Limiter("10/minute", store=MemoryStore(), name="chat")


def test_state_belongs_to_the_name_of_a_quota(store: MemoryStore) -> None:
    first = Limiter("messages: 5/hour; bytes: 1KB/hour", store=store, name="chat")
    second = Limiter("bytes: 1KB/hour; messages: 5/hour", store=store, name="chat")
    assert first.hit_nowait("a", {"bytes": 1024})
    refused = second.hit_nowait("a", {"bytes": 1})
    assert refused.quota is not None
    assert refused.quota.name == "bytes"
    assert second.hit_nowait("a", {"bytes": 0, "messages": 4})


def test_shadow_quotas_and_limiters_hold_nothing_back(store: MemoryStore) -> None:
    limiter = Limiter(["5/hour", Quota(2, 3600, shadow=True)], store=store)
    decisions = [limiter.hit_nowait("a") for _ in range(6)]
    assert [bool(decision) for decision in decisions] == [True] * 5 + [False]
    assert [decision.shadow for decision in decisions[:4]] == [False, False, True, True]
    shadow = Limiter("2/hour", store=store, shadow=True)
    assert [shadow.hit_nowait("a").shadow for _ in range(4)] == [False, False, True, True]
    assert all(shadow.hit_nowait("a") for _ in range(4))
    assert asyncio.run(shadow.wait("a", timeout=0))
    assert asyncio.run(shadow.reserve("a", timeout=0))


def test_disabled_admits_all(store: MemoryStore) -> None:
    limiter = Limiter("1/hour", store=store, enabled=False)
    assert all(limiter.hit_nowait("a") for _ in range(5))
    assert asyncio.run(limiter.wait("a"))
    limiter.enabled = True
    assert limiter.hit_nowait("a")
    assert not limiter.hit_nowait("a")


def test_a_decision_is_a_value(store: MemoryStore) -> None:
    limiter = Limiter("chat: 5/minute", store=store)
    first, second = limiter.hit_nowait("a"), limiter.hit_nowait("b")
    assert first == second
    assert first != limiter.hit_nowait("a")
    assert bool(first) is first.allowed is True
    assert first.as_dict() == {
        "allowed": True,
        "limit": 5,
        "remaining": 4,
        "retry_after": 0.0,
        "reset_after": 12.0,
        "quota": "chat",
        "degraded": False,
        "shadow": False,
    }
    with pytest.raises(AttributeError):
        first.allowed = False  # type: ignore[misc]
    assert "remaining=4" in repr(first)
    match limiter.hit_nowait("a", 9):
        case Decision(allowed=False, retry_after=retry_after):
            assert math.isinf(retry_after)
        case _:
            pytest.fail("does not match")
    assert copy.copy(first) == first


@pytest.mark.parametrize(
    "options",
    [
        {"on_store_error": "ignore"},
        {"on_store_error": None},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"deny_cache": 0},
        {"deny_cache": math.nan},
        {"lease": 0},
        {"lease": 2**41},
        {"name": ""},
        pytest.param({"store": "redis://localhost"}, marks=needs_hiredis),  # and a name=
        {"store": "memory"},
        {"store": "memory://host"},
        {"store": "memory://?max_key=5"},
        {"store": "memory://?max_keys=0"},
        {"store": "memory://?max_keys=many"},
        {"store": "memory://?max_keys=1&max_keys=2"},
        {"store": "memory://?on_full=maybe"},
        {"store": ""},
    ],
)
def test_wrong_arguments_are_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Limiter("5/second", **options)
    with pytest.raises(ValueError):
        sync.Limiter("5/second", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": "1"},
        {"timeout": None},
        {"deny_cache": "1"},
        {"lease": 1.5},
        {"lease": True},
        {"name": 5},
        {"name": b"chat"},
        {"store": 5},
        {"store": object()},
    ],
)
def test_arguments_of_a_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Limiter("5/second", **options)


@pytest.mark.parametrize("quotas", [5, None, b"5/second", [5], [None], {"a": 1}.values(), object()])
def test_quotas_of_a_wrong_type(quotas: Any) -> None:
    with pytest.raises(TypeError):
        Limiter(quotas)


@pytest.mark.parametrize(
    "quotas", [[], (), "a: 1/s; a: 2/s", "1KB/s; 1MB/minute", ["1/s"] * 9, "; ".join(["1/s"] * 9)]
)
def test_quotas_that_make_no_limiter(quotas: Any) -> None:
    with pytest.raises(ValueError):
        Limiter(quotas)


def test_arguments_for_other_stores_are_kept_and_change_nothing() -> None:
    limiter = Limiter(
        "2/hour", on_store_error="local", timeout=1, deny_cache=5.0, lease=100, store=MemoryStore()
    )
    assert (limiter.on_store_error, limiter.timeout) == ("local", 1.0)
    assert (limiter.deny_cache, limiter.lease) == (5.0, 100)
    assert [bool(limiter.hit_nowait("a")) for _ in range(3)] == [True, True, False]
    assert Limiter(["1/s", Quota(2, 60), "x: 3/h; 4/d"]).quotas == (
        Quota(1, 1),
        Quota(2, 60),
        Quota(3, 3600, name="x"),
        Quota(4, 86400),
    )
    assert "Quota(2, 3600.0)" in repr(limiter)


def test_any_number_of_loops() -> None:
    limiter = Limiter("4/hour", store=MemoryStore())
    assert [bool(asyncio.run(limiter.hit("a"))) for _ in range(5)] == [True] * 4 + [False]

    async def waits() -> bool:
        return bool(await limiter.wait("b", timeout=0))

    assert [asyncio.run(waits()) for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_what_its_parent_knew() -> None:
    limiter = Limiter("3/hour", store=MemoryStore())
    limiter.hit_nowait("a", 2)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ok = limiter.hit_nowait("a") and not limiter.hit_nowait("a")
            ok = ok and bool(asyncio.run(limiter.wait("b"))) and limiter.store.table(None, [])
            status = 0 if ok is not None and ok is not False else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert limiter.hit_nowait("a")


def test_a_limiter_is_given_back() -> None:
    limiter = Limiter("3/hour", store=MemoryStore())
    limiter.hit_nowait("a")
    handle = limiter.bind("a")
    gone = weakref.ref(limiter)
    del limiter
    assert gone() is not None
    del handle
    gc.collect()
    assert gone() is None


def test_under_another_loop_library_what_waits_says_so() -> None:
    trio = pytest.importorskip("trio")
    limiter = Limiter("1/hour", store=MemoryStore())

    async def main() -> None:
        assert await limiter.hit("a")
        assert not await limiter.hit("a")
        with pytest.raises(RuntimeError, match="asyncio"):
            await limiter.wait("a", timeout=7200)
        with pytest.raises(RuntimeError, match="asyncio"):
            await limiter.store.sleep(1)

    trio.run(main)


@needs_hiredis
def test_every_export_is_there() -> None:
    missing = [name for name in sluicegate.__all__ if not hasattr(sluicegate, name)]
    assert not missing
    assert set(sluicegate.__all__) <= set(dir(sluicegate))
    assert set(sluicegate._WHERE) | {"__version__"} == set(sluicegate.__all__)
    with pytest.raises(AttributeError, match="Limitr"):
        sluicegate.Limitr  # noqa: B018


def test_importing_brings_no_framework_and_little_else() -> None:
    code = (
        "import asyncio, sys; before = set(sys.modules)\n"
        "from sluicegate import Limiter, WebSocketRateLimiter\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    brought = {name.partition(".")[0] for name in result.stdout.split()}
    heavy = {"fastapi", "starlette", "redis", "quart", "pydantic", "click", "json"}
    assert not brought & heavy, brought
    ours = {name for name in result.stdout.split() if name.startswith("sluicegate.testing")}
    assert not ours
