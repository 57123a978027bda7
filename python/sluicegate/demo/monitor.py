"""Samples of the limiter, twice a second, for the dashboard."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sluicegate.observe import snapshot

from .outbox import Outbox
from .room import Room
from .watching import Watched

EVERY_SECONDS = 0.5
KEPT_SECONDS = 120
RATE_SECONDS = 1.0  # rates are those of the last second
TOP = 8


class Monitor:
    """Takes samples, keeps the last two minutes, and hands them to those who look."""

    def __init__(
        self, watched: Watched, room: Room, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._watched = watched
        self._room = room
        self._now = now
        self._samples: deque[dict[str, Any]] = deque(maxlen=int(KEPT_SECONDS / EVERY_SECONDS))
        self._viewers: set[Outbox] = set()

    def history(self) -> list[dict[str, Any]]:
        """What the charts need of the samples that are kept, oldest first."""
        wanted = ("at", "admitted_rate", "refused_rate", "connections")
        return [{name: sample[name] for name in wanted} for sample in self._samples]

    def watch(self, outbox: Outbox) -> None:
        """Offer each new sample to this outbox."""
        self._viewers.add(outbox)

    def forget(self, outbox: Outbox) -> None:
        """Twice is harmless."""
        self._viewers.discard(outbox)

    def sample(self) -> dict[str, Any]:
        """Take one sample now."""
        now = self._now()
        messages = snapshot({"messages": self._watched.messages}, top=TOP)["messages"]
        counters = messages["counters"]
        statistics = self._watched.statistics()
        violations = statistics["violations"]
        admitted, refused = counters["admitted"], counters["refused"]
        # Sizes are refused before any quota is asked.
        refused += violations.get("message_size", 0)
        before = self._before(now)
        span = now - before["at"] if before else 0.0
        sample = {
            "type": "sample",
            "at": now,  # seconds of this server's clock
            "admitted": admitted,
            "refused": refused,
            "admitted_rate": _rate(admitted - before["admitted"], span) if before else 0.0,
            "refused_rate": _rate(refused - before["refused"], span) if before else 0.0,
            "connections": statistics["active_connections"],
            "clients": statistics["unique_clients"],
            "turned_away": violations.get("concurrent_connections", 0)
            + violations.get("connection_rate", 0),
            "keys": counters["keys"],
            "bytes": counters["bytes"],
            "missed": self._room.dropped,
            "hottest": messages["hottest"],
            "most_refused": messages["most_refused"],
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
            text = json.dumps(self.sample())
            for outbox in self._viewers:
                outbox.offer(text)
            await asyncio.sleep(EVERY_SECONDS)


def _rate(count: int, span: float) -> float:
    return round(count / span, 2) if span > 0 else 0.0
