"""By a JSON Web Token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from ...identity.fields import AmbiguousError
from ...identity.tokens import token_reader
from ..types import Scope
from .empty import EmptyInformation, checked

__all__ = ["create_jwt_auth"]


def create_jwt_auth(
    key: Any,
    algorithms: str | Sequence[str],
    user_key: str = "user",
    group_key: str = "group",
    *,
    query_param: str | None = None,
    cookie: str | None = None,
    subprotocol: str | None = None,
    leeway: float | timedelta = 0,
) -> Callable[[Scope], Awaitable[tuple[str, str]]]:
    """Makes an auth of the claims `user_key` and `group_key` of a token that is signed with
    `key` by one of `algorithms`. Without a group it is "default".

    The token is that of `Authorization: Bearer ...`; where there is none, that of the query
    parameter, the cookie or the WebSocket subprotocol of the name given, for a browser's
    WebSocket has no Authorization header. As a subprotocol it is the one offered after that
    name: `new WebSocket(url, ["access_token", token])` with `subprotocol="access_token"`, which
    the application then accepts as the subprotocol.

    EmptyInformation where there is no token, or none with a user in it; a jwt.PyJWTError where
    it is expired (`leeway`: by more seconds than that), not signed, or not with this key.
    """
    claims_of = token_reader(
        "create_jwt_auth", key, algorithms, query_param, cookie, subprotocol, leeway
    )

    async def jwt_auth(scope: Scope) -> tuple[str, str]:
        try:
            claims = claims_of(scope)
        except AmbiguousError:
            raise EmptyInformation(scope) from None
        if claims is None:
            raise EmptyInformation(scope)
        return checked(scope, claims.get(user_key), claims.get(group_key, "default"))

    return jwt_auth
