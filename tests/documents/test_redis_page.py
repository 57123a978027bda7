"""The programs of docs/redis.md run, on a real server in place of the one they name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from redis_servers.server import Server

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_printed_program_runs(redis_server: Server, number: int) -> None:
    program = PROGRAMS[number].replace("redis://localhost", redis_server.url)
    assert program != PROGRAMS[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith(("admitted", "{'allowed': True"))


def test_the_keys_are_called_as_the_page_says(redis_server: Server) -> None:
    names = set(re.findall(r"^\| `(sg:[^`]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    program = f"""
import asyncio
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore

async def main():
    store = RedisStore({redis_server.url!r})
    log = Limiter("100/minute using sliding-log", store=store, name="chat")
    for _ in range(30):
        await log.hit("user:42")
    slots = ConcurrencyLimiter(1, store=store, name="chat")
    slot = await slots.acquire("user:42")
    connection, = store._router(asyncio.get_running_loop()).connections()
    print(await connection.command(["KEYS", "*"], 5))
    await slots.release(slot)
    await store.aclose()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(re.findall(r"b'([^']+)'", done.stdout)) == names


def test_a_user_with_the_printed_rights_can_do_it_all(redis_server: Server) -> None:
    found = re.search(r"^ACL SETUSER (.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    name, *rights = found[1].split()
    url = redis_server.url.replace("redis://", f"redis://{name}:secret@")
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", name, "reset", *rights)
    program = f"""
import asyncio
from sluicegate import ConcurrencyLimiter, Limiter, RedisStore, hit_all

async def main():
    async with RedisStore({url!r}) as store:
        for number, quotas in enumerate((
            "5/second burst 20; bytes: 1MB/minute", "100/minute using sliding-log",
            "10/minute using fixed-window; 5/minute using sliding-window",
        )):
            limiter = Limiter(quotas, store=store, name=f"l{{number}}")
            for _ in range(60):
                await limiter.hit("a")
            await limiter.ban("a", 1)
            await limiter.reset("a")
            await (await limiter.reserve("a", 2)).settle(1)
            await limiter.peek("a")
            await limiter.wait("a")
            await hit_all((limiter, "x", 1), (limiter, "y", 1))
        slots = ConcurrencyLimiter(2, store=store, name="slots")
        slot = await slots.acquire("a")
        print(await slots.count("a"), await slots.release(slot), await store.ping())

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    with redis_server.client() as client:
        client.execute_command("ACL", "DELUSER", name)
    assert done.stdout == "1 True True\n", done.stderr
