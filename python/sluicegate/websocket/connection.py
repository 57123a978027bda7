"""One limited connection of Starlette or FastAPI, for `async with limiter.connection(...)`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import _core
from .excess import Excess
from .gone import slept
from .refused import ConnectionRefused
from .sizes import size_of

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from ..fastapi import FastAPIWebSocketLimiter

__all__ = ["LimitedConnection"]

UNSUPPORTED = 1003  # close code: text where bytes are wanted, or the other way


class LimitedConnection:
    """A connection whose place is given back however the block ends.

        async with limiter.connection(websocket) as c:
            async for text in c.iter_text():
                await websocket.send_text(text)

    Entering accepts the handshake, or answers it with a refusal and raises
    ConnectionRefused. What `iter_text`, `iter_json` and `iter_bytes` do not yield has been
    answered by the limiter's `on_excess`. While one of them is in use nothing else may
    receive.
    """

    __slots__ = ("_ahead", "_client_id", "_door", "_excess", "_over", "websocket")

    def __init__(
        self,
        door: FastAPIWebSocketLimiter,
        websocket: WebSocket,
        client_id: str | bytes | None,
    ) -> None:
        self.websocket = websocket
        self._door = door
        self._client_id = client_id
        self._ahead: asyncio.Task[Any] | None = None  # a message read while one is delayed
        self._over = False
        self._excess = Excess(self, door.limiter.store, door.on_excess, door.max_delay, door.notify)

    async def __aenter__(self) -> LimitedConnection:
        decision = await self._door.decide_connect(self.websocket, self._client_id)
        if not decision.allowed:
            _handle_quietly(self.websocket)
            raise ConnectionRefused(decision)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._door.disconnect(self.websocket)
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait((ahead,))
            if not ahead.cancelled():
                ahead.exception()  # seen: that the client has gone is no error here

    @property
    def info(self) -> _core.ConnectionInfo | None:
        """Its live counters; None once it is disconnected."""
        connection_id = self._door.websocket_map.get(self.websocket)
        return self._door.limiter.get_connection_info(connection_id)

    async def check(self, data: Any, *, cost: int = 1) -> _core.Decision:
        """Whether a message may pass, charging it; `on_excess` is not applied."""
        return await self._door.decide_message(self.websocket, data, cost=cost)

    async def iter_text(self) -> AsyncIterator[str]:
        """The text messages that are admitted, until the client or the limits end it."""
        async for message in self._admitted("text"):
            yield message["text"]

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The binary messages that are admitted, until the client or the limits end it."""
        async for message in self._admitted("bytes"):
            yield message["bytes"]

    async def iter_json(self) -> AsyncIterator[Any]:
        """The messages that are admitted, parsed; sizes are those before parsing.

        ValueError for a message that is no JSON, or is nested too deeply.
        """
        async for message in self._admitted(None):
            text = message.get("text")
            try:
                value = json.loads(message["bytes"] if text is None else text)
            except RecursionError:
                raise ValueError("the message is JSON nested too deeply to be read") from None
            yield value

    # ---- what Excess asks of it

    async def send(self, message: Any) -> None:
        with suppress(Exception):  # the client has gone: the next receive tells
            if isinstance(message, str):
                await self.websocket.send_text(message)
            elif isinstance(message, bytes):
                await self.websocket.send_bytes(message)
            else:
                await self.websocket.send_json(message)

    async def close(self, code: int, reason: str) -> None:
        self._over = True
        with suppress(Exception):
            await self.websocket.close(code, reason)

    async def pause(self, seconds: float) -> bool:
        sleeper = asyncio.ensure_future(self._door.limiter.store.sleep(seconds))
        try:
            if self._ahead is None:
                # One message is read ahead, for a disconnect must be seen; then no more.
                self._ahead = asyncio.ensure_future(self.websocket.receive())
            await asyncio.wait((sleeper, self._ahead), return_when=asyncio.FIRST_COMPLETED)
            if self._ahead.done() and _is_disconnect(self._ahead):
                return False
            if not await slept(sleeper, getattr(self.websocket, "_receive", None)):
                return False
        finally:
            sleeper.cancel()
        return not (self._ahead.done() and _is_disconnect(self._ahead))

    # ---- inside

    async def _admitted(self, kind: str | None) -> AsyncIterator[Any]:
        while not self._over:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("text")
            if data is None:
                data = message.get("bytes")
            if kind is not None and message.get(kind) is None:
                await self.close(UNSUPPORTED, f"expected {kind}")
                return
            admitted = await self._admit(size_of(data))
            if admitted is None:
                return
            if admitted:
                yield message

    async def _receive(self) -> Any:
        ahead, self._ahead = self._ahead, None
        return await (self.websocket.receive() if ahead is None else ahead)

    async def _admit(self, size: int) -> bool | None:
        limiter = self._door.limiter
        connection_id = self._door.websocket_map.get(self.websocket)
        decision, result = await limiter.decide_message(connection_id, size)
        if decision.allowed:
            return True
        if result["reason"] == "connection_not_found":
            return None  # the application has disconnected it

        info = limiter.get_connection_info(connection_id)

        async def again() -> _core.Decision:
            if info is None:
                return _core.Decision(False, retry_after=float("inf"))
            return await limiter._decide_again(info, size)

        return await self._excess.answer(decision, result, again, limiter.now)


def _is_disconnect(received: asyncio.Task[Any]) -> bool:
    if received.cancelled() or received.exception() is not None:
        return True
    return bool(received.result()["type"] == "websocket.disconnect")


def _handle_quietly(websocket: WebSocket) -> None:
    """A ConnectionRefused that the endpoint lets pass ends there: a refused handshake, which
    is answered, must not cost a traceback in the log."""
    handlers = websocket.scope.get("starlette.exception_handlers")
    if isinstance(handlers, tuple) and handlers and isinstance(handlers[0], dict):
        handlers[0].setdefault(ConnectionRefused, _nothing)


async def _nothing(connection: Any, error: Exception) -> None:
    pass
