"""Rate limiting for realtime Python, decided in C.

    limiter = Limiter("5/second burst 20")
    decision = await limiter.hit("user:42")     # true when admitted, else decision.retry_after

Limiter, ConcurrencyLimiter: anything that can be counted; `sluicegate.sync` for threads.
WebSocketRateLimiter: WebSockets, by WebSocketLimits; FastAPIWebSocketLimiter, SocketIOLimiter and
ChannelsRateLimiter do it for these.
Quota, MemoryStore, SharedMemoryStore, RedisStore: what they are made of.
`sluicegate.testing`: a clock for tests.

Everything is imported when it is first asked for; no framework is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import ConnectionInfo, Decision, Slot
    from .channels import ChannelsRateLimiter, RateLimitedConsumerMixin
    from .concurrency import ConcurrencyLimiter
    from .errors import RateLimitExceeded, StorageError, StoreError, StoreFullError
    from .fastapi import ConnectionRefused, FastAPIWebSocketLimiter
    from .limiter import Handle, Limiter, hit_all
    from .quota import Quota, parse_quotas, parse_size
    from .reservation import Reservation
    from .socketio import SocketIOLimiter
    from .stores import MemoryStore, open_store
    from .stores.redis import RedisStore
    from .stores.shared import SharedMemoryStore
    from .websocket import (
        InMemoryStorage,
        RedisStorage,
        WebSocketLimits,
        WebSocketRateLimiter,
    )

__version__ = "0.1.0"

_WHERE = {
    "ChannelsRateLimiter": "channels",
    "ConcurrencyLimiter": "concurrency",
    "ConnectionInfo": "_core",
    "ConnectionRefused": "fastapi",
    "Decision": "_core",
    "FastAPIWebSocketLimiter": "fastapi",
    "Handle": "limiter",
    "InMemoryStorage": "websocket",
    "Limiter": "limiter",
    "MemoryStore": "stores",
    "Quota": "quota",
    "RateLimitExceeded": "errors",
    "RateLimitedConsumerMixin": "channels",
    "RedisStorage": "websocket",
    "RedisStore": "stores.redis",
    "Reservation": "reservation",
    "SharedMemoryStore": "stores.shared",
    "Slot": "_core",
    "SocketIOLimiter": "socketio",
    "StorageError": "errors",
    "StoreError": "errors",
    "StoreFullError": "errors",
    "WebSocketLimits": "websocket",
    "WebSocketRateLimiter": "websocket",
    "hit_all": "limiter",
    "open_store": "stores",
    "parse_quotas": "quota",
    "parse_size": "quota",
}

__all__ = [
    "ChannelsRateLimiter",
    "ConcurrencyLimiter",
    "ConnectionInfo",
    "ConnectionRefused",
    "Decision",
    "FastAPIWebSocketLimiter",
    "Handle",
    "InMemoryStorage",
    "Limiter",
    "MemoryStore",
    "Quota",
    "RateLimitExceeded",
    "RateLimitedConsumerMixin",
    "RedisStorage",
    "RedisStore",
    "Reservation",
    "SharedMemoryStore",
    "Slot",
    "SocketIOLimiter",
    "StorageError",
    "StoreError",
    "StoreFullError",
    "WebSocketLimits",
    "WebSocketRateLimiter",
    "__version__",
    "hit_all",
    "open_store",
    "parse_quotas",
    "parse_size",
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
