"""The dashboard of any application: off without a token, and shown to nobody without it."""
# ruff: noqa: ASYNC212  (whom a blocking client asks is in another process)

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

import serving
from redis_servers.server import Server
from sluicegate import Limiter
from sluicegate.asgi import Dashboard
from sluicegate.asgi.dashboard.feed import HEARD

SECONDS = 20.0
TOKEN = "s3cret of/the+tests"
COOKIE = "sluicegate-dashboard"


@pytest.fixture
def serving_app() -> Iterator[serving.Server]:
    env = {"TEST_TOKEN": TOKEN, "PYTHONWARNINGS": "error"}
    with serving.uvicorn("adapters.dashboard_app:app", env=env) as server:
        yield server


@contextmanager
def signed_in(server: serving.Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=SECONDS, follow_redirects=True) as client:
        answer = client.post("/limits/", data={"token": TOKEN})
        assert answer.status_code == 200
        assert 'data-feed="feed"' in answer.text
        yield client


def feed(server: serving.Server, path: str = "limits/feed", **headers: str) -> Any:
    return connect(f"{server.ws}/{path}", proxy=None, additional_headers=headers)


async def told(client: ClientConnection) -> dict[str, Any]:
    value = json.loads(await asyncio.wait_for(client.recv(), SECONDS))
    assert isinstance(value, dict)
    return value


async def refused(server: serving.Server, path: str = "limits/feed", **headers: str) -> int:
    with pytest.raises(InvalidStatus) as raised:
        async with feed(server, path, **headers):
            pass
    return raised.value.response.status_code


def test_tokens_that_are_none() -> None:
    limiter = Limiter("5/second")
    with pytest.raises(ValueError, match="16 characters"):
        Dashboard({"a": limiter}, token="short")
    with pytest.raises(ValueError, match="16 characters"):
        Dashboard({"a": limiter}, token="")
    with pytest.raises(ValueError, match="ASCII"):
        Dashboard({"a": limiter}, token="pässword-of-the-tests")
    with pytest.raises(TypeError):
        Dashboard({"a": limiter}, token=b"x" * 20)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be observed"):
        Dashboard({"a": "limiter"}, token=TOKEN)  # type: ignore[dict-item]
    assert TOKEN not in repr(Dashboard({"a": limiter}, token=TOKEN))


@pytest.mark.server
async def test_it_is_off_without_a_token() -> None:
    with (
        serving.uvicorn("adapters.dashboard_app:app") as server,
        httpx.Client(base_url=server.http, timeout=SECONDS) as client,
    ):
        for path in ("/limits", "/limits/", "/limits/static/style.css", "/limits/feed"):
            assert client.get(path, follow_redirects=True).status_code == 404
            assert client.post(path, data={"token": ""}, follow_redirects=True).status_code == 404
        assert await refused(server) == 403
        bearer = {"authorization": "Bearer None"}
        assert client.get("/limits/", headers=bearer).status_code == 404


@pytest.mark.server
async def test_who_has_not_the_token_sees_nothing(serving_app: serving.Server) -> None:
    with httpx.Client(base_url=serving_app.http, timeout=SECONDS) as client:
        page = client.get("/limits/")
        assert page.status_code == 401
        assert "feed" not in page.text
        for headers in (
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": f"Bearer {TOKEN}x"},
            {"cookie": f"{COOKIE}=0"},
            {"cookie": f"{COOKIE}={TOKEN}"},
            {"cookie": f'"; {COOKIE}; =; {COOKIE}=\xff'.encode("latin-1")},
        ):
            assert client.get("/limits/", headers=headers).status_code == 401  # type: ignore[arg-type]
        assert client.get("/limits/page.html").status_code == 404
        assert client.get("/limits/static/../app.py").status_code == 404
        assert client.get("/limits/static/%2e%2e/page.py").status_code == 404
        assert client.put("/limits/").status_code == 405
        wrong = client.post("/limits/", data={"token": "wrong"})
        assert wrong.status_code == 403
        assert "That is not the token." in wrong.text
        assert "set-cookie" not in wrong.headers
        assert client.post("/limits/", content=b"token=" + b"x" * 10_000).status_code == 413
        # whoever tries them all is held back, and the right one is not heard either
        statuses = [client.post("/limits/", data={"token": str(n)}).status_code for n in range(12)]
        assert statuses[-1] == 429
        late = client.post("/limits/", data={"token": TOKEN})
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 60
    assert await refused(serving_app) == 403
    assert await refused(serving_app, cookie=f"{COOKIE}=0") == 403


