"""Which route a request is for, before the router tells: with the router's own question."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from starlette.routing import Match

from .limits import RateLimit

__all__ = ["NOWHERE", "Finder", "Found"]

_CACHED = 4096  # paths whose route is kept
_LONGEST = 256  # characters of such a path


class Found(NamedTuple):
    """A route, by a name that is the same in every process.

    Its `kind`: an endpoint; an application whose endpoints cannot be seen; one that is guarded by
    an installation of its own; or none.
    """

    name: str
    endpoint: Any
    depends: tuple[RateLimit, ...]  # of FastAPI's dependencies, in their order
    kind: Literal["endpoint", "application", "guarded", "none"]


# what no route is for: what is not found, redirected, or asked by a method that there is not
NOWHERE = Found("no route", None, (), "none")


class Finder:
    """Finds routes of a router, and of those inside it."""

    def __init__(self, router: Any) -> None:
        self._router = router
        self._version: Any = None
        self._hosts = False
        self._known: dict[tuple[str, str, str, str], tuple[Found, dict[str, Any]]] = {}

    def find(self, scope: Any) -> tuple[Found, dict[str, Any]]:
        """The route, and the parameters of its path."""
        version = self._routes_now()
        if version != self._version:
            self._known.clear()
            self._hosts = any(hasattr(route, "host") for route in self._router.routes)
            self._version = version
        path = scope["path"]
        key = (scope["type"], scope.get("method", ""), scope.get("root_path", ""), path)
        known = self._known.get(key)
        if known is not None:
            return known
        found, parameters, alone = self._search(self._router.routes, scope, "")
        if alone and not self._hosts and len(path) <= _LONGEST:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[key] = found, parameters
        return found, parameters

    def _routes_now(self) -> Any:
        """What differs once routes were added, removed or replaced."""
        counted = getattr(self._router, "_get_routes_version", None)
        return [*map(id, self._router.routes), counted() if counted is not None else 0]

    def _search(
        self, routes: Sequence[Any], scope: Any, prefix: str
    ) -> tuple[Found, dict[str, Any], bool]:
        """The route, its parameters, and whether it is one of the router's own: those of an
        application inside may change without a sign here."""
        for route in _expanded(routes):
            match, child = route.matches(scope)
            if match is not Match.FULL:
                continue
            parameters = dict(child.get("path_params") or {})
            path = prefix + (getattr(route, "path", None) or getattr(route, "host", None) or "")
            inner = getattr(route, "routes", None)
            if inner is None:
                return _found(route, path, scope["type"]), parameters, True
            app = getattr(route, "_base_app", None) or getattr(route, "app", None)
            if _is_guarded(app):
                return Found(f"* {path}", app, (), "guarded"), parameters, False
            if not inner:  # as of static files
                return Found(f"* {path}", app, (), "application"), parameters, False
            found, deeper, _ = self._search(inner, {**scope, **child}, path)
            return found, {**parameters, **deeper}, False
        return NOWHERE, {}, True


def _found(route: Any, path: str, kind_of_scope: str) -> Found:
    if kind_of_scope == "websocket":
        methods = "WS"
    else:
        named = set(getattr(route, "methods", None) or ("*",))
        methods = ",".join(sorted(named - {"HEAD"})) or "HEAD"
    depends = tuple(dict.fromkeys(_limits_in(getattr(route, "dependant", None))))
    endpoint = getattr(route, "endpoint", None)
    kind: Any = "application" if endpoint is None else "endpoint"
    return Found(f"{methods} {path}", endpoint, depends, kind)


def _expanded(routes: Sequence[Any]) -> Iterable[Any]:
    """Newer versions of FastAPI keep a router that was included as one route."""
    expand = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    return routes if expand is None else expand(routes)


def _limits_in(dependant: Any) -> Iterator[RateLimit]:
    for one in getattr(dependant, "dependencies", ()):
        if isinstance(one.call, RateLimit):
            yield one.call
        yield from _limits_in(one)


def _is_guarded(app: Any) -> bool:
    from .guard import Guard

    return isinstance(getattr(getattr(app, "router", None), "middleware_stack", None), Guard)
