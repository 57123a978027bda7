"""Limiters over real servers, one and a cluster: what decides, and what changes a key."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

import redis_servers.server
from redis_store.public import ALGORITHMS, admitted, fresh, left
from sluicegate import (
    ConcurrencyLimiter,
    Decision,
    Limiter,
    Quota,
    RateLimitExceeded,
    RedisStore,
    StoreError,
    WebSocketLimits,
    WebSocketRateLimiter,
)
from sluicegate.testing import override, record


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_hit_charges_until_nothing_is_left(store: RedisStore, algorithm: str) -> None:
    quota = Quota(3, 3600, algorithm=algorithm)
    limiter = Limiter(quota, store=store, name=fresh())
    assert [(await limiter.hit("a")).remaining for _ in range(3)] == [2, 1, 0]
    refused = await limiter.hit("a")
    assert not refused
    assert (refused.limit, refused.remaining, refused.quota) == (3, 0, quota)
    assert not refused.degraded
    assert 0 < refused.retry_after <= 7200
    assert 0 < refused.reset_after <= 7200
    assert await limiter.hit("b")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_what_retry_after_says_is_enough(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"2/0.1 seconds using {algorithm}", store=store, name=fresh())
    for _ in range(2):
        while decision := await limiter.hit("a"):
            assert decision.retry_after == 0.0
        assert 0 < decision.retry_after <= 0.2
        await asyncio.sleep(decision.retry_after)
        assert await limiter.hit("a")


async def test_a_burst_passes_at_once_and_a_cost_above_it_never(store: RedisStore) -> None:
    limiter = Limiter("10/hour burst 25", store=store, name=fresh())
    never = await limiter.hit("a", 26)
    assert (never.allowed, never.retry_after, never.as_dict()["retry_after"]) == (
        *(False, math.inf),
        None,
    )
    assert await limiter.hit("a", 25)
    assert not await limiter.hit("a")
    assert await limiter.hit("a", 0)  # costs nothing


async def test_of_several_quotas_all_admit_or_none_is_charged(store: RedisStore) -> None:
    limiter = Limiter(
        "messages: 5/hour; bytes: 1000/hour using sliding-log; 50/day using fixed-window",
        store=store,
        name=fresh(),
    )
    binding = await limiter.hit("a", {"bytes": 600})
    assert binding.quota is not None
    assert (binding.quota.name, binding.remaining) == ("bytes", 400)
    refused = await limiter.hit("a", {"bytes": 600})
    assert refused.quota is not None
    assert (refused.allowed, refused.quota.name, refused.remaining) == (False, "bytes", 400)
    assert await limiter.hit("a", {"bytes": 400, "messages": 4})
    refused = await limiter.hit("a", {"bytes": 0})
    assert refused.quota is not None
    assert (refused.allowed, refused.quota.name) == (False, "messages")
    assert await limiter.hit("a", {"bytes": 0, "messages": 0})
    with pytest.raises(ValueError, match="byte"):
        await limiter.hit("a", {"byte": 1})
    for bad in (-1, 2**40 + 1):
        with pytest.raises(ValueError):
            await limiter.hit("a", bad)
    with pytest.raises(TypeError):
        await limiter.hit("a", 1.5)  # type: ignore[arg-type]


async def test_where_several_refuse_the_longest_binds(store: RedisStore) -> None:
    limiter = Limiter("1/minute using fixed-window; 1/hour using fixed-window", store=store,
                      name=fresh())  # fmt: skip
    assert await limiter.hit("a")
    refused = await limiter.hit("a")
    assert refused.quota == Quota(1, 3600, algorithm="fixed-window")
    assert 3500 < refused.retry_after <= 3600


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_peek_and_check(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"3/hour using {algorithm}", store=store, name=fresh())
    for _ in range(5):
        seen = await limiter.peek("a", 2)
        assert (seen.allowed, seen.remaining) == (True, 3)
    assert (await limiter.check("a", 2)).remaining == 1
    seen = await limiter.peek("a", 2)
    assert (seen.allowed, seen.remaining) == (False, 1)
    with pytest.raises(RateLimitExceeded) as error:
        await limiter.check("a", 2)
    assert error.value.decision.remaining == 1
    assert 0 < error.value.retry_after <= 7200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_hit_many_is_each_by_itself_and_in_order(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"5/hour using {algorithm}", store=store, name=fresh())
    decisions = await limiter.hit_many([("a", 3), ("b", 1), ("a", 3), ("a", 2), ("b", 5), ("a", 1)])
    assert [(one.allowed, one.remaining) for one in decisions] == [
        (True, 2), (True, 4), (False, 2), (True, 0), (False, 4), (False, 0),
    ]  # fmt: skip
    many = await limiter.hit_many((f"key:{number % 300}", 1) for number in range(2400))
    assert [one.remaining for one in many[:300]] == [4] * 300
    assert sum(map(bool, many)) == 1500
    assert await limiter.hit_many([]) == []
    with pytest.raises(TypeError):
        await limiter.hit_many([("c", 1), "c"])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        await limiter.hit_many([("c", 1), ("c", -1)])
    assert await left(limiter, "c") == 5  # a bad one charges nothing


async def test_one_key_many_times_keeps_its_order(store: RedisStore) -> None:
    """More than one command of them, which a server that knows no script refuses one by one."""
    limiter = Limiter("1000/hour using fixed-window", store=store, name=fresh())
    many = await limiter.hit_many([("a", 1)] * 1200)
    assert [one.remaining for one in many] == [*range(999, -1, -1), *[0] * 200]
    assert [one.allowed for one in many] == [True] * 1000 + [False] * 200


async def test_a_server_that_knows_no_script_is_sent_its_text_once(
    redis_server: redis_servers.server.Server,
) -> None:
    async with RedisStore(redis_server.url, timeout=5) as store:
        limiter = Limiter("5/hour", store=store, name=fresh())
        for _ in range(2):
            assert all(await limiter.hit_many((f"key:{n}", 1) for n in range(2400)))
        with redis_server.client() as client:
            stats = client.info("commandstats")
        # that it knows none it says in one piece, or in a few
        assert 1 <= stats["cmdstat_eval"]["calls"] <= 4
        assert stats["cmdstat_evalsha"]["calls"] >= 10


async def test_a_handle_is_the_limiter_and_a_key(store: RedisStore) -> None:
    limiter = Limiter("3/hour", store=store, name=fresh())
    handle = limiter.bind("a")
    assert (await handle.hit()).remaining == 2
    assert (await handle.peek(3)).as_dict()["remaining"] == 2
    assert (await handle.hit(2)).remaining == 0
    assert not await limiter.hit("a")
    with pytest.raises(RuntimeError, match="await hit"):
        handle.hit_nowait()


async def test_what_decides_at_once_says_where_to_ask(store: RedisStore) -> None:
    limiter = Limiter("3/hour", store=store, name=fresh())
    for call in (
        lambda: limiter.hit_nowait("a"),
        lambda: limiter.peek_nowait("a"),
        lambda: limiter.hit_many_nowait([("a", 1)]),
        lambda: limiter.reserve_nowait("a"),
        lambda: limiter.ban_nowait("a", 1),
        lambda: limiter.unban_nowait("a"),
        lambda: limiter.reset_nowait("a"),
        lambda: limiter.penalize_nowait("a", 1),
        lambda: limiter.reward_nowait("a", 1),
    ):
        with pytest.raises(RuntimeError, match=r"on a server.*sluicegate\.sync"):
            call()
    assert await left(limiter) == 3


# ---- numbers that change


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_other_numbers_at_run_time_keep_the_state(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"10/hour using {algorithm}", store=store, name=fresh())
    assert await limiter.hit("a", 4)
    more = f"20/hour using {algorithm}"
    assert (await limiter.hit("a", 4, quotas=more)).limit == 20
    limiter.update(more)
    # gcra keeps the time at which it is whole again, the others what they have counted
    assert await left(limiter) == (20 - 12 if algorithm == "gcra" else 12)
    await limiter.update(f"10/hour using {algorithm}")
    assert await left(limiter) == (10 - 6 if algorithm == "gcra" else 2)
    with pytest.raises(ValueError):
        limiter.update("1/hour; 2/hour")
    other = next(one for one in ALGORITHMS if one != algorithm)
    with pytest.raises(ValueError):
        await limiter.hit("a", quotas=f"10/hour using {other}")


async def test_two_limiters_of_one_name_share_their_state(store: RedisStore) -> None:
    name = fresh()
    first = Limiter("10/hour using fixed-window", store=store, name=name)
    second = Limiter("5/hour using fixed-window", store=store, name=name)
    async with RedisStore(store_url(store), timeout=5) as same:
        third = Limiter("10/hour using fixed-window", store=same, name=name)
        assert await first.hit("a", 4)
        assert (await second.hit("a")).remaining == 0
        assert not await second.hit("a")
        assert await third.hit("a", 5)
        assert not await first.hit("a")
    async with RedisStore(store_url(store), prefix="other", timeout=5) as apart:
        assert await left(Limiter("10/hour using fixed-window", store=apart, name=name)) == 10


def store_url(store: RedisStore) -> str:
    scheme = "redis+cluster" if store.settings.kind == "cluster" else "redis"
    return f"{scheme}://{','.join(map(str, store.settings.nodes))}"


async def test_a_name_is_required(store: RedisStore) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Limiter("1/hour", store=store)
    with pytest.raises(ValueError, match="needs a name"):
        Limiter("1/hour", store=store_url(store))


async def test_two_shapes_under_one_name(
    store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh()
    first = Limiter("2/hour", store=store, name=name)
    with pytest.raises(ValueError, match=name):
        Limiter("2/hour; 3/hour", store=store, name=name)
    with pytest.raises(ValueError, match=name):
        Limiter("2/hour using sliding-log", store=store, name=name)
    assert await first.hit("a", 2)
    # Another process has another store object, and cannot be told when it makes the limiter.
    async with RedisStore(store_url(store), timeout=5) as other:
        second = Limiter("2/hour using sliding-log", store=other, name=name)
        with caplog.at_level(logging.WARNING, "sluicegate"):
            assert await admitted(second, 3) == 2
            assert await admitted(second, 3, "b") == 2
    assert [name in one.getMessage() for one in caplog.records] == [True]


# ---- what changes a key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_penalize_reward_and_reset(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"4/hour using {algorithm}", store=store, name=fresh())
    await limiter.penalize("a", 3)
    assert await left(limiter) == 1
    await limiter.reward("a")
    assert await left(limiter) == 2
    await limiter.penalize("a", 1000)  # at most one burst past the limit
    assert await left(limiter) == 0
    await limiter.reward("a", 4)
    assert not await limiter.hit("a")
    await limiter.reward("a", 1)
    assert await left(limiter) == 1
    await limiter.reward("a", 1000)  # at most to full
    assert await admitted(limiter, 6) == 4
    await limiter.reset("a")
    assert await left(limiter) == 4
    await limiter.reward("b")
    assert await left(limiter, "b") == 4


async def test_changes_by_name_of_the_quota(store: RedisStore) -> None:
    limiter = Limiter("m: 5/hour; b: 100/hour using fixed-window", store=store, name=fresh())
    await limiter.penalize("a", {"m": 2, "b": 99})
    assert (await limiter.peek("a", {"m": 3, "b": 1})).allowed
    assert not (await limiter.peek("a", {"m": 3, "b": 2})).allowed
    await limiter.reward("a", {"m": 0, "b": 50})
    assert (await limiter.peek("a", {"m": 3, "b": 51})).allowed
    assert not (await limiter.peek("a", {"m": 4, "b": 51})).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_ban_is_part_of_the_key(store: RedisStore, algorithm: str) -> None:
    limiter = Limiter(f"3/hour using {algorithm}", store=store, name=fresh())
    assert await limiter.hit("a")
    await limiter.ban("a", 600)
    refused = await limiter.hit("a", 0)
    assert not refused
    assert 590 < refused.retry_after <= 600
    assert not await limiter.peek("a")
    assert (await limiter.hit("a", 3)).retry_after > 590
    assert await limiter.hit("b")
    await limiter.unban("a")
    assert await left(limiter) == 2  # what was charged before it still counts
    await limiter.unban("a")
    await limiter.ban("a", 0.05)
    assert not await limiter.hit("a")
    await asyncio.sleep(0.06)
    assert await limiter.hit("a")
    await limiter.ban("a", 600)
    await limiter.reset("a")
    assert await left(limiter) == 3
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError):
            await limiter.ban("a", bad)


async def test_state_in_the_key_that_is_none_of_ours(store: RedisStore) -> None:
    limiter = Limiter("3/hour", store=store, name=fresh())
    name = limiter.server.key("a")
    links = await store._router(asyncio.get_running_loop()).masters()
    for link in links:
        try:
            await link.command(("LPUSH", name, "x"), 5)
        except StoreError:
            continue  # another node's
        break
    else:
        pytest.fail("no node took the key")
    with pytest.raises(StoreError, match="not sluicegate's"):
        await limiter.hit("a")
    with pytest.raises(StoreError):
        await limiter.ban("a", 5)
    assert await limiter.hit("b")
    await limiter.reset("a")
    assert await limiter.hit("a")


# ---- what holds nothing back


async def test_shadow_quotas_and_limiters(store: RedisStore) -> None:
    quotas = [Quota(2, 3600, name="new", shadow=True), Quota(4, 3600, name="old")]
    limiter = Limiter(quotas, store=store, name=fresh())
    decisions = [await limiter.hit("a") for _ in range(5)]
    assert [one.allowed for one in decisions] == [True] * 4 + [False]
    assert [one.shadow for one in decisions][:4] == [False, False, True, True]
    quiet = Limiter("2/hour", store=store, name=fresh(), shadow=True)
    decisions = [await quiet.hit("a") for _ in range(4)]
    assert [(one.allowed, one.shadow) for one in decisions] == [
        (True, False), (True, False), (True, True), (True, True),
    ]  # fmt: skip
    assert (await quiet.wait("a", timeout=0)).shadow


async def test_disabled_it_admits_and_counts_nothing(store: RedisStore) -> None:
    name = fresh()
    off = Limiter("1/hour", store=store, name=name, enabled=False)
    assert await admitted(off, 5) == 5
    assert await off.peek("a", 1000)
    assert all(await off.hit_many([("a", 1)] * 3))
    assert await off.wait("a", 5)
    async with await off.reserve("a", 5) as reservation:
        assert reservation
    assert await left(Limiter("1/hour", store=store, name=name)) == 1


# ---- for tests of what is limited


async def test_record_and_override(store: RedisStore) -> None:
    limiter = Limiter("2/hour", name=fresh())  # in memory
    unnamed, slots = Limiter("2/hour"), ConcurrencyLimiter(1)
    sockets = WebSocketRateLimiter(WebSocketLimits(messages_per_minute=1))
    assert await limiter.hit("a", 2)
    with override(store=store):
        assert await admitted(unnamed, 3) == 2
        async with slots.hold("a"):
            assert await slots.acquire("a") is None
        assert await sockets.register_connection("connection", "client")
        assert (await sockets.check_message("connection"))["allowed"]
        assert not (await sockets.check_message("connection"))["allowed"]
        await sockets.unregister_connection("connection")
    assert unnamed.server is None and unnamed.hit_nowait("a")
    with override(store=store) as used, record() as records:
        assert used is store
        assert limiter.store is store
        assert await admitted(limiter, 3) == 2
        await limiter.peek("a")
        await limiter.hit_many([("b", 1)])
    assert [(one.limiter, one.key, bool(one.decision)) for one in records] == [
        *((limiter, "a", True), (limiter, "a", True)),
        *((limiter, "a", False), (limiter, "b", True)),
    ]
    assert not await limiter.hit("a")
    over = Limiter("2/hour", store=store, name=fresh())
    with override() as memory:
        assert over.store is memory
        assert over.hit_nowait("a")
    assert await left(over) == 2
    with record() as records:
        handle = over.bind("c")
        await handle.hit()
        await over.reserve("d")
    assert [one.key for one in records] == ["c", "d"]
    assert all(isinstance(one.decision, Decision) for one in records)
