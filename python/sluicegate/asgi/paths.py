"""How else a path could be written so that an application takes it for the same.

A pattern is asked about the path as it came. But Quart reads `//login`, `login` and a whole URL as
`/login`, Channels any number of slashes before it, Starlette takes a newline at its end for none,
and all of them leave out the `root_path` of the scope; other middlewares and applications may do
more. A limit must not be off for a path that is written so.
"""

from __future__ import annotations

from functools import lru_cache

from ..identity import canonical_path
from .types import Scope

__all__ = ["path_of"]

_CACHED = 1024  # paths that are kept
_LONGEST = 256  # characters of such a path


# The path that it counts under where paths are counted; spellings; and whether it has just one. Of
# each group of spellings a pattern is to match one, and a request is held to what holds for each.
Path = tuple[str, tuple[tuple[str, ...], ...], bool]


def path_of(scope: Scope) -> Path:
    """The path of a scope, and its other spellings."""
    path, root = scope["path"], scope.get("root_path") or ""
    return _cached(path, root) if len(path) <= _LONGEST else _path(path, root)


def _path(path: str, root: str) -> Path:
    # The two are one limit by path. For a pattern a slash at the end may make the difference.
    canonical = canonical_path(path)
    tidy = f"{canonical}/" if path.endswith("/") and canonical != "/" else canonical
    spellings = [_alike(path, root)]
    if tidy != path:
        # An application may as well tell them apart, and what is a pattern's exception for one
        # must be none for the other: so it is held to both.
        spellings.append(_alike(tidy, root))
    counted = canonical_path(root + _below(canonical, root)) if root else canonical
    return counted, tuple(spellings), len(spellings) == len(spellings[0]) == 1


_cached = lru_cache(maxsize=_CACHED)(_path)


def _alike(path: str, root: str) -> tuple[str, ...]:
    """The path with its `root_path` and without, and with a slash before it: to a framework these
    are the same."""
    whole = path if path.startswith("/") else f"/{path}"
    if not root:
        return (path,) if whole is path else (path, whole)
    below = _below(whole, root)
    return tuple(dict.fromkeys((path, whole, below, root.rstrip("/") + below)))


def _below(path: str, root: str) -> str:
    root = root.rstrip("/")
    if path == root:
        return "/"
    return path[len(root) :] if path.startswith(f"{root}/") else path
