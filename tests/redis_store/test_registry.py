"""Limiters tell their store that they exist, behind the backs of the checks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import serving
from redis_servers.cluster import Cluster
from redis_servers.server import Server, server
from redis_store.watching import tries
from sluicegate import (
    ConcurrencyLimiter,
    Limiter,
    Quota,
    RedisStore,
    WebSocketLimits,
    WebSocketRateLimiter,
)
from sluicegate.stores.redis import connection, registry

pytestmark = pytest.mark.server

KEY = "sg:limiters"


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    give_up = asyncio.get_running_loop().time() + seconds
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < give_up, "waited in vain"
        await asyncio.sleep(0.02)
    return found


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FIRST", 0.05)
    monkeypatch.setattr(registry, "RENEWED", 0.1)


async def test_all_names_are_told_together_some_time_after_the_first_check(
    redis_server: Server,
) -> None:
    with redis_server.client() as client:
        async with RedisStore(redis_server.url) as store:
            chat = Limiter("5/second burst 20; 1MB/minute", store=store, name="chat:a")
            log = Limiter(Quota(9, 60, algorithm="sliding-log", shadow=True), store=store, name="b")
            slots = ConcurrencyLimiter(3, store=store, name="slots")
            both = ConcurrencyLimiter(4, store=store, name="b")
            sockets = WebSocketRateLimiter(WebSocketLimits(), store, name="ws")
            assert await chat.hit("user:42")
            client.config_resetstat()
            assert client.keys() == [b"sg:{chat%3aa:user:42}"]
            await until(lambda: client.exists(KEY))
            assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1
            assert 0 < client.ttl(KEY) <= registry.LAPSES

            found = {one.name: one for one in await store.limiters()}
            assert list(found) == [
                *("b", "chat:a", "slots", "ws.connections", "ws.messages", "ws.places")
            ]
            assert found["chat:a"].quotas == chat.quotas
            assert found["b"].quotas == log.quotas
            assert (found["b"].slots, found["slots"].slots) == (both.limit, slots.limit)
            assert found["slots"].quotas == ()
            assert found["ws.places"].slots == 0  # each client may have another number
            # the client's bytes are unlimited, and its state has a place for them
            messages = found["ws.messages"]
            assert messages.quotas[0] is not None
            assert messages.quotas[0].limit == 1000
            assert messages.quotas[1:] == (None,)
            assert messages.algorithms == ("sliding-log", "sliding-log")
            assert all(one.age <= 2 for one in found.values())
            del sockets


@pytest.mark.usefixtures("often")
async def test_it_is_renewed_with_the_numbers_of_now_and_forgets_the_dead(
    redis_server: Server,
) -> None:
    with redis_server.client() as client:
        async with RedisStore(redis_server.url) as store:
            chat = Limiter("5/second", store=store, name="chat")
            await chat.hit("a")
            await until(lambda: client.hexists(KEY, "chat"))
            now = int(client.time()[0])
            client.hset(KEY, "died", f"{now - registry.LAPSES - 1} {{}}")
            client.hset(KEY, "lives", f"{now} {{}}")
            client.hset(KEY, "not ours", "junk")
            client.expire(KEY, 5)
            await until(lambda: sorted(client.hkeys(KEY)) == [b"chat", b"lives"])
            assert client.ttl(KEY) > 5
            client.hset(KEY, "of another version", f"{now} [3]")
            await chat.update("7/minute")
            later = Limiter("1/second", store=store, name="later")
            await later.hit("a")
            await until(lambda: client.hexists(KEY, "later"))
            found = {one.name: one.quotas for one in await store.limiters()}
            assert found == {"chat": chat.quotas, "later": later.quotas, "lives": ()}
            # what was deleted by hand is told again
            await store.clear()
            await until(lambda: client.hexists(KEY, "later"))
        # a process that has ended says nothing more
        client.delete(KEY)
        await asyncio.sleep(0.3)
        assert not client.exists(KEY)


async def test_what_is_no_entry_is_not_shown(redis_server: Server) -> None:
    quota = '{"limit":1,"period":1,"algorithm":"gcra"}'
    values = [
        *(
            "",
            "x",
            "{}",
            "1 ",
            "1 {",
            "1 []",
            "1 3",
            "1 null",
            "9" * 5000 + " {}",
            "1 " + "[" * 99999,
        ),
        *('1 {"quotas":3}', '1 {"quotas":[3]}', '1 {"quotas":[{}]}', '1 {"quotas":{"a":1}}'),
        *('1 {"quotas":[{"algorithm":"none"}]}', '1 {"quotas":[{"algorithm":["gcra"]}]}'),
        *('1 {"quotas":[{"limit":0,"period":1,"algorithm":"gcra"}]}', '1 {"slots":"many"}'),
        f'1 {{"quotas":[{",".join([quota] * 20)}]}}',
        f'1 {{"quotas":[{quota[:-1]},"more":1}}]}}',
        '1 {"slots":-1}',
    ]
    with redis_server.client() as client:
        now = str(client.time()[0])
        for number, value in enumerate(values):
            client.hset(KEY, f"wrong{number}", value.replace("1 ", f"{now} ", 1))
        client.hset(KEY, "right", f'{now} {{"quotas":[{quota}]}}')
        client.hset(KEY, b"\xff", f"{now} {{}}")
        client.hset(KEY, "old", f"{int(now) - registry.LAPSES - 2} {{}}")
        async with RedisStore(redis_server.url) as store:
            assert [one.name for one in await store.limiters()] == ["right"]


async def test_limiters_of_one_name_with_other_numbers(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        small = Limiter("5/second", store=store, name="chat")
        large = Limiter("5/minute burst 100", store=store, name="chat")
        other = [Limiter(f"{n}/second", store=store, name="chat") for n in range(1, 20)]
        await small.hit("a")
        await until(lambda: registry_of(redis_server))
        (found,) = await store.limiters()
        assert found.various
        # what a command writes by these cuts nothing that another has counted
        assert found.quotas == large.quotas
        del other, small
        gc.collect()
        await store.clear()
        only = Limiter("5/minute burst 100", store=store, name="chat")
        assert only.quotas == large.quotas
        (told,) = [known.as_json() for known in store.known.values()]
        assert "various" not in told
        assert '"burst":100' in told


def registry_of(server: Server) -> dict[bytes, bytes]:
    with server.client() as client:
        found: dict[bytes, bytes] = client.hgetall(KEY)
        return found


@pytest.mark.usefixtures("often")
async def test_prefixes_never_share(redis_server: Server) -> None:
    names = {"a": "one", "a:limiters": "two", "a:": "three", "a{}": "four", "a%3a": "five"}
    with redis_server.client() as client:
        stores = {prefix: RedisStore(redis_server.url, prefix) for prefix in names}
        limiters = [
            Limiter("5/second", store=stores[prefix], name=name) for prefix, name in names.items()
        ]
        for limiter in limiters:
            await limiter.hit("x")
        await until(lambda: len([*client.scan_iter("*:limiters")]) == len(names))
        for prefix, store in stores.items():
            assert [one.name for one in await store.limiters()] == [names[prefix]]
        await stores["a"].aclose()
        await stores["a"].clear()
        assert not [*client.scan_iter("a:*")]
        assert [one.name for one in await stores["a:limiters"].limiters()] == ["two"]
        for store in stores.values():
            await store.aclose()


@pytest.mark.usefixtures("often")
async def test_a_server_that_refuses_the_names_takes_the_checks(redis_server: Server) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "checker", "on", ">pw", "~sg:{*", "+@all")
        client.acl_log_reset()
        url = redis_server.url.replace("://", "://checker:pw@")
        try:
            async with RedisStore(url) as store:
                chat = Limiter("2/minute", store=store, name="chat")
                for allowed in (True, True, False):
                    assert bool(await chat.hit("a")) is allowed
                await until(lambda: client.acl_log())
                decision = await chat.hit("a")
                assert not decision
                assert not decision.degraded
                assert await chat.hit("b")
            assert not client.exists(KEY)
        finally:
            client.execute_command("ACL", "DELUSER", "checker")


async def test_a_cluster_has_one_registry(redis_cluster: Cluster) -> None:
    async with RedisStore(redis_cluster.url) as store:
        for name in ("one", "two", "three"):
            await Limiter("5/second", store=store, name=name).hit("x")
        found: list[registry.Registered] = []
        give_up = asyncio.get_running_loop().time() + 15
        while [one.name for one in found] != ["one", "three", "two"]:
            assert asyncio.get_running_loop().time() < give_up
            await asyncio.sleep(0.05)
            found = await store.limiters()
        owner = redis_cluster.owner(redis_cluster.slot_of(KEY))
        with owner.client() as client:
            assert client.hlen(KEY) == 3
        await store.clear()
        with owner.client() as client:
            assert not client.exists(KEY)


async def test_the_loop_keeps_no_store_that_nobody_has(redis_server: Server) -> None:
    store = RedisStore(redis_server.url)
    limiter = Limiter("5/second", store=store, name="gone")
    await limiter.hit("a")
    routers = [weakref.ref(router) for router in store._routers.values()]
    seen = weakref.ref(store)
    await store.aclose()
    del store, limiter
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    assert seen() is None
    assert [router() for router in routers] == [None]


async def test_a_server_that_is_away_fails_no_check_for_it(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "FIRST", 0.01)
    async with RedisStore(f"redis://127.0.0.1:{serving.free_port()}") as store:
        chat = Limiter("5/second", store=store, name="chat", on_store_error="local")
        assert (await chat.hit("a")).degraded
        await asyncio.sleep(0.1)
        assert (await chat.hit("a")).degraded
    with redis_server.client() as client:
        client.set(KEY, "not a hash")
        async with RedisStore(redis_server.url) as store:
            chat = Limiter("1/minute", store=store, name="chat")
            assert await chat.hit("a")
            await asyncio.sleep(0.1)
            assert not await chat.hit("a")
        assert client.get(KEY) == b"not a hash"


@pytest.mark.usefixtures("often")
async def test_a_server_that_is_gone_is_left_alone(
    redis_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody asks, names are no reason to go on trying; a check is."""
    monkeypatch.setattr(connection, "PROBE", 0.01)
    monkeypatch.setattr(connection, "PROBES_IDLE", 3)
    with server(redis_kind) as running:
        async with RedisStore(running.url) as store:
            chat = Limiter("5/minute", store=store, name="chat", on_store_error="allow")
            assert await chat.hit("a")
            with running.client() as client:
                await until(lambda: client.exists(KEY))
            (link,) = next(iter(store._routers.values())).connections()
            running.kill()
            assert (await chat.hit("a")).degraded
            await until(lambda: link.down is None and link._task is None)
            opened = 0
            opener = link._opener

            async def counted(timeout: float) -> Any:
                nonlocal opened
                opened += 1
                return await opener(timeout)

            link._opener = counted
            await asyncio.sleep(1.0)  # ten times that names would be told
            assert opened <= 3
            assert (await chat.hit("a")).degraded
            await until(lambda: opened >= 3)
            await until(lambda: link.down is None and link._task is None)
            running.restart()
            with running.client() as client:
                assert not client.exists(KEY)
                await tries(lambda: chat.hit("a"))
                await until(lambda: client.exists(KEY))
