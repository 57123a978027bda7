"""Samples of limiters, twice a second, for pages that show them live."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["EVERY_SECONDS", "TOP", "Sampler", "Viewer", "of_connections"]

EVERY_SECONDS = 0.5
KEPT_SECONDS = 120
RATE_SECONDS = 1.0  # rates are those of the last second
TOP = 8


class Viewer(Protocol):
    """Who looks: is offered each sample as text, and may miss some."""

    def offer(self, text: str) -> bool: ...


class Sampler:
    """Takes samples, keeps the last two minutes, and hands them to those who look.

    `read` returns what there is now, as plain data: at least `admitted` and `refused`, which
    only grow, and `connections`.
    """

    def __init__(
        self, read: Callable[[], dict[str, Any]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._now = now
        self._samples: deque[dict[str, Any]] = deque(maxlen=int(KEPT_SECONDS / EVERY_SECONDS))
        self._viewers: set[Viewer] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._viewers)

    def history(self) -> list[dict[str, Any]]:
        """What the charts need of the samples that are kept, oldest first."""
        wanted = ("at", "admitted_rate", "refused_rate", "connections")
        return [{name: sample[name] for name in wanted} for sample in self._samples]

    def watch(self, viewer: Viewer) -> None:
        """Offer each new sample to this one."""
        self._viewers.add(viewer)

    def forget(self, viewer: Viewer) -> None:
        """Twice is harmless."""
        self._viewers.discard(viewer)

    def sample(self) -> dict[str, Any]:
        """Take one sample now."""
        now = self._now()
        told = self._read()
        before = self._before(now)
        span = now - before["at"] if before else 0.0
        sample = {
            "type": "sample",
            "at": now,  # seconds of this server's clock
            **told,
            "admitted_rate": _rate(told["admitted"] - before["admitted"], span) if before else 0.0,
            "refused_rate": _rate(told["refused"] - before["refused"], span) if before else 0.0,
        }
        self._samples.append(sample)
        return sample

    def _before(self, now: float) -> dict[str, Any] | None:
        # The newest sample that is at least the span of a rate old, or the oldest of all.
        found = None
        for sample in reversed(self._samples):
            found = sample
            if now - sample["at"] >= RATE_SECONDS * 0.95:
                break
        return found

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self._turn()

    async def run_while_watched(self) -> None:
        """Take samples until nobody looks; those of a time before are forgotten."""
        self._samples.clear()
        while self._viewers:
            await self._turn()

    async def _turn(self) -> None:
        text = json.dumps(self.sample())
        for viewer in list(self._viewers):
            viewer.offer(text)
        await asyncio.sleep(EVERY_SECONDS)


def of_connections(statistics: Mapping[str, Any]) -> dict[str, int]:
    """What a page shows of `WebSocketRateLimiter.get_statistics()`. `oversized` messages are
    refused before any quota is asked, and so are in no table's count."""
    violations = statistics["violations"]
    return {
        "connections": statistics["active_connections"],
        "clients": statistics["unique_clients"],
        "turned_away": violations.get("concurrent_connections", 0)
        + violations.get("connection_rate", 0),
        "oversized": violations.get("message_size", 0),
    }


def _rate(count: float, span: float) -> float:
    # what counted may have gone meanwhile
    return max(round(count / span, 2), 0.0) if span > 0 else 0.0
