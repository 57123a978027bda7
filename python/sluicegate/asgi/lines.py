"""On which line of a TOML text something stands, which its parser does not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Lines"]


class Lines:
    """The lines of the tables `[[name]]` and of their keys, in a text that is valid TOML.

    Each statement is also valid TOML by itself: so one ends with the first line at which it
    is, and no second parser is needed.
    """

    def __init__(
        self,
        text: str,
        name: str,
        loads: Callable[[str], Mapping[str, Any]],
        error: type[Exception],
    ) -> None:
        self._tables: list[int] = []
        self._keys: dict[tuple[int, str], int] = {}  # the table's place, -1 before the first
        statement, begun, place = "", 1, -1
        for number, line in enumerate(text.split("\n"), 1):
            if not statement:
                begun = number
            statement += line + "\n"
            try:
                said = loads(statement)
            except error:
                continue  # it goes on
            if statement.lstrip().startswith("["):
                if isinstance(said.get(name), list):
                    self._tables.append(begun)
                    place = len(self._tables) - 1
                for key in said:
                    self._keys.setdefault((-1, key), begun)
            else:
                for key in said:
                    self._keys.setdefault((place, key), begun)
            statement = ""

    def of_table(self, place: int) -> int:
        """Where the table of that place begins; where it is of no such header, at the start."""
        return self._tables[place] if place < len(self._tables) else 1

    def of_key(self, place: int, key: str) -> int:
        """Where a key of it is set; of a table in another notation, the table."""
        return self._keys.get((place, key)) or self.of_table(place)

    def outside(self, key: str) -> int:
        """Where a key or table is that is in none of them."""
        return self._keys.get((-1, key), 1)
