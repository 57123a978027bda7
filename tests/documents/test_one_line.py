"""The example of one line for a whole app, under a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import serving
from documents.programs import ROOT

pytestmark = pytest.mark.server

KEY = "a key for the example, of more than 32 bytes"


@pytest.fixture
def server(serve: Callable[..., serving.Server]) -> serving.Server:
    return serve("one_line:app", app_dir=ROOT / "docs" / "examples", env={"TOKEN_KEY": KEY})


def url(server: serving.Server, user: str, **claims: str) -> str:
    return f"{server.ws}/ws?token={jwt.encode({'sub': user, **claims}, KEY, 'HS256')}"


async def test_messages_sizes_and_places(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connect(url(server, "ada"), open_timeout=20))
            for _ in range(3)
        ]
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url(server, "ada"), open_timeout=20):
                pass
        assert refused.value.response.status_code == 429

        for n in range(30):
            await sockets[0].send(str(n))
        answers = [await asyncio.wait_for(sockets[0].recv(), 20) for _ in range(21)]
        echoed = [text for text in answers if str(text).isdigit()]
        assert 20 <= len(echoed) <= 21
        notice = next(json.loads(text) for text in answers if not str(text).isdigit())
        assert notice["error"] == "rate_limited"
        await sockets[1].send("x" * 65537)
        notice = json.loads(await asyncio.wait_for(sockets[1].recv(), 20))
        assert (notice["reason"], notice["limit"]) == ("message_too_large", 65536)

        premium = await stack.enter_async_context(
            connect(url(server, "eve", group="premium"), open_timeout=20)
        )
        for n in range(100):
            await premium.send(str(n))
        for n in range(100):
            assert await asyncio.wait_for(premium.recv(), 20) == str(n)
        for n in range(60):
            await premium.send(str(n))
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(60):
                await asyncio.wait_for(premium.recv(), 20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason == "Rate limit exceeded; retry after 1"


async def test_handshakes_are_limited_by_address_before_tokens_are_looked_at(
    server: serving.Server,
) -> None:
    statuses = []
    for _ in range(12):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{server.ws}/ws?token=junk", open_timeout=20):
                pass
        statuses.append(refused.value.response.status_code)
    assert statuses == [401] * 10 + [429] * 2
    assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_wrong_passwords_are_counted_and_right_ones_are_not(server: serving.Server) -> None:
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:

        async def log_in(password: str) -> int:
            answer = await http.post("/login", json={"name": "ada", "password": password})
            return answer.status_code

        assert {await log_in("open sesame") for _ in range(9)} == {200}
        guesses = await asyncio.gather(*(log_in(str(n)) for n in range(20)))
        assert sorted(guesses) == [401] * 5 + [429] * 15
        assert await log_in("open sesame") == 429
        assert [(await http.get("/")).status_code for _ in range(20)] == [200] * 20
