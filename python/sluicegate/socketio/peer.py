"""The address at the other end of a Socket.IO connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..websocket.clients import UNKNOWN

__all__ = ["client_ip"]


def client_ip(environ: Mapping[str, Any]) -> str:
    """The peer's address, from the `environ` of a connect handler; "unknown" where the
    server tells none.

    Engine.IO's drivers put 127.0.0.1 into REMOTE_ADDR for everybody: where they keep the
    request itself the peer is read from that.
    """
    return _address(environ) or UNKNOWN


def _address(environ: Mapping[str, Any]) -> str | None:
    scope = environ.get("asgi.scope")
    if scope is not None:
        client = scope.get("client")
        return str(client[0]) if client and client[0] else None
    for framework, attribute in (
        ("aiohttp.request", "remote"),
        ("sanic.request", "ip"),
    ):
        request = environ.get(framework)
        if request is not None:
            return getattr(request, attribute, None)
    handler = environ.get("tornado.handler")
    if handler is not None:
        return getattr(handler.request, "remote_ip", None)
    address = environ.get("REMOTE_ADDR")
    return None if address is None else str(address)
