"""Headers that are long to read, and headers without end."""

from __future__ import annotations

from time import perf_counter

import pytest

from attacks import headers
from attacks.app import QUOTA
from attacks.target import target
from sluicegate.identity import address, forwarding
from sluicegate.identity.networks import address_of

MB = 1 << 20
HOPS = 32  # of proxies behind each other that are believed


@pytest.mark.server
async def test_long_headers_are_read_to_a_bound() -> None:
    async with target() as server:
        found, statuses = await headers.worst(server)
        # none of them tells of a client, so that all is the proxy's
        assert statuses == {200: QUOTA, 429: headers.REQUESTS - QUOTA}
        assert found.took("requests", "keys") == 1
        assert found.most < 30 * MB
        assert found.rounds >= 1


@pytest.mark.server
async def test_headers_without_end_are_the_servers_affair() -> None:
    async with target() as server:
        found, answer = await headers.endless(server)
        assert answer in (400, 0)  # 0: it was lost as the server closed
        assert found.sent < 40 * MB, "the server read on"
        assert found.most < 10 * MB
        assert found.took("requests") == found.took("requests", "refused") == 0


@pytest.mark.parametrize("line", headers.WORST, ids=lambda line: line[:24])
def test_no_header_takes_long_to_read(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Of one of 1.5 MB no more is read than of a short one."""
    read: list[object] = []

    def counted(text: object) -> object:
        read.append(text)
        return address_of(text)

    monkeypatch.setattr(forwarding, "address_of", counted)
    name, _, value = line.partition(": ")
    scope = {
        "client": ("127.0.0.1", 1),
        "headers": [(name.lower().encode(), value.encode() * 100)],
    }
    began = perf_counter()
    address(trusted_proxies=("127.0.0.0/8",))(scope)
    assert len(read) <= 2 * HOPS
    assert perf_counter() - began < 5, "it takes time that grows faster than its length"
