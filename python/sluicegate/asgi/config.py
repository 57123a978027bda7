"""Rules from a TOML file.

    [[rule]]
    path = "^/login"
    minute = 5
    group = "default"

Each table is a `Rule`, by the names of its fields, and `path` is the pattern that it is for; their
order is kept. Where a rule takes a function, a text "package.module:name" says which; `cost` may
also be a number, and `count_when` a list of statuses.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from .lines import Lines
from .rule import Rule

__all__ = ["ConfigError", "Problem", "parse_rules", "read_rules"]

TABLE, PATH = "rule", "path"
_DECODE_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

Problem = tuple[int, str]  # line, and what is wrong there


class ConfigError(ValueError):
    """A file of rules that is none: every problem that was found, with its line."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = sorted(problems, key=lambda problem: problem[0])
        super().__init__("\n".join(f"{name}, line {line}: {text}" for line, text in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, list[Problem]]]:
        return type(self), (self.name, self.problems)


def read_rules(path: str | os.PathLike[str]) -> dict[str, list[Rule]]:
    """The rules of a file, as `config=` takes them. OSError, ConfigError."""
    return parse_rules(Path(path).read_bytes(), os.fspath(path))


def parse_rules(
    source: bytes, name: str = "rules", kind: type[Rule] = Rule
) -> dict[str, list[Rule]]:
    """The same of the bytes of a file; `name` is what errors call it."""
    loads, decode_error = _toml()
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise ConfigError(name, [(line, "it is not UTF-8, as TOML is")]) from None
    text = text.replace("\r\n", "\n")
    try:
        document = loads(text)
    except decode_error as error:
        raise ConfigError(name, [_where(str(error), text)]) from None
    except RecursionError:
        raise ConfigError(name, [(1, "what is in it is nested too deeply")]) from None
    found, wrong = _Reader(kind).rules(document)
    if wrong:
        lines = Lines(text, TABLE, loads, decode_error)
        raise ConfigError(name, [(at(lines), what) for at, what in wrong])
    return found


