"""Who a connection's client is, as the application's own callable says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .words import client_key

__all__ = ["UNKNOWN", "client_of"]

UNKNOWN = "unknown"  # the client of servers that tell no address, as on a Unix socket


async def client_of(get_client_id: Callable[..., Any], *about: Any) -> str | bytes:
    """What `get_client_id`, plain or async, says of a connection. TypeError for what is no
    client id."""
    client = get_client_id(*about)
    if hasattr(client, "__await__"):
        client = await client
    return client_key(client)
