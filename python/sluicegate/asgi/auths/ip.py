"""By address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from ..types import Scope
from .empty import EmptyInformation
from .fields import only_header

__all__ = ["address_of", "client_ip"]


async def client_ip(scope: Scope) -> tuple[str, str]:
    """The peer's address, where it is a global one. A peer that is at home in a network of its
    own (127.0.0.1, 10.0.0.1 ...) is taken for a proxy, which has to set `X-Real-IP` on every
    request: that address then, if it is a global one. The group is "default".

    EmptyInformation for all else: no peer, no global address, or a header that is not one.
    """
    peer = _peer(scope)
    if peer is None:
        raise EmptyInformation(scope)
    if peer.is_global:
        return str(peer), "default"
    real = address_of(only_header(scope, b"x-real-ip"))
    if real is None or not real.is_global:
        raise EmptyInformation(scope)
    return str(real), "default"


def _peer(scope: Scope) -> IPv4Address | IPv6Address | None:
    client = scope.get("client")
    return address_of(client[0]) if isinstance(client, tuple | list) and client else None


def address_of(text: object) -> IPv4Address | IPv6Address | None:
    """The address that a text is, or None. That of an IPv4 host in IPv6 clothes is its own, so
    that nobody is two; a zone (`%eth0`), which could be any text, is no part of one."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
