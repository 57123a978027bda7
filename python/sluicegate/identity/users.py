"""The user whom an authentication middleware has found."""

from __future__ import annotations

from typing import Any

__all__ = ["attribute_of", "user_id"]

# where the classes of users keep what tells them apart; the first that is there counts
_IDS = ("id", "pk", "identity", "username", "display_name")


def user_id(user: Any, attribute: str | None = None) -> str | None:
    """What tells an authenticated user from others, by that attribute or the first that is
    there; None for one who is not authenticated, or has nothing."""
    if user is None or not attribute_of(user, "is_authenticated", True):
        return None
    for name in _IDS if attribute is None else (attribute,):
        value = attribute_of(user, name, None)
        if value is not None and _is_shown(value) and (text := str(value)):
            return text
    return None


def _is_shown(value: Any) -> bool:
    """Whether its text is its own: an address in memory is somebody else's each time."""
    kind: Any = type(value)
    own = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    return own and not callable(value)


def attribute_of(user: Any, name: str, default: Any) -> Any:
    try:
        return getattr(user, name, default)
    except NotImplementedError:  # Starlette's BaseUser leaves some to its subclasses
        return default
