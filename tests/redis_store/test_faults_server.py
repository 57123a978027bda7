"""What a real server does to those who ask it: it dies, stands, loads, is busy, full, read-only,
forgets its scripts, refuses a login, or has a clock that steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from redis_servers import faults
from redis_servers.behaviours import Behaviour
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import LIMITER, PASSWORD, WITHOUT_SCRIPTS, Server, server
from redis_store.engine import variants
from redis_store.watching import MARGIN, Watch, outcomes, tries, watched
from sluicegate import Limiter, RedisStore, StoreError

pytestmark = pytest.mark.server

TIMEOUT = 0.5


def limiter_over(store: RedisStore, quota: str = "1000/minute", **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "faults", "timeout": TIMEOUT} | options
    return Limiter(quota, store=store, **given)


async def burst(limiter: Limiter, count: int = 40) -> list[Any]:
    """What many checks of a few keys come to, none later than it may be."""
    return await outcomes(
        [limiter.hit(f"k{number % 5}") for number in range(count)], limiter.timeout + MARGIN
    )


def told_once(watch: Watch) -> None:
    """One line into the outage, one out of it."""
    assert len(watch.lines) == 2, watch.lines
    assert "does not decide" in watch.lines[0] and "decides again" in watch.lines[1]


@contextmanager
def read_only(running: Server) -> Iterator[None]:
    with server(running.kind) as other, faults.read_only(running, other):
        with running.client() as client:
            while client.info("replication")["master_link_status"] != "up":
                time.sleep(0.01)
        yield


@dataclass(frozen=True)
class Fault:
    begin: Callable[[Server], AbstractContextManager[None]]
    says: str = ""  # in the error
    silent: bool = False  # checks wait for their timeout


FAULTS = {
    "killed": Fault(faults.killed),
    "stopped": Fault(faults.stopped, silent=True),
    "paused": Fault(lambda s: faults.paused(s, 1.5), silent=True),
    "writes paused": Fault(lambda s: faults.paused(s, 60, writes=True), silent=True),
    "busy": Fault(faults.busy, says="BUSY"),
    "read-only": Fault(read_only, says="READONLY"),
    "full": Fault(faults.out_of_memory, says="OOM"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_and_its_end(redis_server: Server, name: str) -> None:
    """Checks fail in time and say why, those behind them at once, and then they are decided."""
    fault = FAULTS[name]
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = limiter_over(store)
        assert all(await burst(limiter))
        with fault.begin(redis_server):
            asked = redis_server_connections(redis_server) if name == "read-only" else 0
            found = await burst(limiter)
            assert all(isinstance(one, StoreError) for one in found)
            assert any(fault.says in str(one) for one in found), found[0]
            begin = time.monotonic()
            for _ in range(50):
                found = await burst(limiter)
                assert all(isinstance(one, StoreError) for one in found)
            if not fault.silent:
                assert time.monotonic() - begin < MARGIN
            if name == "read-only":
                assert redis_server_connections(redis_server) - asked < 20
        begin = time.monotonic()
        assert await tries(lambda: limiter.hit("k"))
        assert all(await burst(limiter))
        told_once(watch)


def redis_server_connections(running: Server) -> int:
    with running.client() as client:
        found: int = client.info("stats")["total_connections_received"]
    return found


async def test_a_server_that_loads(redis_kind: str) -> None:
    with server(redis_kind, disk=True) as running:
        store = RedisStore(running.url, timeout=TIMEOUT)
        async with watched(store) as watch:
            limiter = limiter_over(store, "10/hour")
            assert await limiter.hit("kept", 4)
            loading = faults.loading(running, seconds=0.3)
            await asyncio.to_thread(loading.__enter__)
            found = await outcomes([limiter.hit("kept") for _ in range(10)], TIMEOUT + MARGIN)
            assert all(isinstance(one, StoreError) for one in found)
            said = await outcomes([limiter.hit("kept")], TIMEOUT + MARGIN)
            assert isinstance(said[0], StoreError) and "LOADING" in str(said[0])
            await asyncio.to_thread(loading.__exit__, None, None, None)
            assert (await tries(lambda: limiter.hit("kept"))).remaining == 5  # what was on disk
            told_once(watch)


async def test_scripts_that_are_flushed_all_the_time(redis_server: Server) -> None:
    """Nothing fails, and nothing is charged twice."""
    store = RedisStore(redis_server.url, timeout=5)
    async with watched(store) as watch:
        limiter = limiter_over(store, "500/day", timeout=5)
        admitted = 0
        with redis_server.client() as client:
            for _ in range(30):
                found = await asyncio.gather(
                    *(limiter.hit("k") for _ in range(20)), asyncio.to_thread(client.script_flush)
                )
                admitted += sum(bool(one) for one in found[:-1])
        assert admitted == 500
        assert watch.lines == []


async def test_a_restart_that_forgets_all(redis_server: Server) -> None:
    """Quotas are whole again, as those of any server that keeps nothing; nothing hangs."""
    store = RedisStore(redis_server.url, timeout=TIMEOUT)
    async with watched(store):
        limiter = limiter_over(store, "5/hour")
        assert await limiter.hit("k", 5)
        for _ in range(3):
            assert not await limiter.hit("k")
            redis_server.restart()
            assert await tries(lambda: limiter.hit("k", 5))


@pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session")
async def test_logins_that_fail(guarded_server: Server) -> None:
    wrong = WITHOUT_SCRIPTS._replace(password="wr0ng:" + PASSWORD)
    nobody = LIMITER._replace(name="nobody")
    for url, says in [
        (f"redis://{guarded_server.address}", "NOAUTH"),
        (guarded_server.url_as(wrong), "WRONGPASS"),
        (guarded_server.url_as(nobody), "WRONGPASS"),
        (guarded_server.url_as(WITHOUT_SCRIPTS), "NOPERM"),
    ]:
        store = RedisStore(url, timeout=TIMEOUT)
        async with watched(store) as watch:
            limiter = limiter_over(store)
            for found in [await burst(limiter), await burst(limiter)]:
                assert all(isinstance(one, StoreError) for one in found)
                assert says in str(found[-1]) and guarded_server.address in str(found[-1])
            assert len(watch.lines) == 1


@pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session")
async def test_a_password_that_is_changed_back(guarded_server: Server) -> None:
    """What is refused now is tried again, and works once it is right."""
    store = RedisStore(guarded_server.url_as(LIMITER), timeout=TIMEOUT)
    async with watched(store) as watch:
        limiter = limiter_over(store)
        assert await limiter.hit("k")
        with guarded_server.client() as client:
            client.execute_command("ACL", "SETUSER", LIMITER.name, "resetpass", ">other")
            client.execute_command("CLIENT", "KILL", "USER", LIMITER.name)
            found = await burst(limiter)
            assert all(isinstance(one, StoreError) for one in found)
            assert "WRONGPASS" in str((await burst(limiter))[-1])
            client.execute_command("ACL", "SETUSER", LIMITER.name, f">{LIMITER.password}")
        assert await tries(lambda: limiter.hit("k"))
        told_once(watch)


# ---- a clock that steps


@dataclass
class Clocked(Behaviour):
    """The package's scripts become those that go by a key of the test: see engine.variants."""

    scripts: dict[bytes, bytes]

    def request(self, data: bytes) -> bytes:
        for ours, theirs in self.scripts.items():
            data = data.replace(ours, theirs)
        return data


