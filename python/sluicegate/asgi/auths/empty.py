"""What there is to say when a scope tells of nobody."""

from __future__ import annotations

from typing import Any

from ..types import Scope

__all__ = ["EmptyInformation", "checked"]


class EmptyInformation(Exception):  # noqa: N818 - its name in the source
    """Nothing in the scope tells who it is, or nothing that can be believed."""

    def __init__(self, scope: Scope) -> None:
        # the scope is not in its text, which is logged: it has cookies and tokens
        super().__init__("nothing here tells who it is")
        self.scope = scope


def checked(scope: Scope, user: Any, group: Any) -> tuple[Any, str]:
    """Both, where they can be a user and a group; EmptyInformation otherwise, so that no odd
    value is ever a group for which there is no rule."""
    fits = isinstance(user, str | int) and not isinstance(user, bool) and user != ""
    if not fits or not isinstance(group, str) or not group:
        raise EmptyInformation(scope)
    return user, group
