"""The middleware."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from .. import identity
from .._support import check_number
from ..headers import STYLES
from ..http import Answers
from ..websocket.excess import POLICY_VIOLATION, close_of
from .answers import auth_error_handler, made, problem, too_many_requests
from .backends import BaseBackend, StoreBackend
from .backends.simple import MemoryBackend
from .connection import LimitedWebSocket
from .entry import Entry
from .handshake import deny, turn_away
from .matching import Config, compiled
from .responding import Headers, respond, with_headers
from .search import Outcome, Search, Unknown
from .servers import check_delay, check_socketio, with_socketio
from .types import ASGIApp, Authenticate, OnAuthError, OnBlocked, Receive, Scope, Send

if TYPE_CHECKING:
    from .reloading import ReloadingMiddleware

__all__ = ["RateLimitMiddleware"]

_NO_RULES: Mapping[Any, Any] = {}
_PEER = identity.address()


class RateLimitMiddleware:
    """Holds the requests and WebSockets of an ASGI app to rules.

    `authenticate(scope)`, async or plain, returns (user, group); it is called once a request or
    handshake, if any pattern matches its path and a rule asks for it. None goes by the peer's
    address, of the group "default". `backend`: a backend, a URL, a native store or a client of
    Redis; None is the memory of this process, shared with nothing. `config`: regular
    expressions, matched from the start of the path, each with its rules; the first that matches
    and has a rule for the user's group and the method holds. Of its rules the first for each
    kind of key applies, and all that apply are one decision. Where none does, it passes.

    `on_auth_error`: an ASGI app, or a function of the exception, async or plain, that returns
    one; without it, what `authenticate` raises goes on. `on_blocked(retry_after)` makes the app
    that answers a refused request; without it that is 429 with `retry-after`, whole seconds, and,
    unless the rules are of asgi-ratelimit alone and `headers` is None, a problem (RFC 9457).
    Both answer a handshake too, where the server can send it an HTTP response.
    `headers` are those that tell a client where it stands: "ietf", "x", "both" or None; up to
    `jitter` seconds are added to `retry-after`, by chance.
    `address(scope)` is whom rules by "ip" count, by default the peer.

    A WebSocket is refused before its application hears of it, and what it sends is decided
    where the application receives. Scopes that are neither pass untouched.
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
        headers: Headers = None,
        address: Callable[[Scope], str] | None = None,
        jitter: float = 0.0,
    ) -> None:
        for what, given in (
            ("authenticate", authenticate),
            ("on_blocked", on_blocked),
            ("address", address),
        ):
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a function, not {type(given).__name__}")
        if headers is not None and headers not in STYLES:
            raise ValueError(f"headers are 'ietf', 'x', 'both' or None, not {headers!r}")
        self.app = app
        self.authenticate = authenticate
        self.backend = _backend(backend)
        self.on_auth_error = on_auth_error
        self.on_blocked: OnBlocked = on_blocked or too_many_requests
        self.headers = headers
        self._answers = Answers(headers, jitter)
        self._auth_error = auth_error_handler(on_auth_error)
        if headers is not None and not isinstance(self.backend, StoreBackend):
            raise TypeError("headers need a store, or its URL, for backend=")
        self._address = _PEER if address is None else _checked(address)
        self.use(config)

    def use(self, config: Config) -> None:
        """Takes other rules from the next request on. What was counted still counts, and
        WebSockets that are open keep the rules that they began with.

        ValueError or TypeError for what is no configuration; then all stays as it was.
        """
        patterns = compiled(config, self.backend)
        check_socketio(self.app, patterns)
        patterns = with_socketio(self.app, patterns)
        search = Search(patterns, self.authenticate, self._address, simply=self.headers is None)
        gate = search.gate(self.headers, by_peer=self._address is _PEER)
        self._patterns, self._search, self._gate = patterns, search, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            passed = self._gate(scope, send)  # the usual request is decided by that
            if passed is None:
                await self._http(scope, receive, send)
            elif type(passed) is tuple:
                outcome = await self._search.refused_straight(scope, *passed)
                await self._blocked(outcome, scope, receive, send)
            else:
                await self.app(scope, receive, passed)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = Entry(handshake=False)
        try:
            app = self.app
            outcome = await self._enter(scope, entry)
            if isinstance(outcome, Unknown):
                app = await self._app_of_error(outcome)
            elif outcome is not None:
                app = await self._app_of_refusal(outcome)
                send = with_headers(send, outcome.decision, self.headers)
            else:
                send = with_headers(send, entry.decision, self.headers)
            if entry.holds:
                await respond(app, entry, scope, receive, send)
                return
        finally:
            entry.close()
        await app(scope, receive, send)

    async def _blocked(self, outcome: Outcome, scope: Scope, receive: Receive, send: Send) -> None:
        app = await self._app_of_refusal(outcome)
        await app(scope, receive, with_headers(send, outcome.decision, self.headers))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = Entry(handshake=True)
        try:
            outcome = await self._enter(scope, entry)
            if outcome is not None:
                await self._refuse(outcome, entry, scope, receive, send)
                return
            if any(one.counting.rule.on_excess == "delay" for one in entry.rules):
                check_delay(receive)
            limited = entry.holds or any(one.counting.rule.of_messages for one in entry.rules)
            if limited:
                await LimitedWebSocket(entry, receive, send).run(self.app, scope)
                return
        finally:
            entry.close()
        await self.app(scope, receive, send)

    async def _enter(self, scope: Scope, entry: Entry) -> Outcome | Unknown | None:
        """None where it is admitted."""
        try:
            return await self._search.enter(scope, entry)
        except Unknown as unknown:
            return unknown

    async def _app_of_error(self, unknown: Unknown) -> ASGIApp:
        if self._auth_error is None:
            raise unknown.error
        return await made(self._auth_error, unknown.error)

    async def _app_of_refusal(self, outcome: Outcome) -> ASGIApp:
        seconds = self._answers.later(outcome.seconds)
        decision = outcome.decision
        of_the_source = self.headers is None and outcome.rule.plain
        if decision is None or of_the_source or self.on_blocked is not too_many_requests:
            return await made(self.on_blocked, seconds)
        return problem(decision, seconds)

    async def _refuse(
        self,
        outcome: Outcome | Unknown,
        entry: Entry,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answers a handshake in place of the application."""
        if isinstance(outcome, Unknown):
            app, code, reason = await self._app_of_error(outcome), POLICY_VIOLATION, "Forbidden"
        else:
            app = await self._app_of_refusal(outcome)
            code, reason = _close_of(outcome)
            send = with_headers(send, outcome.decision, self.headers)
        if outcome.refuse == "close":
            await turn_away(scope, receive, send, code, reason)
        else:

            async def answer(scope: Scope, receive: Receive, send: Send) -> None:
                await respond(app, entry, scope, receive, send)

            await deny(scope, receive, send, answer, code, reason)
        await entry.respond(403)  # of no effect where a response has settled it

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


def _close_of(outcome: Outcome) -> tuple[int, str]:
    decision = outcome.decision
    never = decision is not None and decision.retry_after == inf
    return close_of("rate_limit_exceeded", inf if never else outcome.seconds)


def _checked(address: Callable[[Scope], Any]) -> Callable[[Scope], str]:
    """The function, which raises for what is no address: it would be another one at each request,
    or everybody's."""

    def checked(scope: Scope) -> str:
        found = address(scope)
        if isinstance(found, str):
            return found
        if inspect.iscoroutine(found):
            found.close()
        raise TypeError(f"address returned {type(found).__name__}, not str")

    return checked


def _backend(given: Any) -> BaseBackend:
    if given is None:
        return MemoryBackend()
    return given if isinstance(given, BaseBackend) else StoreBackend(given)
