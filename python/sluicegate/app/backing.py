"""The store that an argument `redis_or_store` means."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from ..stores import Store, open_store

__all__ = ["store_of"]

# A client's limiters share one store, and so its connection.
_of_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def store_of(redis_or_store: Any) -> Store:
    """A store is itself, a URL or None what `open_store` makes of it; a client of `redis` or
    `valkey`, synchronous or not, lends its settings to a RedisStore. TypeError for the rest."""
    if not _is_client(redis_or_store):
        return open_store(redis_or_store)
    store = _of_clients.get(redis_or_store)
    if store is None:
        redis_store: Any = import_module("sluicegate").RedisStore
        store = _of_clients.setdefault(redis_or_store, redis_store(redis_or_store))
    found: Store = store
    return found


def _is_client(given: Any) -> bool:
    return any(
        base.__module__.partition(".")[0] in ("redis", "valkey") for base in type(given).__mro__
    )
