"""The rules of a middleware, made ready."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .backends.base import BaseBackend, RetryAfter
from .rule import Rule

__all__ = ["Config", "Groups", "Held", "Patterns", "compiled"]

Config = Mapping[Any, Sequence[Rule]]  # a regular expression, as str or compiled, to its rules


class Held:
    """A rule and what holds to it."""

    __slots__ = ("method", "retry_after", "rule")

    def __init__(self, rule: Rule, backend: BaseBackend) -> None:
        self.rule = rule
        self.method = rule.only_method()
        # None: it is unlimited
        self.retry_after: RetryAfter | None = None if rule.unlimited else backend.prepare(rule)


Groups = dict[str, list[Held]]
Patterns = list[tuple[Callable[[str], Any], Groups]]  # what matches a path, and its rules


def compiled(config: Config, backend: BaseBackend) -> Patterns:
    """The patterns in their order. ValueError or TypeError for what is no configuration."""
    if not isinstance(config, Mapping):
        raise TypeError(f"config maps patterns to lists of rules, not {type(config).__name__}")
    return [
        (_pattern(text).match, _groups(_rules(text, rules), backend))
        for text, rules in config.items()
    ]


def _groups(rules: Sequence[Rule], backend: BaseBackend) -> Groups:
    groups: Groups = {}
    for rule in rules:
        groups.setdefault(rule.group, []).append(Held(rule, backend))
    return groups


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
