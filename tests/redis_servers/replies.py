"""Where one reply ends and the next begins, in RESP2 and RESP3."""

from __future__ import annotations

_LINES = b"+-:,#_("
_TEXTS = b"$=!"
_ARRAYS = b"*~>"
_MAPS = b"%|"


def end_of_first(data: bytes | bytearray) -> int | None:
    """The length of the first reply in `data`; None where it is not complete."""
    at, wanted = 0, 1
    while wanted:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        kind, head = data[at], data[at + 1 : line]
        at, wanted = line + 2, wanted - 1
        if kind in _LINES:
            continue
        assert kind in _TEXTS + _ARRAYS + _MAPS, f"no reply begins with {chr(kind)!r}"
        count = max(int(head), 0)
        if kind in _TEXTS:
            at += count + 2 if int(head) >= 0 else 0
            if at > len(data):
                return None
        else:
            # Attributes come before the reply that they are of.
            wanted += count * (2 if kind in _MAPS else 1) + (kind == ord("|"))
    return at


def take(data: bytearray) -> list[bytes]:
    """Removes the complete replies from the front of `data`."""
    found = []
    while (end := end_of_first(data)) is not None:
        found.append(bytes(data[:end]))
        del data[:end]
    return found
