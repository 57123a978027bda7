"""How many bytes an event is."""

from __future__ import annotations

import json
from typing import Any

from .._core import COST_MAX
from ..websocket.sizes import size_of

__all__ = ["event_size", "payload_size"]

NAME_MAX = 128  # characters of an event's name that are not data


def event_size(event: Any, data: tuple[Any, ...]) -> int:
    """Bytes of an event's arguments, and of what of its name is no name.

    A name is what the client likes, and a catch-all handler gets it: a long one is data.
    """
    size = 0
    if not isinstance(event, str):
        size = payload_size(event)
    elif len(event) > NAME_MAX:
        size = size_of(event)
    for argument in data:
        size += payload_size(argument)
    return min(size, COST_MAX)


def payload_size(data: Any) -> int:
    """`size_of`, also of what Socket.IO carries and JSON does not: bytes inside of other data
    count as they are, and anything else as the text that Python has of it."""
    try:
        return size_of(data)
    except (TypeError, ValueError):
        pass
    binary = 0

    def without_binary(value: Any) -> str:
        nonlocal binary
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError
        binary += size_of(value)
        return ""

    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=without_binary)
        return size_of(text) + binary
    except (TypeError, ValueError):  # as a key that JSON has not: MessagePack has it
        return _size_of_repr(data)
    except RecursionError:
        return COST_MAX


def _size_of_repr(data: Any) -> int:
    try:
        return size_of(repr(data))
    except RecursionError:
        return COST_MAX
