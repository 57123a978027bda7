"""What an endpoint limits by where its class does not say."""

from __future__ import annotations

from functools import lru_cache

from .connections import ConnectionLimiter
from .rate import RateLimiter
from .settings import RateLimitSettings

__all__ = ["connection_limiter", "rate_limiter", "settings"]


@lru_cache(maxsize=1)
def settings() -> RateLimitSettings:
    """Made when the first connection asks for it."""
    return RateLimitSettings()


@lru_cache(maxsize=1)
def rate_limiter() -> RateLimiter:
    """Over the memory of this process."""
    return RateLimiter()


@lru_cache(maxsize=1)
def connection_limiter() -> ConnectionLimiter:
    """Over the memory of this process."""
    return ConnectionLimiter(max_connections=settings().WS_MAX_CONNECTIONS_PER_USER)
