"""A headless Chromium, driven over its DevTools protocol by the client that we have anyway.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
START_SECONDS = 60.0
CALL_SECONDS = 30.0

OpeningPage = Coroutine[Any, Any, "Page"]


class PageError(AssertionError):
    """What the page threw, or did not come to in time."""


def find() -> Path | None:
    """$CHROMIUM, or the first Chromium or Chrome of this machine."""
    asked = os.environ.get("CHROMIUM")
    for name in (asked,) if asked else (*NAMES, *PLACES):
        found = shutil.which(name)
        if found:
            return Path(found)
    return None


class Browser:
    """`async with Browser(path, profile) as b: page = await b.open(url)`."""

    def __init__(self, path: Path, profile: Path) -> None:
        self._path = path
        self._profile = profile
        self._calls = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Browser:
        self._process = await asyncio.create_subprocess_exec(
            str(self._path),
            "--headless=new",
            "--no-sandbox",  # root and containers have none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--remote-debugging-port=0",
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that all its processes can be ended together
        )
        try:
            address = await asyncio.wait_for(self._address(), START_SECONDS)
            self._socket: ClientConnection = await connect(address, max_size=None, proxy=None)
        except BaseException:
            await self._end()
            raise
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._drain())]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._socket.close()
        await self._end()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open(self, url: str) -> Page:
        """A new page at `url`, loaded."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, attached["sessionId"])
        await page.call("Page.enable")
        await page.call("Page.navigate", url=url)
        await page.until("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page

    async def call(self, method: str, session: str | None = None, /, **params: Any) -> Any:
        """The result of one DevTools call."""
        number = next(self._calls)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        try:
            await self._socket.send(json.dumps(message))
            answer = await asyncio.wait_for(reply, CALL_SECONDS)
        finally:
            self._replies.pop(number, None)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    async def _address(self) -> str:
        assert self._process.stderr is not None
        printed = []
        async for line in self._process.stderr:
            text = line.decode(errors="replace").strip()
            if text.startswith("DevTools listening on "):
                return text.removeprefix("DevTools listening on ")
            printed.append(text)
        raise RuntimeError("Chromium did not start; it printed:\n" + "\n".join(printed))

    async def _drain(self) -> None:
        """A full pipe would stop the browser."""
        assert self._process.stderr is not None
        while await self._process.stderr.read(65536):
            pass

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            reply = self._replies.get(message.get("id"))
            if reply is not None and not reply.done():
                reply.set_result(message)

    async def _end(self) -> None:
        # The group, not the process alone: the browser's children must not stay behind.
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            try:
                await asyncio.wait_for(self._process.wait(), seconds)
            except asyncio.TimeoutError:
                continue
        for _ in range(40):  # its children end a moment later; their profile is deleted next
            try:
                os.killpg(self._process.pid, 0)
            except (ProcessLookupError, PermissionError):
                break
            await asyncio.sleep(0.05)
        # Its transport closes with its pipe.
        self._process._transport.close()  # type: ignore[attr-defined]


class Page:
    """One page. Expressions are JavaScript; a promise is awaited; values come back as JSON."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def call(self, method: str, /, **params: Any) -> Any:
        """The result of one DevTools call in this page."""
        return await self._browser.call(method, self._session, **params)

    async def eval(self, expression: str) -> Any:
        """The value of an expression; what it throws is raised as PageError."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            what = details.get("exception", {}).get("description") or details.get("text")
            raise PageError(f"{expression}: {what}")
        return answer["result"].get("value")

    async def until(self, expression: str, timeout: float = 15.0) -> Any:
        """The first true value of an expression, tried again and again.

        One that throws is not true yet: a page that loads anew has nothing in it for a moment.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while True:
            said = ""
            try:
                if value := await self.eval(expression):
                    return value
            except PageError as error:
                said = f" ({error})"
            if loop.time() > give_up:
                text = await self.eval("document.body && document.body.innerText")
                raise PageError(
                    f"not within {timeout} s: {expression}{said}; the page reads:\n{text}"
                )
            await asyncio.sleep(0.05)

    async def text(self, selector: str) -> str:
        """The text that a person sees in the first element that a CSS selector finds."""
        value: str = await self.eval(f"document.querySelector({json.dumps(selector)}).innerText")
        return value

    async def click(self, selector: str) -> None:
        """Clicks the first element that a CSS selector finds."""
        await self.eval(f"document.querySelector({json.dumps(selector)}).click()")

    async def type(self, selector: str, text: str, *, enter: bool = False) -> None:
        """Types into an element, as a keyboard does, and presses Enter where asked."""
        await self.eval(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)
        if enter:
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    async def screenshot(self, path: Path) -> None:
        """Saves what the page looks like, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))
