"""Fixtures that every test may use. Servers: serving.py, redis_servers; the browser: browser.py."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import serving

if TYPE_CHECKING:
    import browser


# CI judges a change by the same examples each time; everywhere else they are new at each run.
# The debug Python that counts references has no Hypothesis, and runs no test that needs it.
if os.environ.get("CI") and find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("ci", derandomize=True)
    settings.load_profile("ci")


def _end_as_by_hand(number: int) -> None:
    """Ends a run on that signal as on Ctrl-C, so that the servers it started end with it."""
    run = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == run:
            raise KeyboardInterrupt
        # A forked child has none of its own to end.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(number, end)


def pytest_configure(config: pytest.Config) -> None:
    _end_as_by_hand(signal.SIGTERM)
    # An installed sluicegate brings its fixtures by entry point; one built in place does not.
    from sluicegate.testing import fixtures

    if not config.pluginmanager.is_registered(fixtures):
        config.pluginmanager.register(fixtures, "sluicegate.testing.fixtures")

    # The debug Python has no client for them either, and runs no test that needs one.
    if find_spec("redis") and find_spec("trustme"):
        from redis_servers import fixtures as servers

        config.pluginmanager.register(servers, "redis_servers.fixtures")


def pytest_report_header() -> list[str]:
    from redis_servers.kinds import KINDS, KNOWN

    return [
        f"{kind} is not there: nothing is tested with it" for kind in KNOWN if kind not in KINDS
    ]


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    return serving.free_port()


@pytest.fixture
def serve() -> Iterator[Callable[..., serving.Server]]:
    """`serve("module:app", *options, env={}, app_dir=...)` runs uvicorn in its own process."""
    with ExitStack() as stack:

        def start(app: str, *options: str, **more: object) -> serving.Server:
            return stack.enter_context(serving.uvicorn(app, *options, **more))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Where Chromium or Chrome is; skips where there is none and SLUICEGATE_BROWSER is not 1."""
    import browser

    found = browser.find()
    if found is not None:
        return found
    if os.environ.get("SLUICEGATE_BROWSER") == "1":
        pytest.fail("no Chromium was found; install it or set CHROMIUM to its path")
    pytest.skip("no Chromium was found; install it or set CHROMIUM to its path")


@pytest.fixture
async def open_page(
    chromium: Path, tmp_path: Path
) -> AsyncIterator[Callable[[str], browser.OpeningPage]]:
    """`page = await open_page(url)`: a page of a headless Chromium that ends with the test."""
    import browser

    async with browser.Browser(chromium, tmp_path / "profile") as chrome:
        yield chrome.open
