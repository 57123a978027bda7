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
