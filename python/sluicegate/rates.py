"""The text of rate strings, and what is wrong with one.

rates  = rate {";" rate}
rate   = [name ":"] amount ("/" | "per") [number] unit {"burst" amount | "using" algorithm}
amount = number ["B" | "KB" | "MB" | "GB"]
"""

from __future__ import annotations

import re
from typing import NoReturn

from .quota import ALGORITHMS, Quota

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


def parse(text: str) -> tuple[Quota, ...]:
    """The quotas of a rate string."""
    scanner = Scanner(text)
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


class Scanner:
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
