"""WebSockets under a ConnectionLimiter and a RateLimiter."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from .. import _core
from ..headers import retry_after_seconds
from . import defaults
from .hits import report
from .rate import quota_of
from .who import who_is

try:
    from starlette.endpoints import WebSocketEndpoint
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as error:
    raise ImportError(
        'RateLimitedWebSocketEndpoint needs Starlette: pip install "sluicegate[app]"'
    ) from error

if TYPE_CHECKING:
    from starlette.types import Message, Receive

    from .connections import ConnectionLimiter
    from .rate import RateLimiter

__all__ = ["RateLimitedWebSocketEndpoint"]

POLICY_VIOLATION = 1008
MINUTE = 60


class RateLimitedWebSocketEndpoint(WebSocketEndpoint):
    """Starlette's endpoint, whose connections and messages are limited by user.

    A connection over the limit is accepted and closed with 1008, so that its client sees the
    code; `on_connect` is not called. A message over the limit is answered with JSON, and is
    neither decoded nor handed to `on_receive`. The place is given back however it ends.
    Both hold whatever a subclass overrides.

    When the store fails, connections are refused (1008, with another reason), and messages
    are limited in this process.
    """

    rate_limiter: ClassVar[RateLimiter | None] = None
    """None: one in the memory of this process."""
    connection_limiter: ClassVar[ConnectionLimiter | None] = None
    """None: one in the memory of this process, of WS_MAX_CONNECTIONS_PER_USER."""
    messages_per_minute: ClassVar[int | None] = None
    """Of a user, over all connections. None: WS_MESSAGE_RATE_LIMIT."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.messages_per_minute, int):
            quota_of(cls.messages_per_minute, MINUTE)  # ValueError now, not at a message

    async def get_user_id(self, websocket: WebSocket) -> str:
        """Whose connection it is. Override it where users are not in `scope["user"]`; until
        then it is the id of that user, or `ip:{address}` where nobody is authenticated."""
        return who_is(self.scope).name

    def rate_limit_error(self, retry_after: int, limit: int) -> Any:
        """What a client is told of a message over the limit, as JSON. `retry_after`: seconds
        until the next would pass; `limit`: messages a minute."""
        return {
            "error": "rate_limited",
            "detail": f"Rate limit exceeded. Try again in {retry_after} seconds.",
            "retry_after": retry_after,
            "limit": limit,
        }

    def __await__(self) -> Generator[Any, None, None]:
        return self._limited().__await__()

    async def _limited(self) -> None:
        """All of the connection: what a subclass may override runs inside."""
        websocket = WebSocket(self.scope, self.receive, self.send)
        user_id, connection_id = await self.get_user_id(websocket), uuid4().hex
        connections = self.connection_limiter or defaults.connection_limiter()
        decision = await connections.decide_connection(user_id, connection_id)
        if not decision.allowed:
            await _turn_away(websocket, user_id, decision)
            return
        try:
            self.receive = self._admitted(self.receive, user_id)
            await self.dispatch()
        finally:
            await connections.remove_connection(user_id, connection_id)

    def _admitted(self, receive: Receive, user_id: str) -> Receive:
        """`receive`, without the messages that are over the limit."""
        limiter = self.rate_limiter or defaults.rate_limiter()
        limit = self.messages_per_minute
        if limit is None:
            limit = defaults.settings().WS_MESSAGE_RATE_LIMIT
        key = f"ws:messages:{user_id}"

        async def receiving() -> Message:
            while True:
                message = await receive()
                if message["type"] != "websocket.receive":
                    return message
                decision = await limiter.decide(key, limit, MINUTE, on_store_error="local")
                if decision.allowed:
                    return message
                report("ws_message", user_id, limit, limit)
                await self._tell(decision, limit)

        return receiving

    async def _tell(self, decision: _core.Decision, limit: int) -> None:
        text = json.dumps(self.rate_limit_error(retry_after_seconds(decision) or 1, limit))
        # that the connection has ended is no error: what is received next says so
        with suppress(OSError, RuntimeError):
            await self.send({"type": "websocket.send", "text": text})


async def _turn_away(websocket: WebSocket, user_id: str, decision: _core.Decision) -> None:
    if decision.degraded:
        reason = "Connections cannot be counted now"
    else:
        reason = "Rate limit exceeded"
        report("ws_connection", user_id, decision.limit, decision.limit)
    # some browsers give up, and see no code, where they offer protocols and none is chosen
    offered = websocket.scope.get("subprotocols") or (None,)
    with suppress(OSError, RuntimeError, WebSocketDisconnect):  # that the client has gone
        await websocket.accept(subprotocol=offered[0])
        await websocket.close(POLICY_VIOLATION, reason)