NOW = 1_800_000_000_000_000  # microseconds
SECOND = 1_000_000


@pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session")
@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
async def test_a_clock_that_steps(
    redis_server: Server, proxy_to: Callable[..., Proxy], algorithm: str
) -> None:
    """Back: neither is anything given back nor is anybody locked out. Forth: time has passed."""
    proxy = proxy_to(redis_server.port)
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=5)
    with redis_server.client() as client:
        proxy.behave(Clocked(variants(client)))
        client.set("now", NOW)
        async with watched(store) as watch:
            limiter = limiter_over(store, f"10/minute using {algorithm}", timeout=5)
            assert await limiter.hit("k", 10)
            refused = await limiter.hit("k")
            assert not refused and 0 < refused.retry_after <= 66
            client.set("now", NOW - 3600 * SECOND)
            refused = await limiter.hit("k")
            # cut to what a quota can reach: with penalties gcra and the window reach two periods
            assert not refused and 0 < refused.retry_after <= 120
            # as long as it says, by the clock as it is now
            after = round(refused.retry_after * SECOND) + 1
            client.set("now", NOW - 3600 * SECOND + after)
            assert await limiter.hit("k")
            client.set("now", NOW + 3600 * SECOND)
            found = await outcomes([limiter.hit("k") for _ in range(20)], 5 + MARGIN)
            assert sum(bool(one) for one in found) == 10
            assert watch.lines == []
