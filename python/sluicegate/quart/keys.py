"""Who is limited: the address of the peer, or what a key function says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from quart import has_websocket_context, request, websocket

from ..identity.networks import grouping
from ..websocket.words import client_key

__all__ = ["KeyFunction", "address_key", "as_text", "key_from", "remote_addr_key"]

KeyFunction = Callable[[], Awaitable[str] | str]

_key_of = grouping()


async def remote_addr_key() -> str:
    """The address at the other end of the connection; of IPv6 its /64.

    No header is believed. Behind a proxy, let the server put the client's address there
    (hypercorn's ProxyFixMiddleware), or give a key function.
    """
    return address_key((websocket if has_websocket_context() else request).remote_addr)


def address_key(peer: str | None) -> str:
    """The key of a peer; one that is no address, as on a Unix socket, is its own key."""
    return _key_of(peer or "")


async def key_from(function: KeyFunction) -> str:
    """What a key function, plain or async, says. TypeError unless a str, bytes or int."""
    key: object = function()
    if not isinstance(key, str) and isawaitable(key):
        key = await key
    try:
        return as_text(key)
    except TypeError:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"the key function {name} returned {type(key).__name__}, "
            f"not a str (or bytes, or an int) that tells its clients apart"
        ) from None


def as_text(key: object) -> str:
    """One str for one key; bytes that are not UTF-8 keep apart, too."""
    known = client_key(key)
    return known if isinstance(known, str) else known.decode("utf-8", "surrogateescape")
