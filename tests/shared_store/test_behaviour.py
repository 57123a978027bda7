"""What a limiter over shared memory does besides deciding: names, shapes, bounds, statistics,
URLs, waiting, and other processes in all of that."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from typing import Any

import pytest

from directories import quick_directory
from shared_store import places
from shared_store.crew import crew
from sluicegate import (
    ConcurrencyLimiter,
    Limiter,
    MemoryStore,
    Quota,
    RateLimitExceeded,
    SharedMemoryStore,
    StoreError,
    StoreFullError,
    WebSocketLimits,
    WebSocketRateLimiter,
    stores,
    sync,
    waiting,
)
from sluicegate.testing import Clock, override


@pytest.fixture(autouse=True)
def _nobody_waits() -> object:
    yield
    assert not waiting._queues


# ---- names and shapes


@pytest.mark.parametrize("make", [Limiter, sync.Limiter])
def test_a_limiter_without_a_name(store: SharedMemoryStore, make: Any) -> None:
    with pytest.raises(ValueError, match="needs a name= : its state is found by it"):
        make("5/minute", store=store)
    with pytest.raises(ValueError, match="needs a name="):
        ConcurrencyLimiter(5, store=store)


@pytest.mark.parametrize("name", ["x" * 241, "\u00e9" * 121, "\ud800"])
def test_a_name_that_does_not_fit(store: SharedMemoryStore, name: str) -> None:
    with pytest.raises(ValueError):
        Limiter("5/minute", store=store, name=name)


def test_the_longest_names(store: SharedMemoryStore) -> None:
    for name in ("x" * 240, "\u00e9" * 120, "a\x00b", "x" * 239 + "y"):
        assert sync.Limiter("1/minute", store=store, name=name).hit("k")
    assert len(store.limiters()) == 4


def test_two_shapes_under_one_name(store: SharedMemoryStore, path: str) -> None:
    sync.Limiter("5/minute", store=store, name="chat")
    for quotas in ("5/minute using sliding-log", "5/minute; 9/hour"):
        with pytest.raises(ValueError, match="one name has one shape"):
            sync.Limiter(quotas, store=store, name="chat")
    # a process that does not know of it is warned, and shares nothing
    other = SharedMemoryStore(path)
    with pytest.warns(RuntimeWarning, match=r"another limiter 'chat' in .* share nothing"):
        apart = sync.Limiter("5/minute; 9/hour", store=other, name="chat")
    assert sync.Limiter("5/minute", store=store, name="chat").hit("k", 5)
    assert apart.peek("k").remaining == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sync.Limiter("7/minute", store=SharedMemoryStore(path), name="chat")
        sync.Limiter("7/minute; 8/hour", store=SharedMemoryStore(path), name="chat 2")


@pytest.mark.server
def test_two_shapes_in_two_processes(path: str) -> None:
    with crew(path, 2) as (first, second):
        assert first.do("warnings_of", name="chat", quotas="5/minute") == []
        (warning,) = second.do("warnings_of", name="chat", quotas="5/minute using sliding-log")
        assert warning.startswith("RuntimeWarning: another limiter 'chat'")
        assert first.do("hit", name="chat", quotas="5/minute", key="k", times=9) == 5
        found = second.do("hit", name="chat", quotas="5/minute using sliding-log", key="k", times=9)
        assert found == 5


@pytest.mark.server
def test_quotas_named_in_another_order_find_their_own_state(path: str) -> None:
    one, other = "small: 5/day; large: 50/day", "large: 50/day; small: 5/day"
    with crew(path, 2) as (first, second):
        assert first.do("hit", name="chat", quotas=one, key="k", times=3) == 3
        found = second.do("left", name="chat", quotas=other, key="k")
        assert found == {"large": 47, "small": 2}
        assert second.do("hit", name="chat", quotas=other, key="k", times=9) == 2
        assert first.do("left", name="chat", quotas=one, key="k") == {"small": 0, "large": 45}


# ---- several processes


@pytest.mark.server
def test_statistics_are_those_of_all_processes(path: str) -> None:
    given = {"name": "chat", "quotas": "5/day"}
    with crew(path, 2) as (first, second):
        assert first.do("hit", key="hot", times=9, **given) == 5
        assert second.do("hit", key="hot", times=9, **given) == 0
        assert second.do("hit", key="cool", times=2, **given) == 2
        for one in (first, second):
            counters = one.do("counters", **given)
            assert (counters["admitted"], counters["refused"], counters["keys"]) == (7, 13, 2)
            assert one.do("top", **given) == [(b"hot", False, 18), (b"cool", False, 2)]
            assert one.do("top", refused=True, **given) == [(b"hot", False, 13)]
        assert sync.Limiter("5/day", store=SharedMemoryStore(path), name="chat").table.keys == 2


@pytest.mark.server
def test_clear_is_for_all_processes(path: str) -> None:
    given = {"name": "chat", "quotas": "5/day", "key": "k"}
    slots: dict[str, Any] = {"name": "slots", "limit": 2}
    with crew(path, 2) as (first, second):
        assert first.do("hit", times=9, **given) == 5
        assert first.do("hold", key="k", count=2, **slots) == 2
        second.do("clear")
        assert first.do("hit", times=9, **given) == 5
        # what was taken before counts no more, and gives nothing back that was taken since
        assert second.do("hold", key="k", count=9, **slots) == 2
        assert first.do("release", **slots) == 2
        assert second.do("hold", key="k", count=9, **slots) == 0


async def test_a_slot_of_before_a_clear_gives_back_none_of_its_own_process(
    store: SharedMemoryStore, path: str
) -> None:
    limiter = ConcurrencyLimiter(1, store=store, name="slots")
    before = await limiter.acquire("k")
    assert before is not None
    SharedMemoryStore(path).clear()
    now = await limiter.acquire("k")
    assert now is not None
    await limiter.release(before)
    assert await limiter.count("k") == 1
    assert await limiter.acquire("k") is None
    await limiter.release(now)


async def test_a_reservation_of_before_a_clear_gives_nothing_back(
    store: SharedMemoryStore, path: str
) -> None:
    limiter = Limiter("5/day", store=store, name="chat")
    reservation = await limiter.reserve("k", 5)
    SharedMemoryStore(path).clear()
    assert not reservation.open
    assert await limiter.hit("k", 3)
    await reservation.cancel()
    assert (await limiter.peek("k", 0)).remaining == 2


async def test_a_change_made_elsewhere_holds_here(store: SharedMemoryStore, path: str) -> None:
    here = Limiter("5/day", store=store, name="chat")
    there = sync.Limiter("5/day", store=SharedMemoryStore(path), name="chat")
    handle = here.bind("k")
    there.ban("k", 100)
    seen = await handle.hit()
    assert not seen and seen.quota is None and 99 < seen.retry_after <= 100
    there.unban("k")
    there.penalize("k", 3)
    assert (await handle.peek(0)).remaining == 2
    there.reward("k", 1)
    assert (await here.peek("k", 0)).remaining == 3
    with pytest.raises(RateLimitExceeded):
        await here.check("k", 4)
    there.reset("k")
    assert (await here.hit("k", 5)).remaining == 0
    there.update("10/day burst 10")
    assert there.peek("k", 0).limit == 10
    assert not here.hit_nowait("k")
    assert here.hit_nowait("k", quotas="100/day burst 200")
    here.enabled = False
    assert here.hit_nowait("k", 1000)
    shadow = Limiter("5/day", store=store, name="chat", shadow=True)
    assert (await shadow.hit("k", 5)).shadow


async def test_who_waits_sees_what_another_process_gives_back(
    store: SharedMemoryStore, path: str
) -> None:
    slots = ConcurrencyLimiter(1, store=store, name="slots")
    theirs = sync.ConcurrencyLimiter(1, store=SharedMemoryStore(path), name="slots")
    slot = theirs.acquire("k")
    assert slot is not None
    waiter = asyncio.create_task(slots.acquire("k", timeout=5))
    await asyncio.sleep(0.05)
    assert not waiter.done()
    theirs.release(slot)
    started = time.monotonic()
    mine = await waiter
    print(f"had after {time.monotonic() - started:.3f} s")
    assert mine is not None and time.monotonic() - started < 1
    assert theirs.acquire("k", timeout=0.05) is None
    await slots.release(mine)


# ---- waiting, by the store's clock


async def test_waiting(timed: SharedMemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=timed, name="waits")
    assert await limiter.wait("k")
    assert not await limiter.wait("k", timeout=0.5)
    order: list[int] = []

    async def one(number: int) -> None:
        assert await limiter.wait("k")
        order.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert not await limiter.wait("k", max_waiters=3)
    tasks[1].cancel()
    for _ in range(4):
        clock.advance(1)
        for _ in range(5):
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2, 3]
    reservation = await limiter.reserve("k", timeout=5)
    assert reservation
    await reservation.cancel()
    clock.advance(1)
    async with await limiter.reserve("k") as held:
        assert held
    assert not await limiter.hit("k")


def test_the_wall_clock_will_do(path: str) -> None:
    """Seconds since 1970 are more than a table's ticks span: it counts from when it was made."""
    now = [time.time()]
    first = SharedMemoryStore(path, places.SIZE, clock=lambda: now[0])
    second = SharedMemoryStore(path, clock=lambda: now[0])
    pair = [sync.Limiter("2/minute", store=one, name="chat") for one in (first, second)]
    assert [bool(one.hit("k")) for one in pair] == [True, True]
    assert not pair[0].hit("k")
    now[0] += 30
    assert [bool(one.hit("k")) for one in pair] == [True, False]
    now[0] -= 100
    assert not pair[1].hit("k")


