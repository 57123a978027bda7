"""The door for an application that limits its HTTP requests and its WebSockets itself.

    limiter = RateLimiter("redis://localhost")
    app.add_middleware(RateLimitMiddleware, limiter=limiter)

    class Chat(RateLimitedWebSocketEndpoint):
        rate_limiter = limiter
        connection_limiter = ConnectionLimiter("redis://localhost", max_connections=5)

RateLimiter, ConnectionLimiter: what counts. RateLimitMiddleware, RateLimitedWebSocketEndpoint:
what asks it. RateLimitSettings: the numbers, from the environment. EndpointLimit: other
numbers for some paths.

Each is imported when it is first asked for, and so is the framework that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connections import ConnectionLimiter
    from .endpoint import RateLimitedWebSocketEndpoint
    from .middleware import RateLimitMiddleware
    from .rate import RateLimiter
    from .rules import EndpointLimit
    from .settings import RateLimitSettings

_WHERE = {
    "ConnectionLimiter": "connections",
    "EndpointLimit": "rules",
    "RateLimitMiddleware": "middleware",
    "RateLimitSettings": "settings",
    "RateLimitedWebSocketEndpoint": "endpoint",
    "RateLimiter": "rate",
}

__all__ = [
    "ConnectionLimiter",
    "EndpointLimit",
    "RateLimitMiddleware",
    "RateLimitSettings",
    "RateLimitedWebSocketEndpoint",
    "RateLimiter",
]


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{where}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
