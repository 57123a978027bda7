"""Another store for every limiter, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import stores

__all__ = ["override"]


@contextmanager
def override(store: stores.Store | str | None = None) -> Iterator[Any]:
    """Inside the block every limiter, made before or in it, uses `store` (None: a new one).

        with override(store=MemoryStore(clock=clock)) as store:
            ...

    Afterwards each is back at its own store, with the state that it had there.
    """
    used = stores.MemoryStore() if store is None else stores.open_store(store)
    stores.override(used)
    try:
        yield used
    finally:
        stores.restore(used)
