"""The rules of a middleware, made ready."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .backends.base import BaseBackend, RetryAfter
from .backends.store import StoreBackend
from .counting import Counting
from .rule import Rule

__all__ = ["Config", "Held", "Patterns", "Rules", "chosen", "compiled"]

Config = Mapping[Any, Sequence[Rule]]  # a regular expression, as str or compiled, to its rules

EVERYBODY = "*"  # the group


class Held:
    """A rule and what holds to it."""

    __slots__ = ("by_store", "counting", "group", "kind", "method", "plain", "retry_after", "rule")

    def __init__(self, rule: Rule, backend: BaseBackend, pattern: str, kind: str) -> None:
        self.rule = rule
        self.kind = kind
        self.method = rule.only_method()
        # whom it comes from is known before the group is
        self.group = EVERYBODY if kind == "ip" else rule.group
        self.plain = rule.plain
        # whether the backend counts plain rules as its limiters do, and by no method of its own
        self.by_store = (
            type(backend).prepare is StoreBackend.prepare
            and type(backend).retry_after is StoreBackend.retry_after
        )
        # None: it is unlimited
        self.retry_after: RetryAfter | None = None
        self.counting: Counting | None = None
        if rule.unlimited:
            return
        if self.plain:
            self.retry_after = backend.prepare(rule)
        if isinstance(backend, StoreBackend):
            self.counting = Counting(rule, backend, pattern, kind)
        elif not self.plain:
            raise TypeError(
                f"{type(backend).__name__} counts second= to month= of users alone: the rest "
                f"needs a store, or its URL, for backend="
            )


class Rules:
    """Those of one pattern: for HTTP, and for WebSockets."""

    __slots__ = ("http", "websocket")

    def __init__(self, held: Sequence[Held]) -> None:
        self.websocket = list(held)
        # one that limits WebSockets alone is none for HTTP, as one of another method is none
        self.http = [one for one in held if one.rule.of_requests or one.rule.unlimited]


# what matches a path, its text, and its rules
Patterns = list[tuple[Callable[[str], Any], str, Rules]]


def compiled(config: Config, backend: BaseBackend) -> Patterns:
    """The patterns in their order. ValueError or TypeError for what is no configuration."""
    if not isinstance(config, Mapping):
        raise TypeError(f"config maps patterns to lists of rules, not {type(config).__name__}")
    functions: list[Any] = []
    patterns: Patterns = []
    for given, rules in config.items():
        pattern = _pattern(given)
        held = [
            Held(rule, backend, pattern.pattern, _kind(rule, functions))
            for rule in _rules(given, rules)
        ]
        patterns.append((pattern.match, pattern.pattern, Rules(held)))
    return patterns


def chosen(rules: Iterable[Held], group: str) -> tuple[list[Held], list[Held]]:
    """Of rules that fit a method, those that apply to a group: the first for each kind of key,
    and beside them all that are shadows."""
    first: dict[str, Held] = {}
    shadows = []
    for held in rules:
        if held.group not in (EVERYBODY, group):
            continue
        if held.rule.shadow:
            shadows.append(held)
        else:
            first.setdefault(held.kind, held)
    return list(first.values()), shadows


def _kind(rule: Rule, functions: list[Any]) -> str:
    """What a rule counts. Functions are told apart by the place of their first mention, which
    every process that has this configuration comes to."""
    if isinstance(rule.key, str):
        return rule.key
    if rule.key not in functions:
        functions.append(rule.key)
    return f"key{functions.index(rule.key) + 1}"


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
