"""The examples of Socket.IO and Channels, each behind a real server, met by a real client; and
the programs of the page on moving over from ratethrottle."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "moving-over" / "ratethrottle.md"


@pytest.mark.server
async def test_socketio_chat() -> None:
    with serving.uvicorn("socketio_chat:app", app_dir=EXAMPLES) as server:
        async with aiohttp.ClientSession() as http:
            ada, eve = (
                socketio.AsyncClient(reconnection=False, http_session=http) for _ in range(2)
            )
            heard: asyncio.Queue[Any] = asyncio.Queue()
            eve.on("said", heard.put)
            try:
                for one in (ada, eve):
                    await one.connect(server.http, transports=["websocket"], wait_timeout=20)
                    assert await one.call("join", "lobby", timeout=20) == {"history": []}
                await ada.call("say", ("lobby", "hello"), timeout=20)
                assert await asyncio.wait_for(heard.get(), 20) == {"room": "lobby", "text": "hello"}
                assert await eve.call("say", ("attic", "hello"), timeout=20) == {
                    "error": "not_there"
                }
                too_large = await ada.call("say", ("lobby", "x" * 2000), timeout=20)
                assert too_large == {"error": "rate_limited", "retry_after": None}
                # each counts as ten, of twenty and the few that have come since
                found = await asyncio.gather(
                    *(eve.call("search", ("lobby", "ell"), timeout=20) for _ in range(6))
                )
                assert found[0] == {"found": ["hello"]}
                assert found[-1]["error"] == "rate_limited"
                assert found[-1]["retry_after"] in (1, 2)
            finally:
                await ada.disconnect()
                await eve.disconnect()


@pytest.fixture(params=["uvicorn", "daphne"])
def channels_server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    app = "channels_chat:application"
    if request.param == "uvicorn":
        with serving.uvicorn(app, "--lifespan", "off", app_dir=EXAMPLES) as server:
            yield server
        return
    port = serving.free_port()
    command = [sys.executable, "-m", "daphne", "-p", str(port), "-v", "0", app]
    with serving.serving(command, port, cwd=EXAMPLES) as server:
        yield server


@pytest.mark.server
async def test_channels_chat(channels_server: serving.Server) -> None:
    url = f"{channels_server.ws}/chat/lobby"
    async with connect(url) as ada, connect(url) as eve:
        async with connect(url) as third:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(third.recv(), 20)
            assert third.close_code in (1008, 4008)
        for n in range(30):
            await ada.send(json.dumps({"text": n}))
        for one in (ada, eve):
            got = [json.loads(await asyncio.wait_for(one.recv(), 20)) for _ in range(30)]
            assert got == [{"text": n} for n in range(30)]
        with suppress(ConnectionClosed):
            for _ in range(25):
                await eve.send(json.dumps({"text": "more"}))
        notice = json.loads(await asyncio.wait_for(eve.recv(), 20))
        assert (notice["error"], notice["reason"]) == ("rate_limited", "rate_limit_exceeded")
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(eve.recv(), 20)
        assert eve.close_code in (1008, 4008)


def test_the_programs_of_the_page_run() -> None:
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_what_the_page_links_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
