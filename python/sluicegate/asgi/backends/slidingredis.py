"""Counting in Redis or Valkey, with no window at all."""

from __future__ import annotations

from typing import Any

from .redis import RedisBackend

__all__ = ["SlidingRedisBackend"]


class SlidingRedisBackend(RedisBackend):
    """RedisBackend with a log of each user's requests in place of windows: no second, minute
    or month, wherever it begins, has more requests than the rule says."""

    algorithm = "sliding-log"

    def __init__(self, redis: Any = None, *, name: str = "asgi-sliding", **options: Any) -> None:
        super().__init__(redis, name=name, **options)
