"""Memory a key, and what one insert costs, while a table grows to ten million keys."""

from __future__ import annotations

from collections.abc import Iterator

from .harness import median, worker
from .rows import Row, Topic


def measure_bytes(rounds: int, quick: bool) -> Iterator[Row]:
    """Bytes are no matter of chance: one run, at every size."""
    high = 2_000_000 if quick else 10_000_000
    found = worker("memory", 1_000_000, high)
    info = {
        "at": found["at"],
        "mean": round(found["mean"], 1),
        "table_bytes": round(found["table_bytes"], 2),
        "sizes": len(found["points"]),
        "points": found["points"],
    }
    what = f"memory a key and quota, gcra, the worst of all sizes from 1 to {high // 10**6} million"
    yield Row("memory", what, found["bytes"], "bytes", "resident memory", 48, info=info)


def measure_growth(rounds: int, quick: bool) -> Iterator[Row]:
    keys = 1_000_000 if quick else 10_000_000
    runs = [worker("growth", keys) for _ in range(rounds)]
    inserts = [run["insert"] for run in runs]
    info = {
        "p50_ns": median(run["p50"] for run in inserts),
        "p99_9_us": median(run["p99_9"] for run in inserts) / 1000,
        "max_us": median(run["max"] for run in inserts) / 1000,
        "net_p99_99_us": median(run["net_p99_99"] for run in runs) / 1000,
        "floor_p99_99_us": median(run["floor"]["p99_99"] for run in runs) / 1000,
        "spread_us": [
            min(run["p99_99"] for run in inserts) / 1000,
            max(run["p99_99"] for run in inserts) / 1000,
        ],
        "uninterrupted": all(run["alone"] for run in runs),
        "rounds": rounds,
    }
    what = f"99.99th percentile of one insert while growing to {keys // 10**6} million keys"
    value = median(run["p99_99"] for run in inserts) / 1000
    yield Row("growth", what, value, "µs", "", 20, info=info)


MEMORY = Topic("memory", "Memory", measure_bytes)
GROWTH = Topic("growth", "Growing", measure_growth)
