"""What is in front and behind that a rule cannot hold with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .matching import Patterns
from .types import Receive

__all__ = ["check_delay", "check_socketio", "with_socketio"]

_DEEP = 64  # applications inside each other that are looked through


def check_delay(receive: Receive) -> None:
    """RuntimeError where to stop receiving holds nothing back."""
    if _is_endless(receive) or _is_daphne():
        raise RuntimeError(
            "on_excess='delay' holds nothing back here: this server (daphne) reads on into "
            "memory whether the application receives or not. Take on_excess='close', 'drop' or "
            "'notify', or a server that waits for the application, as uvicorn or hypercorn."
        )


def _is_endless(receive: Receive) -> bool:
    """Whether it takes from a queue without a bound, as daphne's is."""
    queue = getattr(receive, "__self__", None)
    return isinstance(queue, asyncio.Queue) and queue.maxsize <= 0


def _is_daphne() -> bool:
    """Whether daphne runs here, for another middleware may have wrapped what it receives by. That
    it is installed and imported, as in Django's settings, tells nothing."""
    if "daphne.server" not in sys.modules:
        return False
    reactor = sys.modules.get("twisted.internet.reactor")
    return bool(getattr(reactor, "running", False))


def check_socketio(app: Any, patterns: Patterns) -> None:
    """ValueError where messages= or bytes= is of Socket.IO's connections."""
    for prefix in _socketio_prefixes(app, "", _DEEP):
        for matches, text, rules in patterns:
            if not matches(prefix) and not matches(prefix.rstrip("/")):
                continue
            for held in rules.websocket:
                for what in ("messages", "bytes"):
                    if getattr(held.rule, what) is not None:
                        raise ValueError(
                            f"{text!r} has {what}= for Socket.IO's {prefix!r}, where a frame is no "
                            f"message: its events come by polling too, and amid pings. Use "
                            f"SocketIOLimiter.attach for them (requests=, connections=, "
                            f"concurrent= and max_message_size= hold here), and for the rest a "
                            f"pattern that does not match it"
                        )
            if any(held.group == "*" and not held.rule.shadow for held in rules.websocket):
                break  # no pattern after this one is of these


def with_socketio(app: Any, patterns: Patterns) -> Patterns:
    """The patterns, which match Socket.IO's paths without the slash at their end, too: it answers
    there as well."""
    known = {prefix.rstrip("/"): prefix for prefix in _socketio_prefixes(app, "", _DEEP)}
    if not known:
        return patterns

    def also(matches: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda path: matches(path) or (path in known and matches(known[path]))

    return [(also(matches), text, rules) for matches, text, rules in patterns]


def _socketio_prefixes(app: Any, mounted: str, deep: int) -> Iterator[str]:
    """Where Socket.IO's applications in an application are: paths that begin so are theirs."""
    if app is None or deep <= 0:
        return
    names = {kind.__module__.partition(".")[0] for kind in type(app).__mro__}
    if names & {"socketio", "engineio"}:
        path = getattr(app, "engineio_path", None)
        # below newer versions of Starlette the whole path is to be given
        whole = mounted and (path or "").startswith(f"{mounted}/")
        yield str(path) if whole else mounted + (path or "/")
        if path is not None:
            yield from _socketio_prefixes(getattr(app, "other_asgi_app", None), mounted, deep - 1)
        return
    routes = getattr(app, "routes", None)
    for route in routes if isinstance(routes, list | tuple) else ():
        path = getattr(route, "path", None)
        inner = getattr(route, "app", None)
        if isinstance(path, str) and inner is not None and hasattr(route, "routes"):
            yield from _socketio_prefixes(inner, mounted + path, deep - 1)
    yield from _socketio_prefixes(getattr(app, "app", None), mounted, deep - 1)
