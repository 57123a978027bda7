"""The store on Redis and Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _core

__all__ = ["Health", "RedisStore", "Registered"]

if TYPE_CHECKING or hasattr(_core, "HIREDIS"):
    from .health import Health
    from .registry import Registered
    from .store import RedisStore
else:
    from .missing import RedisStore
