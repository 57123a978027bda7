"""Who a request or a connection is counted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..identity import address
from ..identity.users import user_id

__all__ = ["Who", "who_is"]

_address = address()


class Who(NamedTuple):
    """`name` is a user's own id, or `ip:{address}`; `key` is `user:{id}`, or the same."""

    name: str
    key: str


def who_is(scope: Mapping[str, Any]) -> Who:
    """The authenticated `scope["user"]`, else the address at the other end of the connection."""
    user = user_id(scope.get("user"))
    if user is None:
        by_address = f"ip:{_address(scope)}"
        return Who(by_address, by_address)
    # no user may choose an id that is somebody's address
    name = f"user:{user}" if user.startswith(("ip:", "user:")) else user
    return Who(name, f"user:{user}")
