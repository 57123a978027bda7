"""Small things that several modules share."""

from __future__ import annotations

from collections.abc import Generator
from math import isnan
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import Key

__all__ = ["DONE", "Done", "check_number", "key_bytes", "own"]


class Done:
    """What is done already, for callers that await it: stores elsewhere take a while."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


DONE = Done()


def key_bytes(key: Key) -> bytes:
    """The bytes that a key stands for: a str is its UTF-8, lone surrogates included."""
    if isinstance(key, str):
        return str.encode(key, "utf-8", "surrogatepass")
    if isinstance(key, bytes):
        return bytes(key)
    raise TypeError(f"a key is a str or bytes, not {type(key).__name__}")


def check_number(value: object, what: str, *, above: float = 0.0, equal: bool = False) -> float:
    """`value` as a float; ValueError unless above `above` (or equal to it, if that will do)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number of seconds, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if isnan(number) or number < above or (number == above and not equal):
        raise ValueError(f"{what} is {'at least' if equal else 'above'} {above:g}, not {value}")
    return number


def own(cls: type, **methods: Any) -> None:
    """Gives the class methods of its C base as its own: the interpreter calls a method of
    the very class of its object by a shorter way than an inherited one."""
    for name, method in methods.items():
        setattr(cls, name, _core.own_method(cls, method))
