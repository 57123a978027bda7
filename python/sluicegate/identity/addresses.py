"""By address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .forwarding import HEADERS, client_of
from .networks import Proxies, Trusted, address_of, grouping, trusted

__all__ = ["address", "peer_is_trusted"]

Scope = Any  # a scope of ASGI, or what looks it up, as Starlette's Request


def address(
    trusted_proxies: Proxies = (), ipv6_prefix: int = 64, *, header: str | None = None
) -> Callable[[Scope], str]:
    """Makes the key function by the client's address, which never raises.

    The address is the peer's. Where that is one of `trusted_proxies` (networks as "10.0.0.0/8",
    addresses, "private" for the networks that are nobody's on the internet, "unix" for a peer
    without an address), it is the one that the proxies tell of: X-Forwarded-For, Forwarded and
    X-Real-IP are read from the right, up to the first hop that is no trusted proxy. What is no
    address ends the reading at the hop before.

    A proxy passes on what it does not set. So where two of the headers tell of different
    clients, neither is believed, and the key is the proxy's; `header` names the one that your
    proxies set, and the others are not read.

    IPv6 counts by network of `ipv6_prefix` bits, which one subscriber has to himself. A peer that
    is no address is its own key, and none at all is "unknown". ValueError or TypeError for
    arguments that make no sense.
    """
    proxies = trusted(trusted_proxies)
    key_of = grouping(ipv6_prefix)
    only = _header(header)

    def by_address(scope: Scope) -> str:
        host = _peer(scope)
        if not proxies or not _is_trusted(host, proxies):
            return key_of(host)
        client = client_of(scope.get("headers") or (), proxies, only)
        return key_of(host if client is None else client)

    return by_address


def peer_is_trusted(trusted_proxies: Proxies) -> Callable[[Scope], bool]:
    """Makes the question whether the peer of a scope is one of them."""
    proxies = trusted(trusted_proxies)

    return lambda scope: _is_trusted(_peer(scope), proxies)


def _is_trusted(host: str, proxies: Trusted) -> bool:
    peer = address_of(host.partition("%")[0])
    return proxies.unix and not host if peer is None else peer in proxies


def _peer(scope: Scope) -> str:
    """The host at the other end; empty where there is none."""
    client = scope.get("client")
    try:
        host = client[0]
    except (TypeError, LookupError):
        return ""
    return host if isinstance(host, str) else "" if host is None else str(host)


def _header(header: str | None) -> str | None:
    if header is None:
        return None
    if not isinstance(header, str):
        raise TypeError(f"header is the name of one, a str, not {type(header).__name__}")
    if header.lower() not in HEADERS:
        raise ValueError(f"header is one of {', '.join(HEADERS)}, not {header!r}")
    return header.lower()
