"""The ASGI door before Starlette and FastAPI, behind uvicorn in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import itsdangerous
import jwt
import pytest

import serving
from adapters.asgi_app import KEY

pytestmark = pytest.mark.server

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["starlette", "fastapi"])
def server(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    with serving.uvicorn(f"asgi_app:{request.param}", app_dir=HERE) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[serving.Server]:
    # the address is the connection's: uvicorn itself would believe X-Forwarded-For
    with serving.uvicorn("asgi_app:starlette", "--no-proxy-headers", app_dir=HERE) as server:
        yield server
        server.stop()
        assert "Traceback" not in server.log()  # no attack was a fault of ours


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


class User:
    """A user nobody else is, and his requests."""

    def __init__(self, http: httpx.AsyncClient, server: serving.Server, group: str = "default"):
        self.http = http
        self.server = server
        self.headers = {"user": uuid4().hex, "group": group}

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return await self.http.request(
            method, self.server.http + path, headers={**self.headers, **headers}
        )

    async def passes(self, *paths: str) -> list[bool]:
        answers = [await self.get(path) for path in paths]
        assert {answer.status_code for answer in answers} <= {200, 429}
        return [answer.status_code == 200 for answer in answers]


async def test_of_twenty_at_once_one_passes(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    for _ in range(3):
        user = User(http, server)
        answers = await asyncio.gather(*(user.get("/once") for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] + [429] * 19
        for answer in answers:
            if answer.status_code == 429:
                assert 59 <= int(answer.headers["retry-after"]) <= 60
                assert answer.content == b""
            else:
                assert answer.text == "hello"
                assert "retry-after" not in answer.headers


async def test_it_recovers_when_it_said_it_would(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    user = User(http, server)
    for _ in range(2):
        assert await user.passes("/second", "/second") == [True, True]
        refused = await user.get("/second")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        await asyncio.sleep(1)


async def test_all_units_are_one_decision(server: serving.Server, http: httpx.AsyncClient) -> None:
    user = User(http, server)
    assert await user.passes("/units", "/units", "/units", "/units") == [True, True, False, False]
    await asyncio.sleep(1)
    # what the second refused was not charged to the minute, of which one is left
    assert await user.passes("/units", "/units") == [True, False]
    assert 55 <= int((await user.get("/units")).headers["retry-after"]) <= 59


async def test_an_exempt_group_is_never_refused(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    admin = User(http, server, "admin")
    answers = await asyncio.gather(*(admin.get("/once") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}


async def test_the_first_pattern_with_a_rule_for_the_group_holds(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    both = User(http, server, "both")
    assert await both.passes("/once/both", "/once/both") == [True, False]
    assert await both.passes("/once/x", "/once/x", "/once/x") == [True, True, False]
    # whose group has no rule at the first pattern is held to the second
    assert await User(http, server).passes("/once/both", "/once/both") == [True, False]
    # a group that no rule is for is not limited
    assert all(await User(http, server, "unheard-of").passes(*["/once"] * 5))


async def test_a_zone_shares_a_pool(server: serving.Server, http: httpx.AsyncClient) -> None:
    user = User(http, server)
    assert await user.passes("/zone/1", "/zone/2") == [True, True]
    assert [(await user.get("/zone", "POST")).status_code for _ in range(2)] == [200, 429]
    assert await user.passes("/zone/3", "/zone") == [False, True]
    assert await User(http, server).passes("/zone/1") == [True]


async def test_a_block_counts_down_and_is_user_wide(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    user = User(http, server)
    begun = time.monotonic()
    assert await user.passes("/block", "/block") == [True, False]
    refused = await user.get("/anything/else")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert await User(http, server).passes("/block", "/anything/else") == [True, True]
    assert (await user.get("/block", group="admin")).status_code == 200
    await asyncio.sleep(max(0, begun + 1.2 - time.monotonic()))
    for path in ("/block", "/anything/else"):  # the window of a second is over, the block is not
        refused = await user.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    await asyncio.sleep(1)
    assert await user.passes("/block", "/anything/else") == [True, True]


async def test_an_error_of_authenticate_that_nobody_handles_is_the_servers(
    server: serving.Server, http: httpx.AsyncClient
) -> None:
    answer = await http.get(server.http + "/once")
    assert answer.status_code == 500
    give_up = time.monotonic() + 20
    while "EmptyInformation: " not in server.log():  # written after the answer
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


# ---- identity


async def statuses(http: httpx.AsyncClient, url: str, count: int, **options: Any) -> list[int]:
    answers = [await http.get(url, **options) for _ in range(count)]
    return [answer.status_code for answer in answers]


def token(key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode(claims, key, algorithm)


async def test_a_token_is_who_it_says(guarded: serving.Server, http: httpx.AsyncClient) -> None:
    url = guarded.http + "/jwt/x"
    ada = {"Authorization": f"Bearer {token(user=uuid4().hex)}"}
    assert await statuses(http, url, 4, headers=ada) == [200, 200, 200, 429]
    small = token(user=uuid4().hex, group="small")
    assert await statuses(http, f"{url}?token={small}", 2) == [200, 429]
    assert await statuses(http, url, 1, headers={"cookie": f"token={small}"}) == [429]


async def test_a_token_that_proves_nothing_is_a_401(
    guarded: serving.Server, http: httpx.AsyncClient
) -> None:
    url = guarded.http + "/jwt/x"
    header, claims, signature = token(user="ada", group="admin").split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for bad in (
        token(user="ada", exp=int(time.time()) - 1),
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{header}.{claims}.",
        token("another key, as long as that of the application is", user="ada"),
        token(algorithm="HS384", user="ada"),
        token(sub="ada"),
        token(user=["ada"]),
        token(user="ada", group=None),
        "junk",
        "..",
        "x" * 10_000,
    ):
        for options in (
            {"headers": {"Authorization": f"Bearer {bad}"}},
            {"params": {"token": bad}},
            {"headers": {"Cookie": f"token={bad}"}},
        ):
            answer = await http.get(url, **options)  # type: ignore[arg-type]
            assert answer.status_code == 401, bad
    for value in (b"\xff\xfe", b"Bearer", b"Bearer \xff.\xff.\xff", b"Basic YTpi", b"Bearer a b c"):
        answer = await http.get(url, headers=[(b"authorization", value)])
        assert answer.status_code == 401


async def test_no_header_makes_a_local_peer_somebody_but_x_real_ip(
    guarded: serving.Server, http: httpx.AsyncClient
) -> None:
    url = guarded.http + "/ip/x"
    for headers in (
        {},
        {"X-Real-IP": "junk"},
        {"X-Real-IP": "10.1.2.3"},
        {"X-Real-IP": "8.8.8.8, 1.1.1.1"},
        {"X-Real-IP": "2606:4700::1111%1"},
        {"X-Forwarded-For": "8.8.8.8"},
        {"Forwarded": "for=8.8.8.8"},
    ):
        answer = await http.get(url, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"error": "EmptyInformation"})
    two = [("X-Real-IP", "8.8.8.8"), ("X-Real-IP", "1.1.1.1")]
    assert (await http.get(url, headers=two)).status_code == 401
    # as the proxy sets it; another spelling is the same address, X-Forwarded-For says nothing
    assert [
        (
            await http.get(url, headers={"X-Real-IP": one, "X-Forwarded-For": f"1.1.1.{n}"})
        ).status_code
        for n, one in enumerate(
            ("2606:4700::1111", "2606:4700:0:0::1111", "2606:4700::0:1111", "2606:4700:0::1111")
        )
    ] == [200, 200, 200, 429]


async def test_a_session_is_the_signed_one(
    guarded: serving.Server, http: httpx.AsyncClient
) -> None:
    url = guarded.http + "/session/x"
    assert (await http.get(url)).status_code == 401
    payload = base64.b64encode(json.dumps({"user": "ada", "group": "admin"}).encode())
    forged = itsdangerous.TimestampSigner("another key").sign(payload).decode()
    for cookie in ("junk", "\x7f", "a.b.c", payload.decode(), forged, "x" * 4000):
        assert (await http.get(url, headers={"cookie": f"session={cookie}"})).status_code == 401
    user = uuid4().hex
    await http.get(guarded.http + "/log-in", params={"user": user, "group": "small"})
    assert await statuses(http, url, 2) == [200, 429]


async def test_a_user_is_whom_the_application_has_authenticated(
    guarded: serving.Server, http: httpx.AsyncClient
) -> None:
    url, user = guarded.http + "/user/x", uuid4().hex
    proved = {"x-login": f"{user}:open sesame"}
    assert await statuses(http, url, 4, headers=proved) == [200, 200, 200, 429]
    for headers in (
        {},
        {"x-login": user},
        {"x-login": f"{user}:guessed"},
        {"x-login": ":open sesame"},
    ):
        assert await statuses(http, url, 1, headers=headers) == [401]
