"""What holds the limits of an application's routes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from starlette.requests import HTTPConnection

from .. import _core
from ..base import OnStoreError
from ..errors import StoreError
from ..http import Answers, completed, raw_headers
from ..identity import Key, key_of
from ..limiter import Limiter, hit_together
from ..reservation import Reservation
from ..stores import Store
from .finding import Finder, Found
from .limits import VISIT, RateLimit, _guarded, check_cost, is_exempt, limits_on
from .refusing import RateLimitExceeded

__all__ = ["Guard", "Settings"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("sluicegate")

_HELD = 600.0  # seconds for which a response may take before its unit counts in any case
_STARTS = ("http.response.start", "websocket.http.response.start")
_SWITCHED, _FORBIDDEN, _FAILED = 101, 403, 500


class Settings(NamedTuple):
    """What `install` was told."""

    store: Store
    key: Key
    answers: Answers
    default: RateLimit | None
    name: str
    on_store_error: OnStoreError
    timeout: float
    refused: type[RateLimitExceeded]


class Guard:
    """Stands before an application's router, inside its exception handlers."""

    def __init__(self, app: App, finder: Finder, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._finder = finder
        # by route and limit: as many as are written down, never one for a client
        self._limiters: dict[tuple[str, RateLimit], Limiter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found, parameters = self._finder.find(scope)
        visit = scope[VISIT] = Visit(self, found, scope, parameters)
        # what it cannot see it does not hold
        token = _guarded.set(found.kind == "endpoint")
        try:
            limits = self._limits(found)
            if limits:
                await visit.charge(limits)
            await self.app(scope, receive, visit.sending(send))
            await visit.settle(_FAILED)  # there was no response
        except Exception as error:
            await visit.settle(getattr(error, "status_code", _FAILED))
            raise
        finally:
            _guarded.reset(token)

    def limiter(self, found: Found, limit: RateLimit) -> Limiter:
        """What holds a limit on a route. Its name is what its state belongs to."""
        limiter = self._limiters.get((found.name, limit))
        if limiter is None:
            settings = self.settings
            limiter = self._limiters[(found.name, limit)] = Limiter(
                limit.quotas,
                store=settings.store,
                name=f"{settings.name}:{self._pool(found, limit)}",
                on_store_error=settings.on_store_error,
                timeout=settings.timeout,
            )
        return limiter

    def _pool(self, found: Found, limit: RateLimit) -> str:
        if limit.scope is not None:
            return f"scope {limit.scope}"
        own = limits_on(found.endpoint)
        if limit in own:
            place = own.index(limit)
            return found.name if place == 0 else f"{found.name} #{place}"
        if limit is self.settings.default:
            return found.name
        if limit in found.depends:
            return f"{found.name} depends #{found.depends.index(limit)}"
        return f"{found.name} {list(limit.quotas)!r}"  # of a dependency that was put in its place

    def _limits(self, found: Found) -> Sequence[RateLimit]:
        if found.kind == "guarded" or is_exempt(found.endpoint):
            return ()
        own = limits_on(found.endpoint)
        if own or found.depends or self.settings.default is None:
            return own
        return (self.settings.default,)


class _Held(NamedTuple):
    """Units that count if the response does; without `count_when`, unless another limit of the
    route refuses."""

    reservation: Reservation
    count_when: Callable[[int], Any] | None
    cost: int


class Visit:
    """One request or handshake, and what was decided of it."""

    __slots__ = ("_decisions", "_found", "_guard", "_headers", "_held", "_parameters", "_scope")

    def __init__(
        self, guard: Guard, found: Found, scope: Scope, parameters: dict[str, Any]
    ) -> None:
        self._guard = guard
        self._found = found
        self._scope = scope
        self._parameters = parameters
        self._decisions: list[_core.Decision] = []
        self._headers: dict[str, str] = {}  # of a refusal
        self._held: list[_Held] = []

    async def charge(self, limits: Sequence[RateLimit]) -> None:
        """Charges all, or none: then it raises."""
        triples: list[tuple[Limiter, str, int]] = []
        held: list[_Held] = []
        decisions: list[_core.Decision] = []
        # FastAPI asks its dependencies one after the other: what they refuse is not charged here
        later = len(self._found.depends) > (len(limits) == 1 and limits[0] in self._found.depends)
        connection = HTTPConnection({**self._scope, "path_params": dict(self._parameters)})
        asked = []
        for one in limits:
            limiter = self._guard.limiter(self._found, one)
            key = await _asked(one.key or self._guard.settings.key, connection)
            cost = await _asked(one.cost, connection) if callable(one.cost) else one.cost
            asked.append((one, limiter, key_of(key), check_cost(cost)))
        try:
            for one, limiter, subject, cost in asked:
                if one.count_when is None and not later:
                    triples.append((limiter, subject, cost))
                    continue
                reservation = await limiter.reserve(subject, cost, ttl=_HELD)
                decisions.append(reservation.decision)
                if not reservation:
                    break
                held.append(_Held(reservation, one.count_when, cost))
            else:
                if triples:
                    decisions.append(await hit_together(triples))
        except BaseException:
            await _give_back(held)
            raise
        if not decisions[-1].allowed:
            await _give_back(held)
            self._refuse(decisions[-1])
        self._held += held
        self._decisions += decisions

    def _refuse(self, decision: _core.Decision) -> None:
        settings = self._guard.settings
        refusal = settings.answers.refusal(decision)
        self._headers = refusal.headers
        raise settings.refused(decision, refusal)

    async def settle(self, status: int) -> None:
        """Lets the units that were held count, or gives them back, by the response's status."""
        held, self._held = self._held, []
        await _give_back([one for one in held if not self._counts(one, status)])
        for one in held:
            if one.reservation.open:
                await _settle(one.reservation, one.cost)

    def _counts(self, held: _Held, status: int) -> bool:
        if held.count_when is None:
            return not self._headers
        try:
            return bool(held.count_when(status))
        except Exception:
            log.exception("count_when raised; the response counts")
            return True

    def sending(self, send: Send) -> Send:
        """`send`, with the headers, and with what is to be settled before a response."""
        accepted = False

        async def sending(message: Message) -> None:
            nonlocal accepted
            kind = message["type"]
            if kind in _STARTS:
                await self.settle(message["status"])
                message = {**message, "headers": self._told(message.get("headers", ()))}
            elif kind == "websocket.accept":
                accepted = True
                await self.settle(_SWITCHED)
            elif kind == "websocket.close" and not accepted:
                await self.settle(_FORBIDDEN)
            await send(message)

        return sending

    def _told(self, headers: Any) -> list[tuple[bytes, bytes]]:
        """The response's headers, and those of ours that it does not have."""
        found = self._headers
        if not found and self._decisions:
            found = self._guard.settings.answers.headers(min(self._decisions, key=_left))
        return completed(headers, raw_headers(found)) if found else list(headers)


async def _asked(function: Callable[[Any], Any], connection: HTTPConnection) -> Any:
    found = function(connection)
    return await found if hasattr(found, "__await__") else found


def _left(decision: _core.Decision) -> float:
    """The share of its quota that is left; nothing limits where there is none."""
    quota = decision.quota
    return float("inf") if quota is None else decision.remaining / quota.burst


async def _give_back(held: Sequence[_Held]) -> None:
    for one in held:
        await _settle(one.reservation, 0)


async def _settle(reservation: Reservation, cost: int) -> None:
    try:
        await reservation.settle(cost)
    except StoreError as error:
        log.warning("a unit that was held for a response stays charged: %s", error)
