"""Who is limited: functions that make a key of a scope.

    address()                                  the peer's address; IPv6 by /64
    address(trusted_proxies="private")         the client's, as the proxies tell it
    user(), header(...), claim(...), path()    by what else there is
    together(user(), path())                   by several

Each takes a scope of ASGI, or a Request or WebSocket of Starlette, and returns a str.
"""

from __future__ import annotations

from .addresses import address
from .keys import Key, as_key, claim, everybody, header, key_of, path, together, user
from .paths import canonical_path

__all__ = [
    "Key",
    "address",
    "as_key",
    "canonical_path",
    "claim",
    "everybody",
    "header",
    "key_of",
    "path",
    "together",
    "user",
]
