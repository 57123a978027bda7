"""Who a request or a connection is counted for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

__all__ = ["Who", "who_is"]

# where the classes of users keep what tells them apart; the first that is there counts
_IDS = ("id", "pk", "identity", "username", "display_name")


class Who(NamedTuple):
    """`name` is a user's own id, or `ip:{address}`; `key` is `user:{id}`, or the same."""

    name: str
    key: str


def who_is(scope: Mapping[str, Any]) -> Who:
    """The authenticated `scope["user"]`, else the address at the other end of the connection."""
    user = _user_id(scope.get("user"))
    if user is None:
        address = f"ip:{_address(scope.get('client'))}"
        return Who(address, address)
    # no user may choose an id that is somebody's address
    name = f"user:{user}" if user.startswith(("ip:", "user:")) else user
    return Who(name, f"user:{user}")


def _user_id(user: Any) -> str | None:
    if user is None or not _attribute(user, "is_authenticated", True):
        return None
    for name in _IDS:
        value = _attribute(user, name, None)
        if value is not None and _is_shown(value) and (text := str(value)):
            return text
    return None


def _is_shown(value: Any) -> bool:
    """Whether its text is its own: an address in memory is somebody else's each time."""
    kind: Any = type(value)
    own = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    return own and not callable(value)


def _attribute(user: Any, name: str, default: Any) -> Any:
    try:
        return getattr(user, name, default)
    except NotImplementedError:  # Starlette's BaseUser leaves some to its subclasses
        return default


def _address(client: Any) -> str:
    """Of the peer; "unknown" where the server has none, as on a Unix socket."""
    return _grouped(client[0]) if client and client[0] else "unknown"


@lru_cache(maxsize=4096)
def _grouped(host: str) -> str:
    """A network of IPv6 is one person's (a /64); what is no address is its own name."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address.packed, 64), strict=False))
