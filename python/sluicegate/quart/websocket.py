"""Limits of the messages of a websocket."""

from __future__ import annotations

from typing import Any

from quart import Quart, current_app, has_app_context

from .. import _core, stores
from .deciding import Ask, Decider
from .errors import WebSocketRateLimitException, seconds_of
from .keys import KeyFunction, address_key, as_text, key_from
from .limits import numbers, quota_of
from .state import ENABLED, state_of
from .store import MemoryStore, RateLimiterStoreABC, as_store, decider_of

__all__ = ["WebSocketRateLimiter"]


class WebSocketRateLimiter:
    """`times` messages in `seconds`, `minutes` and `hours` together, all at once if need be.

        await ratelimit(websocket)      # WebSocketRateLimitException over the limit

    `key_function`, plain or async, says who is limited, by default the peer's address.
    `store`: a URL, a store of the core, or one of this package's own; by default that of the
    application in whose context it is called, and outside of one a memory store of its own.

    The count belongs to endpoint, numbers, key and context, never to the object: it may be
    made anew in every handler call. ValueError for numbers that make no sense.
    """

    __slots__ = ("_decider", "_own", "_store", "key_function", "quota")

    def __init__(
        self,
        times: int,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        key_function: KeyFunction | None = None,
        store: RateLimiterStoreABC | stores.Store | str | None = None,
    ) -> None:
        total = (seconds or 0) + 60 * (minutes or 0) + 3600 * (hours or 0)
        if not total > 0:
            raise ValueError(
                "At least one of seconds, minutes, or hours must be provided and positive"
            )
        if key_function is not None and not callable(key_function):
            raise TypeError(f"key_function is a callable, not {type(key_function).__name__}")
        self.quota = quota_of(times, float(total))
        self.key_function = key_function
        self._store = None if store is None else as_store(store)
        self._own: MemoryStore | None = None  # outside of applications
        self._decider = None if self._store is None else decider_of(self._store)

    @property
    def store(self) -> RateLimiterStoreABC | stores.Store:
        """Where it counts, if it is called here and now."""
        return self._where(_current())[0]

    async def __call__(
        self, websocket: Any, context_key: str | bytes | int | None = None
    ) -> _core.Decision:
        """Charges one message, or raises WebSocketRateLimitException.

        `context_key` tells kinds of messages apart, each of which has the whole limit.
        What it returns says how much is left.
        """
        app = _current()
        if app is not None and not app.config.get(ENABLED, True):
            return _core.Decision(True)
        function = self.key_function
        key = address_key(websocket.remote_addr) if function is None else await key_from(function)
        context = "" if context_key is None else as_text(context_key)
        endpoint = getattr(websocket, "endpoint", None)
        where = endpoint if isinstance(endpoint, str) else ""
        # Numbers and context stand in the key, not in the name of a limiter: either may be
        # made up as messages come, and the keys of a limiter are bounded.
        kind = context.replace("%", "%25").replace(":", "%3A")
        ask = Ask(
            f"quart:{'' if app is None else app.import_name}:{where}:messages",
            f"{numbers(self.quota.limit, self.quota.period)}:{kind}:{key}",
            self.quota,
        )
        _, decider = self._where(app)
        decision, _ = await decider.decide((ask,))
        if not decision:
            raise WebSocketRateLimitException(seconds_of(decision), context, decision)
        return decision

    def _where(self, app: Quart | None) -> tuple[RateLimiterStoreABC | stores.Store, Decider]:
        if self._store is not None and self._decider is not None:
            return self._store, self._decider
        if app is not None:
            state = state_of(app)
            return state.store(app), state.decider(app)
        if self._own is None:
            self._own = MemoryStore()
        return self._own, self._own.decider


def _current() -> Quart | None:
    """The application in whose context this runs."""
    return current_app._get_current_object() if has_app_context() else None
