"""Limits of WebSocket connections; the doors of the frameworks are translations of this."""

from typing import TYPE_CHECKING, Any

from .._core import ConnectionInfo
from .limiter import WebSocketRateLimiter
from .limits import WebSocketLimits
from .refused import ConnectionRefused
from .storage import InMemoryStorage

if TYPE_CHECKING:
    from .redis_storage import RedisStorage

__all__ = [
    "ConnectionInfo",
    "ConnectionRefused",
    "InMemoryStorage",
    "RedisStorage",
    "WebSocketLimits",
    "WebSocketRateLimiter",
]


def __getattr__(name: str) -> Any:
    if name != "RedisStorage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .redis_storage import RedisStorage  # what is not used is not loaded

    return RedisStorage
