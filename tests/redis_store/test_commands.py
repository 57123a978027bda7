"""`sluicegate top`, `peek`, `reset`, `ban` and `unban`, on limiters of other processes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import serving
from adapters.banning import banning
from redis_servers.server import Server
from redis_servers.waiting import until
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore
from sluicegate.cli.group import cli
from sluicegate.observe import escape_key, unescape_key
from sluicegate.stores.redis import registry

pytestmark = pytest.mark.server

SECONDS = 20.0
TESTS = Path(__file__).parent.parent


def run(url: str, *arguments: str) -> str:
    """What a command prints; it must end well."""
    done = CliRunner().invoke(cli, arguments, env={"SLUICEGATE_STORE": url}, terminal_width=100)
    assert done.exit_code == 0, done.output
    return done.output


def refused(url: str | None, *arguments: str) -> str:
    """What a command that must fail says."""
    done = CliRunner().invoke(cli, arguments, env={"SLUICEGATE_STORE": url}, terminal_width=100)
    assert done.exit_code in (1, 2), done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


@pytest.fixture
def known(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`known(work)` runs `work(store)` in a loop that has ended when it returns, after its
    limiters have been told; the URL."""
    monkeypatch.setattr(registry, "FIRST", 0.01)

    def on(work: Callable[[RedisStore], Any], prefix: str = "sg") -> str:
        async def whole() -> None:
            async with RedisStore(redis_server.url, prefix) as store:
                await work(store)
                give_up = asyncio.get_running_loop().time() + SECONDS
                while len(await store.limiters()) < len(store.known):
                    assert asyncio.get_running_loop().time() < give_up
                    await asyncio.sleep(0.01)

        asyncio.run(whole())
        return f"{redis_server.url}?prefix={prefix}"

    return on


async def chat(store: RedisStore) -> None:
    limiter = Limiter("3/hour; bytes: 1MB/hour", store=store, name="chat")
    charged = {"ann": 1, "bob": 3, "bad\n\\\x1b[31m": 2, b"\xff": 1, "x" * 200: 1}
    for key, times in charged.items():
        for _ in range(times):
            assert await limiter.hit(key, {"bytes": 1000})
    await Limiter("5/second", store=store, name="quiet").hit("x", 0)


def test_peek_tells_how_a_key_stands_and_charges_nothing(known: Callable[..., str]) -> None:
    url = known(chat)
    for _ in range(5):
        text = run(url, "peek", "chat", "ann")
    assert "chat: admitted" in text
    assert "3/hour: 2 of 3 left" in text
    assert re.search(r"bytes: 1,047,[56]\d\d of 1,048,576 left", text)
    text = run(url, "peek", "chat", "bob")
    assert "chat: refused, again in" in text
    assert "3/hour: 0 of 3 left" in text
    told = json.loads(run(url, "peek", "chat", "bob", "--json"))
    assert told["key"] == "bob"
    assert told["limiters"]["chat"]["allowed"] is False
    assert 0 < told["limiters"]["chat"]["retry_after"] <= 1200
    assert told["limiters"]["chat"]["quotas"][0]["remaining"] == 0
    assert "3/hour: 3 of 3 left" in run(url, "peek", "chat", "nobody")


def test_reset_ban_and_unban(known: Callable[..., str]) -> None:
    url = known(chat)
    assert run(url, "reset", "chat", "bob") == "chat: bob starts anew\n"
    assert "3/hour: 3 of 3 left" in run(url, "peek", "chat", "bob")
    assert run(url, "ban", "chat", "ann", "--for", "1h30m") == (
        "chat: ann is banned for 1 hour 30 minutes\n"
    )
    assert "chat: banned, ends in 1 hour 30 minutes" in run(url, "peek", "chat", "ann")
    assert run(url, "unban", "chat", "ann") == "chat: ann is no longer banned\n"
    assert run(url, "unban", "chat", "ann") == "chat: ann was not banned\n"
    assert "3/hour: 2 of 3 left" in run(url, "peek", "chat", "ann")  # what was charged counts
    assert run(url, "ban", "chat", "ann") == "chat: ann is banned for 1 hour\n"
    assert run(url, "reset", "chat", "ann") == "chat: ann starts anew, unbanned\n"


