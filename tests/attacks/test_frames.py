"""Floods on one connection, against a real server: what is admitted is exact, memory is bounded,
places come back, and a well-behaved client is served meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import serving
from attacks import frames
from attacks.app import MAX_SIZE, QUOTA
from attacks.target import Found, Target, at, serve, target

pytestmark = pytest.mark.server

MB = 1 << 20
LARGE = 15 * MB  # below what uvicorn takes, 16 MB
KEEPALIVE = ("--ws-ping-interval", "1", "--ws-ping-timeout", "1")
WS = ["websockets-sansio", "wsproto"]
both = pytest.mark.parametrize("ws", WS)
on_both = pytest.mark.parametrize("running", WS, indirect=True)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[serving.Server]:
    with serve(ws=request.param) as one:
        yield one


@pytest.fixture
async def server(running: serving.Server) -> AsyncIterator[Target]:
    async with at(running) as one:
        yield one


def well(found: Found) -> None:
    """What holds of every attack."""
    assert found.rounds >= 1, "the well-behaved client was not served"
    assert found.held == 0


@on_both
async def test_a_hundred_thousand_messages(server: Target) -> None:
    for how in ("drop", "notify"):
        found = await frames.many(server, how)
        well(found)
        assert found.took("messages") == found.counts[f"/ws/{how}"] == QUOTA
        assert found.took("messages", "refused") == frames.FRAMES - QUOTA
        assert found.closed == [1000]
        assert found.most < 40 * MB  # what one read of 256 KB comes to
    found = await frames.many(server, "close")
    well(found)
    assert found.took("messages") == found.counts["/ws/close"] == QUOTA
    assert found.took("messages", "refused") == 1
    assert found.closed == [1008]
    assert found.most < 40 * MB


@both
async def test_a_hundred_thousand_messages_that_are_held_back(ws: str) -> None:
    """The client has gone with tens of thousands of its messages read and not yet admitted."""
    async with target(*KEEPALIVE, ws=ws) as server:
        found = await frames.held_back(server)
        well(found)
        assert found.took("messages") == found.counts["/ws/delay"] == QUOTA
        assert found.most < 40 * MB


@on_both
async def test_a_message_in_pieces(server: Target) -> None:
    found = await frames.pieces(server, b"x")
    well(found)
    assert found.closed == [1009]
    assert found.counts.get("/ws/size", 0) == 0
    assert found.most < 40 * MB
    found = await frames.pieces(server, b"")
    well(found)
    assert found.counts["/ws/size"] == found.took("messages") == 1


@on_both
@pytest.mark.parametrize("made", [frames.huge, frames.bombs])
async def test_messages_that_are_too_large(server: Target, made: object) -> None:
    found = await made(server, LARGE)  # type: ignore[operator]
    well(found)
    assert found.closed == [1009] * 4
    assert found.counts.get("/ws/size", 0) == found.took("messages") == 0


@pytest.mark.parametrize(
    ("made", "ws"),
    [(frames.huge, WS[0]), (frames.bombs, WS[0]), (frames.huge, WS[1])],
)
async def test_the_servers_own_bound_keeps_them_out_of_memory(made: object, ws: str) -> None:
    async with target("--ws-max-size", str(MAX_SIZE), ws=ws) as server:
        found = await made(server, LARGE)  # type: ignore[operator]
        well(found)
        assert found.closed == [1009] * 4
        assert found.most < LARGE


@both
async def test_without_compression_there_is_nothing_to_unpack(ws: str) -> None:
    async with target("--ws-per-message-deflate", "false", ws=ws) as server:
        found = await frames.bombs(server, LARGE)
        well(found)
        assert 1009 not in found.closed
        assert found.most < LARGE


@on_both
async def test_pings_are_answered_and_cost_nobody_else(server: Target) -> None:
    found, pongs = await frames.pings(server)
    well(found)
    assert pongs == frames.FRAMES
    assert found.took("messages") == found.took("messages", "refused") == 0


async def test_pings_whose_pongs_are_not_read() -> None:
    """The server keeps the pongs, until its own ping is not answered."""
    async with target(*KEEPALIVE) as server:
        found = await frames.unread_pings(server, frames.ENDLESS)
        well(found)
        assert found.sent < frames.ENDLESS, "nothing ended it"
