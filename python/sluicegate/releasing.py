"""What happens when a slot is given back, by whoever holds it or because it was forgotten."""

from __future__ import annotations

import sys
from typing import Any

from . import _core
from ._support import key_bytes
from .waiting import wake

__all__: list[str] = []


def _released(table: _core.Table, key: _core.Key) -> None:
    name = key_bytes(key)
    held_by = _held_by()
    held = None if held_by is None else held_by(table)
    if held is not None:  # it is a server's
        held.give_back_threadsafe(name)
        table = held.server.table
    wake(table, name)


def _held_by() -> Any:
    """Who keeps slots on servers; None where no server is used."""
    module = sys.modules.get("sluicegate.stores.redis.held")
    return None if module is None else module.held_by


_core.set_released(_released)
