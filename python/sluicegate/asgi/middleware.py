"""The middleware."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .._support import check_number
from .answers import auth_error_handler, made, too_many_requests
from .backends import BaseBackend, StoreBackend
from .backends.simple import MemoryBackend
from .matching import Config, compiled
from .peer import by_peer
from .types import ASGIApp, Authenticate, OnAuthError, OnBlocked, Receive, Scope, Send

if TYPE_CHECKING:
    from .reloading import ReloadingMiddleware

__all__ = ["RateLimitMiddleware"]

_NO_RULES: Mapping[Any, Any] = {}
_USERS = (str, int, UUID)


class RateLimitMiddleware:
    """Holds the HTTP requests of an ASGI app to rules.

    `authenticate(scope)`, async or plain, returns (user, group); it is called once a request,
    if any pattern matches its path. None goes by the peer's address, of the group "default".
    `backend`: a backend, a URL, a native store or a client of Redis; None is the memory of this
    process, shared with nothing. `config`: regular expressions, matched from the start of the
    path, each with its rules; the first that matches and has a rule for the user's group and the
    method holds. Where none does, the request passes.

    `on_auth_error`: an ASGI app, or a function of the exception, async or plain, that returns
    one; without it, what `authenticate` raises goes on. `on_blocked(retry_after)` makes the app
    that answers a refused request; without it that is 429 with `retry-after`, whole seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate | None = None,
        backend: Any = None,
        config: Config = _NO_RULES,
        *,
        on_auth_error: OnAuthError | None = None,
        on_blocked: OnBlocked | None = None,
    ) -> None:
        for what, given in (("authenticate", authenticate), ("on_blocked", on_blocked)):
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a function, not {type(given).__name__}")
        self.app = app
        self.authenticate: Authenticate = authenticate or by_peer
        self.backend = _backend(backend)
        self.on_auth_error = on_auth_error
        self.on_blocked: OnBlocked = on_blocked or too_many_requests
        self._auth_error = auth_error_handler(on_auth_error)
        self._patterns = compiled(config, self.backend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = await self._http(scope) if scope["type"] == "http" else self.app
        await app(scope, receive, send)

    async def _http(self, scope: Scope) -> ASGIApp:
        """The app that answers a request: the one behind, or a refusal."""
        path, method, who = scope["path"], scope["method"], None
        for matches, groups in self._patterns:
            if not matches(path):
                continue
            if who is None:
                try:
                    who = await self._identify(scope)
                except Exception as error:
                    if self._auth_error is None:
                        raise
                    return await made(self._auth_error, error)
            user, group = who
            for held in groups.get(group, ()):
                if held.method is None or held.method == method:
                    break
            else:
                continue
            if held.retry_after is not None:
                retry_after = await held.retry_after(path, user)
                if retry_after > 0:
                    return await made(self.on_blocked, retry_after)
            break
        return self.app

    async def _identify(self, scope: Scope) -> tuple[Any, str]:
        found = self.authenticate(scope)
        if hasattr(found, "__await__"):
            found = await found
        user, group = found
        # What is neither would be nobody's, or of no group that a rule is for: no limit at all.
        if not isinstance(user, _USERS) or isinstance(user, bool):
            raise TypeError(f"authenticate returned {type(user).__name__} for a user, not str")
        if not isinstance(group, str):
            raise TypeError(f"authenticate returned {type(group).__name__} for a group, not str")
        return user, group

    @classmethod
    def from_config(
        cls,
        app: ASGIApp,
        path: str | os.PathLike[str],
        *,
        reload: str | float | None = None,
        backend: Any = None,
        **options: Any,
    ) -> RateLimitMiddleware | ReloadingMiddleware:
        """The same with the rules of a TOML file: see `sluicegate.asgi.config`.

        `reload`: how often to look whether the file has changed, as "10s" or in seconds; None
        never does. A file that is wrong by then is logged, and the old rules hold; no count is
        lost. The rest is as for the class, but for `config`.

        OSError for no file, ValueError with the lines of what is unknown or wrong.
        """
        from .config import read_rules

        counts = _backend(backend)

        def make(config: Config) -> RateLimitMiddleware:
            return cls(app, backend=counts, config=config, **options)

        if reload is None:
            return make(read_rules(path))
        from ..durations import seconds_of
        from .reloading import ReloadingMiddleware

        seconds = seconds_of(reload) if isinstance(reload, str) else check_number(reload, "reload")
        return ReloadingMiddleware(path, seconds, make)


def _backend(given: Any) -> BaseBackend:
    if given is None:
        return MemoryBackend()
    return given if isinstance(given, BaseBackend) else StoreBackend(given)