@pytest.mark.server
async def test_the_page_and_its_feed(serving_app: serving.Server) -> None:
    with signed_in(serving_app) as client:
        (cookie,) = client.cookies.jar
        assert (cookie.name, cookie.path) == (COOKIE, "/limits/")
        assert TOKEN not in str(cookie.value)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Strict"
        page = client.get("/limits/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for name in ("dashboard.js", "chart.js", "socket.js", "style.css", "favicon.svg"):
            assert client.get(f"/limits/static/{name}").status_code == 200
            assert client.head(f"/limits/static/{name}").text == ""
        for key, times in (("ann", 7), ("bob\x1b", 1)):
            for _ in range(times):
                client.get(f"/hit/{urllib.parse.quote(key)}")
        for size in (5, 500):
            client.get(f"/message/{size}")

    ours = {"cookie": f"{COOKIE}={cookie.value}", "origin": serving_app.http}
    async with feed(serving_app, **ours) as one:
        assert (await told(one))["type"] == "history"
        sample = await told(one)
        assert sample["admitted"] == 5 + 1 + 1
        assert sample["refused"] == 2 + 1
        assert (sample["connections"], sample["keys"]) == (1, 3)
        rows = {row["name"]: row for row in sample["limiters"]}
        assert rows["hits"] == {
            "name": "hits",
            "admitted": 6,
            "refused": 2,
            "degraded": 0,
            "keys": 2,
        }
        assert sample["hottest"][0]["key"] == "ann"
        assert sample["hottest"][0]["limiter"] == "hits"
        assert "bob\\x1b" in [row["key"] for row in sample["hottest"]]
        assert [row["key"] for row in sample["most_refused"]] == ["ann"]
        assert sample["stores"] == []
        # another page is told what was, and both go on
        async with feed(serving_app, **ours) as two:
            assert (await told(two))["samples"]
            later = await told(two)
            assert later["at"] > sample["at"]
        # a page has nothing to say
        for _ in range(HEARD):
            await one.send("x")
        await asyncio.wait_for(one.wait_closed(), SECONDS)
        assert one.close_code == 1008
    # a page of another site cannot look, though the browser sends the cookie along
    assert await refused(serving_app, cookie=ours["cookie"], origin="https://evil.test") == 403
    assert await refused(serving_app, "limits/other", **ours) == 403


@pytest.mark.server
async def test_a_program_brings_the_token_and_keys_may_be_hidden(
    serving_app: serving.Server,
) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=serving_app.http, timeout=SECONDS) as client:
        assert client.get("/hidden/below/", headers=bearer).status_code == 200
        client.get("/hit/secret-name")
    async with feed(serving_app, "hidden/below/feed", **bearer) as socket:
        await told(socket)
        sample = await told(socket)
    assert sample["hottest"]
    assert "secret-name" not in json.dumps(sample)


@pytest.mark.server
async def test_stores_and_outages_are_shown(redis_server: Server) -> None:
    env = {"TEST_TOKEN": "t" * 16, "TEST_STORE": redis_server.url, "PYTHONWARNINGS": "error"}
    with (
        serving.uvicorn("adapters.dashboard_app:app", env=env) as server,
        httpx.Client(base_url=server.http, timeout=SECONDS) as client,
    ):
        assert client.get("/hit/ann").json() is True
        async with feed(server, authorization=f"Bearer {'t' * 16}") as socket:
            await told(socket)
            (store,) = (await told(socket))["stores"]
            assert store["name"] == f"{redis_server.url.rstrip('/')} sg"
            assert store["down"] is None
            assert 0 < store["mean"] < 1
            redis_server.stop()
            try:
                assert client.get("/hit/ann").status_code == 500
                while not store["down"]:
                    (store,) = (await told(socket))["stores"]
            finally:
                redis_server.cont()
            while store["down"]:
                (store,) = (await told(socket))["stores"]
            assert store["outages"] == 1


@pytest.mark.server
@pytest.mark.browser
async def test_a_person_signs_in_and_sees_it_move(
    serving_app: serving.Server, open_page: Callable[[str], Any]
) -> None:
    page = await open_page(f"{serving_app.http}/limits/")
    assert "The token of this dashboard:" in await page.text("main")
    await page.type("input", "not it", enter=True)
    await page.until("document.querySelector('#said').innerText === 'That is not the token.'")
    await page.type("input", TOKEN, enter=True)
    await page.until("document.querySelector('#link')?.innerText === 'live'")
    assert await page.eval("location.pathname + location.search") == "/limits/"
    assert await page.eval("document.cookie") == ""  # no script sees it
    with httpx.Client(base_url=serving_app.http, timeout=SECONDS) as client:
        for _ in range(8):
            client.get("/hit/%3Cb%3Eann")
    total = "document.querySelector('#{}-total').innerText"
    await page.until(f"{total.format('admitted')} === '5' && {total.format('refused')} === '3'")
    who = "document.querySelector('#{} .who')?.innerText"
    for ranks in ("hottest", "most-refused"):
        await page.until(f"{who.format(ranks)} === '<b>ann · hits'")
    cells = "[...document.querySelectorAll('#limiters tr')].map(row => row.innerText).join()"
    await page.until(f"{cells}.includes('hits\\t5\\t3\\t0\\t1')")
    assert await page.eval("document.querySelector('#stores').closest('section').hidden")
    drawn = (
        "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0))"
        "(document.querySelector('#rate'))"
    )
    await page.until(drawn)