# ---- where it is used


async def test_override_takes_unnamed_limiters_there_and_back(
    timed: SharedMemoryStore, clock: Clock
) -> None:
    unnamed, named = Limiter("1/minute"), Limiter("1/minute", name="chat")
    slots = ConcurrencyLimiter(1)
    assert await unnamed.hit("k")
    with override(store=timed):
        made_inside = Limiter("1/minute")
        for limiter in (unnamed, named, made_inside):
            assert limiter.store is timed
            assert await limiter.hit("k")
            assert not await limiter.hit("k")
        clock.advance(60)
        assert await unnamed.hit("k")
        async with slots.hold("k"):
            assert await slots.acquire("k") is None
    assert isinstance(unnamed.store, MemoryStore)
    assert not await unnamed.hit("k")
    assert await named.hit("k")


async def test_a_websocket_limiter(path: str) -> None:
    """Two of one name, as of two processes."""
    doors = [
        WebSocketRateLimiter(
            WebSocketLimits(messages="3/day", bytes="1KB/day", max_concurrent_connections=2),
            f"shm://{path}?size=4MB&on_full={policy}",
        )
        for policy in ("deny", "raise")
    ]
    for number, door in enumerate(doors):
        assert await door.check_connection("ada")
        assert await door.register_connection(number, "ada")
    assert not await doors[0].check_connection("ada")
    results = [await doors[n % 2].check_message(n % 2, 10) for n in range(4)]
    assert [one["allowed"] for one in results] == [True, True, True, False]
    assert results[3]["reason"] == "rate_limit_exceeded"
    for door in doors:
        told = door.get_statistics()
        assert (told["active_connections"], told["unique_clients"]) == (2, 1)
        assert (told["total_messages"], told["total_bytes_sent"]) == (3, 30)
        assert told["violations"]["concurrent_connections"] == 1
        assert sum(told["violations"].values()) == 2 and told["violations"]["message_rate"] == 1
        assert door.get_client_connections("ada") == await door.count("ada") == 2
        assert len(door.active_connections) == 1
    await doors[0].unregister_connection(0)
    assert (await doors[1].statistics())["active_connections"] == 1
    assert await doors[1].rebind(1, "bob")
    assert doors[0].get_client_connections("bob") == 1
    await doors[1].unregister_connection(1)


