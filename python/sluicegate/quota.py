"""Quotas, and the strings that stand for them.

rates  = rate {";" rate}
rate   = [name ":"] amount ("/" | "per") [number] unit {"burst" amount | "using" algorithm}
amount = number ["B" | "KB" | "MB" | "GB"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from . import _core

__all__ = ["Quota", "as_quotas", "parse_quotas", "parse_size"]

ALGORITHMS = ("gcra", "fixed-window", "sliding-window", "sliding-log")
SIZES = {"b": 1, "byte": 1, "bytes": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
UNITS = {
    name: seconds
    for names, seconds in (
        ("ms millisecond milliseconds", 0.001),
        ("s sec secs second seconds", 1.0),
        ("min mins minute minutes", 60.0),
        ("h hour hours", 3600.0),
        ("d day days", 86400.0),
        ("week weeks", 604800.0),
    )
    for name in names.split()
}

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"([^\s:;/][^:;/]*?)\s*:")
_NUMBER = re.compile(r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+", re.ASCII)
_WORD = re.compile(r"[^\W\d_]+")
_ALGORITHM = re.compile(r"[^\W\d]+(?:-[^\W\d]+)*")
_DIGITS = 18  # of a number; none that makes sense has more
_SHOWN = 100  # columns of a string in an error


class Quota(_core.Quota):
    """`limit` units in `period` seconds.

    `burst` (gcra alone; equal to `limit` unless given) is how many units are admitted at
    once; `algorithm` is "gcra", "fixed-window", "sliding-window" or "sliding-log"; `name`
    is what a cost mapping calls it; a `shadow` quota is charged apart and holds nothing
    back. ValueError or TypeError where a number makes no sense. Immutable, comparable.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Quota:
        """The one quota that a rate string stands for, as `5/second burst 20`.

        ValueError shows the string and points at what is wrong.
        """
        quotas = _parse(text)
        if len(quotas) != 1:
            _Scanner(text).fail("expected one quota, without `;`", text.index(";"))
        quota = quotas[0]
        return quota if cls is Quota else _as_class(cls, quota)


def _as_class(cls: type[Quota], quota: Quota) -> Quota:
    return cls(
        quota.limit,
        quota.period,
        burst=None if quota.burst == quota.limit else quota.burst,
        algorithm=quota.algorithm,
        name=quota.name,
    )


def parse_quotas(text: str) -> list[Quota]:
    """The quotas of a rate string, several joined by `;`: `5/second; 1MB/minute`.

    ValueError shows the string and points at what is wrong.
    """
    return list(_parse(text))


