"""A middleware whose rules are read from a file again, while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .config import parse_rules
from .types import ASGIApp, Receive, Scope, Send

__all__ = ["ReloadingMiddleware"]

log = logging.getLogger("sluicegate")

Make = Callable[[Mapping[str, Any]], ASGIApp]


class ReloadingMiddleware:
    """Hands everything to the middleware that `make` returns for the rules of a file.

    At most every `seconds`, when something comes in, the file is looked at, in a thread; until
    that is done the rules stay as they are. A file that is none is logged, once, and the old
    rules hold. What came in under old rules ends under them. Counts are the store's, by
    the names of what counts, and so the new rules go on with them.

    OSError, ValueError or TypeError where the file is none at the start.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float, make: Make) -> None:
        self.path = path
        self._seconds = seconds
        self._make = make
        self._source = Path(path).read_bytes()
        self._said = ""  # what was logged last
        self._current = make(parse_rules(self._source, os.fspath(path)))
        self._due = time.monotonic() + seconds
        self._look: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if time.monotonic() >= self._due and scope["type"] != "lifespan":
            self._due = time.monotonic() + self._seconds
            # held, for a loop keeps tasks weakly; of a loop that is gone, it is left behind
            self._look = asyncio.get_running_loop().create_task(self._look_at_file())
        await self._current(scope, receive, send)

    async def _look_at_file(self) -> None:
        try:
            source = await asyncio.to_thread(Path(self.path).read_bytes)
            if source == self._source:
                self._say("")
                return
            rules = await asyncio.to_thread(parse_rules, source, os.fspath(self.path))
            self._current = self._make(rules)
        except Exception as error:
            self._say(str(error) or type(error).__name__)
        else:
            self._source = source
            self._say("")
            count = sum(len(of_path) for of_path in rules.values())
            log.info("%s: read again, %d rules hold now", os.fspath(self.path), count)

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            log.error("%s: the rules stay as they were: %s", os.fspath(self.path), problem)
        self._said = problem

    def __getattr__(self, name: str) -> Any:
        # what the middleware of these rules has, as its backend
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._current, name)
