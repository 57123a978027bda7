"""By the user whom an authentication middleware has found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...identity.users import attribute_of
from ..types import Scope
from .empty import EmptyInformation, checked

__all__ = ["from_user"]

# Django's and Channels' users have the first, Starlette's the others.
_NAMES = ("pk", "identity", "id", "username", "display_name")


def from_user(attribute: str | None = None) -> Callable[[Scope], Awaitable[tuple[str, str]]]:
    """Makes an auth of `scope["user"]`, as AuthenticationMiddleware of Starlette and
    AuthMiddleware of Channels set it; the group is "default".

    `attribute` is the one of the user that tells who it is; None takes the primary key of
    Django's users, and the identity, id or name of Starlette's. A user who is not
    authenticated, or none, is EmptyInformation.
    """
    if attribute is not None and not isinstance(attribute, str):
        raise TypeError(f"attribute is the name of one, a str, not {type(attribute).__name__}")

    async def user_auth(scope: Scope) -> tuple[str, str]:
        user = scope.get("user")
        if user is None or not getattr(user, "is_authenticated", True):
            raise EmptyInformation(scope)
        value = _first(user) if attribute is None else getattr(user, attribute)
        if value is None or isinstance(value, bool):
            raise EmptyInformation(scope)
        return checked(scope, str(value), "default")

    return user_auth


def _first(user: Any) -> Any:
    for name in _NAMES:
        value = attribute_of(user, name, None)
        if value is not None and value != "":
            return value
    return None
