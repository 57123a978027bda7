"""By the session."""

from __future__ import annotations

from ..types import Scope
from .empty import EmptyInformation, checked

__all__ = ["from_session"]


async def from_session(scope: Scope) -> tuple[str, str]:
    """`user` and `group` of `scope["session"]`, which Starlette's SessionMiddleware makes of a
    signed cookie. Without a group it is "default", without a user EmptyInformation.

    AssertionError where there is no session at all: the middleware is missing, or inside.
    """
    if "session" not in scope:
        # as Starlette's own request.session
        raise AssertionError(
            "there is no session: SessionMiddleware must be installed, outside of the rate limits "
            '(pip install "starlette" itsdangerous)'
        )
    session = scope["session"]
    try:
        user = session["user"]
    except KeyError:
        raise EmptyInformation(scope) from None
    return checked(scope, user, session.get("group", "default"))
