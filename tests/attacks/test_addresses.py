"""Addresses that a client makes up: without a trusted proxy they have no effect, through one each
is a key, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from attacks import addresses
from attacks.addresses import REAL, requests, spoofing
from attacks.app import MAX_KEYS, QUOTA
from attacks.target import Target, target

MB = 1 << 20
PROXY = ("127.0.0.0/8",)
CELL = 48  # bytes a key, at most


@pytest.fixture
async def server() -> AsyncIterator[Target]:
    async with target() as one:
        yield one


@pytest.mark.server
async def test_what_no_trusted_proxy_says_has_no_effect(server: Target) -> None:
    found, statuses = await spoofing(server, "/direct", addresses.spoofed())
    assert statuses == {200: QUOTA, 429: REAL - QUOTA}
    assert found.took("direct") == found.counts["/direct"] == QUOTA
    assert found.took("direct", "keys") == 1
    assert found.rounds >= 1


@pytest.mark.server
async def test_addresses_through_a_proxy_are_keys_up_to_the_bound(server: Target) -> None:
    heavy, light = "198.51.100.7", "198.51.100.8"
    assert await requests(server, "/", [heavy] * 150) == {200: QUOTA, 429: 50}
    found, statuses = await spoofing(server, "/", addresses.spoofed())
    assert statuses == {200: REAL}
    assert found.took("requests") == found.counts["/"] == REAL
    # one more key was there before
    assert found.took("requests", "keys") <= MAX_KEYS - 1
    assert found.took("requests", "evictions") >= REAL - MAX_KEYS
    assert found.took("requests", "bytes") <= MAX_KEYS * CELL
    assert found.most < 30 * MB
    assert found.rounds >= 1
    # who is at the limit was not forgotten for them
    assert await requests(server, "/", [heavy, light]) == {429: 1, 200: 1}


@pytest.mark.server
async def test_addresses_of_one_subscriber_are_one_key(server: Target) -> None:
    found, statuses = await spoofing(server, "/", addresses.of_one_subscriber(), 2000)
    assert statuses == {200: QUOTA, 429: 2000 - QUOTA}
    assert found.took("requests", "keys") == 1
    assert found.rounds >= 1


@pytest.mark.slow
async def test_a_million_addresses_through_a_proxy() -> None:
    found = await addresses.million(addresses.spoofed(), PROXY)
    assert found.admitted == addresses.MILLION
    assert found.keys <= MAX_KEYS
    assert found.keys + found.evictions == addresses.MILLION
    assert found.bytes <= MAX_KEYS * CELL
    assert found.grown < 30 * MB


async def test_a_flood_of_them_without_a_proxy() -> None:
    found = await addresses.million(addresses.spoofed(), (), 100_000)
    assert (found.admitted, found.keys, found.evictions) == (QUOTA, 1, 0)
    found = await addresses.million(addresses.of_one_subscriber(), PROXY, 20_000)
    assert (found.admitted, found.keys, found.evictions) == (QUOTA, 1, 0)
