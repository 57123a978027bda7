"""What a client wrote, of which anything may be expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

__all__ = ["AmbiguousError", "only_cookie", "only_header", "only_parameter", "subprotocol_after"]

Scope = Mapping[str, Any]


class AmbiguousError(ValueError):
    """There are two that differ: another reader might take the other one."""


def only_header(scope: Scope, name: bytes) -> str | None:
    """The header of that name (lower case), without the space around it; None where there is
    none. AmbiguousError for two that differ."""
    return _only(value.strip(" \t") for value in _headers(scope, name))


def only_parameter(scope: Scope, name: str) -> str | None:
    """The same of a parameter of the query."""
    query = scope.get("query_string", b"").decode("latin-1")
    values = parse_qsl(query, keep_blank_values=True)
    return _only((value for found, value in values if found == name))


def only_cookie(scope: Scope, name: str) -> str | None:
    """The same of a cookie."""
    pairs = (
        part.partition("=") for header in _headers(scope, b"cookie") for part in header.split(";")
    )
    return _only((value.strip(' \t"') for found, _, value in pairs if found.strip() == name))


def subprotocol_after(scope: Scope, name: str) -> str | None:
    """The WebSocket subprotocol that is offered right after the one of that name."""
    offered = list(scope.get("subprotocols") or ())
    place = offered.index(name) + 1 if name in offered else len(offered)
    return offered[place] if place < len(offered) else None


def _headers(scope: Scope, name: bytes) -> Iterable[str]:
    headers = scope.get("headers") or ()
    return (value.decode("latin-1") for found, value in headers if found.lower() == name)


def _only(values: Iterable[str]) -> str | None:
    found = set(values)
    if len(found) > 1:
        raise AmbiguousError
    return found.pop() if found else None