# ---- URLs


def test_a_url(path: str) -> None:
    store = stores.open_store(f"shm://{path}?size=4MB&keep=no&on_full=raise")
    assert isinstance(store, SharedMemoryStore)
    assert (store.path, store.size, store.processes) == (path, 4 << 20, 1)
    assert stores.open_store(f"shm://{path}?size=4MB&keep=no&on_full=raise") is store
    other = stores.open_store(f"shm://{path}")
    assert other is not store
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert sync.Limiter("1/day", store=f"shm://{path}", name="x").store is other


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("?size=1MB", "give 4MB at least"),
        ("?size=much", "size"),
        ("?size=4MB&size=8MB", "size= twice"),
        ("?size=8MB", "size= says another"),
        ("?keep=maybe", "keep= is yes or no"),
        ("?on_full=explode", "on_full is"),
        ("?max_keys=5", "takes size, keep and on_full"),
        ("#x", "whole path"),
    ],
)
def test_a_bad_url(path: str, rest: str, says: str) -> None:
    SharedMemoryStore(path, places.SIZE)
    with pytest.raises((ValueError, StoreError), match=says):
        stores.open_store(f"shm://{path}{rest}")


@pytest.mark.parametrize("url", ["shm://", "shm:///", "shm://run/app", "shm:run/app"])
def test_a_url_without_a_whole_path(url: str) -> None:
    with pytest.raises(ValueError):
        stores.open_store(url)


