"""sluicegate.sync: the same names, for threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

import sluicegate
from sluicegate import MemoryStore, RateLimitExceeded, _core, sync
from sluicegate.testing import Clock


def test_hit_is_the_c_method_itself() -> None:
    for method, original in (
        (sync.Limiter.hit, _core.Limiter.hit_nowait),
        (sync.Handle.hit, _core.Handle.hit_nowait),
    ):
        assert type(method) is type(original) is type(str.join)  # a method in C
        assert method.__name__ == original.__name__


def test_the_same_names() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(sync.Limiter) == public(sluicegate.Limiter)
    assert public(sync.Handle) == public(sluicegate.Handle)
    assert public(sync.Reservation) == public(sluicegate.Reservation)
    assert public(sync.ConcurrencyLimiter) == public(sluicegate.ConcurrencyLimiter)
    for name in ("Quota", "MemoryStore", "RateLimitExceeded", "Decision", "StoreError"):
        assert getattr(sync, name) is getattr(sluicegate, name)


def test_each_of_them() -> None:
    clock = Clock()
    limiter = sync.Limiter("5/minute", store=MemoryStore(clock=clock))
    assert limiter.hit("a", 2).remaining == 3
    assert limiter.hit("a", quotas="6/minute").limit == 6
    assert limiter.peek("a", 2)
    assert [bool(decision) for decision in limiter.hit_many([("a", 2), ("a", 1)])] == [True, False]
    with pytest.raises(RateLimitExceeded):
        limiter.check("a")
    limiter.reset("a")
    assert limiter.check("a").remaining == 4
    limiter.penalize("a", 4)
    assert not limiter.hit("a")
    limiter.reward("a", 5)
    handle = limiter.bind("a")
    assert (handle.hit(4).remaining, bool(handle.peek(2))) == (1, False)
    limiter.ban("a", 10)
    assert limiter.hit("a", 0).retry_after == 10
    limiter.unban("a")
    assert limiter.hit("a")
    limiter.update("10/minute")
    assert limiter.hit("a").limit == 10
    assert sync.hit_all((limiter, "b", 10), (limiter, "c", 10))
    assert not sync.Limiter.hit_all((limiter, "d", 1), (limiter, "c", 1))
    assert limiter.peek("d", 10)
    assert not limiter.wait("c", timeout=0)


@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
def test_many_threads_admit_exactly_the_limit(algorithm: str) -> None:
    limiter = sync.Limiter(
        [f"a: 1000/hour using {algorithm}", f"b: 5000/day using {algorithm}"], store=MemoryStore()
    )
    admitted = [0] * 8
    ready = threading.Barrier(8)

    def work(number: int) -> None:
        ready.wait(10)
        for _ in range(500):
            admitted[number] += limiter.hit("key", {"a": 1, "b": 3}).allowed

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(admitted) == 1000


@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
async def test_many_tasks_admit_exactly_the_limit(algorithm: str) -> None:
    limiter = sluicegate.Limiter(f"100/hour using {algorithm}", store=MemoryStore())

    async def one() -> int:
        admitted = 0
        for _ in range(10):
            admitted += (await limiter.hit("key", 2)).allowed
            await asyncio.sleep(0)
        return admitted

    assert sum(await asyncio.gather(*(one() for _ in range(64)))) == 50


def test_importing_it_brings_no_asyncio() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from sluicegate.sync import Limiter; Limiter('5/s').wait('a')\n"
        "assert 'asyncio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
