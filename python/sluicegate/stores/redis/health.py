"""How a store has fared in this process: connections, round trips, outages.

Round trips are timed in C, one at a time on each connection, so that it costs a check nothing;
each is from the writing of a batch to the reading of its last reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ... import _core

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .connection import Connection

__all__ = ["ConnectionHealth", "Health", "Past"]


@dataclass(frozen=True)
class ConnectionHealth:
    """One connection now."""

    where: str
    state: Literal["open", "down", "idle"]  # idle: not opened, for nobody asked
    why: str | None  # it is down


@dataclass(frozen=True)
class Health:
    """All of one store in this process; the counters are since its start."""

    connections: tuple[ConnectionHealth, ...]
    outages: int  # times that a connection went down: the breaker opened
    seconds: float  # of all round trips that were timed
    trips: tuple[int, ...]  # how many took up to each of `bounds`, and how many longer
    bounds: tuple[float, ...] = _core.TRIP_BOUNDS  # seconds

    @property
    def down(self) -> bool:
        """Whether a breaker is open: checks there are decided without the server."""
        return any(connection.state == "down" for connection in self.connections)


class Past:
    """What connections have counted that are no more."""

    __slots__ = ("outages", "seconds", "trips")

    def __init__(self) -> None:
        self.outages = 0
        self.seconds = 0.0
        self.trips = [0] * (len(_core.TRIP_BOUNDS) + 1)

    def add(self, connection: Connection) -> None:
        seconds, trips = connection.trips()
        self.outages += connection.outages
        self.seconds += seconds
        self.trips = [sum(pair) for pair in zip(self.trips, trips, strict=True)]

    def health(self, connections: Iterable[Connection]) -> Health:
        """With those that there are."""
        whole, now = Past(), []
        whole.outages, whole.seconds, whole.trips = self.outages, self.seconds, self.trips
        for connection in connections:
            whole.add(connection)
            now.append(
                ConnectionHealth(
                    connection.where,
                    "down" if connection.down else "open" if connection.is_open else "idle",
                    connection.down,
                )
            )
        return Health(tuple(now), whole.outages, whole.seconds, tuple(whole.trips))
