"""The pages: what they load, what they forbid, and that a browser shows the limit."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from demo.helpers import SECONDS, Start, decisions, get
from sluicegate.demo.app import STATIC
from sluicegate.observe.page import STATIC as SHARED

pytestmark = pytest.mark.server

OpenPage = Callable[[str], Any]


def test_pages_load_nothing_from_elsewhere(start_demo: Start) -> None:
    server = start_demo()
    files = [*STATIC.iterdir(), *SHARED.glob("*.[!h]*")]
    paths = ["/", "/dashboard", *(f"/static/{file.name}" for file in files)]
    assert len(paths) >= 8
    for path in paths:
        headers, body = get(server.http + path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        hosts = set(re.findall(r"(?:https?:|wss?:)?//([a-z0-9.-]+\.[a-z]+)", body))
        assert hosts <= {"www.w3.org"}, f"{path} names other hosts"  # the name of SVG
        if headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", body)
    assert get(f"{server.http}/metrics")[0]["content-type"].startswith("text/plain")
    with pytest.raises(OSError, match="404"):
        get(f"{server.http}/docs")  # FastAPI's own page loads scripts from another host


@pytest.mark.browser
async def test_a_person_types_until_the_limit_shows(start_demo: Start, open_page: OpenPage) -> None:
    server = start_demo("--messages", "3 per 30 seconds")
    page = await open_page(f"{server.http}/")
    await page.until("document.querySelector('#tank').getAttribute('aria-valuenow') === '3'")
    assert await page.text("#tank .left") == "3"
    assert "hidden" in await page.eval("document.querySelector('#ring').getAttribute('class')")
    for left in (2, 1, 0):
        await page.type("#text", f"message {left}", enter=True)
        await page.until(
            f"document.querySelector('#tank').getAttribute('aria-valuenow') === '{left}'"
        )
    assert not await page.eval("document.querySelector('#notice').classList.contains('held')")
    height = "new DOMMatrix(getComputedStyle(document.querySelector('#water')).transform).f"
    await page.until(f"{height} > 0.9 * document.querySelector('#tank').clientHeight")

    await page.type("#text", "one too many", enter=True)
    await page.until("document.querySelector('#notice').classList.contains('held')")
    words = await page.text("#words")
    assert re.search(r"Open again in [0-9.]+ s", words), words
    assert await page.text(".line.held p") == "one too many"
    assert await page.eval("document.querySelector('#text').value") == "one too many"
    assert await page.eval("document.querySelectorAll('.line.own').length") == 3
    assert (decisions(server, "admitted"), decisions(server, "refused")) == (3, 1)
    # It counts down, and the tank fills, without asking the server.
    await page.until(f"document.querySelector('#words').innerText !== {json.dumps(words)}")
    low = await page.eval(height)
    await page.until(f"{height} < {low} - 1")


@pytest.mark.browser
async def test_the_gate_opens_again_by_itself(start_demo: Start, open_page: OpenPage) -> None:
    server = start_demo("--messages", "2/second")
    page = await open_page(f"{server.http}/")
    await page.until("document.querySelector('#tank').getAttribute('aria-valuenow') === '2'")
    await page.click("#press")
    await page.until("document.querySelector('#notice').classList.contains('held')")
    await page.until("!document.querySelector('#press').disabled", SECONDS)
    pressed = await page.text("#pressed")
    found = re.fullmatch(r"150 pressed: (\d+) came through, (\d+) held back\.", pressed)
    assert found, pressed
    through, back = int(found[1]), int(found[2])
    assert (through, back) == (decisions(server, "admitted"), decisions(server, "refused"))
    assert through + back == 150
    assert 2 + 2 * 3 - 1 <= through <= 2 + 2 * 10
    await page.until("!document.querySelector('#notice').classList.contains('held')")
    await page.type("#text", "", enter=False)
    await page.eval("document.querySelector('#text').value = ''")
    await page.type("#text", "through again", enter=True)
    await page.until(
        "[...document.querySelectorAll('.line.own p')].at(-1).innerText === 'through again'"
    )


@pytest.mark.browser
async def test_tabs_see_each_other_and_markup_stays_text(
    start_demo: Start, open_page: OpenPage
) -> None:
    server = start_demo("--messages", "20/day")
    first = await open_page(f"{server.http}/")
    second = await open_page(f"{server.http}/")
    for page in (first, second):
        await page.until("document.querySelector('#tank').getAttribute('aria-valuenow') === '20'")
    broken = "document.title='broken'"
    markup = f'<img src=x onerror="{broken}"><script>{broken}</script>'
    await first.type("#text", markup, enter=True)
    await second.until("document.querySelectorAll('.line:not(.own) p').length === 1")
    assert await second.text(".line:not(.own) p") == markup
    for page in (first, second):
        assert await page.eval("document.querySelectorAll('.log img, .log script').length") == 0
        assert "broken" not in await page.eval("document.title")
        # One allowance: the other tab's gauge drained as well.
        await page.until("document.querySelector('#tank').getAttribute('aria-valuenow') === '19'")


@pytest.mark.browser
async def test_one_tab_too_many_is_told_so(start_demo: Start, open_page: OpenPage) -> None:
    server = start_demo("--concurrent", "1")
    first = await open_page(f"{server.http}/")
    await first.until("document.querySelector('#link').dataset.state === 'open'")
    second = await open_page(f"{server.http}/")
    await second.until("document.querySelector('#words').innerText.startsWith('Too many conn')")


@pytest.mark.browser
async def test_the_dashboard_moves(start_demo: Start, open_page: OpenPage) -> None:
    server = start_demo("--messages", "5/second")
    page = await open_page(f"{server.http}/dashboard")
    await page.until("document.querySelector('#link').innerText === 'live'")
    await page.until("document.querySelector('#admitted-total').innerText === '0'")
    sum_of = (  # how much of the chart is coloured: its sum changes as it moves
        "(id => { const c = document.getElementById(id); "
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
        "let s = 0; for (let i = 0; i < d.length; i += 4) s += d[i] * d[i + 3]; return s; })"
    )
    before = {name: await page.eval(f"{sum_of}('{name}')") for name in ("rate", "places")}

    async def press() -> None:
        async with connect(f"{server.ws}/chat", proxy=None) as client:
            give_up = time.monotonic() + 4
            while time.monotonic() < give_up:
                await client.send('{"text": "x"}')
                await client.recv()
                await asyncio.sleep(0.02)

    pressing = asyncio.ensure_future(press())
    try:
        number = "Number(document.querySelector('#{}').innerText)"
        await page.until(f"{number.format('admitted')} > 0 && {number.format('refused')} > 10")
        await page.until(f"{number.format('connections')} === 1")
        await page.until("document.querySelector('#hottest .who')?.innerText === '127.0.0.1'")
        await page.until("document.querySelector('#most-refused .who')?.innerText === '127.0.0.1'")
        for name in ("rate", "places"):
            await page.until(f"{sum_of}('{name}') !== {before[name]}")
        during = await page.eval(f"{sum_of}('rate')")
    finally:
        await asyncio.wait_for(pressing, SECONDS)
    # The totals are the server's own, and the charts go on when nothing comes.
    admitted, refused = decisions(server, "admitted"), decisions(server, "refused")
    total = "document.querySelector('#{}').innerText.replace(',', '')"
    await page.until(f"{total.format('admitted-total')} === '{admitted}'")
    await page.until(f"{total.format('refused-total')} === '{refused}'")
    await page.until(f"{number.format('admitted')} === 0 && {number.format('connections')} === 0")
    await page.until(f"{sum_of}('rate') !== {during}")
