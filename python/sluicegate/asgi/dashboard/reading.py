"""What the page is told of limiters."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sluicegate.observe import snapshot
from sluicegate.observe.live import TOP, of_connections
from sluicegate.observe.readings import healths, statistics_of

if TYPE_CHECKING:
    from sluicegate.observe.snapshot import Observable

__all__ = ["read_limiters"]


def read_limiters(limiters: Mapping[str, Observable], *, hide_keys: bool) -> dict[str, Any]:
    """One reading, for a Sampler."""
    limiters = dict(limiters)
    told = snapshot(limiters, top=TOP, hide_keys=hide_keys)
    sums = {
        what: sum(table["counters"][what] for table in told.values())
        for what in ("admitted", "refused", "keys", "bytes")
    }
    sums |= {"connections": 0, "clients": 0, "turned_away": 0}
    for _, statistics in statistics_of(limiters):
        connections = of_connections(statistics)
        sums["refused"] += connections.pop("oversized")
        for what, count in connections.items():
            sums[what] += count
    return {
        **sums,
        "missed": 0,
        "hottest": _merged(told, "hottest"),
        "most_refused": _merged(told, "most_refused"),
        "limiters": [
            {"name": name}
            | {
                what: table["counters"][what]
                for what in ("admitted", "refused", "degraded", "keys")
            }
            for name, table in told.items()
        ],
        "stores": [
            {
                "name": name,
                "down": next((one.why for one in health.connections if one.why), None),
                "mean": health.seconds / sum(health.trips) if any(health.trips) else None,
                "outages": health.outages,
            }
            for name, health in healths(limiters).items()
        ],
    }


def _merged(told: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """The heaviest keys of all limiters, each with whose it is."""
    rows = [{**row, "limiter": name} for name, table in told.items() for row in table[what]]
    return heapq.nlargest(TOP, rows, key=lambda row: row["events"])
