"""A Channels consumer under limits."""

from __future__ import annotations

import json
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..websocket.clients import UNKNOWN, client_of
from ..websocket.excess import POLICY_VIOLATION, REASON, close_of, notice_of, quiet_for
from ..websocket.sizes import size_of
from ..websocket.violations import log
from .limiter import ChannelsRateLimiter, need_channels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .. import _core

    class _Consumer:
        """What the mixin needs of a consumer."""

        scope: dict[str, Any]
        channel_name: str

        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None: ...

        async def dispatch(self, message: dict[str, Any]) -> None: ...
else:
    _Consumer = object

__all__ = ["RateLimitedConsumerMixin"]

# daphne raises for close codes that are not an application's own, and sends 4008 for 1008
PRIVATE = 3000


class RateLimitedConsumerMixin(_Consumer):
    """Limits a WebSocket consumer; its own methods see what is admitted.

        class Chat(RateLimitedConsumerMixin, AsyncJsonWebsocketConsumer):
            rate_limiter = ChannelsRateLimiter(WebSocketLimits(messages_per_minute=150))

    A connection that is refused is accepted and closed with 1008 (by daphne, which cannot
    send that, with 4008), and `connect` is not called; otherwise its place is given back
    however the consumer ends. Messages are counted as they come, before JSON is parsed.
    `on_excess` is what becomes of those over a limit: "notify" drops them and tells the
    client, at most once a retry_after; "drop" says nothing; "close" ends the connection. One
    over the limiter's `max_refusals` is closed.

    The connection is registered as `self.channel_name`, where there is a channel layer.
    """

    rate_limiter: ClassVar[ChannelsRateLimiter]
    on_excess: ClassVar[Literal["notify", "drop", "close"]] = "notify"
    _wire: Wire

    def get_client_id(self) -> Any:
        """Who connects, by `self.scope`: the peer's address. It may be async."""
        client = self.scope.get("client")
        return str(client[0]) if client and client[0] else UNKNOWN

    def rate_limit_notice(self, notice: dict[str, Any]) -> Any:
        """What "notify" sends: text and bytes as they are, anything else as JSON."""
        return notice

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check(cls)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        limiter = getattr(self, "rate_limiter", None)
        if not isinstance(limiter, ChannelsRateLimiter):
            raise TypeError(f"{type(self).__name__}.rate_limiter is to be a ChannelsRateLimiter")
        self._wire = Wire(send)
        try:
            await super().__call__(scope, receive, self._wire.forward)
        finally:
            await self._give_place_back()

    async def dispatch(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "websocket.connect":
            if not await self._is_admitted():
                await self._wire.turn_away(self.scope)
                from channels.exceptions import StopConsumer

                raise StopConsumer
        elif kind == "websocket.receive":
            if not await self._is_message_admitted(message):
                return
        elif kind == "websocket.disconnect":
            await self._give_place_back()
        await super().dispatch(message)

    # ---- inside

    async def _is_admitted(self) -> bool:
        """Whether the connection may be; then it is registered."""
        try:
            client = await client_of(self.get_client_id)
        except Exception:
            log().exception("get_client_id raised; the connection is refused")
            return False
        name = getattr(self, "channel_name", None) or f"consumer_{id(self)}"
        self._wire.connection = name
        return await self.rate_limiter.check_connection(
            client
        ) and await self.rate_limiter.register_connection(name, client)

    async def _is_message_admitted(self, message: dict[str, Any]) -> bool:
        wire = self._wire
        if wire.over:
            return False
        text = message.get("text")
        size = size_of(message.get("bytes") or b"" if text is None else text)
        limiter = self.rate_limiter.limiter
        decision, result = await limiter.decide_message(wire.connection, size)
        if decision.allowed:
            return True
        if result.get("close") or self.on_excess == "close":
            await wire.close(*close_of(result["reason"], decision.retry_after))
        elif self.on_excess == "notify" and wire.may_tell(decision, limiter.now()):
            await wire.tell(self.rate_limit_notice(notice_of(decision, result)))
        return False

    async def _give_place_back(self) -> None:
        connection, self._wire.connection = self._wire.connection, None
        if connection is not None:
            await self.rate_limiter.unregister_connection(connection)


class Wire:
    """One connection: what is sent on it, and what it is registered as."""

    __slots__ = ("_quiet_until", "_send", "connection", "over")

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._send = send
        self._quiet_until = -inf
        self.connection: str | None = None
        self.over = False  # closed by a limit, of which the consumer knows nothing

    async def forward(self, message: dict[str, Any]) -> None:
        """What the consumer sends by: after the close nothing more may go out."""
        if not self.over:
            await self._send(message)

    async def turn_away(self, scope: dict[str, Any]) -> None:
        """Refuses a handshake so that a client sees why: a browser tells of no close code
        before, and fails where none of its subprotocols is chosen."""
        offered = scope.get("subprotocols") or [None]
        with suppress(Exception):  # the client has gone
            await self._send({"type": "websocket.accept", "subprotocol": offered[0]})
        await self.close(POLICY_VIOLATION, REASON)

    async def close(self, code: int, reason: str) -> None:
        self.over = True
        for one in (code, code + PRIVATE):
            with suppress(Exception):
                await self._send({"type": "websocket.close", "code": one, "reason": reason})
                return

    def may_tell(self, decision: _core.Decision, now: float) -> bool:
        """Whether the client is to be told of a refusal, or has been lately."""
        if now < self._quiet_until:
            return False
        self._quiet_until = now + quiet_for(decision)
        return True

    async def tell(self, notice: Any) -> None:
        message: dict[str, Any] = {"type": "websocket.send"}
        if isinstance(notice, bytes):
            message["bytes"] = notice
        else:
            message["text"] = notice if isinstance(notice, str) else json.dumps(notice)
        with suppress(Exception):
            await self._send(message)


def _check(cls: type[RateLimitedConsumerMixin]) -> None:
    """TypeError or ValueError for a class that could not be served, when it is defined."""
    need_channels("RateLimitedConsumerMixin")
    from channels.consumer import AsyncConsumer

    name = cls.__name__
    if cls.on_excess not in ("notify", "drop", "close"):
        raise ValueError(
            f"{name}.on_excess is 'notify', 'drop' or 'close', not {cls.on_excess!r}: a consumer "
            "that reads no messages sees no disconnect either, so that it can delay none"
        )
    if not issubclass(cls, AsyncConsumer):
        return  # a mixin of the application's own
    order = cls.__mro__
    consumer = next(base for base in order if base.__module__.startswith("channels."))
    if order.index(RateLimitedConsumerMixin) > order.index(consumer):
        raise TypeError(
            f"{name} has its limits behind {consumer.__name__}, where they see nothing: "
            f"class {name}(RateLimitedConsumerMixin, {consumer.__name__})"
        )
    if not hasattr(cls, "websocket_connect"):
        raise TypeError(
            f"{name} is a {consumer.__name__}, and RateLimitedConsumerMixin limits WebSocket "
            "consumers: AsyncWebsocketConsumer, AsyncJsonWebsocketConsumer and their like"
        )
