"""Limits of Socket.IO connections and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .. import _core
from ..stores import Store
from ..websocket.clients import client_of
from ..websocket.failure import Policy
from ..websocket.limiter import Limits, WebSocketRateLimiter
from ..websocket.violations import OnViolation, log
from ..websocket.words import client_key
from .guard import Guard
from .peer import client_ip
from .sizes import payload_size

if TYPE_CHECKING:
    from socketio import AsyncServer

__all__ = ["SocketIOLimiter"]

GetClientId = Callable[[Any, Any], Any]


class SocketIOLimiter:
    """Limits of the connections and events of python-socketio's AsyncServer.

        limiter = SocketIOLimiter(WebSocketLimits(messages_per_minute=200), costs={"search": 10})
        limiter.attach(sio)

    `attach` guards a server as it is: connections, events and disconnects of all its
    namespaces. Without it handlers ask for themselves: `on_connect`, `check_message` and
    `on_disconnect`. A connection is what has a sid: one of one namespace.

    `costs` says how many messages an event counts as, by its name; others count as one.
    `get_client_id(environ, auth)`, plain or async, tells `attach` who connects; by default
    the peer's address. The rest is WebSocketRateLimiter's; connections over `max_refusals`
    are disconnected by `attach`.
    """

    client_ip = staticmethod(client_ip)

    def __init__(
        self,
        limits: Limits | None = None,
        storage: Store | str | None = None,
        on_violation: OnViolation | None = None,
        *,
        costs: Mapping[str, int] | None = None,
        get_client_id: GetClientId | None = None,
        name: str = "websocket",
        on_store_error: Policy = "local",
        max_refusals: str | _core.Quota | None = None,
    ) -> None:
        _need_socketio()
        if get_client_id is not None and not callable(get_client_id):
            raise TypeError(f"get_client_id is a callable, not {type(get_client_id).__name__}")
        self.costs = _checked(costs)
        self.get_client_id = get_client_id or _peer
        self.limiter = WebSocketRateLimiter(
            limits,
            storage,
            on_violation,
            name=name,
            on_store_error=on_store_error,
            max_refusals=max_refusals,
        )
        self.sid_to_client: dict[str, str | bytes] = {}
        self._attached: WeakSet[AsyncServer] = WeakSet()

    def attach(self, sio: AsyncServer) -> None:
        """Guards a server: its handlers, registered before or after, see what is admitted.

        A connection that is refused gets a connect error of "Rate limit exceeded"; an event
        that is refused is acknowledged with {"error": "rate_limited", "retry_after": n}, n
        in whole seconds, None where it never can be admitted. Twice is once. To be called
        before the server has clients: those that it has already are not known here.
        """
        from socketio import AsyncServer

        if not isinstance(sio, AsyncServer):
            raise TypeError(f"attach takes a socketio.AsyncServer, not {type(sio).__name__}")
        if sio not in self._attached:
            Guard(self, sio)
            self._attached.add(sio)

    async def on_connect(self, sid: str, client_ip: str | bytes) -> bool:
        """Whether the client may connect; its place is held until `on_disconnect`."""
        return (await self.decide_connect(sid, client_ip)).allowed

    async def decide_connect(self, sid: str, client_ip: str | bytes) -> _core.Decision:
        """`on_connect`, with the decision; its `retry_after` is inf where no place is left.

        A sid that is connected stays whose it is, and is charged nothing more.
        """
        if sid in self.sid_to_client:
            return _core.Decision(True)
        client = client_key(client_ip)
        decision = await self.limiter.decide_connection(client)
        if not decision.allowed:
            return decision
        try:
            if not await self.limiter.register_connection(sid, client):
                return _core.Decision(False, retry_after=float("inf"))
        except BaseException:  # whatever it has come to
            await self.limiter.unregister_connection(sid)
            raise
        self.sid_to_client[sid] = client
        return decision

    async def check_message(
        self, sid: str, data: Any, *, event: str | None = None, cost: int | None = None
    ) -> bool:
        """Whether the connection may send an event of that data, of any type.

        It counts as `cost` messages, by default as `costs` has it for `event`, else as one.
        """
        return (await self.decide_message(sid, data, event=event, cost=cost)).allowed

    async def decide_message(
        self, sid: str, data: Any, *, event: str | None = None, cost: int | None = None
    ) -> _core.Decision:
        """`check_message`, with the decision."""
        if cost is None:
            cost = self.cost_of(event)
        decision, _ = await self.limiter.decide_message(sid, payload_size(data), cost=cost)
        return decision

    async def on_disconnect(self, sid: str) -> None:
        """Gives the connection's place back. Twice is harmless."""
        self.sid_to_client.pop(sid, None)
        await self.limiter.unregister_connection(sid)

    def cost_of(self, event: Any) -> int:
        """How many messages an event of that name counts as."""
        return self.costs.get(event, 1) if isinstance(event, str) else 1

    async def client_of(self, environ: Mapping[str, Any], auth: Any) -> str | bytes | None:
        """Who connects, by `get_client_id`; None, and logged, where that raises."""
        try:
            return await client_of(self.get_client_id, environ, auth)
        except Exception:
            log().exception("get_client_id raised; the connection is refused")
            return None


def _peer(environ: Mapping[str, Any], auth: Any) -> str:
    return client_ip(environ)


def _checked(costs: Mapping[str, int] | None) -> dict[str, int]:
    """A copy. TypeError or ValueError for what is no cost, when it is given and not later."""
    found = dict(costs or {})
    for event, cost in found.items():
        if not isinstance(event, str):
            raise TypeError(f"costs has events by their names, not {type(event).__name__}")
        if isinstance(cost, bool) or not isinstance(cost, int):
            raise TypeError(f"the cost of {event!r} is an int, not {type(cost).__name__}")
        if not 0 <= cost <= _core.COST_MAX:
            raise ValueError(f"the cost of {event!r} is 0 to {_core.COST_MAX}, not {cost}")
    return found


def _need_socketio() -> None:
    try:
        import socketio  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'SocketIOLimiter needs python-socketio: pip install "sluicegate[socketio]"'
        ) from error
