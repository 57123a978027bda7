"""Who a request is from where no authenticate function says."""

from __future__ import annotations

from ..identity import address
from .types import Scope

__all__ = ["by_peer"]

_address = address()


async def by_peer(scope: Scope) -> tuple[str, str]:
    """The peer's address, of the group "default". Headers say nothing."""
    return _address(scope), "default"
