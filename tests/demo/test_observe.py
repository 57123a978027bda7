"""Counters, top-k and the Prometheus collector."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from calling import call, hello
from sluicegate import (
    ConcurrencyLimiter,
    FastAPIWebSocketLimiter,
    Limiter,
    MemoryStore,
    WebSocketLimits,
    WebSocketRateLimiter,
)
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.observe import escape_key, hidden_key, snapshot, tables_of
from sluicegate.observe.prometheus import LimiterCollector
from sluicegate.starlette import install
from sluicegate.testing import Clock


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"user:42", "user:42"),
        ("grüße 火".encode(), "grüße 火"),
        (b"\x1b[31mred\x00\n", "\\x1b[31mred\\x00\\x0a"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"back\\slash", "back\\\\slash"),
        ("\u202eevil".encode(), "\\u202eevil"),
        ("\U000e0001".encode(), "\\U000e0001"),
        ("\ud800".encode("utf-8", "surrogatepass"), "\\xed\\xa0\\x80"),
        (b"<script>", "<script>"),  # text, not markup: the page's business
        (b"", ""),
    ],
)
def test_keys_are_shown_as_printable_text(key: bytes, shown: str) -> None:
    assert escape_key(key) == shown


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_two_keys_never_look_the_same(one: bytes, other: bytes) -> None:
    assert escape_key(one).isprintable()
    assert (escape_key(one) == escape_key(other)) == (one == other)
    assert (hidden_key(one) == hidden_key(other)) == (one == other)


def pressed(clock: Clock) -> Limiter:
    limiter = Limiter("3/minute", store=MemoryStore(clock=clock), name="chat")
    for key, times in (("hot", 50), ("warm\n", 10), ("cold", 1)):
        for _ in range(times):
            limiter.hit_nowait(key)
    return limiter


def test_a_snapshot_is_plain_data() -> None:
    told = snapshot({"chat": pressed(Clock())}, top=2)
    assert json.loads(json.dumps(told)) == told
    chat = told["chat"]
    assert chat["counters"]["admitted"] == 3 + 3 + 1
    assert chat["counters"]["refused"] == 47 + 7
    assert chat["counters"]["keys"] == 3
    assert [row["key"] for row in chat["hottest"]] == ["hot", "warm\\x0a"]
    assert [row["key"] for row in chat["most_refused"]] == ["hot", "warm\\x0a"]
    assert chat["most_refused"][0]["events"] > chat["most_refused"][1]["events"]


def test_hidden_keys_show_nothing_of_the_key() -> None:
    limiter = pressed(Clock())
    told = json.dumps(snapshot({"chat": limiter}, hide_keys=True))
    for key in ("hot", "warm", "cold"):
        assert f'"{key}"' not in told
    digests = {row["key"] for row in snapshot({"c": limiter}, hide_keys=True)["c"]["hottest"]}
    assert digests == {hidden_key(key) for key in (b"hot", b"warm\n", b"cold")}


def test_long_keys_are_cut() -> None:
    limiter = Limiter("1/minute", store=MemoryStore(clock=Clock()), name="long")
    limiter.hit_nowait("x" * 1000)
    (row,) = snapshot({"long": limiter})["long"]["hottest"]
    assert row["key"] == "x" * 64
    assert row["cut"] is True


def test_what_can_be_observed() -> None:
    limiter = pressed(Clock())
    assert list(tables_of(limiter, "a")) == ["a"]
    assert list(tables_of(limiter.table, "a")) == ["a"]
    several = WebSocketRateLimiter(WebSocketLimits())
    assert set(tables_of(several, "ws")) >= {"ws.messages", "ws.connections"}
    door = FastAPIWebSocketLimiter(WebSocketLimits())
    assert set(tables_of(door, "ws")) >= {"ws.messages", "ws.connections"}
    registry = CollectorRegistry()
    registry.register(LimiterCollector({"door": door}))
    assert registry.get_sample_value("sluicegate_connections", {"limiter": "door"}) == 0
    with pytest.raises(TypeError, match="cannot be observed"):
        tables_of("chat", "a")  # type: ignore[arg-type]


async def test_a_store_is_all_limiters_over_it_that_have_a_name() -> None:
    store = MemoryStore(clock=Clock())
    app = RateLimitMiddleware(
        hello, backend=store, config={"^/": [Rule(requests="2/minute", concurrent=5)]}
    )
    for _ in range(5):
        await call(app, client=("198.51.100.7", 80))
    Limiter("1/minute", store=store).hit_nowait("of no name")
    routed = Starlette(routes=[Route("/x", lambda request: PlainTextResponse())])
    install(routed, store=store, default="1/minute")
    await call(routed, "/x")
    told = snapshot({"app": store})
    assert set(told) == {"app.asgi:blocked", "app.asgi:requests:gcra", "app.asgi:places"} | {
        "app.routes:GET /x"
    }
    assert told["app.asgi:requests:gcra"]["counters"]["refused"] == 3
    assert told["app.asgi:places"]["counters"]["admitted"] == 5
    (row,) = told["app.asgi:requests:gcra"]["most_refused"]
    assert row["key"] == "pattern:* 198.51.100.7 ^/"
    registry = CollectorRegistry()
    registry.register(LimiterCollector({"app": store}))
    labels = {"limiter": "app.asgi:requests:gcra", "outcome": "admitted"}
    assert registry.get_sample_value("sluicegate_decisions_total", labels) == 2
    assert b"198.51.100.7" not in generate_latest(registry)


def test_of_one_name_events_and_slots_are_told_apart() -> None:
    store = MemoryStore()
    Limiter("1/minute", store=store, name="chat")
    ConcurrencyLimiter(1, store=store, name="chat")
    assert list(tables_of(store, "s")) == ["s.chat", "s.chat (slots)"]


async def test_the_collector_tells_what_the_counters_say() -> None:
    sockets = WebSocketRateLimiter(
        WebSocketLimits(messages="2/minute", max_concurrent_connections=1),
        storage=MemoryStore(clock=Clock()),
    )
    assert await sockets.register_connection("c1", "ann")
    assert not await sockets.register_connection("c2", "ann")
    for _ in range(5):
        await sockets.check_message("c1", 10)
    limiters = {"chat": pressed(Clock()), "ws": sockets}
    registry = CollectorRegistry()
    registry.register(LimiterCollector(limiters))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    total = "sluicegate_decisions_total"
    assert value(total, limiter="chat", outcome="admitted") == 7
    assert value(total, limiter="chat", outcome="refused") == 54
    assert value(total, limiter="ws.messages", outcome="admitted") == 2
    assert value(total, limiter="ws.messages", outcome="refused") == 3
    assert value("sluicegate_keys", limiter="chat") == 3
    assert value("sluicegate_connections", limiter="ws") == 1
    assert value("sluicegate_violations_total", limiter="ws", type="concurrent_connections") == 1
    # Keys are never a label, and those of limiters that go are no longer told.
    assert b"hot" not in generate_latest(registry)
    del limiters["chat"]
    assert value(total, limiter="chat", outcome="admitted") is None
