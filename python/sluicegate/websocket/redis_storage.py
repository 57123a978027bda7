"""The store on a server, under the name that users of ratethrottle know."""

from __future__ import annotations

from ..stores.redis import RedisStore

__all__ = ["RedisStorage"]


class RedisStorage(RedisStore):
    """State on a Redis or Valkey server. It is a `RedisStore`, with the same options."""
