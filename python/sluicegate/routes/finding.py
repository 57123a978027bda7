"""Which route a request is for, before the router tells: with the router's own question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from starlette.routing import Match

from .limits import RateLimit

__all__ = ["NOWHERE", "Finder", "Found"]

_CACHED = 4096  # paths whose route is kept
_LONGEST = 256  # characters of such a path

Expand = Callable[[Sequence[Any]], Iterable[Any]]


class Found(NamedTuple):
    """A route, by a name that is the same in every process."""

    name: str
    endpoint: Any
    depends: tuple[RateLimit, ...]  # of FastAPI's dependencies, in their order
    opaque: bool  # guarded by an installation of its own


# what no route is for: what is not found, redirected, or asked by a method that there is not
NOWHERE = Found("no route", None, (), False)


class Finder:
    """Finds routes of a router.

    `expand` lists what is in a list of routes, where a framework keeps several in one.
    """

    def __init__(self, router: Any, expand: Expand | None) -> None:
        self._router = router
        self._expand = expand
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
        for route in routes if self._expand is None else self._expand(routes):
            match, child = route.matches(scope)
            if match is not Match.FULL:
                continue
            parameters = dict(child.get("path_params") or {})
            path = prefix + (getattr(route, "path", None) or getattr(route, "host", None) or "")
            inner = getattr(route, "routes", None)
            if inner is None:
                return _found(route, path), parameters, True
            app = getattr(route, "app", None)
            if _is_guarded(app):
                return Found(f"* {path}", app, (), True), parameters, False
            if not inner:  # an application of another kind, as of static files
                return Found(f"* {path}", app, (), False), parameters, False
            found, deeper, _ = self._search(inner, {**scope, **child}, path)
            return found, {**parameters, **deeper}, False
        return NOWHERE, {}, True


def _found(route: Any, path: str) -> Found:
    if hasattr(route, "methods"):
        methods = ",".join(sorted(set(route.methods or ("*",)) - {"HEAD"})) or "HEAD"
    else:
        methods = "WS"
    depends = tuple(dict.fromkeys(_limits_in(getattr(route, "dependant", None))))
    return Found(f"{methods} {path}", getattr(route, "endpoint", route), depends, False)


def _limits_in(dependant: Any) -> Iterator[RateLimit]:
    for one in getattr(dependant, "dependencies", ()):
        if isinstance(one.call, RateLimit):
            yield one.call
        yield from _limits_in(one)


def _is_guarded(app: Any) -> bool:
    from .guard import Guard

    return isinstance(getattr(getattr(app, "router", None), "middleware_stack", None), Guard)
