"""The Valkey store under the name that users of quart-rate-limiter know."""

from __future__ import annotations

from typing import Any

from .remote import open_remote
from .store import NativeStore

__all__ = ["ValkeyStore"]


class ValkeyStore(NativeStore):
    """State on a Valkey server, shared by all who use it.

    `address` is its URL (`valkey://`, `valkeys://`, `unix://`, ...). `kwargs` are settings of
    valkey-py's `from_url`; with any of them valkey-py is needed (`pip install valkey`).
    """

    def __init__(self, address: str, **kwargs: Any) -> None:
        super().__init__(lambda: open_remote(address, kwargs, "valkey"))
