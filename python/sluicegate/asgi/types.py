"""The types of ASGI, and of what the middleware is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = [
    "ASGIApp",
    "Authenticate",
    "Message",
    "OnAuthError",
    "OnBlocked",
    "Receive",
    "Scope",
    "Send",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# The user and the group that a scope is of: two str (a user may be an int or a UUID, too).
Authenticate = Callable[[Scope], Any]
# An ASGI app, or what makes one of the exception, plain or async.
OnAuthError = ASGIApp | Callable[[Exception], Any]
# Makes an ASGI app of the whole seconds after which to come again, plain or async.
OnBlocked = Callable[[int], Any]