def parse_size(size: str | int) -> int:
    """Bytes of a size as `64KB`, `1.5 MB`, `512` or 512 (KB and MB are 1024-based).

    ValueError for what is no size, and below 1.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 1:
            raise ValueError(f"a size is at least 1 byte, not {size}")
        return size
    if not isinstance(size, str):
        raise TypeError(f"a size is an int or a str as '64KB', not {type(size).__name__}")
    scanner = _Scanner(size, "size")
    amount, _ = scanner.amount("a size, as 64KB")
    scanner.space()
    if scanner.at < len(size):
        scanner.fail("expected B, KB, MB or GB, and no more")
    return amount


def as_quotas(
    quotas: str | _core.Quota | Sequence[str | _core.Quota],
) -> tuple[_core.Quota, ...]:
    """The quotas of a limiter: a Quota, a rate string, or a sequence of either.

    ValueError unless there are 1 to QUOTAS_MAX and no two have one name.
    """
    found: tuple[_core.Quota, ...]
    if isinstance(quotas, str):
        found = _parse(quotas)
    elif isinstance(quotas, _core.Quota):
        found = (quotas,)
    else:
        found = tuple(_each(quotas))
    if not 1 <= len(found) <= _core.QUOTAS_MAX:
        raise ValueError(f"a limiter has 1 to {_core.QUOTAS_MAX} quotas, not {len(found)}")
    seen = set()
    for quota in found:
        if quota.name is not None and quota.name in seen:
            raise ValueError(
                f"two quotas are named {quota.name!r}: give one another name, "
                f"as 'other: 5/second' (a byte quota is named 'bytes' unless named)"
            )
        seen.add(quota.name)
    return found


def _each(quotas: Sequence[str | _core.Quota]) -> Sequence[_core.Quota]:
    found: list[_core.Quota] = []
    if isinstance(quotas, bytes | bytearray | memoryview) or not hasattr(quotas, "__iter__"):
        raise TypeError(_expected(quotas))
    for quota in quotas:
        if isinstance(quota, str):
            found.extend(_parse(quota))
        elif isinstance(quota, _core.Quota):
            found.append(quota)
        else:
            raise TypeError(_expected(quota))
    return found


def _expected(given: object) -> str:
    return f"expected a Quota, a rate string or a list of either, not {type(given).__name__}"


def _parse(text: str) -> tuple[Quota, ...]:
    if not isinstance(text, str):
        raise TypeError(f"a rate string is a str, not {type(text).__name__}")
    return _parsed(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Quota, ...]:
    scanner = _Scanner(text)
    found = []
    while True:
        found.append(scanner.rate())
        scanner.space()
        if scanner.at == len(text):
            return tuple(found)
        # rate() stops at the end or at a `;`; one at the very end is forgiven
        scanner.at += 1
        scanner.space()
        if scanner.at == len(text):
            return tuple(found)


class _Scanner:
    """A rate string and how far it is read."""

    __slots__ = ("at", "text", "what")

    def __init__(self, text: str, what: str = "rate string") -> None:
        self.text = text
        self.at = 0
        self.what = what

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        _fail(self.text, self.at if at is None else at, expected, self.what)

    def take(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, after any space; "" where it does not."""
        self.space()
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def rate(self) -> Quota:
        self.space()
        start = self.at
        name = None
        match = _NAME.match(self.text, self.at)
        if match is not None:
            name, self.at = match[1], match.end()
            self.space()
        limit_at = self.at
        limit, in_bytes = self.amount("a number, as in 5/second")
        period_at, period = self.period()
        burst, burst_at, algorithm = self.modifiers(in_bytes)
        if name is None and in_bytes:
            name = "bytes"
        try:
            return Quota(limit, period, burst=burst, algorithm=algorithm, name=name)
        except ValueError as error:
            # the numbers are checked once, in C; what is left is to say where they stand
            about = str(error)
            at = start
            if about.startswith("a limit"):
                at = limit_at
            elif about.startswith("a period"):
                at = period_at
            elif "burst" in about and burst is not None:
                at = burst_at
            self.fail(about, at)

    def number(self) -> tuple[int, int] | None:
        """A number as a fraction, exactly; None where there is none."""
        self.space()
        at = self.at
        digits = self.take(_NUMBER).replace("_", "")
        if len(digits) > _DIGITS:
            self.fail(f"expected a number of at most {_DIGITS} digits", at)
        whole, _, fraction = digits.partition(".")
        return (int(whole + fraction), 10 ** len(fraction)) if digits else None

    def amount(self, expected: str) -> tuple[int, bool]:
        """A number of units, and whether they are bytes."""
        self.space()
        at = self.at
        if self.text[at : at + 1] in ("-", "+"):
            self.fail(f"expected {expected}, without a sign")
        number = self.number()
        if number is None:
            self.fail(f"expected {expected}")
        self.space()
        word_at = self.at
        word = self.take(_WORD).lower()
        size = SIZES.get(word)
        if size is None:
            if word and word not in ("per", "burst", "using"):
                self.fail("expected `/` and a period, or a size in B, KB, MB or GB", word_at)
            self.at = word_at
        units, rest = divmod(number[0] * (size or 1), number[1])
        if rest:
            self.fail("expected a whole number (0.5/second is 1/2 seconds)", at)
        if units < 1:
            self.fail("expected a number above 0", at)
        return units, size is not None

    def period(self) -> tuple[int, float]:
        self.space()
        at = self.at
        if self.text.startswith("/", at):
            self.at += 1
        elif self.take(_WORD).lower() != "per":
            self.fail("expected `/` or `per` and a period, as in 5/second", at)
        self.space()
        at = self.at
        number = self.number()
        self.space()
        unit_at = self.at
        unit = self.take(_WORD).lower()
        if unit not in UNITS:
            self.fail("expected a period: ms, second, minute, hour, day or week", unit_at)
        if number is None:
            return at, UNITS[unit]
        if number[0] == 0:
            self.fail("expected a period above 0", at)
        return at, number[0] / number[1] * UNITS[unit]

    def modifiers(self, in_bytes: bool) -> tuple[int | None, int, str]:
        burst: int | None = None
        algorithm: str | None = None
        burst_at = 0
        while True:
            self.space()
            at = self.at
            if at == len(self.text) or self.text[at] == ";":
                return burst, burst_at, algorithm or "gcra"
            word = self.take(_WORD).lower()
            self.space()
            if word == "burst" and burst is None:
                burst_at = self.at
                burst, sized = self.amount("a number after `burst`")
                if sized and not in_bytes:
                    self.fail("expected a burst without a size, as the limit is", burst_at)
            elif word == "using" and algorithm is None:
                algorithm_at = self.at
                algorithm = self.take(_ALGORITHM).lower()
                if algorithm not in ALGORITHMS:
                    self.fail(f"expected one of {', '.join(ALGORITHMS)}", algorithm_at)
            else:
                self.fail("expected `burst`, `using`, `;` or the end", at)


def _fail(text: str, at: int, problem: str, what: str) -> NoReturn:
    """Raises ValueError with the string and a caret below what is wrong."""
    first = max(0, at - _SHOWN // 2)
    shown = "".join(c if c.isprintable() else "?" for c in text[first : first + _SHOWN])
    before = "..." if first else ""
    after = "..." if first + _SHOWN < len(text) else ""
    caret = " " * (len(before) + at - first) + "^"
    raise ValueError(f"bad {what}: {problem}\n    {before}{shown}{after}\n    {caret}") from None
