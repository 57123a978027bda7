"""A ban by a command that reaches the open connections of every process, over any store."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import connect

import serving

SECONDS = 20.0


async def banning(
    store: str, first: serving.Server, second: serving.Server, known: Callable[[], object]
) -> None:
    """Bans `ann` by a command while she is connected to two processes that serve banned_app over
    the store of that URL. `known()` returns once the store knows their limiters."""
    loop = asyncio.get_running_loop()

    async def ask(client: Any, text: str) -> str:
        await client.send(text)
        reply = await asyncio.wait_for(client.recv(), SECONDS)
        assert isinstance(reply, str)
        return reply

    async def command(*words: str) -> str:
        """In a process of its own, as an operator's."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sluicegate", *words),
            env={**os.environ, "SLUICEGATE_STORE": store, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 0, output.decode()
        return output.decode()

    def opening(server: serving.Server, path: str) -> Any:
        return connect(f"{server.ws}/{path}", proxy=None)

    async with (
        opening(first, "echo/ann") as one,
        opening(second, "echo/ann") as two,
        opening(second, "block/ann") as three,
        opening(first, "echo/bob") as other,
    ):
        everybody = (one, two, three)
        for client in (*everybody, other):
            assert await ask(client, "hello") == "hello"
        known()
        assert "chat.messages: ann is banned for 1 hour" in await command("ban", "chat", "ann")
        banned_at = loop.time()
        assert await ask(one, "x") == "refused"
        assert await ask(two, "x") == "refused"
        notice = json.loads(await ask(three, "x"))
        assert notice["error"] == "rate_limited"
        assert 3590 < notice["retry_after"] <= 3600
        assert loop.time() - banned_at < 1
        assert await ask(other, "y") == "y"
        # nor does a new connection come in
        async with opening(second, "echo/ann") as late:
            await asyncio.wait_for(late.wait_closed(), SECONDS)
            assert late.close_code == 1008
        assert "ann is no longer banned" in await command("unban", "chat", "ann")
        for client in everybody:
            assert await ask(client, "z") == "z"
