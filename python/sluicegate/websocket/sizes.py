"""How many bytes a message is."""

from __future__ import annotations

import json
from typing import Any

from .._core import COST_MAX

__all__ = ["size_of"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def size_of(data: Any) -> int:
    """Bytes of a message: text in UTF-8, bytes as they are, anything else as compact JSON.

    TypeError or ValueError for what JSON cannot tell. What is nested too deeply to be
    written counts as larger than any limit.
    """
    if isinstance(data, str):
        # a lone surrogate has no UTF-8, but a size all the same
        return len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    if isinstance(data, bytes | bytearray):
        return len(data)
    if isinstance(data, memoryview):
        return data.nbytes
    try:
        return size_of(_encode(data))
    except RecursionError:
        return COST_MAX
