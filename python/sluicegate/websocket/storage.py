"""The stores under the names that users of ratethrottle know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..stores.memory import MemoryStore

if TYPE_CHECKING:
    from ..stores.redis import RedisStore

    class RedisStorage(RedisStore):
        """State on a Redis or Valkey server. It is a `RedisStore`, with the same options."""


__all__ = ["InMemoryStorage", "RedisStorage"]


class InMemoryStorage(MemoryStore):
    """State in the memory of this process. It is a `MemoryStore`, with the same options."""

    __slots__ = ()


def __getattr__(name: str) -> Any:
    # not before it is asked for: it needs a build with hiredis
    if name != "RedisStorage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..stores.redis import RedisStore

    class RedisStorage(RedisStore):
        """State on a Redis or Valkey server. It is a `RedisStore`, with the same options."""

    RedisStorage.__module__, RedisStorage.__qualname__ = __name__, name
    globals()[name] = RedisStorage
    return RedisStorage
