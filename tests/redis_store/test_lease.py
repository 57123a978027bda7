"""Leased quota: what it promises, what it saves, when it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from redis_servers.server import Server
from sluicegate import Limiter, RedisStore
from sluicegate.sync import Limiter as SyncLimiter

LEASE = 50


def scripts_run(server: Server) -> int:
    """Scripts that the server has run so far."""
    found = server.client().info("commandstats")
    return sum(
        int(found.get(name, {}).get("calls", 0)) for name in ("cmdstat_evalsha", "cmdstat_eval")
    )


@pytest.mark.parametrize("text", ["1000/minute", "1000/minute using fixed-window"])
async def test_one_question_draws_for_many_hits(redis_server: Server, text: str) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter(text, store=store, name="chat", lease=LEASE)
        assert await limiter.hit("a")
        before = scripts_run(redis_server)
        for _ in range(LEASE - 1):
            assert await limiter.hit("a")
        assert scripts_run(redis_server) == before
        assert await limiter.hit("a")
        assert scripts_run(redis_server) == before + 1
        await store.aclose()


async def test_who_comes_together_waits_for_one_draw(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("1000/hour using fixed-window", store=store, name="chat", lease=LEASE)
        assert await limiter.hit("a")
        before = scripts_run(redis_server)
        decisions = await asyncio.gather(*(limiter.hit("b") for _ in range(3 * LEASE)))
        assert all(decisions)
        assert scripts_run(redis_server) == before + 3


async def test_the_last_units_are_not_lost(redis_server: Server) -> None:
    """Where less is left than a draw, the events are asked about one by one."""
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("120/hour using fixed-window", store=store, name="chat", lease=LEASE)
        decisions = await asyncio.gather(*(limiter.hit("a") for _ in range(200)))
        assert sum(decision.allowed for decision in decisions) == 120
        assert not (await limiter.hit("a"))
        assert (await limiter.hit("a")).retry_after > 3000


@pytest.mark.parametrize(
    ("text", "lease", "most"),
    [
        ("60/hour burst 500", 100, 500),  # a second refills less than a unit
        ("10/second burst 100", 90, None),
    ],
)
async def test_no_more_than_the_burst_at_once(
    redis_server: Server, text: str, lease: int, most: int | None
) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter(text, store=store, name="chat", lease=lease)
        begun = time.monotonic()
        admitted = 0
        for _ in range(400):
            admitted += sum(d.allowed for d in await limiter.hit_many([("a", 1)] * 5))
        took = time.monotonic() - begun
        quota = limiter.quotas[0]
        assert quota is not None
        assert admitted <= quota.burst + quota.limit * took / quota.period
        # its burst is lowered by what a second refills, and that alone
        assert admitted >= min(most or quota.burst, quota.burst) - quota.limit / quota.period - 1


WORKER = """
import asyncio, sys
from sluicegate import Limiter, RedisStore

