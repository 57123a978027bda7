"""The store on Redis and Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _core

__all__ = ["Health", "RedisStore", "Registered"]

if TYPE_CHECKING or hasattr(_core, "HIREDIS"):
    from ..registered import Registered
    from .health import Health
    from .store import RedisStore
else:
    from .missing import RedisStore
