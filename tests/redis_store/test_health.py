"""How a store fares, as Prometheus and OpenTelemetry are told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from redis_servers.server import Server
from sluicegate import Limiter, RedisStore, WebSocketLimits, WebSocketRateLimiter
from sluicegate.observe.otel import observe_limiters
from sluicegate.observe.prometheus import LimiterCollector
from sluicegate.stores.redis import Health, connection

pytestmark = pytest.mark.server


async def until(condition: Any, seconds: float = 15.0) -> None:
    give_up = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < give_up, "waited in vain"
        await asyncio.sleep(0.02)


async def test_round_trips_are_timed(redis_server: Server) -> None:
    async with RedisStore(redis_server.url) as store:
        limiter = Limiter("1000/second", store=store, name="chat")
        assert store.health() == Health((), 0, 0.0, (0,) * 13)
        before = time.perf_counter()
        for _ in range(50):
            await limiter.hit("a")
        took = time.perf_counter() - before
        health = store.health()
        assert sum(health.trips) in (49, 50, 51)  # a name may have been told meanwhile
        assert 0 < health.seconds < took
        # those of one turn of the loop are one round trip
        await asyncio.gather(*(limiter.hit(str(n)) for n in range(200)))
        assert sum(store.health().trips) - sum(health.trips) <= 2
        # a server that holds a reply back for a time is seen to
        with redis_server.client() as client:
            client.execute_command("CLIENT", "PAUSE", "300", "ALL")
        slow = store.health().trips
        await Limiter("9/second", store=store, name="slow", timeout=5).hit("a")
        later = store.health()
        taken = [now - then for now, then in zip(later.trips, slow, strict=True)]
        over = [place for place, bound in enumerate(later.bounds) if bound > 0.1]
        assert sum(taken[over[0] :]) == 1, taken
    after = store.health()
    assert (after.trips, after.seconds) == (later.trips, later.seconds)  # nothing is forgotten
    assert after.connections == ()


async def test_a_store_that_is_observed_tells_its_limiters_and_how_it_fares(
    redis_server: Server,
) -> None:
    async with RedisStore(redis_server.url) as store:
        chat = Limiter("5/minute", store=store, name="chat")
        assert await chat.hit("user:42")
        registry = CollectorRegistry()
        registry.register(LimiterCollector({"app": store, "chat": chat}))
        labels = {"limiter": "app.chat", "outcome": "admitted"}
        assert registry.get_sample_value("sluicegate_decisions_total", labels) == 1
        where = f"{store.settings.where()} sg"
        labels = {"store": where, "state": "open"}
        assert registry.get_sample_value("sluicegate_store_connections", labels) == 1
        assert b"(2)" not in generate_latest(registry)  # one store is told once


async def test_an_outage_is_seen_and_its_end(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PROBE", 0.01)
    async with RedisStore(redis_server.url, timeout=0.2) as store:
        chat = Limiter("5/minute", store=store, name="chat", on_store_error="local", timeout=0.2)
        sockets = WebSocketRateLimiter(WebSocketLimits(), store, name="sockets")
        limiters = {"chat": chat, "sockets": sockets}
        registry = CollectorRegistry()
        registry.register(LimiterCollector(limiters))
        where = f"{store.settings.where()} sg"

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"sluicegate_{name}", labels)

        assert await chat.hit("user:42")
        assert await sockets.register_connection("c", "user:42")
        assert value("store_down", store=where) == 0
        assert value("store_connections", store=where, state="open") == 1
        assert value("degraded_decisions_total", limiter="chat") == 0
        count = value("store_round_trip_seconds_count", store=where)
        assert count is not None and count >= 1
        assert value("store_round_trip_seconds_bucket", store=where, le="+Inf") == count
        total = value("store_round_trip_seconds_sum", store=where)
        assert total is not None and 0 < total < 5

        redis_server.stop()
        try:
            for _ in range(3):
                assert (await chat.hit("user:42")).degraded
            assert value("degraded_decisions_total", limiter="chat") == 3
            assert value("store_down", store=where) == 1
            assert value("store_outages_total", store=where) == 1
            assert value("store_connections", store=where, state="down") == 1
            (down,) = store.health().connections
            assert (down.state, bool(down.why)) == ("down", True)
            await asyncio.sleep(0.7)  # it is tried again, in vain: that is no other outage
        finally:
            redis_server.cont()
        await until(lambda: value("store_down", store=where) == 0)
        assert not (await chat.hit("user:42")).degraded
        assert value("store_outages_total", store=where) == 1
        # what the store itself has decided; the others were counted as degraded
        assert value("decisions_total", limiter="chat", outcome="admitted") == 2
        text = generate_latest(registry).decode()
        assert "user:42" not in text


async def test_opentelemetry_is_told_the_same(redis_server: Server) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    try:
        async with RedisStore(redis_server.url) as store:
            limiters: dict[str, Any] = {"chat": Limiter("2/minute", store=store, name="chat")}
            observe_limiters(limiters, meter=provider.get_meter("test"))
            for _ in range(5):
                await limiters["chat"].hit("user:42")
            await limiters["chat"].ban("user:42", 60)
            await limiters["chat"].hit("user:42")
            told = read(reader)
            chat = ("limiter", "chat")
            assert told["sluicegate.decisions", chat, ("outcome", "admitted")] == 2
            assert told["sluicegate.decisions", chat, ("outcome", "refused")] == 4
            assert told["sluicegate.banned", chat] == 1
            assert told["sluicegate.degraded_decisions", chat] == 0
            where = ("store", f"{store.settings.where()} sg")
            assert told["sluicegate.store.down", where] == 0
            assert told["sluicegate.store.connections", where, ("state", "open")] == 1
            assert told["sluicegate.store.round_trips", where] >= 7
            assert 0 < told["sluicegate.store.round_trip_time", where] < 5
            assert not any("user:42" in str(name) for name in told)
            # limiters come and go
            del limiters["chat"]
            assert read(reader) == {}
            sockets = WebSocketRateLimiter(WebSocketLimits())
            limiters["ws"] = sockets
            assert await sockets.register_connection("c", "ann")
            told = read(reader)
            assert told["sluicegate.connections", ("limiter", "ws")] == 1
            kind = ("type", "message_rate")
            assert told["sluicegate.violations", ("limiter", "ws"), kind] == 0
    finally:
        provider.shutdown()


def read(reader: InMemoryMetricReader) -> dict[Any, Any]:
    """Each value by the metric's name and its attributes."""
    data = reader.get_metrics_data()
    return {
        (metric.name, *((str(key), value) for key, value in (point.attributes or {}).items())): (
            point.value  # type: ignore[union-attr]
        )
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
