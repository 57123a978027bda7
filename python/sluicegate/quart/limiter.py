"""The extension: limits of an application's routes, for requests and for connections."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isawaitable
from math import ceil
from typing import Any, NamedTuple

from quart import Quart, current_app, g, has_websocket_context, request, websocket

from .. import _core, stores
from ..quota import Quota
from .deciding import Ask
from .errors import RateLimitExceeded, seconds_of
from .keys import KeyFunction, key_from, remote_addr_key
from .limits import RateLimit, SkipFunction, checked, is_exempt, limits_on
from .state import ENABLED, STORE, state_of
from .store import MemoryStore, RateLimiterStoreABC, as_store

__all__ = ["RateLimiter"]

_OUTCOME = "_sluicegate_quart_outcome"


class Outcome(NamedTuple):
    """What was decided of this request: what the headers of its response tell."""

    quota: Quota  # the one of the shortest period
    stands: _core.Decision  # how that one stands
    refused_for: int | None  # seconds


class RateLimiter:
    """Holds the limits of an application: `RateLimiter(app)`, or `init_app(app)` later.

    `key_function`: who is limited where a limit does not say, by default the peer's address.
    `store`: a URL, a store of the core, or one of this package's own; by default what
    QUART_RATE_LIMITER_STORE says, else memory. `default_limits` hold for every route besides
    its own limits, websocket routes among them. `enabled=False` (or the configuration
    QUART_RATE_LIMITER_ENABLED) turns all off. `skip_function`: whether to leave out limits
    without one of their own. Both functions are plain or async; where either can only
    be asked about a request, websockets are limited by address.

    All limits of a route are one decision: each is charged, or none. A refusal raises
    RateLimitExceeded, HTTP 429; of a websocket it refuses the handshake. A store that fails
    raises StoreError.
    """

    def __init__(
        self,
        app: Quart | None = None,
        key_function: KeyFunction | None = remote_addr_key,
        store: RateLimiterStoreABC | stores.Store | str | None = None,
        default_limits: Iterable[RateLimit] | None = None,
        enabled: bool = True,
        skip_function: SkipFunction | None = None,
    ) -> None:
        for what, given in (("key_function", key_function), ("skip_function", skip_function)):
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a callable, not {type(given).__name__}")
        self.key_function = key_function or remote_addr_key
        self.skip_function = skip_function
        self.default_limits = checked(default_limits or ())
        self.enabled = enabled
        self.store = MemoryStore() if store is None else as_store(store)
        self._given = store is not None
        self._said = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart, enabled: bool | None = None) -> None:
        """Guards the application, from now on. Twice is harmless."""
        state = state_of(app)
        if any(known is self for known in state.limiters):
            return
        state.limiters.append(self)
        if self._given or app.config.get(STORE) is None:
            app.config[STORE] = self.store
        else:
            self.store = state.store(app)
        app.config.setdefault(ENABLED, self.enabled if enabled is None else enabled)
        app.before_request(self._before_request)
        app.after_request(_tell)
        app.before_websocket(self._before_websocket)
        app.after_websocket(_tell)
        app.before_serving(self._before_serving)
        app.after_serving(self._after_serving)

    async def _before_serving(self) -> None:
        if isinstance(self.store, RateLimiterStoreABC):
            await self.store.before_serving()

    async def _after_serving(self) -> None:
        if isinstance(self.store, RateLimiterStoreABC):
            await self.store.after_serving()

    async def _before_request(self) -> None:
        await self._check(request)

    async def _before_websocket(self) -> None:
        await self._check(websocket)

    async def _check(self, connection: Any) -> None:
        app = current_app._get_current_object()
        if not app.config[ENABLED]:
            return
        asks = await self._asks(app, connection)
        if not asks:
            return
        decision, stands = await state_of(app).decider(app).decide(asks)
        refused_for = None if decision else seconds_of(decision)
        setattr(g, _OUTCOME, Outcome(asks[0].quota, stands, refused_for))
        if refused_for is not None:
            raise RateLimitExceeded(refused_for, decision)

    async def _asks(self, app: Quart, connection: Any) -> list[Ask]:
        """What is asked for this request, the shortest period first."""
        endpoint = connection.endpoint
        function = app.view_functions.get(endpoint)
        if function is None or is_exempt(function):
            return []
        limits = (
            *limits_on(function),
            *limits_on(app.blueprints.get(connection.blueprint)),
            *self.default_limits,
        )
        keys: dict[KeyFunction, str] = {}  # each function is asked once
        asks: dict[Ask, None] = {}  # and a limit that is given twice counts once
        for limit in sorted(limits, key=lambda limit: limit.period):
            if await self._is_skipped(limit):
                continue
            by = limit.key_function or self.key_function
            key = keys.get(by)
            if key is None:
                key = keys[by] = await self._key(by)
            name = f"quart:{app.import_name}:{endpoint}:{limit.key}"
            asks[Ask(name, key, limit.quota)] = None
        return list(asks)

    async def _key(self, function: KeyFunction) -> str:
        try:
            return await key_from(function)
        except RuntimeError:
            if function is not self.key_function or not self._lacks_request(function):
                raise
            return await remote_addr_key()

    async def _is_skipped(self, limit: RateLimit) -> bool:
        function = limit.skip_function or self.skip_function
        if function is None:
            return False
        try:
            skip: object = function()
            return bool(await skip if isawaitable(skip) else skip)
        except RuntimeError:
            if function is not self.skip_function or not self._lacks_request(function):
                raise
            return False

    def _lacks_request(self, function: object) -> bool:
        """Whether a function for the whole application may have failed for want of a request:
        one that was written for requests knows nothing of websockets. Says so once."""
        if not has_websocket_context():
            return False
        if not self._said:
            self._said = True
            current_app.logger.warning(
                "%s failed for a websocket, which has no request; such handshakes are limited "
                "by address, and none is skipped, until it asks has_websocket_context()",
                getattr(function, "__qualname__", repr(function)),
                exc_info=True,
            )
        return True


async def _tell(response: Any) -> Any:
    """Adds the headers. A websocket that was accepted has no response."""
    outcome: Outcome | None = g.get(_OUTCOME)
    if response is None or outcome is None:
        return response
    headers = response.headers
    headers["RateLimit-Limit"] = str(outcome.quota.limit)
    headers["RateLimit-Remaining"] = str(outcome.stands.remaining)
    headers["RateLimit-Reset"] = str(ceil(outcome.stands.reset_after))
    if outcome.refused_for is not None and "Retry-After" not in headers:
        # an error handler of the application has made this response
        headers["Retry-After"] = str(outcome.refused_for)
    return response
