"""HTTP requests under a RateLimiter."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from math import ceil, inf
from typing import Any, Protocol

from .. import _core
from ..headers import retry_after_seconds
from .hits import report
from .rate import RateLimiter
from .rules import EndpointLimit, Rules, RulesArgument
from .who import who_is

__all__ = ["RateLimitMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_NAMES = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
_LIMIT, _REMAINING, _RESET = _NAMES


class Settings(Protocol):
    """What is read of a RateLimitSettings; an application's own will do."""

    @property
    def RATE_LIMIT_ENABLED(self) -> bool: ...  # noqa: N802 - the names of the variables
    @property
    def RATE_LIMIT_PER_MINUTE(self) -> int: ...  # noqa: N802
    @property
    def RATE_LIMIT_BURST(self) -> int: ...  # noqa: N802


class RateLimitMiddleware:
    """Limits the HTTP requests of each user, or of each address, in any minute.

    `settings`: None is a RateLimitSettings, made now. `rules`: other limits by pattern of the
    path, see `Rules`; a pattern counts apart from the rest. A user is the authenticated
    `scope["user"]`, so the middleware that authenticates stands in front of this one.

    When the store fails, requests are let through. Pure ASGI; what is not HTTP passes.
    """

    def __init__(
        self,
        app: App,
        limiter: RateLimiter,
        settings: Settings | None = None,
        *,
        rules: RulesArgument | None = None,
    ) -> None:
        if not isinstance(limiter, RateLimiter):
            raise TypeError(f"limiter is a RateLimiter, not {type(limiter).__name__}")
        if settings is None:
            from .settings import RateLimitSettings

            settings = RateLimitSettings()
        self.app = app
        self.limiter = limiter
        self._enabled = settings.RATE_LIMIT_ENABLED
        self._rules = Rules(
            EndpointLimit(settings.RATE_LIMIT_PER_MINUTE, 60, settings.RATE_LIMIT_BURST), rules
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with 429."""
        if scope["type"] != "http" or not self._enabled:
            await self.app(scope, receive, send)
            return
        prefix, limit = self._rules.of(_path(scope))
        if limit is None:
            await self.app(scope, receive, send)
            return
        who = who_is(scope)
        decision = await self.limiter.decide(prefix + who.key, *limit, on_store_error="allow")
        total = limit.limit + limit.burst
        headers = _headers(decision, total)
        if decision.allowed:
            await self.app(scope, receive, _with_headers(send, headers))
            return
        report("http", who.name, total, limit.limit)
        await _refuse(send, headers, decision, total)


def _path(scope: Scope) -> str:
    """The path within the application: without what a server in front of it serves it under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _headers(decision: _core.Decision, total: int) -> Headers:
    wait = decision.reset_after
    if not decision.allowed:
        remaining = 0
        if wait < decision.retry_after < inf:  # banned
            wait = decision.retry_after
    elif decision.degraded:  # a store that failed has counted nothing: all of it is to be had
        remaining = total
    else:
        remaining = decision.remaining
    return [
        (_LIMIT, b"%d" % total),
        (_REMAINING, b"%d" % remaining),
        (_RESET, b"%d" % ceil(time.time() + wait)),
    ]


def _with_headers(send: Send, headers: Headers) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _NAMES]
            message = {**message, "headers": [*own, *headers]}
        await send(message)

    return sending


async def _refuse(send: Send, headers: Headers, decision: _core.Decision, total: int) -> None:
    seconds = retry_after_seconds(decision) or 1
    body = json.dumps(
        {
            "error": "rate_limited",
            "detail": f"Rate limit exceeded. Try again in {seconds} seconds.",
            "retry_after": seconds,
            "limit": total,
        }
    ).encode()
    own = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % seconds),
    ]
    await send({"type": "http.response.start", "status": 429, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
