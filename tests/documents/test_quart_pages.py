"""What our own pages say of Quart: the example is served and talked to, the printed runs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

import serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "moving-over" / "quart.md"


async def hears(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), 20))


@pytest.mark.server
async def test_the_example() -> None:
    with serving.hypercorn("quart_chat:app", app_dir=ROOT / "docs" / "examples") as server:

        def client(name: str) -> connect:
            return connect(f"{server.ws}/chat/{name}", open_timeout=20, proxy=None)

        async with client("ada") as ada, client("eve") as eve:
            await ada.send("!hello")
            assert [await hears(ada), await hears(eve)] == ["ada: !hello"] * 2
            await ada.send("!again")
            assert re.fullmatch(r"\(your next shout in (60|59|58) s\)", await hears(ada))
            for n in range(9):
                await ada.send(str(n))
                assert [await hears(ada), await hears(eve)] == [f"ada: {n}"] * 2
            await ada.send(b"ten lines are enough")
            assert re.fullmatch(r"\(your next line in [4-6] s\)", await hears(ada))
            async with client("ada") as again:  # she is one person on two connections
                await again.send("or are they?")
                assert re.fullmatch(r"\(your next line in [3-6] s\)", await hears(again))
            await eve.send(b"hello ada")
            assert [await hears(ada), await hears(eve)] == ["eve: hello ada"] * 2

        connected = 3
        with pytest.raises(InvalidStatus) as refused:  # ten a minute
            while connected < 50:
                async with client("ada"):
                    connected += 1
        assert refused.value.response.status_code == 429
        assert 10 <= connected <= 15

        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            answers = [await http.get(f"{server.http}/lines") for _ in range(6)]
        said = ["ada: !hello", *(f"ada: {n}" for n in range(9)), "eve: hello ada"]
        assert answers[0].json() == said
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert 1 <= int(answers[5].headers["Retry-After"]) <= 6


def test_what_the_page_prints_runs() -> None:
    printed = re.findall(
        r"^( *)```python\n(.*?)^ *```", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(printed) == 2
    for indent, text in printed:
        program = "\n".join(line.removeprefix(indent) for line in text.splitlines())
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_the_page_names_the_oldest_quart_that_the_extra_does() -> None:
    extra = re.search(
        r'^quart = \["quart>=([\d.]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.M
    )
    assert extra is not None
    assert f"Quart {extra[1]} and later" in PAGE.read_text(encoding="utf-8")
