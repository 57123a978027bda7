"""What is answered in place of the application."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .._core import Decision
from ..http import PROBLEM_JSON, problem_of
from .types import ASGIApp, OnAuthError, Receive, Scope, Send

__all__ = ["auth_error_handler", "made", "problem", "too_many_requests"]


def too_many_requests(retry_after: int) -> ASGIApp:
    """429, with the seconds after which to come again in `retry-after`."""
    return _answering(429, retry_after, b"", [])


def problem(decision: Decision, retry_after: int) -> ASGIApp:
    """The same, and in the body what was exceeded (RFC 9457); 503 where no limit was reached, but
    what counts did not answer."""
    status, told = problem_of(decision, retry_after)
    kind = [(b"content-type", PROBLEM_JSON.encode())]
    return _answering(status, retry_after, json.dumps(told).encode(), kind)


def _answering(
    status: int, retry_after: int, body: bytes, more: list[tuple[bytes, bytes]]
) -> ASGIApp:
    headers = [
        (b"retry-after", str(retry_after).encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        *more,
    ]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

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