async def main():
    store = RedisStore(sys.argv[1])
    limiter = Limiter(sys.argv[2], store=store, name="chat", lease=int(sys.argv[3]), timeout=20)
    await limiter.hit("warm")
    print("ready", flush=True)
    sys.stdin.readline()
    async def ask():
        return sum([(await limiter.hit("a")).allowed for _ in range(100)])
    print(sum(await asyncio.gather(*(ask() for _ in range(16)))), flush=True)
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("text", ["3000/hour burst 3000", "3000/day using fixed-window"])
def test_processes_share_what_they_lease(redis_server: Server, text: str) -> None:
    """Never more than the limit; less by what may lie unused in each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, redis_server.url, text, str(LEASE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        admitted = sum(int(process.communicate(timeout=60)[0]) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    print(f"admitted {admitted} of 3000")
    assert 3000 - 4 * LEASE - 4 <= admitted <= 3000 + 4


async def test_what_is_drawn_lapses_after_a_second(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("100/hour using fixed-window", store=store, name="chat", lease=LEASE)
        other = Limiter("100/hour using fixed-window", store=store, name="chat")
        assert await limiter.hit("a")
        assert (await other.peek("a")).remaining == 50
        await asyncio.sleep(1.1)
        assert await limiter.hit("a")  # by a draw of its own
        assert (await other.peek("a")).remaining == 0


async def test_a_lease_ends_with_its_window(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("60/0.5 seconds using fixed-window", store=store, name="chat", lease=50)
        other = RedisStore(redis_server.url)
        plain = Limiter("60/0.5 seconds using fixed-window", store=other, name="chat")
        for _ in range(30):  # of the first window
            assert await limiter.hit("a")
        await asyncio.sleep(0.55)
        # the new window is whole: what was left of the old draw is not spent in it
        assert sum([(await plain.hit("a")).allowed for _ in range(60)]) == 60
        assert not await limiter.hit("a")
        await other.aclose()


async def test_a_ban_or_reset_here_counts_at_once_and_elsewhere_within_a_second(
    redis_server: Server,
) -> None:
    async with RedisStore(redis_server.url) as store, RedisStore(redis_server.url) as elsewhere:
        limiter = Limiter("1000/hour", store=store, name="chat", lease=LEASE)
        other = Limiter("1000/hour", store=elsewhere, name="chat")
        assert await limiter.hit("a")
        await limiter.ban("a", 60)
        assert not await limiter.hit("a")
        await limiter.unban("a")
        assert await limiter.hit("a")
        await other.ban("a", 60)
        await asyncio.sleep(1.1)
        assert not await limiter.hit("a")


async def test_what_a_decision_tells_is_as_if_it_were_spent_one_by_one(
    redis_server: Server,
) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("100/day using fixed-window", store=store, name="chat", lease=LEASE)
        remaining = [(await limiter.hit("a")).remaining for _ in range(60)]
        assert remaining == list(range(99, 39, -1))
        gcra = Limiter("3600/hour burst 100", store=store, name="gcra", lease=LEASE)
        remaining = [(await gcra.hit("a")).remaining for _ in range(60)]
        assert remaining == pytest.approx(list(range(98, 38, -1)), abs=2)
        assert limiter.table.counters()["admitted"] == 60


async def test_costs_above_the_lease_and_costs_by_name(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter(
            "messages: 1000/day using fixed-window; bytes: 1MB/day using fixed-window",
            store=store,
            name="chat",
            lease=LEASE,
        )
        assert await limiter.hit("a", {"bytes": 5000})
        assert await limiter.hit("a", {"bytes": 20})
        plain = Limiter(
            "messages: 1000/day using fixed-window; bytes: 1MB/day using fixed-window",
            store=store,
            name="chat",
        )
        for _ in range(100):
            assert await limiter.hit("a", {"bytes": 10})
        # of messages the draws lie within one another, and bytes cost more of them
        left = (await plain.peek("a", {"messages": 0, "bytes": 0})).remaining
        assert left >= 1000 - 102 - 3 * LEASE
        assert await limiter.hit("a", 0)


async def test_a_store_that_fails_fails_who_waits_for_a_draw(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter(
            "1000/hour", store=store, name="chat", lease=LEASE, on_store_error="local", timeout=0.3
        )
        assert not (await limiter.hit("a")).degraded
        redis_server.stop()
        try:
            decisions = await asyncio.wait_for(
                asyncio.gather(*(limiter.hit("b") for _ in range(1100))), 10
            )
        finally:
            redis_server.cont()
        assert all(decision.degraded for decision in decisions)
        # the whole quota, in memory
        assert sum(decision.allowed for decision in decisions) == 1000


async def test_a_cancelled_waiter_spends_nothing(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("100/day using fixed-window", store=store, name="chat", lease=10)
        tasks = [asyncio.ensure_future(limiter.hit("a")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [True] * 9 + [False]
        before = scripts_run(redis_server)
        for _ in range(9):  # of the ten that were drawn
            assert await limiter.hit("a")
        assert scripts_run(redis_server) == before


def test_threads_spend_what_is_drawn_too(redis_server: Server) -> None:
    store = RedisStore(redis_server.url)
    limiter = SyncLimiter("1000/day using fixed-window", store=store, name="chat", lease=LEASE)
    assert limiter.hit("a")
    before = scripts_run(redis_server)
    for _ in range(LEASE - 1):
        assert limiter.hit("a")
    assert scripts_run(redis_server) == before
    asyncio.run(store.aclose())  # its loop lives on, and would tell the next test's server its name


@pytest.mark.parametrize(
    ("quotas", "lease", "why"),
    [
        ("5/second", 5, "lease=5 is more than this quota can lease: 0"),
        ("5/second burst 20", 16, "lease=16 is more than this quota can lease: 15"),
        ("5/minute using fixed-window", 6, "lease=6 .* its limit of 5"),
        ("5/minute using sliding-log", 1, "not for sliding-log"),
        ("5/minute using sliding-window", 1, "not for sliding-window"),
    ],
)
def test_what_cannot_be_leased_is_refused_at_once(quotas: str, lease: int, why: str) -> None:
    store = RedisStore("redis://127.0.0.1:1")
    with pytest.raises(ValueError, match=why):
        Limiter(quotas, store=store, name="chat", lease=lease)
    limiter = Limiter("1000/minute", store=store, name="other", lease=100)
    with pytest.raises(ValueError, match="more than this quota can lease"):
        limiter.update("100/minute")
