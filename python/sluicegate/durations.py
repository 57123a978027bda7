"""Lengths of time as people write them."""

from __future__ import annotations

import re

__all__ = ["seconds_of"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0} | {
    name + ending: seconds
    for name, seconds in (
        ("sec", 1.0),
        ("second", 1.0),
        ("min", 60.0),
        ("minute", 60.0),
        ("hour", 3600.0),
        ("day", 86400.0),
        ("week", 604800.0),
    )
    for ending in ("", "s")
}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.ASCII)


def seconds_of(text: str) -> float:
    """The seconds of `90s`, `10 min`, `1h30m`, `2d`, or of a number of them.

    ValueError unless it is such a text, above 0.
    """
    at, seconds = 0, 0.0
    lowered = text.lower().rstrip()
    while at < len(lowered) or at == 0:
        match = _PART.match(lowered, at)
        if match is None or (match[2] and match[2] not in _UNITS):
            raise ValueError(f"{text!r} is no duration, as 90s, 10min, 1h or 2d are")
        seconds += float(match[1]) * _UNITS.get(match[2], 1.0)
        at = match.end()
    if not 0 < seconds < 1e12:
        raise ValueError(f"{text!r} is no duration that is above 0 and finite")
    return seconds
