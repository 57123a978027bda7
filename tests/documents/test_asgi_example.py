"""The example program of the ASGI door, under a real server, and its page on moving over."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

import serving
from documents.programs import ROOT, fenced_blocks

KEY = "a key for the example, of more than 32 bytes"


def token(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, 'HS256')}"}


@pytest.mark.server
async def test_the_example(serve: Callable[..., serving.Server]) -> None:
    server = serve("asgi_rules:app", app_dir=ROOT / "docs" / "examples", env={"TOKEN_KEY": KEY})
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:

        async def statuses(count: int, path: str, **options: Any) -> list[int]:
            return [(await http.get(path, **options)).status_code for _ in range(count)]

        assert await statuses(3, "/search?q=x") == [200, 200, 429]
        assert await statuses(12, "/search", headers=token(sub="ada")) == [200] * 10 + [429] * 2
        staff = token(sub="root", group="staff")
        assert await statuses(30, "/search", headers=staff) == [200] * 30
        in_query = jwt.encode({"sub": "ada"}, KEY, "HS256")
        assert await statuses(1, f"/search?token={in_query}") == [429]
        for bad in (token(sub="ada", exp=time.time() - 60), {"Authorization": "Bearer junk"}):
            answer = await http.get("/search", headers=bad)
            assert (answer.status_code, answer.json()) == (401, {"error": "this token is no good"})

        reports = [(await http.get(f"/reports/{n}")).status_code for n in range(5)]
        assert reports == [200, 200, 200, 429, 429]
        guesses = [(await http.post("/login")).status_code for _ in range(7)]
        assert guesses == [403] * 5 + [429] * 2
        shut_out = await http.get("/search")
        assert shut_out.json() == {"error": "too many requests", "retry_after": 300}
        assert shut_out.headers["retry-after"] == "300"
        assert await statuses(1, "/reports/9", headers=staff) == [200]


def test_the_programs_of_the_page_run() -> None:
    page = ROOT / "docs" / "moving-over" / "asgi-ratelimit.md"
    programs = [one for found in fenced_blocks(page.read_text()).values() for one in found]
    assert programs
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert Path(page.parent / "../examples/asgi_rules.py").exists()
