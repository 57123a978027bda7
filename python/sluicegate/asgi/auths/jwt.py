"""By a JSON Web Token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from math import inf
from typing import Any

from ..._support import check_number
from ..types import Scope
from .empty import EmptyInformation, checked
from .fields import only_cookie, only_header, only_parameter, subprotocol_after

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
    jwt = _need_pyjwt()
    allowed = _algorithms(jwt, algorithms)
    if isinstance(key, str | bytes) and not key:
        raise ValueError("the key is not empty: anybody could sign with that")
    if not isinstance(leeway, timedelta) and check_number(leeway, "leeway", equal=True) == inf:
        raise ValueError("leeway is finite")

    async def jwt_auth(scope: Scope) -> tuple[str, str]:
        token = _bearer(scope)
        if not token and query_param is not None:
            token = only_parameter(scope, query_param)
        if not token and cookie is not None:
            token = only_cookie(scope, cookie)
        if not token and subprotocol is not None:
            token = subprotocol_after(scope, subprotocol)
        if not token:
            raise EmptyInformation(scope)
        try:
            claims = jwt.decode(token, key, algorithms=allowed, leeway=leeway)
        except (jwt.PyJWTError, Warning):
            raise
        except Exception as error:  # an odd token must not look like a fault of the application
            raise jwt.InvalidTokenError("the token cannot be read") from error
        return checked(scope, claims.get(user_key), claims.get(group_key, "default"))

    return jwt_auth


def _bearer(scope: Scope) -> str | None:
    scheme, _, token = (only_header(scope, b"authorization") or "").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else None


def _algorithms(jwt: Any, algorithms: str | Sequence[str]) -> list[str]:
    """As a list, of which each is known: otherwise every token would be refused."""
    allowed = [algorithms] if isinstance(algorithms, str) else list(algorithms)
    if not allowed:
        raise ValueError("algorithms are those that tokens may be signed by, as ['HS256']")
    for name in allowed:
        if not isinstance(name, str):
            raise TypeError(f"an algorithm is a str, not {type(name).__name__}")
        if name.lower() == "none":
            raise ValueError("'none' is no signature: anybody could be anybody")
        try:
            jwt.PyJWS().get_algorithm_by_name(name)
        except NotImplementedError:
            raise ValueError(
                f"PyJWT has no algorithm {name!r} here (for those with a public key: "
                f"pip install cryptography)"
            ) from None
    return allowed


def _need_pyjwt() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise ImportError('create_jwt_auth needs PyJWT: pip install "sluicegate[jwt]"') from error
    return jwt
