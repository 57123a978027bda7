"""Where requests are counted: over any store, or in a class of one's own.

`StoreBackend(store)` takes any store or its URL; `simple.MemoryBackend`, `redis.RedisBackend`
and `slidingredis.SlidingRedisBackend` are it under the names of asgi-ratelimit.
"""

from __future__ import annotations

from .base import BaseBackend
from .store import StoreBackend

__all__ = ["BaseBackend", "StoreBackend"]
