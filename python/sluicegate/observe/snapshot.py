"""Counters and the hottest keys of limiters, as plain data.

The figures are kept in C and read when asked, so that looking costs the checks nothing.
Keys come from outside: they are shown as escaped text of at most 64 bytes, or as digests.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Protocol, TypedDict

from sluicegate import _core

# Digests are keyed by a secret of this process, so that a digest of an address cannot be
# found again by trying all addresses.
_SECRET = os.urandom(16)


class HotKey(TypedDict):
    """One row of a top-k list."""

    key: str  # escaped, or a digest
    cut: bool  # the key is longer than what is shown
    events: int  # an estimate; halved once a minute, so that it tells of now


class TableSnapshot(TypedDict):
    """One table at one instant."""

    counters: dict[str, int]
    hottest: list[HotKey]
    most_refused: list[HotKey]


class HasTable(Protocol):
    """A limiter over one table: `Limiter`, sync or async."""

    @property
    def table(self) -> _core.Table: ...


class HasTables(Protocol):
    """A limiter over several tables, such as `WebSocketRateLimiter`: name to table."""

    @property
    def tables(self) -> Mapping[str, _core.Table]: ...


class HasLimiter(Protocol):
    """A framework's door, such as `FastAPIWebSocketLimiter`: its limiter is what counts."""

    @property
    def limiter(self) -> HasTables: ...


class HasTheirTables(Protocol):
    """A store: the tables of all its limiters, each with the limiter's name."""

    def tables(self) -> list[tuple[str | None, _core.Table]]: ...


Observable = _core.Table | HasTable | HasTables | HasLimiter | HasTheirTables


def escape_key(key: bytes) -> str:
    """The key as text that is safe in a terminal, a log line and a page's text.

    What is not printable UTF-8 becomes `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`; a backslash is
    doubled, so that two keys never look the same.
    """
    text = key.decode("utf-8", "surrogateescape")
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_ESCAPED = re.compile(rb"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})?")


def unescape_key(text: str | bytes) -> bytes:
    """The key that `escape_key` shows so. ValueError for a backslash that begins no escape."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return _ESCAPED.sub(_unescape, raw)


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    if escape == b"\\\\":
        return b"\\"
    if escape == b"\\":
        raise ValueError(r"a backslash in a key is written twice, and a byte as \x0a")
    number = int(escape[2:], 16)
    if escape.startswith(b"\\x"):
        return bytes([number])
    if number > 0x10FFFF:
        raise ValueError(f"there is no character {escape.decode()}")
    return chr(number).encode("utf-8", "surrogatepass")


def hidden_key(key: bytes) -> str:
    """A digest of the key: the same for one key as long as this process lives."""
    return hashlib.blake2b(key, digest_size=8, key=_SECRET).hexdigest()


def top_keys(
    table: _core.Table, count: int = 10, *, refused: bool = False, hide_keys: bool = False
) -> list[HotKey]:
    """The `count` heaviest keys of a table, heaviest first; with `refused`, by refusals."""
    show = hidden_key if hide_keys else escape_key
    return [
        {"key": show(name), "cut": cut, "events": events}
        for name, cut, events in table.top(count, refused=refused)
    ]


def limiter_of(observed: Observable) -> Observable:
    """What counts: the limiter of a door, else what was given."""
    limiter: Observable = getattr(observed, "limiter", observed)
    return limiter


def tables_of(observed: Observable, name: str) -> dict[str, _core.Table]:
    """The tables behind a limiter, by name; those of several are `name.part`. Of a store they
    are those of all limiters that have a name: of the others nothing tells which is which."""
    observed = limiter_of(observed)
    if isinstance(observed, _core.Table):
        return {name: observed}
    several = getattr(observed, "tables", None)
    if callable(several):
        found: dict[str, _core.Table] = {}
        for part, table in several():
            if part is not None:
                label = f"{name}.{part}"
                # one that counts slots may be called as one that counts events is
                found[f"{label} (slots)" if label in found else label] = table
        return found
    if several is not None:
        return {f"{name}.{part}": table for part, table in several.items()}
    table = getattr(observed, "table", None)
    if isinstance(table, _core.Table):
        return {name: table}
    raise TypeError(
        f"{type(observed).__name__} cannot be observed: give a limiter, a limiter's table, or "
        "a store"
    )


def snapshot(
    limiters: Mapping[str, Observable], *, top: int = 10, hide_keys: bool = False
) -> dict[str, TableSnapshot]:
    """Counters and top-k of each limiter, by the names given.

    `top` is how many keys a list shows at most; `hide_keys` shows digests in their place.
    The result holds only dicts, lists, str, int and bool.
    """
    result: dict[str, TableSnapshot] = {}
    for name, observed in limiters.items():
        for table_name, table in tables_of(observed, name).items():
            result[table_name] = {
                "counters": table.counters(),
                "hottest": top_keys(table, top, hide_keys=hide_keys),
                "most_refused": top_keys(table, top, refused=True, hide_keys=hide_keys),
            }
    return result
