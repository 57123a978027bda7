"""What it costs a hit that its counters are collected: they are kept either way.

A process of 100,000 checks a second whose counters are read every second, which is more often than
Prometheus (15 s) or OpenTelemetry (60 s) ask by default: every 100,000 hits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from sluicegate.cli.loops import KEY, PLENTY

from .harness import Timed, alternate
from .rows import Row, Topic

__all__ = ["TOPIC"]

NAME = "metrics"
REFERENCE = "the same hits, collected by nobody"
EACH = 100_000  # hits between two readings


def prometheus(limiter: Any) -> Callable[[], Any]:
    from prometheus_client import CollectorRegistry, generate_latest

    from sluicegate.observe.prometheus import LimiterCollector

    registry = CollectorRegistry()
    registry.register(LimiterCollector({"hot": limiter}))
    return lambda: generate_latest(registry)


def opentelemetry(limiter: Any) -> Callable[[], Any]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from sluicegate.observe.otel import observe_limiters

    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("bench")
    observe_limiters({"hot": limiter}, meter=meter)
    return reader.get_metrics_data


def hits(make: Callable[[Any], Callable[[], Any]] | None) -> tuple[Timed, Callable[[], Any]]:
    """Hits that are collected as `make` says, and what collects."""
    from sluicegate.sync import Limiter

    limiter = Limiter(f"{PLENTY}/second")
    collect = (lambda: None) if make is None else make(limiter)

    def run(count: int) -> float:
        made, key, left = limiter, KEY, count
        begin = time.process_time()
        while left > 0:
            for _ in range(min(EACH, left)):
                made.hit(key)
            collect()
            left -= EACH
        return time.process_time() - begin

    return run, collect


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    for what, make in (("Prometheus", prometheus), ("OpenTelemetry", opentelemetry)):
        row = Row(NAME, f"sync hit, {what} on", None, "x", REFERENCE)
        try:
            on, collect = hits(make)
        except ImportError as error:
            row.missing = f"needs {error.name or error}"
            yield row
            continue
        off, _ = hits(None)
        found = alternate(on, off, rounds, count=2 * EACH if quick else 10 * EACH)
        row.value, row.info = found.ratio, found.info()
        begin = time.process_time()
        for _ in range(20):
            collect()
        row.info["reading_us"] = round((time.process_time() - begin) / 20 * 1e6, 1)
        yield row


TOPIC = Topic(NAME, "Metrics on against off", measure)
