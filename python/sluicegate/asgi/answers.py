"""What is answered in place of the application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from .types import ASGIApp, OnAuthError, Receive, Scope, Send

__all__ = ["auth_error_handler", "made", "too_many_requests"]


def too_many_requests(retry_after: int) -> ASGIApp:
    """429, with the seconds after which to come again in `retry-after`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"retry-after", str(retry_after).encode("ascii")),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


async def made(make: Callable[[Any], Any], of: Any) -> ASGIApp:
    """The ASGI app that `make`, plain or async, makes of it."""
    app = make(of)
    if isinstance(app, Awaitable):
        app = await app
    if not callable(app):
        raise TypeError(f"{make!r} returned {type(app).__name__}, not an ASGI app")
    return app  # type: ignore[no-any-return]


def auth_error_handler(given: OnAuthError | None) -> Callable[[Any], Any] | None:
    """What makes an app of an exception: `given`, or for an app that app."""
    if given is None or _takes(given, 1):
        return given  # type: ignore[return-value]
    if _takes(given, 3):
        return lambda error: given
    raise TypeError(
        "on_auth_error is a function of the exception that returns an ASGI app, or an ASGI app, "
        f"not {given!r}"
    )


def _takes(function: Any, count: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # it does not tell: then it is what the documents print
        return count == 1
    return True
