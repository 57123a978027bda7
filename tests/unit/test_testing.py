"""sluicegate.testing: what users test their limits with."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from pathlib import Path

import pytest

from sluicegate import ConcurrencyLimiter, Limiter, MemoryStore, sync
from sluicegate.testing import Clock, Record, override, record


def test_a_clock_stands_until_it_is_advanced() -> None:
    clock = Clock(start=5.5)
    assert clock.time() == 5.5
    clock.advance(0.25)
    assert (clock.time(), clock.ns) == (5.75, 5_750_000_000)
    clock.advance(-1)
    assert clock.time() == 4.75
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError):
            clock.advance(wrong)
    with pytest.raises(TypeError):
        clock.advance("1")  # type: ignore[arg-type]


def test_timers_run_in_the_order_they_are_due() -> None:
    clock = Clock()
    order: list[int] = []
    timers = [clock.call_later(seconds, lambda s=seconds: order.append(s)) for seconds in (3, 1, 2)]
    assert clock.waiting == 3
    timers[2].cancel()
    clock.advance(0.999)
    assert order == []
    clock.advance(5)
    assert order == [1, 3]
    assert clock.waiting == 0


def test_a_clock_moves_a_store() -> None:
    clock = Clock()
    limiter = Limiter("1/52 weeks", store=MemoryStore(clock=clock))
    assert limiter.hit_nowait("a")
    refused = limiter.hit_nowait("a")
    clock.advance(refused.retry_after)
    assert limiter.hit_nowait("a")
    clock.advance(-1000)  # steps back: neither refilled nor locked out
    # at most one burst of use and one of penalty ahead
    assert 0 < limiter.hit_nowait("a").retry_after <= 2 * 52 * 7 * 86400
    assert limiter.hit_nowait("b")


def test_override_moves_all_limiters_and_back() -> None:
    home = MemoryStore()
    before = Limiter("1/hour", store=home)
    named = sync.Limiter("1/hour", store=home, name="chat")
    slots = ConcurrencyLimiter(1, store=home)
    handle = before.bind("a")
    held = slots.acquire_nowait("a")
    for limiter in (before, named):
        limiter.hit_nowait("a")
    with override(store=MemoryStore()) as store:
        assert before.store is named.store is slots.store is store
        assert handle.hit_nowait()
        assert not before.hit_nowait("a")
        assert named.hit_nowait("a")
        probe = Limiter("1/hour", store=store, name="chat")
        assert not probe.hit_nowait("a")  # it is the store of all, names and all
        made = Limiter("1/hour", store=home)
        assert made.hit_nowait("a")
        slot = slots.acquire_nowait("a")
        assert slot is not None
        before.update("5/hour")
    assert before.store is named.store is slots.store is made.store is home
    assert not before.hit_nowait("a", 5)
    assert before.hit_nowait("b").limit == 5
    assert not named.hit_nowait("a")
    assert made.hit_nowait("a")
    assert held is not None
    assert slots.acquire_nowait("a") is None
    assert slots.release_nowait(slot)
    assert slots.release_nowait(held)
    assert slots.acquire_nowait("a").release_nowait()  # type: ignore[union-attr]


def test_overrides_nest_and_end_on_exceptions() -> None:
    home = MemoryStore()
    limiter = Limiter("1/hour", store=home)
    with override() as outer:
        with pytest.raises(KeyError), override() as inner:
            assert limiter.store is inner
            raise KeyError
        assert limiter.store is outer
        with override(store=home):
            assert limiter.store is home
    assert limiter.store is home


def test_two_shapes_of_two_stores_meet_in_one() -> None:
    first = Limiter("1/hour", store=MemoryStore(), name="chat")
    second = Limiter("1/hour; 5/day", store=MemoryStore(), name="chat")
    with override():
        assert first.hit_nowait("a")
        assert second.hit_nowait("a")
        assert not first.hit_nowait("a")
        assert not second.hit_nowait("a")
    assert first.hit_nowait("a")
    assert second.hit_nowait("a")


def test_the_order_of_named_quotas_survives_an_override() -> None:
    shared = MemoryStore()
    Limiter("b: 9/hour; a: 9/hour using sliding-log", store=shared, name="chat")
    limiter = Limiter("a: 1/hour using sliding-log; b: 3/hour", store=MemoryStore(), name="chat")
    with override(store=shared):
        assert [quota.name for quota in limiter.quotas if quota] == ["b", "a"]
        assert limiter.hit_nowait("x", {"a": 1, "b": 3})
    assert [quota.name for quota in limiter.quotas if quota] == ["a", "b"]
    assert limiter.hit_nowait("x", {"a": 1, "b": 3})
    assert not limiter.hit_nowait("x", {"a": 0, "b": 1})


async def test_record_collects_decisions_with_limiter_and_key() -> None:
    limiter = Limiter("chat: 2/hour", store=MemoryStore(), name="chat")
    with record() as records:
        decision = await limiter.hit("a", 2)
        limiter.hit_nowait(b"b")
        with record() as inner:
            await limiter.bind("a").hit()
        await limiter.hit_many([("c", 1), ("c", 5)])
        await limiter.wait("d")
        await limiter.reserve("e")
    await limiter.hit("f")
    assert records[0] == Record(limiter, "a", decision)
    assert [(entry.key, entry.decision.allowed) for entry in records] == [
        ("a", True),
        (b"b", True),
        ("a", False),
        ("c", True),
        ("c", False),
        ("d", True),
        ("e", True),
    ]
    assert [entry.limiter for entry in records] == [limiter] * 7
    assert len(inner) == 1


def test_record_ends_on_exceptions() -> None:
    limiter = Limiter("2/hour", store=MemoryStore())
    with pytest.raises(KeyError), record() as records:
        raise KeyError
    limiter.hit_nowait("a")
    assert records == []


IN_THE_APP = Limiter("1/minute")  # as an application makes it, at import


def test_fixtures(sluice_clock: Clock, sluice_store: MemoryStore) -> None:
    assert sluice_store.clock is sluice_clock
    assert IN_THE_APP.store is sluice_store
    assert IN_THE_APP.hit_nowait("a")
    assert not IN_THE_APP.hit_nowait("a")
    sluice_clock.advance(60)
    assert IN_THE_APP.hit_nowait("a")


def test_fixtures_are_new_for_each_test(sluice_store: MemoryStore) -> None:
    assert IN_THE_APP.hit_nowait("a")


async def test_the_fixtures_clock_wakes_waiters(
    sluice_clock: Clock, sluice_store: MemoryStore
) -> None:
    assert await IN_THE_APP.hit("a")
    task = asyncio.create_task(IN_THE_APP.wait("a", timeout=90))
    await asyncio.sleep(0)
    sluice_clock.advance(60)
    assert await asyncio.wait_for(task, 5)


def test_the_plugin_brings_no_extension_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\ndef test(): assert 'sluicegate.limiter' not in sys.modules\n"
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:sluicegate",  # where it is installed, the entry point brings it already
            "-p",
            "sluicegate.testing.fixtures",
            str(tmp_path),
            "--rootdir",
            str(tmp_path),
            "-c",
            "/dev/null",
            "-p",
            "no:cacheprovider",
        ],
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
