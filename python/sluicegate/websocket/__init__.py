"""Limits of WebSocket connections; the doors of the frameworks are translations of this."""

from .._core import ConnectionInfo
from .limiter import WebSocketRateLimiter
from .limits import WebSocketLimits
from .refused import ConnectionRefused
from .storage import InMemoryStorage

__all__ = [
    "ConnectionInfo",
    "ConnectionRefused",
    "InMemoryStorage",
    "WebSocketLimits",
    "WebSocketRateLimiter",
]
