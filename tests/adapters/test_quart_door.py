"""The Quart door behind hypercorn (and uvicorn) in a process of its own, met by real clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

import serving

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    # to uvicorn this machine is a proxy, whose headers it believes unless told otherwise
    options = ["--no-proxy-headers"] if request.param == "uvicorn" else []
    with getattr(serving, request.param)("quart_app:app", *options, app_dir=HERE) as server:
        yield server


@pytest.fixture(scope="module")
def bare_server() -> Iterator[serving.Server]:
    with serving.hypercorn("quart_app:bare", app_dir=HERE) as server:
        yield server


def client(server: serving.Server, path: str, name: str = "ada") -> connect:
    url = f"{server.ws}{path}?name={name}"
    return connect(url, open_timeout=20, ping_interval=None, proxy=None)


async def answer(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), 20))


async def burst(websocket: ClientConnection, count: int, text: str = "x") -> int:
    """Sends at once, and says how many came back as sent."""
    for _ in range(count):
        await websocket.send(text)
    return sum([await answer(websocket) == text for _ in range(count)])


async def get(server: serving.Server, path: str, name: str = "ada", **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        return await http.get(f"{server.http}{path}", params={"name": name}, **more)


def headers(response: Any) -> tuple[str | None, ...]:
    names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
    return tuple(response.headers.get(name) for name in names)


# ---- requests


async def test_headers_and_the_refusal(server: serving.Server) -> None:
    answers = [await get(server, "/five", "headers") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert headers(answers[0]) == ("5", "4", "10", None)
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == list("432100")
    limit, remaining, reset, retry_after = headers(answers[5])
    assert (limit, remaining) == ("5", "0")
    assert 45 <= int(str(reset)) <= 50
    assert 5 <= int(str(retry_after)) <= 10
    assert "Too Many Requests" in answers[5].text


async def test_twenty_requests_at_once_with_a_limit_of_one(server: serving.Server) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        url = f"{server.http}/address"
        answers = await asyncio.gather(*(http.get(url, params={"name": "all"}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 19


async def test_who_waits_as_told_is_admitted(server: serving.Server) -> None:
    assert (await get(server, "/one", "waits")).status_code == 200
    refused = await get(server, "/one", "waits")
    assert refused.status_code == 429
    await asyncio.sleep(int(refused.headers["Retry-After"]))
    assert (await get(server, "/one", "waits")).status_code == 200


async def test_defaults_and_exempt_routes(server: serving.Server) -> None:
    assert headers(await get(server, "/default", "defaults"))[:2] == ("50", "49")
    assert headers(await get(server, "/exempt", "defaults")) == (None,) * 4
    # beside a limit of its own, of which the period is shorter
    assert headers(await get(server, "/five", "defaults"))[:2] == ("5", "4")


async def test_a_route_that_is_not_there(server: serving.Server) -> None:
    nothing = await get(server, "/nothing")
    assert (nothing.status_code, headers(nothing)) == (404, (None,) * 4)


# ---- connections


async def refusal(server: serving.Server, path: str, name: str) -> Any:
    with pytest.raises(InvalidStatus) as refused:
        async with client(server, path, name):
            pass
    return refused.value.response


async def test_a_refused_handshake_is_seen_as_429(server: serving.Server) -> None:
    async with client(server, "/connections/one", "denied") as websocket:
        assert await answer(websocket) == "hello"
    response = await refusal(server, "/connections/one", "denied")
    assert response.status_code == 429
    assert headers(response)[:2] == ("1", "0")
    assert 50 <= int(response.headers["Retry-After"]) <= 60
    async with client(server, "/connections/one", "another") as websocket:
        assert await answer(websocket) == "hello"


async def test_twenty_connections_at_once_with_a_limit_of_one(server: serving.Server) -> None:
    async def is_in() -> bool:
        try:
            async with client(server, "/connections/one", "at-once") as websocket:
                return await answer(websocket) == "hello"
        except InvalidStatus as refused:
            assert refused.response.status_code == 429
            return False

    assert sum(await asyncio.gather(*(is_in() for _ in range(20)))) == 1


async def test_without_the_extension_it_is_seen_as_403(bare_server: serving.Server) -> None:
    async with client(bare_server, "/connections/one", "denied") as websocket:
        assert await answer(websocket) == "hello"
    assert (await refusal(bare_server, "/connections/one", "denied")).status_code == 403


async def test_an_exempt_websocket_route_is_not_limited(server: serving.Server) -> None:
    for _ in range(60):
        async with client(server, "/connections", "exempt") as websocket:
            assert await answer(websocket) == "hello"


# ---- messages


async def test_messages_over_all_connections_of_a_client(server: serving.Server) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "/echo/30/3000", "shared"))
            for _ in range(5)
        ]
        assert sum(await asyncio.gather(*(burst(one, 10) for one in clients))) == 30
        other = await stack.enter_async_context(client(server, "/echo/30/3000", "other"))
        assert await burst(other, 35) == 30


async def test_a_new_connection_gets_no_new_limit(server: serving.Server) -> None:
    for expected in (3, 0, 0):
        async with client(server, "/echo/3/3000", "again") as websocket:
            assert await burst(websocket, 3) == expected


async def test_contexts_count_apart(server: serving.Server) -> None:
    async with client(server, "/echo/2/3000", "contexts") as websocket:
        assert await burst(websocket, 4, "chat:x") == 2
        assert await burst(websocket, 4, "command:x") == 2
        assert await burst(websocket, 4, "x") == 2
        await websocket.send("command:x")
        told = json.loads(await answer(websocket))
    assert 1490 <= told["retry_after"] <= 1500
    assert told["message"] == (
        f"WebSocket rate limit exceeded. Retry after {told['retry_after']} seconds. "
        f"Context: command"
    )


async def test_over_a_longer_run_it_is_the_limit_to_the_message(server: serving.Server) -> None:
    """Ten at once, and then ten a second, pressed by three connections."""
    admitted: list[float] = []

    async def press(websocket: ClientConnection, end: float) -> None:
        while time.monotonic() < end:
            sent = time.monotonic()
            await websocket.send("x")
            if await answer(websocket) == "x":
                admitted.append(sent)
            await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server, "/echo/10/1", "longer"))
            for _ in range(3)
        ]
        started = time.monotonic()
        await asyncio.gather(*(press(one, started + 3) for one in clients))
    took = time.monotonic() - started
    assert 35 <= len(admitted) <= 10 + 10 * took


# ---- who it is


async def test_a_header_makes_nobody_another(server: serving.Server) -> None:
    # the limit by address was reached by twenty requests at once, or is by the first of these
    for n in range(5):
        forged = dict.fromkeys(("X-Forwarded-For", "X-Real-IP"), f"198.51.100.{n}")
        last = await get(server, "/address", headers=forged)
    assert last.status_code == 429


async def test_behind_a_proxy_that_the_server_trusts() -> None:
    with serving.hypercorn("quart_app:proxied", app_dir=HERE) as server:
        for proxied, expected in (
            ("198.51.100.1", 200),
            ("198.51.100.2", 200),
            ("198.51.100.1", 429),
            ("203.0.113.9, 198.51.100.2", 429),  # what the client wrote itself stands first
        ):
            answer = await get(server, "/address", headers={"X-Forwarded-For": proxied})
            assert answer.status_code == expected
