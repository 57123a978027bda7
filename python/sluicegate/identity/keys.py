"""By user, header, path or token, and by several of them together.

A key of one kind is never one of another: each begins with its kind, but for an address, which
has no kind before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any

from .addresses import address, peer_is_trusted
from .fields import AmbiguousError, only_header
from .networks import Proxies
from .paths import canonical_path
from .tokens import token_reader
from .users import user_id

__all__ = ["Key", "as_key", "claim", "everybody", "header", "key_of", "path", "together", "user"]

# From a scope of ASGI, or what looks it up as Starlette's Request: who is limited.
Key = Callable[[Any], Any]


def user(attribute: str | None = None, *, otherwise: Key | None = None) -> Key:
    """By `scope["user"]`, as an authentication middleware sets it: `user:{id}`.

    `attribute` tells who it is; None takes the first of id, pk, identity, username and
    display_name. Who is not authenticated has the key of `otherwise`, by default the address.
    """
    if attribute is not None and not isinstance(attribute, str):
        raise TypeError(f"attribute is the name of one, a str, not {type(attribute).__name__}")
    rest = _otherwise(otherwise)

    def by_user(scope: Any) -> Any:
        found = user_id(scope.get("user"), attribute)
        return f"user:{found}" if found else rest(scope)

    return by_user


def header(
    name: str,
    *,
    trusted_proxies: Proxies = (),
    known: Callable[[str], Any] | None = None,
    otherwise: Key | None = None,
) -> Key:
    """By a header: `header:{name}:{value}`.

    Clients write what they like in one. So it counts where the peer is one of
    `trusted_proxies`, which must set it (see `address`), or where `known(value)` says that there
    is such a value, as of an API key that was given out. Else, and where there is none or several
    that differ, the key is that of `otherwise`, by default the address.
    ValueError where neither is given.
    """
    if not isinstance(name, str):
        raise TypeError(f"a header is a str, not {type(name).__name__}")
    if known is not None and not callable(known):
        raise TypeError(f"known is a function of the value, not {type(known).__name__}")
    if known is None and not trusted_proxies:
        raise ValueError(
            f"whoever sends {name} would choose his key: say which trusted_proxies set it, or "
            f"which values are known"
        )
    rest = _otherwise(otherwise)
    is_trusted = peer_is_trusted(trusted_proxies)
    lower = name.lower()
    wanted = lower.encode("latin-1")

    def by_header(scope: Any) -> Any:
        try:
            value = only_header(scope, wanted)
        except AmbiguousError:
            value = None
        if value and (is_trusted(scope) or (known is not None and known(value))):
            return f"header:{lower}:{value}"
        return rest(scope)

    return by_header


def claim(
    name: str,
    key: Any,
    algorithms: str | Sequence[str],
    *,
    query_param: str | None = None,
    cookie: str | None = None,
    subprotocol: str | None = None,
    leeway: float | timedelta = 0,
    otherwise: Key | None = None,
) -> Key:
    """By a claim, as "sub", of a JSON Web Token signed with `key`: `claim:{name}:{value}`.

    The token is that of `Authorization: Bearer ...`, else of the query parameter, the cookie or
    the WebSocket subprotocol after the one of that name. Without a token that is good, and has
    the claim as a str or an int, the key is that of `otherwise`, by default the address.
    """
    claims_of = token_reader("claim", key, algorithms, query_param, cookie, subprotocol, leeway)
    rest = _otherwise(otherwise)
    from jwt import PyJWTError

    def by_claim(scope: Any) -> Any:
        try:
            claims = claims_of(scope)
        except (AmbiguousError, PyJWTError):
            claims = None
        value = None if claims is None else claims.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return f"claim:{name}:{value}"
        return rest(scope)

    return by_claim


def path(*, ignore_case: bool = False) -> Key:
    """By the path, in one spelling (see `canonical_path`): `path:{path}`."""

    def by_path(scope: Any) -> str:
        return f"path:{canonical_path(str(scope.get('path') or ''), ignore_case=ignore_case)}"

    return by_path


def everybody(scope: Any) -> str:
    """One key for all."""
    return "app"


def together(*keys: Key) -> Key:
    """By all of these: each other combination is another key. They are joined by `|`, and what
    has one of its own is escaped, so that no two combinations are one text."""
    if not keys:
        raise ValueError("together takes key functions, as together(user(), path())")
    for one in keys:
        if not callable(one):
            raise TypeError(f"a key is a function of the scope, not {type(one).__name__}")
        if iscoroutinefunction(one):
            raise TypeError("together takes plain functions; await within one of your own")

    def by_all(scope: Any) -> str:
        return "|".join(_escaped(key_of(one(scope))) for one in keys)

    return by_all


_NAMED: dict[str, Callable[[], Key]] = {"ip": address, "user": user, "app": lambda: everybody}


def as_key(given: str | Key) -> Key:
    """What `key=` says: "ip", "user", "app", or a function. ValueError or TypeError else."""
    if isinstance(given, str):
        if given not in _NAMED:
            raise ValueError(
                f"key is 'ip', 'user', 'app' or a function of the scope, not {given!r}"
            )
        return _NAMED[given]()
    if not callable(given):
        raise TypeError(f"key is a str or a function of the scope, not {type(given).__name__}")
    return given


def key_of(found: object) -> str:
    """The text of what a key function returned: a str, bytes or an int. TypeError for anything
    else: nobody's key would be everybody's."""
    if isinstance(found, str):
        return found
    if isinstance(found, bytes):
        return found.decode("utf-8", "surrogateescape")  # what is not UTF-8 keeps apart, too
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise TypeError(
        f"a key function returned {type(found).__name__}, not a str (or bytes, or an int) "
        f"that tells clients apart"
    )


def _otherwise(given: Key | None) -> Key:
    if given is not None and not callable(given):
        raise TypeError(f"otherwise is a key function, not {type(given).__name__}")
    return given or address()


def _escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace("|", "\\|")
