"""Processes that end, are killed, fork, or are stopped while they decide."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from shared_store import places
from shared_store.crew import Worker, crew
from shared_store.work import door_of
from sluicegate import ConcurrencyLimiter, Limiter, SharedMemoryStore, StoreError, sync

pytestmark = pytest.mark.server

# What takes long to decide, so that who is stopped at any moment often has the lock.
SLOW = "; ".join(f"q{n}: 1000000/30 days using sliding-log" for n in range(8))
ATTEMPTS = 3000


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_slots_of_a_killed_process_are_free_at_once(path: str, method: str) -> None:
    with crew(path, 3, method) as (first, second, third):
        given: dict[str, Any] = {"name": "slots", "limit": 5, "key": "k"}
        assert first.do("hold", count=3, **given) == 3
        assert second.do("hold", count=9, **given) == 2
        assert third.do("hold", count=1, **given) == 0
        first.kill()
        started = time.monotonic()
        got = 0
        while got < 3 and time.monotonic() - started < 0.5:  # who lives is looked at every 10 ms
            got += third.do("hold", count=9, **given)
        print(f"{got} slots within {time.monotonic() - started:.4f} s")
        assert got == 3
        assert second.do("release", name="slots", limit=5) == 2
        assert third.do("hold", count=9, **given) == 2


async def test_who_waits_gets_the_slot_of_a_killed_process(path: str) -> None:
    with crew(path, 1) as (holder,):
        assert holder.do("hold", name="slots", limit=1, key="k", count=1) == 1
        limiter = ConcurrencyLimiter(1, store=SharedMemoryStore(path), name="slots")
        assert await limiter.acquire("k", timeout=0.05) is None
        holder.kill()
        slot = await limiter.acquire("k", timeout=5)
        assert slot is not None
        await limiter.release(slot)


def test_a_forked_child_gives_back_nothing_of_its_parents(path: str) -> None:
    with crew(path, 2) as (holder, other):
        given: dict[str, Any] = {"name": "slots", "limit": 4, "key": "k"}
        assert holder.do("hold", count=2, **given) == 2
        # the child's own is free again with its end
        assert holder.do("child_of_holder", **given) == [2, 3, True, 2]
        assert other.do("hold", count=9, **given) == 2
        assert holder.do("release", name="slots", limit=4) == 2


@pytest.mark.parametrize("used", [False, True])
def test_a_forked_child_that_closes_the_file_leaves_its_parent_there(path: str, used: bool) -> None:
    store = SharedMemoryStore(path, places.ROOMY)
    limiter = sync.ConcurrencyLimiter(2, store=store, name="slots")
    slot = limiter.acquire("k")
    other_store = SharedMemoryStore(path)
    seats = store.processes  # this process opened it twice
    child = os.fork()
    if child == 0:
        if used:
            sync.Limiter("1/day", store=other_store, name="child").hit("k")
        file = weakref.ref(other_store)
        del other_store
        gc.collect()
        os._exit(int(file() is not None))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.processes == seats
    assert bool(sync.Limiter("1/day", store=other_store, name="rate").hit("k"))
    with crew(path, 1) as (other,):
        assert store.processes == seats + 1
        assert other.do("hold", name="slots", limit=2, key="k", count=9) == 1
    assert limiter.count("k") == 1
    assert slot is not None and limiter.release(slot)


def test_state_outlives_all_processes(path: str) -> None:
    for _ in range(3):
        with crew(path, 1) as (one,):
            assert one.do("hit", name="kept", quotas="7/day", key="k", times=2) == 2
    with crew(path, 2) as made:
        assert sum(made.do("hit", name="kept", quotas="7/day", key="k", times=9)) == 1


def test_without_keep_the_first_process_starts_empty(path: str) -> None:
    with crew(path, 1) as (one,):
        assert one.do("hit", name="kept", quotas="7/day", key="k", times=9) == 7
        store = SharedMemoryStore(path, keep=False)  # it has the file open: nothing is cleared
        limiter = sync.Limiter("7/day", store=store, name="kept")
        assert not limiter.hit("k")
        del limiter, store
    again = SharedMemoryStore(path, keep=False)
    assert sync.Limiter("7/day", store=again, name="kept").peek("k", 0).remaining == 7
    with crew(path, 1) as (one,):
        assert one.do("hit", name="kept", quotas="7/day", key="k", times=9) == 7


# ---- a process that is stopped while it has a lock


@contextmanager
def stalled(path: str, name: str) -> Iterator[Worker]:
    """A process stands still with the lock of key "k" of that limiter."""
    rng = random.Random()
    with crew(path, 1) as (victim,):
        victim.start("hammer", name=name, quotas=SLOW, key="k")
        assert victim.read() == "hammering"
        # another store, as of another process: the one that is tested knows nothing yet
        probe = sync.Limiter(SLOW, store=SharedMemoryStore(path), name=name)
        for attempt in range(1, ATTEMPTS + 1):
            time.sleep(rng.random() * 0.002)
            victim.stop()
            try:
                probe.peek("k")
            except StoreError:
                print(f"stopped inside at attempt {attempt}")
                break
            victim.go_on()
        else:
            pytest.fail(f"{ATTEMPTS} times it was stopped outside")
        yield victim


def test_while_a_process_is_stopped_inside(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with stalled(path, "slow") as victim:
        store = SharedMemoryStore(path)
        quota = [4 if n == 3 else 10**6 for n in range(8)]
        quotas = "; ".join(f"q{n}: {quota[n]}/30 days using sliding-log" for n in range(8))
        limiters = {
            policy: sync.Limiter(quotas, store=store, name="slow", on_store_error=policy)  # type: ignore[arg-type]
            for policy in ("raise", "allow", "deny", "local")
        }
        caplog.clear()  # of what the probe's own store said
        with caplog.at_level(logging.INFO, "sluicegate"):
            started = time.monotonic()
            with pytest.raises(StoreError, match="stopped"):
                limiters["raise"].hit("k")
            first = time.monotonic() - started
            started = time.monotonic()
            for _ in range(100):
                with pytest.raises(StoreError, match="stopped"):
                    limiters["raise"].hit("k")
            later = (time.monotonic() - started) / 100
            print(f"the first check took {first * 1e3:.1f} ms, later ones {later * 1e6:.0f} us")
            assert 0.01 < first < 0.5
            assert later < 0.002

            allowed, denied = limiters["allow"].hit("k"), limiters["deny"].hit("k")
            assert allowed and allowed.degraded
            assert not denied and denied.degraded and denied.retry_after > 0
            seen = [limiters["local"].hit("k") for _ in range(9)]
            assert [bool(one) for one in seen] == [True] * 4 + [False] * 5
            assert all(one.degraded for one in seen)
            assert [one.remaining for one in seen[:4]] == [3, 2, 1, 0]
            assert [bool(one) for one in limiters["local"].hit_many([("k", 1)] * 3)] == [False] * 3
            assert limiters["allow"].peek("k").degraded
            assert limiters["allow"].bind("k").hit().degraded
            reservation = limiters["allow"].reserve("k", 2)
            assert reservation and reservation.decision.degraded
            reservation.settle(1)
            for change in (limiters["allow"].reset, limiters["allow"].unban):
                with pytest.raises(StoreError, match="stopped"):
                    change("k")
            # a key that has another lock is decided as ever
            other = next(
                key for key in map(str, range(100)) if not limiters["allow"].hit(key).degraded
            )
            assert not limiters["raise"].hit(other).degraded
            assert store.table("slow", limiters["raise"].quotas).counters()["degraded"] > 100
            assert [one.getMessage().count("is stopped") for one in caplog.records] == [1]

            victim.go_on()
            time.sleep(0.05)
            decision = limiters["raise"].hit("k")
            assert not decision.degraded
            assert not any(limiters[one].peek("k", 0).degraded for one in limiters)
            assert [one.levelname for one in caplog.records] == ["WARNING"] * 2
            assert "goes on" in caplog.records[1].getMessage()
    assert store.check() == []


def test_when_a_stopped_process_is_killed(path: str) -> None:
    with stalled(path, "slow") as victim:
        limiter = sync.Limiter(SLOW, store=SharedMemoryStore(path), name="slow")
        with pytest.raises(StoreError, match="stopped"):
            limiter.hit("k")
        victim.kill()
        time.sleep(0.002)
        assert limiter.hit("k") and not limiter.hit("k").degraded
        assert limiter.store.check() == []  # type: ignore[union-attr]


async def test_a_websocket_limiter_while_a_process_is_stopped_inside(path: str) -> None:
    """By default it holds the whole limits in private memory meanwhile; what the stopped process
    sent before it does not count there."""
    rng = random.Random()
    with crew(path, 1) as (victim,):
        victim.start("hammer_door", client="ada")
        assert victim.read() == "hammering"
        probe = door_of(SharedMemoryStore(path), on_store_error="raise")
        assert await probe.register_connection("probe", "ada")
        door = door_of(SharedMemoryStore(path))
        assert await door.register_connection("mine", "ada")
        for attempt in range(1, ATTEMPTS + 1):
            await asyncio.sleep(rng.random() * 0.002)
            victim.stop()
            try:
                refused = await probe.check_message("probe", 1)
            except StoreError:
                print(f"stopped inside at attempt {attempt}")
                break
            assert not refused["allowed"]  # long since
            victim.go_on()
        else:
            pytest.fail(f"{ATTEMPTS} times it was stopped outside")
        seen = [await door.check_message("mine", 1) for _ in range(8)]
        assert [one["allowed"] for one in seen] == [True] * 5 + [False] * 3
        assert [one.get("degraded") for one in seen] == [True] * 5 + [None] * 3
        assert [one.get("remaining") for one in seen[:5]] == [4, 3, 2, 1, 0]
        assert seen[-1]["reason"] == "rate_limit_exceeded"
        victim.go_on()
        await asyncio.sleep(0.05)
        after = await door.check_message("mine", 1)
        assert not after["allowed"] and not after.get("degraded")
        victim.kill()
        assert door.get_client_connections("ada") <= 3
        await door.unregister_connection("mine")
        await probe.unregister_connection("probe")


@pytest.mark.skipif(find_spec("_testcapi") is None, reason="this CPython has no _testcapi")
def test_other_interpreters_of_the_process(path: str) -> None:
    import _testcapi  # type: ignore[import-not-found]

    store = SharedMemoryStore(path, places.SIZE)
    limiter = sync.Limiter("5/day", store=store, name="rate")
    slots = sync.ConcurrencyLimiter(2, store=store, name="slots")
    slot = slots.acquire("k")
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from sluicegate import SharedMemoryStore, sync
store = SharedMemoryStore({path!r})
assert sync.Limiter("5/day", store=store, name="rate").hit("k")
slots = sync.ConcurrencyLimiter(2, store=store, name="slots")
assert slots.count("k") == 1
slots.release(slots.acquire("k"))
assert store.check() == []
"""
    seats = store.processes
    for _ in range(3):
        assert _testcapi.run_in_subinterp(code) == 0
    assert limiter.peek("k", 0).remaining == 2
    assert slots.count("k") == 1
    assert slot is not None and slots.release(slot)
    assert store.processes == seats
    assert store.check() == []


async def test_who_waits_while_a_process_is_stopped_inside(path: str) -> None:
    with stalled(path, "slow") as victim:
        store = SharedMemoryStore(path)
        waits = {
            policy: Limiter(SLOW, store=store, name="slow", on_store_error=policy)  # type: ignore[arg-type]
            for policy in ("raise", "allow", "deny", "local")
        }
        with pytest.raises(StoreError):
            await waits["raise"].wait("k", timeout=1)
        assert (await waits["allow"].wait("k", timeout=1)).degraded
        assert (await waits["local"].wait("k", timeout=1)).degraded
        started = time.monotonic()
        denied = await waits["deny"].wait("k", timeout=0.3)
        assert not denied and denied.degraded
        assert time.monotonic() - started < 2
        with pytest.raises(StoreError):
            await store.clear()
        victim.go_on()
        await asyncio.sleep(0.05)
        assert not (await waits["deny"].wait("k", timeout=5)).degraded
