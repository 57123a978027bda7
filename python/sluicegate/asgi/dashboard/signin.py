"""Who may look: who has the token, or the cookie that one who had it was given.

The cookie is derived from the token, so that every worker knows it and nothing is kept; another
token ends it. It is not sent along by links and pages of other sites.
"""

from __future__ import annotations

import hashlib
import hmac
from math import ceil

from sluicegate.limiter import Limiter
from sluicegate.observe.page import is_same_origin
from sluicegate.stores import MemoryStore

from ..types import Scope

__all__ = ["SignIn"]

COOKIE = "sluicegate-dashboard"
COOKIE_SECONDS = 12 * 3600
SHORTEST = 16  # characters of a token
TRIES = "10/minute"  # of one peer; all peers together ten times that


class SignIn:
    """Compares without telling by the time it takes how much was right."""

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise TypeError(f"token is a str or None, not {type(token).__name__}")
        if len(token) < SHORTEST:
            raise ValueError(
                f"the token of a dashboard has {SHORTEST} characters at least; "
                "secrets.token_urlsafe() makes one"
            )
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token of a dashboard is of printable ASCII: it stands in headers")
        self._digest = _digest(token)
        ticket = hmac.new(token.encode(), b"sluicegate dashboard", "sha256")
        self._cookie = ticket.hexdigest()
        self._ticket = _digest(self._cookie)
        store = MemoryStore(max_keys=10_000)
        self._tries = Limiter(TRIES, store=store)
        self._all_tries = Limiter("100/minute", store=store)

    def accepts(self, token: str) -> bool:
        """Whether it is the token."""
        return hmac.compare_digest(_digest(token), self._digest)

    def knows(self, scope: Scope) -> bool:
        """Whether who asks has the token, or the cookie."""
        bearer = header(scope, b"authorization")
        if bearer is not None and bearer[:7].lower() == "bearer ":
            return self.accepts(bearer[7:].strip())
        for cookie in (header(scope, b"cookie") or "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == COOKIE and hmac.compare_digest(_digest(value), self._ticket):
                return True
        return False

    def is_ours(self, scope: Scope) -> bool:
        """Whether a WebSocket comes from our own page, or from no page at all."""
        return is_same_origin(header(scope, b"origin"), header(scope, b"host") or "")

    async def wait(self, scope: Scope) -> int:
        """Counts a try: seconds to wait before another one is heard; 0: it is."""
        client = scope.get("client")
        who = str(client[0]) if client else ""
        decision = await Limiter.hit_all((self._tries, who, 1), (self._all_tries, "", 1))
        return 0 if decision else ceil(decision.retry_after)

    def cookie(self, scope: Scope) -> bytes:
        """The header's value that gives the cookie, to this path alone."""
        path = scope.get("root_path", "").rstrip("/") + "/"
        if not path.isascii() or any(c in path for c in ";, \t\r\n"):
            path = "/"
        secure = "; Secure" if scope.get("scheme") in ("https", "wss") else ""
        return (
            f"{COOKIE}={self._cookie}; HttpOnly; SameSite=Strict; Path={path}; "
            f"Max-Age={COOKIE_SECONDS}{secure}"
        ).encode()


def header(scope: Scope, wanted: bytes) -> str | None:
    """A header's first value."""
    for name, value in scope.get("headers") or ():
        if name.lower() == wanted:
            text: str = value.decode("latin-1")
            return text
    return None


def _digest(token: str) -> bytes:
    # of one length, whatever was typed
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
