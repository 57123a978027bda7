"""The application: its pages, and who may see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..types import Receive, Scope, Send
from .answers import REFUSED, answer, page, redirect
from .feed import Feed
from .reading import read_limiters
from .signin import SignIn

if TYPE_CHECKING:
    from sluicegate.observe.snapshot import Observable

__all__ = ["Dashboard"]

FORM_BYTES = 4096


class Dashboard:
    """An ASGI app that shows what limiters do, live: decisions a second, connections, keys that
    are hottest and most refused, stores and their outages. All of it is this process's.

    `limiters` maps names to limiters, doors, or tables, as for `sluicegate.observe.snapshot`;
    it is read at each sample, so that they may come and go. `token` (16 characters at least) is
    what a person types to see the page, or a program sends as `Authorization: Bearer ...`; None
    turns the dashboard off, and every path is 404. `hide_keys` shows digests in place of keys.

    Samples are taken while somebody looks, twice a second; otherwise it costs nothing. Whoever
    reaches it without TLS can read the token on the way.

    ValueError or TypeError for a token that is none, and for what cannot be observed.
    """

    def __init__(
        self,
        limiters: Mapping[str, Observable],
        *,
        token: str | None = None,
        hide_keys: bool = False,
    ) -> None:
        self._sign_in = None if token is None else SignIn(token)
        read_limiters(limiters, hide_keys=hide_keys)  # what is wrong with them shows now
        self._feed = Feed(lambda: read_limiters(limiters, hide_keys=hide_keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = _path(scope), scope["method"]
        if self._sign_in is None:
            await answer(send, 404, "Not Found")
        elif path == "":
            root = scope.get("root_path", "").rpartition("/")[2]
            await redirect(send, f"{root}/" if root else "/")
        elif path.startswith("/static/"):
            await page(send, path.removeprefix("/static/"), method)
        elif path != "/":
            await answer(send, 404, "Not Found")
        elif method == "POST":
            await self._enter(self._sign_in, scope, receive, send)
        elif method not in ("GET", "HEAD"):
            await answer(send, 405, "Method Not Allowed", [(b"allow", b"GET, HEAD, POST")])
        elif self._sign_in.knows(scope):
            await page(send, "page.html", method)
        else:
            await page(send, "signin.html", method, status=401)

    async def _enter(self, sign_in: SignIn, scope: Scope, receive: Receive, send: Send) -> None:
        """A token was typed."""
        wait = await sign_in.wait(scope)
        if wait:
            headers = [(b"retry-after", str(wait).encode())]
            await answer(send, 429, f"Too many tries: come back in {wait} seconds.", headers)
            return
        form = await _form(receive)
        if form is None:
            await answer(send, 413, "Content Too Large")
        elif sign_in.accepts(form.get("token", "")):
            await redirect(send, "./", [(b"set-cookie", sign_in.cookie(scope))])
        else:
            await page(send, "signin.html", "POST", status=403, said="That is not the token.")

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if (
            self._sign_in is None
            or _path(scope) != "/feed"
            or not self._sign_in.knows(scope)
            or not self._sign_in.is_ours(scope)
        ):
            await send(REFUSED)  # before accept: HTTP 403
            return
        await self._feed.serve(receive, send)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'off' if self._sign_in is None else 'on'}>"


def _path(scope: Scope) -> str:
    """The path below where it is mounted; some routers cut it, some say where the cut is."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


async def _form(receive: Receive) -> dict[str, str] | None:
    """What a form sent; None where it is too much."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return {}
        body += message.get("body", b"")
        if len(body) > FORM_BYTES:
            return None
        if not message.get("more_body"):
            return dict(parse_qsl(body.decode("utf-8", "replace")))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
