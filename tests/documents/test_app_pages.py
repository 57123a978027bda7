"""Our own pages about sluicegate.app: the example as it stands, behind a real server, and the
programs of docs/moving-over/app.md."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import serving

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "moving-over" / "app.md"

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("program", BLOCKS, ids=range(len(BLOCKS)))
def test_a_printed_program_runs(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_there_are_programs() -> None:
    assert len(BLOCKS) == 2


def test_each_page_that_is_linked_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target


def test_the_index_has_each_page() -> None:
    index = (DOCS / "moving-over.md").read_text(encoding="utf-8")
    for page in PAGE.parent.glob("*.md"):
        assert f"](moving-over/{page.name})" in index, page.name


@pytest.mark.server
async def test_the_example(serve: Callable[..., serving.Server]) -> None:
    numbers = {
        "RATE_LIMIT_PER_MINUTE": "4",
        "RATE_LIMIT_BURST": "1",
        "WS_MAX_CONNECTIONS_PER_USER": "1",
        "WS_MESSAGE_RATE_LIMIT": "3",
    }
    server = serve("app_limits:app", app_dir=DOCS / "examples", env=numbers)

    async with connect(f"{server.ws}/post") as websocket:
        for n in range(4):
            await websocket.send(f"notice {n}")
        answers = [json.loads(await asyncio.wait_for(websocket.recv(), 20)) for _ in range(4)]
        assert answers[:3] == [{"posted": f"notice {n}"} for n in range(3)]
        assert answers[3]["error"] == "rate_limited"
        async with connect(f"{server.ws}/post") as second:
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(second.recv(), 20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008

    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
        first = await http.get("/")
        assert first.json() == ["notice 0", "notice 1", "notice 2"]
        assert first.headers["x-ratelimit-remaining"] == "4"
        searches = [await http.get("/search", params={"words": "1"}) for _ in range(3)]
        assert [one.status_code for one in searches] == [200, 200, 429]
        assert searches[0].json() == ["notice 1"]
        assert 1 <= int(searches[2].headers["retry-after"]) <= 10
        assert [(await http.get("/")).status_code for _ in range(5)] == [200] * 4 + [429]
        metrics = (await http.get("/metrics/")).text
    for kind, count in (("http", 2), ("ws_connection", 1), ("ws_message", 1)):
        assert f'rate_limit_hits_total{{limit_type="{kind}"}} {count}.0' in metrics