def test_top_lists_limiters_and_who_has_least_left(known: Callable[..., str]) -> None:
    url = known(chat)
    run(url, "ban", "chat", "carl", "--for", "2d")
    told = json.loads(run(url, "top", "--json"))
    assert told["whole"] is True
    rows = {row["name"]: row for row in told["limiters"]}
    assert rows["quiet"]["quotas"] == "5/second"
    assert rows["quiet"]["keys"] == 0
    row = rows["chat"]
    assert row["quotas"] == "3/hour; 1MB/hour"
    assert (row["keys"], row["refused"], row["long_keys"]) == (5, 2, 1)
    keys = [one["key"] for one in row["least"]]
    assert keys[:3] == ["carl", "bob", "bad\\x0a\\\\\\x1b[31m"]
    assert sorted(keys[3:]) == ["\\xff", "ann"]
    assert row["least"][0]["stands"].startswith("banned, ends in 2 days")
    assert [one["left"] for one in row["least"][1:3]] == ["0 of 3", "1 of 3"]
    # what is shown can be given back
    assert "1 of 3 left" in run(url, "peek", "chat", row["least"][2]["key"])
    assert "2 of 3 left" in run(url, "peek", "chat", "\\xff")

    text = run(url, "top", "chat", "--count", "1")
    assert "carl" in text and "bob" not in text and "quiet" not in text
    assert "\x1b" not in run(url, "top")  # neither colours, nor what a key brings
    assert "All keys of the server were looked at." in text


def test_a_scan_has_a_bound(known: Callable[..., str], redis_server: Server) -> None:
    url = known(chat)
    with redis_server.client() as client:
        client.mset({f"other:{n}": "" for n in range(5000)})
    text = run(url, "top", "--scan", "1000")
    assert "keys of the server were looked at, not all" in text
    assert json.loads(run(url, "top", "--scan", "1000", "--json"))["looked"] <= 1024


def test_slots_are_counted_and_cannot_be_reset(known: Callable[..., str]) -> None:
    def commands(url: str) -> None:
        assert "rooms: 2 of 4 held" in run(url, "peek", "rooms", "ann")
        assert json.loads(run(url, "top", "--json"))["limiters"][0]["least"][0] == {
            "key": "ann",
            "admitted": True,
            "left": "2 of 4",
            "stands": "2 held",
            "held": 2,
        }
        for command in ("reset", "ban", "unban"):
            assert f"which has no {command}" in refused(url, command, "rooms", "ann")

    async def held(store: RedisStore) -> None:
        rooms = ConcurrencyLimiter(4, store=store, name="rooms")
        slots = [await rooms.acquire("ann"), await rooms.acquire("ann")]
        while not await store.limiters():
            await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, commands, f"{url}?prefix=slots")
        for slot in slots:
            assert slot is not None
            await rooms.release(slot)

    url = known(chat).partition("?")[0]
    known(held, "slots")


def test_what_is_wrong_is_said_in_words(known: Callable[..., str]) -> None:
    url = known(chat)
    text = refused(url, "ban", "caht", "ann")
    assert "there is no limiter 'caht' in redis://127.0.0.1" in text
    assert "did you mean 'chat'? There are chat, quiet." in text
    assert "no limiter is known" in refused(url.replace("=sg", "=other"), "peek", "chat", "ann")
    assert "no limiter is known" in refused(url.replace("=sg", "=other"), "top")
    assert "which store?" in refused(None, "top")
    assert "memory of the process that limits" in refused("memory://", "top")
    assert "there is no store for https://" in refused("https://x", "top")
    away = refused(f"redis://u:secret@127.0.0.1:{serving.free_port()}", "peek", "chat", "ann")
    assert "could not be asked" in away and "secret" not in away
    assert "'soon' is no duration" in refused(url, "ban", "chat", "ann", "--for", "soon")
    assert "at most 10 years" in refused(url, "ban", "chat", "ann", "--for", "99999d")
    assert "written twice" in refused(url, "peek", "chat", "a\\b")


@given(st.binary(max_size=40))
def test_a_key_is_told_as_it_is_shown(key: bytes) -> None:
    assert unescape_key(escape_key(key)) == key
    assert unescape_key(escape_key(key).encode()) == key


def test_a_ban_reaches_the_live_connections_of_every_process(redis_server: Server) -> None:
    env = {"TEST_STORE": redis_server.url, "PYTHONWARNINGS": "error"}
    with (
        serving.uvicorn("adapters.banned_app:app", env=env, app_dir=TESTS) as first,
        serving.uvicorn("adapters.banned_app:app", env=env, app_dir=TESTS) as second,
    ):

        def known() -> None:
            with redis_server.client() as client:
                key = registry.registry_key("sg")
                until(
                    lambda: client.hexists(key, "chat.messages"), "the servers tell their limiters"
                )

        asyncio.run(asyncio.wait_for(banning(redis_server.url, first, second, known), 60))
