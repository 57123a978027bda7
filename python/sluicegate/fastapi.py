"""The door of FastAPI: its WebSockets under the limits of `websocket` (Starlette's, too), and its
routes under those of `routes`.

    app = FastAPI()
    install(app, store="redis://localhost", default="100/minute")

    @app.get("/search")
    @limit("5/minute")
    async def search(q: str): ...

    @app.get("/report", dependencies=[Depends(RateLimit("1/minute"))])
    def report(): ...
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from . import _core
from .base import OnStoreError, QuotasArgument
from .http import Headers
from .identity import Key
from .identity.networks import grouping
from .routes import RateLimit, exempt, limit
from .stores import Store
from .websocket.clients import client_of
from .websocket.connection import LimitedConnection
from .websocket.excess import POLICY_VIOLATION, REASON, Notify, OnExcess
from .websocket.failure import Policy
from .websocket.limiter import Limits, WebSocketRateLimiter
from .websocket.refused import ConnectionRefused
from .websocket.sizes import size_of
from .websocket.tasks import TaskWatch, running_task
from .websocket.violations import OnViolation, log
from .websocket.words import whole_seconds

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.websockets import WebSocket

    from .routes.refusing import RateLimitExceeded

__all__ = [
    "ConnectionRefused",
    "FastAPIWebSocketLimiter",
    "LimitedConnection",
    "RateLimit",
    "RateLimitExceeded",
    "exempt",
    "install",
    "limit",
]

DENIAL = "websocket.http.response"  # the ASGI extension

GetClientId = Callable[[Any], Any]

_key_of = grouping()


class FastAPIWebSocketLimiter:
    """Limits of FastAPI's and Starlette's WebSockets.

    `get_client_id(websocket)`, plain or async, tells who it is; by default the peer's
    address. `refuse` is how a connection is refused: "close" accepts and closes with 1008,
    which a browser sees; "deny" refuses the handshake (HTTP 429, or 403 where the server
    lacks the Denial Response extension), which costs less under attack. `on_excess`
    ("notify", "drop", "delay" or "close") is what `connection(...)` does with messages
    over a limit: "delay" holds reading back for at most `max_delay` seconds; `notify`
    makes the message of "notify" from its dict. The rest is WebSocketRateLimiter's.

    A connection ends, and gives its place back, with `disconnect`, or when the task that
    connected it ends.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        get_client_id: GetClientId | None = None,
        storage: Store | str | None = None,
        on_violation: OnViolation | None = None,
        *,
        name: str = "websocket",
        on_store_error: Policy = "local",
        max_refusals: str | _core.Quota | None = None,
        refuse: Literal["close", "deny"] = "close",
        on_excess: OnExcess = "notify",
        notify: Notify | None = None,
        max_delay: float = 10.0,
    ) -> None:
        _need_starlette()
        if refuse not in ("close", "deny"):
            raise ValueError(f"refuse is 'close' or 'deny', not {refuse!r}")
        if on_excess not in ("close", "drop", "delay", "notify"):
            raise ValueError(
                f"on_excess is 'close', 'drop', 'delay' or 'notify', not {on_excess!r}"
            )
        if isinstance(max_delay, bool) or not isinstance(max_delay, int | float):
            raise TypeError(f"max_delay is a number of seconds, not {type(max_delay).__name__}")
        if not (isfinite(max_delay) and max_delay > 0):
            raise ValueError(f"max_delay is seconds above 0, not {max_delay!r}")
        for what, given in (("get_client_id", get_client_id), ("notify", notify)):
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a callable, not {type(given).__name__}")
        self.limiter = WebSocketRateLimiter(
            limits,
            storage,
            on_violation,
            name=name,
            on_store_error=on_store_error,
            max_refusals=max_refusals,
        )
        self.get_client_id = get_client_id or peer_address
        self.refuse = refuse
        self.on_excess: OnExcess = on_excess
        self.notify = notify
        self.max_delay = max_delay
        self.websocket_map: dict[Any, str] = {}  # WebSocket to connection id
        self._watches: dict[Any, TaskWatch] = {}
        # of connections whose task has ended, in case that was not the endpoint's
        self._parked: WeakKeyDictionary[Any, _core.ConnectionInfo] = WeakKeyDictionary()

    async def connect(
        self,
        websocket: WebSocket,
        client_id: str | bytes | None = None,
        *,
        subprotocol: str | None = None,
        headers: Any = None,
    ) -> bool:
        """Accepts the connection, or refuses it as `refuse` says: whether it was accepted."""
        decision = await self.decide_connect(
            websocket, client_id, subprotocol=subprotocol, headers=headers
        )
        return decision.allowed

    async def decide_connect(
        self,
        websocket: WebSocket,
        client_id: str | bytes | None = None,
        *,
        subprotocol: str | None = None,
        headers: Any = None,
    ) -> _core.Decision:
        """`connect`, with the decision."""
        if websocket in self.websocket_map:
            return _core.Decision(True)
        try:
            if client_id is None:
                client_id = await client_of(self.get_client_id, websocket)
        except Exception:
            log().exception("get_client_id raised; the connection is refused")
            decision = _core.Decision(False, retry_after=float("inf"))
            await self._turn_away(websocket, decision)
            return decision
        connection_id = f"ws_{id(websocket)}"
        decision = await self.limiter.decide_connection(client_id)
        if decision.allowed and not await self.limiter.register_connection(
            connection_id, client_id
        ):
            decision = _core.Decision(False, retry_after=float("inf"))
        if not decision.allowed:
            await self._turn_away(websocket, decision)
            return decision
        self._enter(websocket, connection_id)
        try:
            if not _is_accepted(websocket):
                await websocket.accept(subprotocol=subprotocol, headers=headers)
        except BaseException:
            await self.disconnect(websocket)
            raise
        return decision

    async def check_message(self, websocket: WebSocket, data: Any) -> bool:
        """Whether the message may pass; `data` is what was received, of any type.

        A connection that is over its `max_refusals` is closed.
        """
        connection_id = self.websocket_map.get(websocket)
        if connection_id is None:
            connection_id = await self._unpark(websocket)
        result = await self.limiter.check_message(connection_id, size_of(data))
        if result["allowed"]:
            return True
        if result.get("close"):
            await self._close(websocket)
        return False

    async def decide_message(
        self, websocket: WebSocket, data: Any, *, cost: int = 1
    ) -> _core.Decision:
        """`check_message` of a message that counts as `cost` messages, with the decision."""
        connection_id = self.websocket_map.get(websocket)
        if connection_id is None:
            connection_id = await self._unpark(websocket)
        decision, result = await self.limiter.decide_message(
            connection_id, size_of(data), cost=cost
        )
        if result.get("close"):
            await self._close(websocket)
        return decision

    async def disconnect(self, websocket: WebSocket) -> None:
        """Gives the connection's place back. Twice is harmless; the socket is left alone."""
        self._leave(websocket)
        self._parked.pop(websocket, None)

    def connection(
        self, websocket: WebSocket, client_id: str | bytes | None = None
    ) -> LimitedConnection:
        """`async with limiter.connection(websocket) as c`: see LimitedConnection."""
        return LimitedConnection(self, websocket, client_id)

    # ---- inside

    def _enter(self, websocket: Any, connection_id: str) -> None:
        self.websocket_map[websocket] = connection_id
        task = running_task()
        if task is not None:
            self._watches[websocket] = TaskWatch(task, lambda: self._park(websocket))

    def _leave(self, websocket: Any) -> _core.ConnectionInfo | None:
        watch = self._watches.pop(websocket, None)
        if watch is not None:
            watch.cancel()
        connection_id = self.websocket_map.pop(websocket, None)
        return None if connection_id is None else self.limiter._take(connection_id)

    def _park(self, websocket: Any) -> None:
        """The task that connected it has ended. Nearly always that was the endpoint, and the
        connection is over; a message that comes all the same registers it anew."""
        info = self._leave(websocket)
        if info is not None:
            with suppress(TypeError):  # no weak reference: then it is over for good
                self._parked[websocket] = info

    async def _unpark(self, websocket: Any) -> str | None:
        info = self._parked.pop(websocket, None)
        if info is None:
            return None
        connection_id = str(info.connection_id)
        if not await self.limiter.register_connection(connection_id, info.client_id, info.metadata):
            self._parked[websocket] = info
            return None
        self._enter(websocket, connection_id)
        return connection_id

    async def _turn_away(self, websocket: WebSocket, decision: _core.Decision) -> None:
        """Answers a handshake that is refused. That the client has gone is no error."""
        with suppress(Exception):
            if _is_accepted(websocket):
                await websocket.close(POLICY_VIOLATION, REASON)
            elif self.refuse == "close":
                await websocket.accept()
                await websocket.close(POLICY_VIOLATION, REASON)
            elif DENIAL in (websocket.scope.get("extensions") or {}) and hasattr(
                websocket, "send_denial_response"
            ):
                from starlette.responses import PlainTextResponse

                seconds = whole_seconds(decision.retry_after) or 1
                await websocket.send_denial_response(
                    PlainTextResponse(REASON, 429, {"Retry-After": str(seconds)})
                )
            else:
                await websocket.close(POLICY_VIOLATION, REASON)  # before accept: HTTP 403

    async def _close(self, websocket: Any) -> None:
        """Closes a connection that was refused too often.

        The endpoint knows nothing of it, and may well send its own answer next: that is
        dropped as if on the wire, and the next receive tells of the disconnect.
        """
        await self.disconnect(websocket)
        with suppress(Exception):
            connected = websocket.application_state
            await websocket.close(POLICY_VIOLATION, REASON)
            websocket.application_state = connected
            websocket.send = _dropped


