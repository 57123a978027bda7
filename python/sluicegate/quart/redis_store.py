"""The Redis store under the name that users of quart-rate-limiter know."""

from __future__ import annotations

from typing import Any

from .remote import open_remote
from .store import NativeStore

__all__ = ["RedisStore"]


class RedisStore(NativeStore):
    """State on a Redis server, shared by all who use it.

    `address` is its URL (`redis://`, `rediss://`, `unix://`, ...). `kwargs` are settings of
    redis-py's `from_url`; with any of them redis-py is needed (`pip install redis`).
    """

    def __init__(self, address: str, **kwargs: Any) -> None:
        super().__init__(lambda: open_remote(address, kwargs, "redis"))