def _toml() -> tuple[Callable[[str], dict[str, Any]], type[Exception]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise ImportError(
                'rules from TOML need tomli before Python 3.11: pip install "sluicegate[toml]"'
            ) from None
    return tomllib.loads, tomllib.TOMLDecodeError


def _where(said: str, text: str) -> Problem:
    """The line of what the parser says, and the rest of it."""
    match = _DECODE_AT.search(said)
    line = int(match[1]) if match and match[1] else text.rstrip("\n").count("\n") + 1
    what = said[: match.start()] if match else said
    column = f" (column {match[2]})" if match and match[2] else ""
    return line, f"{what[:1].lower()}{what[1:]}{column}"


At = Callable[[Lines], int]


class _Reader:
    """Makes rules of tables, and notes what is wrong."""

    def __init__(self, kind: type[Rule]) -> None:
        self._kind = kind
        self._fields = [one.name for one in fields(kind) if one.init]
        self._functions = _takes_functions(kind)
        self._wrong: list[tuple[At, str]] = []

    def rules(
        self, document: Mapping[str, Any]
    ) -> tuple[dict[str, list[Rule]], list[tuple[At, str]]]:
        found: dict[str, list[Rule]] = {}
        for key in document:
            if key != TABLE:
                self._wrong.append(
                    (_outside(key), f"{key!r} is unknown: a file of rules has [[rule]] alone")
                )
        tables = document.get(TABLE, [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._wrong.append((_outside(TABLE), "a rule is written as [[rule]]"))
            tables = []
        elif not tables and not self._wrong:
            self._wrong.append((lambda lines: 1, "there is no [[rule]] in it"))
        for place, table in enumerate(tables):
            pattern, rule = self._pattern(place, table), self._rule(place, table)
            if pattern is not None and rule is not None:
                found.setdefault(pattern, []).append(rule)
        return found, self._wrong

    def _pattern(self, place: int, table: Mapping[str, Any]) -> str | None:
        pattern = table.get(PATH)
        if pattern is None:
            said = f"a rule says what it is for, as {PATH} = '^/login'"
            self._wrong.append((_table(place), said))
        elif not isinstance(pattern, str):
            self._note(place, PATH, f"it is a text, not {_type(pattern)}")
        else:
            try:
                re.compile(pattern)
            except re.error as error:
                self._note(place, PATH, f"{pattern!r} is no regular expression: {error}")
            else:
                return pattern
        return None

    def _rule(self, place: int, table: Mapping[str, Any]) -> Rule | None:
        before, given = len(self._wrong), {}
        for field, value in table.items():
            if field == PATH:
                continue
            if field not in self._fields:
                near = difflib.get_close_matches(field, [*self._fields, PATH], 1)
                known = f"; did you mean {near[0]}?" if near else f": a rule has {self._known()}"
                self._wrong.append((_key(place, field), f"{field!r} is unknown{known}"))
                continue
            try:
                given[field] = self._value(field, value)
            except (TypeError, ValueError) as error:
                self._note(place, field, str(error))
        if len(self._wrong) > before:
            return None
        try:
            return self._kind(**given)
        except (TypeError, ValueError) as error:
            blamed = self._blamed(given, str(error))
            if blamed is None:
                self._wrong.append((_table(place), str(error)))
            else:
                self._note(place, blamed, str(error))
        return None

    def _known(self) -> str:
        return ", ".join([PATH, *self._fields])

    def _value(self, field: str, value: Any) -> Any:
        """What a field is given for what stands in the file."""
        if isinstance(value, list) and field != "count_when":
            return tuple(value)
        if field not in self._functions:
            return value
        if field == "count_when" and not isinstance(value, str):
            return _Statuses(value)
        if field == "cost" and not isinstance(value, str):
            return _Constant(value)
        if isinstance(value, str) and ":" in value:
            return _function(value)
        return value

    def _blamed(self, given: Mapping[str, Any], said: str) -> str | None:
        """The field that is wrong by itself, in the same words."""
        for field, value in given.items():
            try:
                self._kind(**{field: value})
            except (TypeError, ValueError) as error:
                if str(error) == said:
                    return field
        return None

    def _note(self, place: int, field: str, what: str) -> None:
        text = what if what.startswith(field) else f"{field}: {what}"
        self._wrong.append((_key(place, field), text))


def _table(place: int) -> At:
    return lambda lines: lines.of_table(place)


def _key(place: int, key: str) -> At:
    return lambda lines: lines.of_key(place, key)


def _outside(key: str) -> At:
    return lambda lines: lines.outside(key)


class _Statuses:
    """`count_when = [401, 403]`"""

    def __init__(self, statuses: Any) -> None:
        listed = statuses if isinstance(statuses, list) else [statuses]
        for status in listed:
            if isinstance(status, bool) or not isinstance(status, int):
                raise TypeError(f"it is a list of HTTP statuses, as [401], not {_type(status)}")
            if not 100 <= status <= 599:
                raise ValueError(f"{status} is no HTTP status")
        if not listed:
            raise ValueError("without a status nothing would count")
        self._statuses = frozenset(listed)

    def __repr__(self) -> str:
        return repr(sorted(self._statuses))

    def __call__(self, status: int) -> bool:
        return status in self._statuses

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Statuses) and other._statuses == self._statuses

    def __hash__(self) -> int:
        return hash(self._statuses)


class _Constant:
    """`cost = 5`"""

    def __init__(self, cost: Any) -> None:
        if isinstance(cost, bool) or not isinstance(cost, int):
            raise TypeError(f"it is a number of units or a function's name, not {_type(cost)}")
        if cost < 0:
            raise ValueError(f"it is at least 0, not {cost}")
        self._cost = cost

    def __repr__(self) -> str:
        return repr(self._cost)

    def __call__(self, event: Any) -> int:
        return self._cost

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and other._cost == self._cost

    def __hash__(self) -> int:
        return hash(self._cost)


def _function(text: str) -> Callable[..., Any]:
    """What "package.module:name" names."""
    module, _, path = text.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{text!r} names no function: {error}") from None
    if not callable(found):
        raise TypeError(f"{text!r} is no function, but {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _takes_functions(kind: type[Rule]) -> set[str]:
    """The fields of a rule that take a function."""

    def takes(annotation: Any) -> bool:
        if typing.get_origin(annotation) is Callable or annotation is Callable:
            return True
        return any(takes(one) for one in typing.get_args(annotation))

    # Not of the class itself: before Python 3.11 its `_: KW_ONLY` is an error there.
    holder = type("", (), {"__annotations__": {one.name: one.type for one in fields(kind)}})
    names: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names |= vars(sys.modules[base.__module__])
    hints = typing.get_type_hints(holder, names)
    return {one.name for one in fields(kind) if takes(hints.get(one.name))}


def _type(value: Any) -> str:
    return type(value).__name__
