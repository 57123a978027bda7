"""Stores as arguments, the memory store's bounds, and the warning to several workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from sluicegate import Limiter, MemoryStore, Quota, StoreError, StoreFullError, open_store
from sluicegate.stores import users, workers
from sluicegate.testing import Clock


def test_none_and_memory_are_one_default_store() -> None:
    assert open_store(None) is open_store() is open_store("memory://")
    store = MemoryStore()
    assert open_store(store) is store
    limiter = Limiter("1/hour", name="test_none_and_memory")
    assert limiter.store is open_store()
    limiter.hit_nowait("a")
    assert not Limiter("1/hour", name="test_none_and_memory", store="memory://").hit_nowait("a")


def test_a_url_has_a_store_of_its_own() -> None:
    store = open_store("memory://?max_keys=50&max_bytes=64KB&on_full=raise")
    assert store is open_store("memory://?max_keys=50&max_bytes=64KB&on_full=raise")
    assert store is not open_store()
    assert repr(store) == "MemoryStore(max_keys=50, max_bytes=65536, on_full='raise')"


@pytest.mark.parametrize("url", ["rediz://user:secret@host/0", "shmem:///run/app", "nonsense", ""])
def test_what_this_version_lacks_is_said_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match=r"there is no store for .*there are memory://") as error:
        open_store(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_keys": 0},
        {"max_keys": -1},
        {"max_bytes": -1},
        {"on_full": "maybe"},
    ],
)
def test_bounds_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        MemoryStore(**options)


@pytest.mark.parametrize(
    "options", [{"max_keys": "5"}, {"max_keys": 1.5}, {"max_bytes": "5"}, {"clock": 5}]
)
def test_bounds_of_a_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        MemoryStore(**options)


def test_each_limiter_has_bounds_of_its_own() -> None:
    store = MemoryStore(max_keys=100)
    flooded, other = Limiter("5/hour", store=store), Limiter("5/hour", store=store)
    other.hit_nowait("mine", 5)
    for number in range(5000):
        flooded.hit_nowait(f"key {number}")
    assert flooded.table.keys <= 100
    assert flooded.table.counters()["evictions"] >= 4900
    assert not other.hit_nowait("mine")
    assert other.table.counters()["evictions"] == 0


@pytest.mark.parametrize("on_full", ["deny", "allow", "raise"])
def test_where_only_bans_are_left_on_full_decides(on_full: Any) -> None:
    store = MemoryStore(max_keys=64, on_full=on_full)
    limiter = Limiter("5/hour", store=store)
    banned = 0
    try:
        for number in range(200):
            limiter.ban_nowait(f"key {number}", 1000)
            banned += 1
    except StoreFullError:
        pass
    assert banned <= 64
    for number in range(banned):
        assert not limiter.peek_nowait(f"key {number}")
    full = 0
    for number in range(200):
        if on_full == "raise":
            try:
                limiter.hit_nowait(f"other {number}")
            except StoreFullError as error:
                assert isinstance(error, StoreError)
                full += 1
        else:
            decision = limiter.hit_nowait(f"other {number}")
            if decision.degraded:
                assert decision.allowed is (on_full == "allow")
                full += 1
    assert full > 0
    if on_full != "raise":
        assert limiter.table.counters()["full"] == full


def test_a_callable_is_a_clock() -> None:
    now = 5.0
    limiter = Limiter("1/second", store=MemoryStore(clock=lambda: now))
    assert limiter.hit_nowait("a")
    assert not limiter.hit_nowait("a")
    now = 6.0
    assert limiter.hit_nowait("a")


def test_clear_forgets_all_and_limiters_stay_in_use() -> None:
    store, other = MemoryStore(), MemoryStore()
    limiters = [Limiter("1/hour", store=store), Limiter("1/hour", store=store, name="x")]
    apart = Limiter("1/hour", store=other)
    for limiter in [*limiters, apart]:
        limiter.hit_nowait("a")
    store.clear()
    assert all(limiter.hit_nowait("a") for limiter in limiters)
    assert not apart.hit_nowait("a")

    async def awaited() -> None:
        await store.clear()
        assert await store.ping()

    asyncio.run(awaited())
    assert all(limiter.hit_nowait("a") for limiter in limiters)
    assert {name for name, _ in store.tables()} == {None, "x"}


async def test_as_a_context_and_closed_twice() -> None:
    async with MemoryStore() as store:
        limiter = Limiter("1/hour", store=store)
        assert await limiter.hit("a")
    await store.aclose()
    await store.aclose()
    assert not await limiter.hit("a")


async def test_sleep_goes_by_the_stores_clock() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    tasks = [asyncio.create_task(store.sleep(seconds)) for seconds in (3, 1, 2, 0)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [False, False, False, True]
    clock.advance(2)
    await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [False, True, True, True]
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.waiting == 0
    await asyncio.wait_for(MemoryStore().sleep(0.001), 5)
    with pytest.raises(ValueError):
        await store.sleep(-1)


def test_secrets_differ_between_stores() -> None:
    assert MemoryStore()._options["secret"] != MemoryStore()._options["secret"]


def test_table_of_holes() -> None:
    store = MemoryStore()
    table = store.table(None, [None, Quota(1, 1, algorithm="sliding-log")])
    assert table.algorithms == ("gcra", "sliding-log")


def test_what_lives_is_known_and_what_is_gone_is_not() -> None:
    limiter = Limiter("1/hour", store=MemoryStore(), name="known")
    assert limiter in list(users())
    del limiter
    assert all(getattr(user, "name", None) != "known" for user in users())


APP = """
import warnings
warnings.simplefilter("always")
from sluicegate import Limiter
limiter = Limiter("5/second")
second = Limiter("6/second")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
"""


@pytest.mark.server
@pytest.mark.parametrize("count", [1, 2])
def test_uvicorns_workers_are_warned_once_each(tmp_path: Path, free_port: int, count: int) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "app:app",
                "--port",
                str(free_port),
                "--workers",
                str(count),
                "--app-dir",
                str(tmp_path),
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "always"},
        )
        try:
            wait_for(log, "Application startup complete", count)
        finally:
            server.terminate()
            server.wait(20)
    text = log.read_text()
    assert text.count("RuntimeWarning") == (count if count > 1 else 0), text
    if count > 1:
        assert "2 workers" in text
        assert "shm://" in text
        assert "app.py:5" in text  # where the limiter is made


def wait_for(log: Path, text: str, times: int) -> None:
    import time

    end = time.monotonic() + 30
    while log.read_text().count(text) < times:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_gunicorns_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_warned", set())
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)
    source = "class Arbiter:\n    num_workers = {}\n    def run(self, call): return call()\n"
    for count, expected in ((1, 1), (3, 3)):
        space: dict[str, Any] = {"__name__": "gunicorn.arbiter"}
        exec(source.format(count), space)
        assert space["Arbiter"]().run(workers.worker_count) == expected
    with pytest.warns(RuntimeWarning, match=r"3 workers.*shm://"):
        space["Arbiter"]().run(lambda: Limiter("5/second", store=MemoryStore()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space["Arbiter"]().run(lambda: Limiter("5/second", store=MemoryStore()))


def test_other_processes_give_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_warned", set())
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert workers.worker_count() == 1
    code = (
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('error')\n"
        "def work():\n"
        "    from sluicegate import Limiter\n"
        "    Limiter('5/second')\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('fork').Process(target=work)\n"
        "    process.start(); process.join(30); raise SystemExit(process.exitcode)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
