"""What a measurement hands to the report: plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Row", "Topic"]


@dataclass
class Row:
    """One line of the table.

    `value` is in `unit` ("x" is a ratio to `reference`). `target` is the number of the
    contract, at most or (`at_least`) at least; None where there is none to reach.
    `info` is shown, and claims nothing: nanoseconds of this machine, the spread.
    """

    topic: str
    what: str
    value: float | None
    unit: str = "x"
    reference: str = ""
    target: float | None = None
    at_least: bool = False
    peer: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    missing: str | None = None  # why there is no value

    @property
    def reached(self) -> bool | None:
        """None where there is nothing to reach, or nothing was measured."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        return cls(**{name: value for name, value in data.items() if name != "reached"})


@dataclass(frozen=True)
class Topic:
    """A file of rows: `measure(rounds, quick)`; `peers(rounds, quick)` where there are any."""

    name: str
    title: str
    measure: Callable[[int, bool], Iterable[Row]]
    peers: Callable[[int, bool], Iterable[Row]] | None = None
