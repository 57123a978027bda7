"""A store on a server, as RedisStore and ValkeyStore are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..stores import Store

__all__ = ["open_remote"]


def open_remote(address: str, settings: Mapping[str, Any], client: str) -> Store:
    """The store at that URL. `settings` go through the client library of that name, which
    knows what they mean; its client lends them, and is never connected.

    ImportError with the pip command where settings need a library that is not there.
    """
    from .. import RedisStore

    make: Any = RedisStore
    if settings:
        try:
            library = import_module(f"{client}.asyncio")
        except ImportError as error:
            raise ImportError(
                f"settings besides the address are those of {client}-py: pip install {client}"
            ) from error
        store: Store = make(library.from_url(address, **settings))
    else:
        store = make(address)
    return store