async def _dropped(message: Any) -> None:
    pass


def peer_address(websocket: WebSocket) -> str:
    """The address at the other end of the connection, of IPv6 its /64; "unknown" where the
    server has none, as on a Unix socket."""
    client = websocket.client
    return _key_of("" if client is None else client.host or "")


def _is_accepted(websocket: WebSocket) -> bool:
    from starlette.websockets import WebSocketState

    return websocket.application_state is WebSocketState.CONNECTED


def _need_starlette() -> None:
    try:
        import starlette.websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'FastAPIWebSocketLimiter needs FastAPI or Starlette: pip install "sluicegate[fastapi]"'
        ) from error


# ---- routes


def install(
    app: FastAPI,
    *,
    store: Any = None,
    key: str | Key | None = None,
    headers: Headers | None = "ietf",
    default: QuotasArgument | RateLimit | None = None,
    jitter: float = 0.0,
    name: str = "routes",
    on_store_error: OnStoreError = "local",
    timeout: float = 0.5,
) -> None:
    """Holds the limits of an application's routes, those to come too; before it serves.

    See `sluicegate.starlette.install`. What is raised is a fastapi HTTPException here; the
    description of the interface (OpenAPI) stays as it is.
    """
    from .routes.installing import install_guard

    install_guard(
        app,
        store=store,
        key=key,
        headers=headers,
        default=default,
        jitter=jitter,
        name=name,
        on_store_error=on_store_error,
        timeout=timeout,
        refused=_refused(),
    )


@lru_cache(maxsize=1)
def _refused() -> type[RateLimitExceeded]:
    from fastapi import HTTPException

    from .routes.refusing import RateLimitExceeded as Base

    members = {"__doc__": Base.__doc__, "__module__": __name__}
    return type("RateLimitExceeded", (Base, HTTPException), members)


def __getattr__(name: str) -> Any:
    if name == "RateLimitExceeded":
        return _refused()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
