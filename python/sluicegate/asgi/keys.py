"""Under which keys a rule counts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from .rule import Rule
from .types import Scope

__all__ = ["USERS", "Where", "key_of", "word"]

USERS = (str, int, UUID)  # what a user, and what a function returns as a key, may be


def word(text: str) -> str:
    """As a part of a key: without spaces, and so that no two texts are one word."""
    if " " in text or "%" in text:
        return text.replace("%", "%25").replace(" ", "%20")
    return text


class Where:
    """A rule's keys: no other method, user and path, pattern or zone has the same one, whatever
    text these are. A method has no space in it, and is in capitals as "zone" and "pattern" are
    not; a user's spaces are taken out; the last may hold anything."""

    __slots__ = ("_last", "_method", "_word", "by_path", "zone")

    def __init__(self, rule: Rule, pattern: str) -> None:
        self._method = rule.only_method() or "*"
        self.zone = rule.zone
        self.by_path = rule.per == "path" and rule.zone is None
        self._word = "zone" if rule.zone is not None else f"pattern:{self._method}"
        self._last = pattern if rule.zone is None else rule.zone

    def key(self, who: str, path: str) -> str:
        """That of what counts by pattern."""
        if self.by_path:
            return f"{self._method} {word(who)} {path}"
        return f"{self._word} {word(who)} {self._last}"

    def unit_key(self, who: str, path: str) -> str:
        """That of what counts by path: the units."""
        if self.zone is not None:
            return f"zone {word(who)} {self.zone}"
        return f"{self._method} {word(who)} {path}"


async def key_of(function: Any, scope: Scope) -> str:
    """What a key function says of a scope. TypeError for what could be nobody's key: a limit
    would be off by it."""
    found = function(scope)
    if hasattr(found, "__await__"):
        found = await found
    if isinstance(found, bytes):
        found = found.decode("utf-8", "surrogateescape")
    if not isinstance(found, USERS) or isinstance(found, bool):
        raise TypeError(f"a rule's key returned {type(found).__name__}, not str")
    return found if type(found) is str else str(found)
