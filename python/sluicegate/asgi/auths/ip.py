"""By address."""

from __future__ import annotations

from ...identity.fields import AmbiguousError, only_header
from ...identity.networks import Address, address_of
from ..types import Scope
from .empty import EmptyInformation

__all__ = ["client_ip"]


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
    try:
        real = address_of(only_header(scope, b"x-real-ip"))
    except AmbiguousError:
        raise EmptyInformation(scope) from None
    if real is None or not real.is_global:
        raise EmptyInformation(scope)
    return str(real), "default"


def _peer(scope: Scope) -> Address | None:
    client = scope.get("client")
    return address_of(client[0]) if isinstance(client, tuple | list) and client else None
