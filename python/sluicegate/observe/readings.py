"""What there is to be read of limiters and their stores, whoever asks: Prometheus, OpenTelemetry.

Keys are no part of it: their number has no bound, and whom they name is nobody's business there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .snapshot import Observable, limiter_of, tables_of

if TYPE_CHECKING:
    from sluicegate.stores.redis.health import Health

__all__ = ["READINGS", "Limiters", "Reading", "Sample", "healths", "statistics_of"]

Limiters = Mapping[str, Observable]
Sample = tuple[tuple[str, ...], float]  # the values of the labels, and what was read


@dataclass(frozen=True)
class Reading:
    """One metric: what it is called, what it means, and how it is read."""

    name: str
    kind: Literal["counter", "gauge"]
    words: str
    labels: tuple[str, ...]
    samples: Callable[[Limiters], Iterator[Sample]]
    unit: str = "1"


def _tables(limiters: Limiters) -> Iterator[tuple[str, dict[str, int]]]:
    for label, observed in list(limiters.items()):
        for name, table in tables_of(observed, label).items():
            yield name, table.counters()


def _counter(name: str) -> Callable[[Limiters], Iterator[Sample]]:
    def samples(limiters: Limiters) -> Iterator[Sample]:
        for label, counters in _tables(limiters):
            yield (label,), counters[name]

    return samples


def _decisions(limiters: Limiters) -> Iterator[Sample]:
    for label, counters in _tables(limiters):
        for outcome in ("admitted", "refused"):
            yield (label, outcome), counters[outcome]


def statistics_of(limiters: Limiters) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each that counts connections, with its name."""
    for label, observed in list(limiters.items()):
        limiter: Any = limiter_of(observed)
        if hasattr(limiter, "get_statistics"):
            yield label, limiter.get_statistics()


def _connections(limiters: Limiters) -> Iterator[Sample]:
    for label, statistics in statistics_of(limiters):
        yield (label,), statistics["active_connections"]


def _violations(limiters: Limiters) -> Iterator[Sample]:
    for label, statistics in statistics_of(limiters):
        for kind, count in statistics["violations"].items():
            yield (label, kind), count


def healths(limiters: Limiters) -> dict[str, Health]:
    """The health of each store outside the process that these limiters use, by where it is."""
    found: dict[str, Health] = {}
    seen: set[int] = set()
    for observed in list(limiters.values()):
        store: Any = observed if hasattr(observed, "health") else None
        store = store or getattr(limiter_of(observed), "store", None)
        if not hasattr(store, "health") or id(store) in seen:
            continue
        seen.add(id(store))
        where = name = f"{store.settings.where()} {store.prefix}"
        number = 1
        while name in found:  # two stores of one URL are two sets of connections
            number += 1
            name = f"{where} ({number})"
        found[name] = store.health()
    return found


def _down(limiters: Limiters) -> Iterator[Sample]:
    for store, health in healths(limiters).items():
        yield (store,), int(health.down)


def _outages(limiters: Limiters) -> Iterator[Sample]:
    for store, health in healths(limiters).items():
        yield (store,), health.outages


def _store_connections(limiters: Limiters) -> Iterator[Sample]:
    for store, health in healths(limiters).items():
        for state in ("open", "down", "idle"):
            yield (store, state), sum(one.state == state for one in health.connections)


_LIMITER, _STORE = ("limiter",), ("store",)

READINGS = (
    Reading("decisions", "counter", "Decisions by outcome", ("limiter", "outcome"), _decisions),
    Reading(
        "shadow_refused",
        "counter",
        "Events that only a shadow would have refused",
        _LIMITER,
        _counter("shadow_refused"),
    ),
    Reading(
        "banned",
        "counter",
        "Refusals by a ban; also counted as refused",
        _LIMITER,
        _counter("banned"),
    ),
    Reading(
        "evictions",
        "counter",
        "Live states forgotten because the bound was reached",
        _LIMITER,
        _counter("evictions"),
    ),
    Reading(
        "full_decisions",
        "counter",
        "Decisions made by on_full, because nothing could be forgotten",
        _LIMITER,
        _counter("full"),
    ),
    Reading(
        "degraded_decisions",
        "counter",
        "Decisions made by on_store_error, because the store did not; in no other count",
        _LIMITER,
        _counter("degraded"),
    ),
    Reading("keys", "gauge", "Keys that state is kept for", _LIMITER, _counter("keys")),
    Reading("state_bytes", "gauge", "Memory that state takes", _LIMITER, _counter("bytes"), "By"),
    Reading("connections", "gauge", "Connections that are open", _LIMITER, _connections),
    Reading(
        "violations",
        "counter",
        "Refusals by what was exceeded",
        ("limiter", "type"),
        _violations,
    ),
    Reading(
        "store_down",
        "gauge",
        "1 while a breaker is open: checks are decided without the store",
        _STORE,
        _down,
    ),
    Reading(
        "store_outages",
        "counter",
        "Times that a connection to the store went down",
        _STORE,
        _outages,
    ),
    Reading(
        "store_connections",
        "gauge",
        "Connections of this process to the store",
        ("store", "state"),
        _store_connections,
    ),
)
