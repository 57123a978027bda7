"""A collector for prometheus_client. Keys are never a label: their number has no bound.

from prometheus_client import REGISTRY
REGISTRY.register(LimiterCollector({"chat": chat_limiter}))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .snapshot import Observable, limiter_of, tables_of

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:  # pragma: no cover - told to a person
    raise ImportError(
        'the Prometheus collector needs prometheus_client: pip install "sluicegate[prometheus]"'
    ) from error

# counter of a table, metric, what it counts
_COUNTERS = (
    ("shadow_refused", "shadow_refused", "Events that only a shadow would have refused"),
    ("banned", "banned", "Refusals by a ban; also counted as refused"),
    ("evictions", "evictions", "Live states forgotten because the bound was reached"),
    ("full", "full_decisions", "Decisions made by on_full, because nothing could be forgotten"),
)
_GAUGES = (
    ("keys", "keys", "Keys that state is kept for"),
    ("bytes", "state_bytes", "Memory that state takes"),
)


class LimiterCollector(Collector):
    """Reads the counters of limiters when Prometheus asks.

    `limiters` maps the value of the `limiter` label to a limiter; the mapping is read at
    each collection, so that limiters may come and go. A `WebSocketRateLimiter`, or a door
    over one, also tells its connections and violations.
    """

    def __init__(self, limiters: Mapping[str, Observable], *, prefix: str = "sluicegate") -> None:
        self._limiters = limiters
        self._prefix = prefix

    def describe(self) -> list[Metric]:
        """Nothing beforehand: what is there depends on the limiters at the time."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One reading of every limiter."""
        tables = {
            name: table.counters()
            for label, observed in list(self._limiters.items())
            for name, table in tables_of(observed, label).items()
        }
        decisions = CounterMetricFamily(
            f"{self._prefix}_decisions", "Decisions by outcome", labels=("limiter", "outcome")
        )
        for name, counters in tables.items():
            for outcome in ("admitted", "refused"):
                decisions.add_metric((name, outcome), counters[outcome])
        yield decisions
        for counter, metric, words in _COUNTERS:
            counted = CounterMetricFamily(f"{self._prefix}_{metric}", words, labels=("limiter",))
            for name, counters in tables.items():
                counted.add_metric((name,), counters[counter])
            yield counted
        for counter, metric, words in _GAUGES:
            gauge = GaugeMetricFamily(f"{self._prefix}_{metric}", words, labels=("limiter",))
            for name, counters in tables.items():
                gauge.add_metric((name,), counters[counter])
            yield gauge
        yield from self._connections()

    def _connections(self) -> Iterator[Metric]:
        doors = [
            (label, limiter.get_statistics())
            for label, observed in list(self._limiters.items())
            if hasattr(limiter := limiter_of(observed), "get_statistics")
        ]
        if not doors:
            return
        places = GaugeMetricFamily(
            f"{self._prefix}_connections", "Connections that are open", labels=("limiter",)
        )
        violations = CounterMetricFamily(
            f"{self._prefix}_violations",
            "Refusals by what was exceeded",
            labels=("limiter", "type"),
        )
        for label, statistics in doors:
            places.add_metric((label,), statistics["active_connections"])
            for kind, count in statistics["violations"].items():
                violations.add_metric((label, kind), count)
        yield places
        yield violations
