"""The rules of a middleware, made ready."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .backends.base import BaseBackend, RetryAfter
from .rule import Rule

__all__ = ["Config", "Held", "Pattern", "compiled"]

Config = Mapping[Any, Sequence[Rule]]  # a regular expression, as str or compiled, to its rules


class Held:
    """A rule and what holds to it; None: it is unlimited."""

    __slots__ = ("retry_after", "rule")

    def __init__(self, rule: Rule, backend: BaseBackend) -> None:
        self.rule = rule
        self.retry_after: RetryAfter | None = None if rule.unlimited else backend.prepare(rule)


class Pattern:
    """A pattern and the rules of each group."""

    __slots__ = ("_groups", "matches")

    def __init__(
        self, pattern: re.Pattern[str], rules: Sequence[Rule], backend: BaseBackend
    ) -> None:
        self.matches = pattern.match
        self._groups: dict[str, list[Held]] = {}
        for rule in rules:
            self._groups.setdefault(rule.group, []).append(Held(rule, backend))

    def find(self, group: str, method: str) -> Held | None:
        """The first rule for that group and method."""
        for held in self._groups.get(group, ()):
            if held.rule.fits(method):
                return held
        return None


def compiled(config: Config, backend: BaseBackend) -> list[Pattern]:
    """The patterns in their order. ValueError or TypeError for what is no configuration."""
    if not isinstance(config, Mapping):
        raise TypeError(f"config maps patterns to lists of rules, not {type(config).__name__}")
    return [Pattern(_pattern(text), _rules(text, rules), backend) for text, rules in config.items()]


def _pattern(text: Any) -> re.Pattern[str]:
    if not isinstance(text, str) and not isinstance(getattr(text, "pattern", None), str):
        raise TypeError(f"a pattern is a str, not {type(text).__name__}")
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


def _rules(text: Any, rules: Any) -> Sequence[Rule]:
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise TypeError(f"{text!r} has a list of rules, not {type(rules).__name__}")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"{text!r} has rules, as Rule(second=5), not {type(rule).__name__}")
    return rules