@pytest.mark.parametrize(
    "given",
    [{"size": -1}, {"size": 1.5}, {"size": True}, {"size": "x"}, {"keep": 1}, {"on_full": "x"},
     {"clock": 5}],
)  # fmt: skip
def test_bad_arguments(path: str, given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        SharedMemoryStore(path, **given)
    assert not os.path.exists(path)


def test_files_that_cannot_be_used(path: str) -> None:
    with pytest.raises(StoreError, match="directory"):
        SharedMemoryStore(path + "/nowhere/app")
    with pytest.raises(StoreError, match="regular"):
        SharedMemoryStore(quick_directory())
    with pytest.raises((StoreError, ValueError)):
        SharedMemoryStore("a\x00b")
    SharedMemoryStore(path, places.SIZE)
    os.chmod(path, 0o644)
    with pytest.raises(StoreError, match=r"chmod|others"):
        SharedMemoryStore(path)


# ---- bounds


@pytest.mark.parametrize("on_full", ["deny", "allow", "raise"])
def test_where_bans_fill_the_file_on_full_decides(path: str, on_full: Any) -> None:
    store = SharedMemoryStore(path, places.SIZE, on_full=on_full)
    limiter = sync.Limiter("5/day", store=store, name="chat")
    with pytest.raises(StoreFullError, match="size"):
        for number in range(200_000):
            limiter.ban(f"banned {number}", 1e6)
    keys = limiter.table.keys
    print(f"{keys} bans in 4 MB")
    assert keys > 5000
    outcomes: set[object] = set()
    wanted = {"deny": False, "allow": True, "raise": "raised"}[on_full]
    for number in range(5000):  # till the first in a shard that is full
        try:
            decision = limiter.hit(f"new {number}")
        except StoreFullError:
            outcomes.add("raised")
        else:
            outcomes.add(bool(decision))
            if not decision.degraded:
                continue
        break
    assert wanted in outcomes and outcomes <= {True, wanted}
    assert not limiter.hit("banned 5")
    assert limiter.table.counters()["full"] > 0
    store.clear()
    assert limiter.hit("new 1")
    assert store.check() == []


def test_a_flood_at_one_limiter_forgets_nothing_of_another(path: str) -> None:
    store = SharedMemoryStore(path, places.SIZE)
    quiet = sync.Limiter("1/day", store=store, name="quiet")
    loud = sync.Limiter("1/day", store=store, name="loud")
    assert all(quiet.hit(f"user {number}") for number in range(1000))
    for number in range(100_000):
        loud.hit(f"flood {number}")
    assert not any(quiet.hit(f"user {number}") for number in range(1000))
    counters = loud.table.counters()
    print(counters)
    assert counters["evictions"] > 0 and counters["keys"] + counters["evictions"] >= 100_000
    assert quiet.table.counters()["evictions"] == 0
    late = sync.Limiter("1/day", store=store, name="late")
    assert late.hit("a") and not late.hit("a")
    assert store.check() == []


def test_limiters_come_late_to_a_file_that_others_have_filled(path: str) -> None:
    """Each needs pages side by side for its shards."""
    store = SharedMemoryStore(path, places.ROOMY)
    loud = [sync.Limiter("1/day", store=store, name=f"loud {n}") for n in range(2)]
    for number in range(200_000):
        for limiter in loud:
            limiter.hit(f"flood {number}")
    assert all(limiter.table.counters()["evictions"] > 0 for limiter in loud)
    for number in range(15):
        late = sync.Limiter("1/day", store=store, name=f"late {number}")
        assert late.hit("a") and not late.hit("a")
    assert store.check() == []


def test_more_limiters_than_a_file_can_have(path: str) -> None:
    store = SharedMemoryStore(path, places.SIZE)
    with pytest.raises(StoreFullError, match=r"limiters|one limiter more"):
        for number in range(300):
            sync.Limiter("1/day", store=store, name=f"limiter {number}")
    print(f"{number} limiters in 4 MB")
    limiter = sync.Limiter("1/day", store=store, name="limiter 0")
    assert all(limiter.hit(f"user {one}") for one in range(1000))  # there is room for keys
    assert store.check() == []


def test_quota_objects_are_known_by_others(store: SharedMemoryStore, path: str) -> None:
    quotas = [Quota(5, 60, burst=9, name="a"), Quota(7, 3600, algorithm="sliding-log")]
    sync.Limiter(quotas, store=store, name="chat")
    (known,) = SharedMemoryStore(path).limiters()
    assert (known.name, list(known.quotas)) == ("chat", quotas)
