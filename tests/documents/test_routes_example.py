"""The example of limits on routes, under a real server, asked by real clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import http_sf
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import serving
from documents.programs import ROOT

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(params=["uvicorn websockets", "uvicorn wsproto", "hypercorn"])
def server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    kind, *protocol = request.param.split()
    serve = getattr(serving, kind)
    # the address is the connection's: uvicorn itself would believe X-Forwarded-For
    options = ("--no-proxy-headers", "--ws", *protocol) if protocol else ()
    env = {"TRUSTED_PROXIES": "private"}
    with serve("routes:app", *options, app_dir=EXAMPLES, env=env) as server:
        yield server
        server.stop()
        assert "Traceback" not in server.log()


async def test_the_example(server: serving.Server) -> None:
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:

        async def statuses(count: int, path: str, client: str = "198.51.100.7") -> list[int]:
            headers = {"X-Forwarded-For": f"9.9.9.9, {client}"}
            return [(await http.get(path, headers=headers)).status_code for _ in range(count)]

        codes = await statuses(25, "/")
        assert codes[:20] == [200] * 20 and 429 in codes
        assert await statuses(1, "/", "198.51.100.8") == [200]
        assert await statuses(30, "/health") == [200] * 30
        assert await statuses(2, "/reports/4") == [200, 200]
        assert await statuses(3, "/reports") == [200, 200, 429]
        assert await statuses(1, "/reports/x") == [404]

        told = await http.get("/search?q=x")
        ((policy, of_policy),) = http_sf.parse(
            told.headers["RateLimit-Policy"].encode(), tltype="list"
        )
        assert (policy, of_policy) == ("default", {"q": 5, "w": 1})

        # at once: the burst, and what comes back meanwhile
        at_once = await asyncio.gather(
            *(
                http.get("/search?q=x", headers={"X-Forwarded-For": "203.0.113.5"})
                for _ in range(40)
            )
        )
        codes = [answer.status_code for answer in at_once]
        assert 10 <= codes.count(200) <= 20 and set(codes) == {200, 429}
        refused = next(answer for answer in at_once if answer.status_code == 429)
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 3
        assert refused.json()["type"].endswith("#quota-exceeded")

        async def log_in(password: str) -> int:
            return (await http.post("/login", params={"password": password})).status_code

        assert [await log_in("open sesame") for _ in range(10)] == [200] * 10
        guesses = await asyncio.gather(*(log_in(f"guess {n}") for n in range(20)))
        assert sorted(guesses) == [401] * 5 + [429] * 15
        assert (await http.get("/openapi.json")).json()["paths"]["/search"]["get"]["parameters"]


async def test_the_handshakes_of_the_example(server: serving.Server) -> None:
    for _ in range(3):
        async with connect(f"{server.ws}/ws") as socket:
            await socket.send("hello")
            assert await asyncio.wait_for(socket.recv(), 20) == "hello"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{server.ws}/ws"):
            pass
    response: Any = refused.value.response
    assert response.status_code == 429
    assert 1 <= int(response.headers["Retry-After"]) <= 25
    assert json.loads(response.body)["status"] == 429
