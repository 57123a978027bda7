"""Servers that work together, kept for all tests of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, Protocol, TypeVar

import pytest
import redis

_STARTS = 3  # in one run; where that does not do, the machine cannot carry them


class _Healing(Protocol):
    def heal(self) -> None: ...


G = TypeVar("G", bound=_Healing)


class Group(Generic[G]):
    """What `start()` starts, when it is first asked for. Where it does not come to agree again
    after a test, it is started anew, and the run says so: servers that have quarrelled are no
    reason to fail all tests that follow."""

    def __init__(
        self, start: Callable[[], AbstractContextManager[G]], config: pytest.Config
    ) -> None:
        self._start = start
        self._config = config
        self._running = ExitStack()
        self._group: G | None = None
        self._starts = 0

    def healed(self) -> G:
        """It, as at its start: all of it runs, agrees and is empty."""
        if self._group is not None:
            try:
                self._group.heal()
            except (AssertionError, RuntimeError, redis.RedisError) as error:
                self._say(f"servers that work together are started anew: {error!r}\n{error}")
                self._group = None
                self.close()
        if self._group is None:
            assert self._starts < _STARTS, f"they were started {_STARTS} times; see above"
            self._starts += 1
            self._group = self._running.enter_context(self._start())
        return self._group

    def close(self) -> None:
        """Ends it."""
        self._running.close()

    def _say(self, text: str) -> None:
        # Also where the test that comes next passes.
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(text)
