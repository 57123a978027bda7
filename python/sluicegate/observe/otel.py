"""OpenTelemetry metrics: instruments that read the counters when the SDK asks.

observe_limiters({"chat": chat_limiter})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .readings import READINGS, Limiters, Reading, healths

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as error:
    raise ImportError(
        'OpenTelemetry metrics need opentelemetry-api: pip install "sluicegate[otel]"'
    ) from error

__all__ = ["observe_limiters"]

Callback = Callable[[CallbackOptions], Iterator[Observation]]


def observe_limiters(
    limiters: Limiters, *, meter: Meter | None = None, prefix: str = "sluicegate"
) -> None:
    """Makes the instruments of `limiters`, which maps the attribute `limiter` to a limiter.

    Their names are `sluicegate.decisions` and so on, those of the Prometheus metrics with dots.
    The mapping is read at each collection, so that limiters may come and go. `meter` is one
    of a provider of your own; None is the global provider's. Once for a mapping and meter.
    """
    from sluicegate import __version__

    meter = meter or get_meter("sluicegate", __version__)
    for reading in READINGS:
        create = (
            meter.create_observable_counter
            if reading.kind == "counter"
            else meter.create_observable_gauge
        )
        create(
            f"{prefix}.{_dotted(reading.name)}",
            callbacks=[_callback(reading, limiters)],
            unit=reading.unit,
            description=reading.words,
        )
    # An asynchronous histogram does not exist; from these two their mean is told.
    meter.create_observable_counter(
        f"{prefix}.store.round_trips",
        callbacks=[_round_trips(limiters)],
        description="Round trips to the store that were timed, one at a time of each connection",
    )
    meter.create_observable_counter(
        f"{prefix}.store.round_trip_time",
        callbacks=[_round_trip_time(limiters)],
        unit="s",
        description="Seconds that these took together",
    )


def _dotted(name: str) -> str:
    """`store_down` is a metric of the store: `store.down`."""
    return name.replace("store_", "store.", 1) if name.startswith("store_") else name


def _callback(reading: Reading, limiters: Limiters) -> Callback:
    def observed(options: CallbackOptions) -> Iterator[Observation]:
        for labels, value in reading.samples(limiters):
            yield Observation(value, dict(zip(reading.labels, labels, strict=True)))

    return observed


def _round_trips(limiters: Limiters) -> Callback:
    def observed(options: CallbackOptions) -> Iterator[Observation]:
        for store, health in healths(limiters).items():
            yield Observation(sum(health.trips), {"store": store})

    return observed


def _round_trip_time(limiters: Limiters) -> Callback:
    def observed(options: CallbackOptions) -> Iterator[Observation]:
        for store, health in healths(limiters).items():
            yield Observation(health.seconds, {"store": store})

    return observed
