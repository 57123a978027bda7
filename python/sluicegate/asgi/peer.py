"""Who a request is from where nobody says: the address at the other end."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Network

from .auths.ip import address_of
from .types import Scope

__all__ = ["peer_address"]


def peer_address(scope: Scope) -> str:
    """The peer's address. IPv6 counts by /64, which one host has to itself; a peer that is no
    address is its own, and where there is none it is "unknown". Headers say nothing."""
    client = scope.get("client")
    return _of(str(client[0])) if client and client[0] else "unknown"


@lru_cache(maxsize=4096)
def _of(host: str) -> str:
    address = address_of(host.partition("%")[0])
    if address is None:
        return host
    if address.version == 6:
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)
