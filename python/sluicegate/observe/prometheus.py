"""A collector for prometheus_client. Keys are never a label: their number has no bound.

from prometheus_client import REGISTRY
REGISTRY.register(LimiterCollector({"chat": chat_limiter}))
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from .readings import READINGS, Limiters, healths

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as error:  # pragma: no cover - told to a person
    raise ImportError(
        'the Prometheus collector needs prometheus_client: pip install "sluicegate[prometheus]"'
    ) from error

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class LimiterCollector(Collector):
    """Reads the counters of limiters when Prometheus asks.

    `limiters` maps the value of the `limiter` label to a limiter; the mapping is read at
    each collection, so that limiters may come and go. A `WebSocketRateLimiter`, or a door
    over one, also tells its connections and violations; a limiter over a server, how that
    store fares in this process.
    """

    def __init__(self, limiters: Limiters, *, prefix: str = "sluicegate") -> None:
        self._limiters = limiters
        self._prefix = prefix

    def describe(self) -> list[Metric]:
        """Nothing beforehand: what is there depends on the limiters at the time."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One reading of every limiter and store."""
        for reading in READINGS:
            family = _FAMILIES[reading.kind](
                f"{self._prefix}_{reading.name}", reading.words, labels=reading.labels
            )
            for labels, value in reading.samples(self._limiters):
                family.add_metric(labels, value)
            if family.samples:
                yield family
        yield from self._round_trips()

    def _round_trips(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            f"{self._prefix}_store_round_trip_seconds",
            "Round trips to the store, one at a time of each connection",
            labels=("store",),
        )
        for store, health in healths(self._limiters).items():
            bounds = [*map(str, health.bounds), "+Inf"]
            family.add_metric(
                (store,), list(zip(bounds, accumulate(health.trips), strict=True)), health.seconds
            )
        if family.samples:
            yield family
