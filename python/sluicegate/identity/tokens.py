"""JSON Web Tokens, and where a client puts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import inf
from typing import Any

from .._support import check_number
from .fields import only_cookie, only_header, only_parameter, subprotocol_after

__all__ = ["token_reader"]


def token_reader(
    what: str,
    key: Any,
    algorithms: str | Sequence[str],
    query_param: str | None = None,
    cookie: str | None = None,
    subprotocol: str | None = None,
    leeway: float | timedelta = 0,
) -> Callable[[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Makes the function from a scope to the claims of its token; None where there is none.

    It raises AmbiguousError where there are two, and a jwt.PyJWTError where the token is
    expired (`leeway`: by more seconds than that), not signed, or not with this key. `what` asks
    for it, in an ImportError with the pip command where PyJWT is missing.
    """
    jwt = _need_pyjwt(what)
    allowed = _algorithms(jwt, algorithms)
    if isinstance(key, str | bytes) and not key:
        raise ValueError("the key is not empty: anybody could sign with that")
    if not isinstance(leeway, timedelta) and check_number(leeway, "leeway", equal=True) == inf:
        raise ValueError("leeway is finite")

    def claims_of(scope: Mapping[str, Any]) -> Mapping[str, Any] | None:
        token = _bearer(scope)
        if not token and query_param is not None:
            token = only_parameter(scope, query_param)
        if not token and cookie is not None:
            token = only_cookie(scope, cookie)
        if not token and subprotocol is not None:
            token = subprotocol_after(scope, subprotocol)
        if not token:
            return None
        try:
            claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=allowed, leeway=leeway)
        except (jwt.PyJWTError, Warning):
            raise
        except Exception as error:  # an odd token must not look like a fault of the application
            raise jwt.InvalidTokenError("the token cannot be read") from error
        return claims

    return claims_of


def _bearer(scope: Mapping[str, Any]) -> str | None:
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


def _need_pyjwt(what: str) -> Any:
    try:
        import jwt
    except ImportError as error:
        raise ImportError(f'{what} needs PyJWT: pip install "sluicegate[jwt]"') from error
    return jwt
