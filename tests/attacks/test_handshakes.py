"""Handshakes that never end, messages that stop in the middle, and floods of handshakes."""

from __future__ import annotations

import pytest

from attacks import handshakes
from attacks.addresses import requests
from attacks.app import PLACES, QUOTA
from attacks.handshakes import MANY, SLOW
from attacks.target import target

pytestmark = pytest.mark.server

MB = 1 << 20
both = pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])


async def test_handshakes_that_never_end_are_not_seen() -> None:
    """They are nothing to the middleware, and uvicorn's timeout is not one of them."""
    async with target("--timeout-keep-alive", "1") as server:
        found = await handshakes.slowloris(server, 1.5)
        assert found.rounds >= 1
        assert found.closed == [], "uvicorn has a bound now: docs/attacks.md says it has none"
        assert found.counts.get("/ws/held open", 0) == found.took("connections") == 0
        assert found.held == 0
        assert found.most < 50 * MB


async def test_a_bound_of_connections_shuts_out_the_others() -> None:
    """The slow ones count in --limit-concurrency: it refuses requests of everybody, and no
    handshake of a WebSocket."""
    async with target("--limit-concurrency", str(SLOW // 2)) as server:
        found = await handshakes.slowloris(server, 0.5)
        assert found.closed == []
        assert found.rounds >= 1, "handshakes pass"
        async with handshakes.slow(server, SLOW):
            assert await requests(server, "/friend", ["198.51.100.2"]) == {503: 1}
        assert await requests(server, "/friend", ["198.51.100.2"]) == {200: 1}


async def test_messages_that_stop_in_the_middle() -> None:
    async with target("--ws-ping-interval", "1", "--ws-ping-timeout", "1") as server:
        found = await handshakes.half_frames(server)
        assert found.rounds >= 1
        assert found.took("messages") == 0
        assert found.held == 0


@both
async def test_more_handshakes_than_the_rule_has(ws: str) -> None:
    async with target(ws=ws) as server:
        found, answers = await handshakes.flood(server, "/ws/many")
        assert answers == {"HTTP/1.1 101": QUOTA, "HTTP/1.1 429": MANY - QUOTA}
        assert found.took("connections") == found.counts["/ws/many open"] == QUOTA
        assert found.took("connections", "refused") == MANY - QUOTA
        assert found.rounds >= 1
        assert found.most < 50 * MB


@both
async def test_more_handshakes_than_places(ws: str) -> None:
    async with target(ws=ws) as server:
        for _ in range(2):  # the places of the first are there for the second
            found, answers = await handshakes.flood(server, "/ws/held")
            assert answers == {"HTTP/1.1 101": PLACES, "HTTP/1.1 429": MANY - PLACES}
            assert found.took("connections") == found.counts["/ws/held open"] == PLACES
            assert found.rounds >= 1
            assert found.held == 0
