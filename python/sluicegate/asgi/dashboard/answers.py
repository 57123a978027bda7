"""Responses: the page's files, and short texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import lru_cache

from sluicegate.observe.page import HEADERS, STATIC

from ..types import Message, Send

__all__ = ["REFUSED", "answer", "page", "redirect"]

Headers = Iterable[tuple[bytes, bytes]]

REFUSED: Message = {"type": "websocket.close", "code": 1008}

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_ASKS = "The token of this dashboard:"
# The form of the page that asks for the token goes to this server.
_COMMON = [
    (name.encode(), value.replace("form-action 'none'", "form-action 'self'").encode())
    for name, value in HEADERS.items()
]


@lru_cache(maxsize=32)
def _file(name: str) -> bytes | None:
    """One of the page's files; None for any other name."""
    for file in STATIC.iterdir():
        if file.name == name:
            return file.read_bytes()
    return None


async def page(
    send: Send, name: str, method: str, *, status: int = 200, said: str | None = None
) -> None:
    """One of the page's files; `said` is what the form says in place of its question."""
    body = await asyncio.to_thread(_file, name)
    kind = _TYPES.get(name[name.rfind(".") :])
    if body is None or kind is None:
        await answer(send, 404, "Not Found")
        return
    if said is not None:
        body = body.replace(_ASKS.encode(), said.encode())
    await _respond(send, status, b"" if method == "HEAD" else body, kind, [], len(body))


async def answer(send: Send, status: int, text: str, headers: Headers = ()) -> None:
    """A text."""
    body = text.encode()
    await _respond(send, status, body, b"text/plain; charset=utf-8", headers, len(body))


async def redirect(send: Send, where: str, headers: Headers = ()) -> None:
    """See other: a GET follows."""
    more = [(b"location", where.encode("ascii", "ignore")), *headers]
    await _respond(send, 303, b"", b"text/plain; charset=utf-8", more, 0)


async def _respond(
    send: Send, status: int, body: bytes, kind: bytes, headers: Headers, length: int
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind),
                (b"content-length", str(length).encode()),
                *_COMMON,
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
