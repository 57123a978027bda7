"""A WebSocket under limits: what its application receives, and sends."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from contextlib import suppress
from itertools import count
from typing import Any

from .. import _core
from ..websocket.gone import slept
from .entry import Entry
from .guard import Excessive, Guard, decide
from .handshake import read_out, send_close
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ClosedByLimitsError", "LimitedWebSocket"]

PATIENCE = 1.0  # seconds that a send may take on a server where it may wait for a receive
READ_ON = 16  # messages that are read to end that: hypercorn's queue has ten

_numbers = count()


class ClosedByLimitsError(OSError):
    """The limits have closed this WebSocket: there is nothing left to send to."""


class LimitedWebSocket:
    """Stands between a server and an application, whose `receive` and `send` it is. What is
    refused is answered here, and the application never hears of it.

    `receive` may be cancelled at any time: what was read is then the next message.
    """

    __slots__ = (
        "_ahead",
        "_closed",
        "_easy",
        "_entry",
        "_frames",
        "_gate",
        "_guards",
        "_held",
        "_name",
        "_patient",
        "_read",
        "_reader",
        "_receive",
        "_receiving",
        "_refused",
        "_send",
        "_told",
        "_watching",
    )

    def __init__(self, entry: Entry, receive: Receive, send: Send) -> None:
        self._entry = entry
        self._receive = receive
        self._send = send
        self._name = str(next(_numbers))
        peer = _Peer(self)
        limited = [one for one in entry.rules if one.counting.rule.of_messages]
        self._guards = [Guard(one, peer) for one in limited if not one.counting.rule.shadow]
        self._watching = [Guard(one, peer) for one in limited if one.counting.rule.shadow]
        alone = len(self._guards) == 1 and not self._watching
        self._gate = self._guards[0].gate if alone else None
        # the same while the next message is the server's next, and so the gate's to decide
        self._easy = self._gate
        self._held: Message | None = None  # a message that is being decided
        self._refused = False  # it has been refused, and waits
        self._ahead: asyncio.Task[Message] | None = None  # read while one is delayed
        self._closed: Message | None = None  # the disconnect that a close of the limits makes
        self._told = False  # the application has received it
        # hypercorn tells of a disconnect through a queue with a bound: where that is full, a send
        # to a client that has gone waits for the application to receive, which waits for the send
        self._patient = "hypercorn" in sys.modules
        self._receiving = False
        # while it runs: by which frames go straight to the server, until the limits close it
        self._frames: _core.FrameSend | None = None
        self._read: deque[Message] = deque()  # read while a send took too long
        self._reader: asyncio.Task[None] | None = None

    # ---- what the application is given

    async def receive(self) -> Message:
        gate = self._easy
        if gate is None:
            return await self._admitted()
        message = await self._receive()
        try:
            verdict = gate(message)
        except BaseException:
            self._easy = None
            self._held = message  # which is not lost by that
            raise
        if verdict is True:
            return message
        if message["type"] == "websocket.receive":
            self._held = message
            return await self._admitted(verdict)
        if message["type"] == "websocket.disconnect":
            self._entry.close()
        return message

    async def receive_patiently(self) -> Message:
        """The same where it must be known whether the application receives."""
        self._receiving = True
        try:
            return await self.receive()
        finally:
            self._receiving = False

    async def _admitted(self, verdict: Any = None) -> Message:
        """The next message that is admitted. `verdict` is what the gate says of the one held."""
        self._easy = None
        while True:
            message = self._held
            if message is None:
                if self._closed is not None:
                    return self._end(self._closed)
                message = await self._next()
                if message["type"] != "websocket.receive":
                    if message["type"] == "websocket.disconnect":
                        self._entry.close()
                    return message
                if not self._guards and not self._watching:
                    return message
                self._held = message
            admitted = await self._admit(message, verdict)
            verdict = None
            self._held = None
            self._refused = False
            if admitted:
                self._ease()
                return message
            # a flood of what is refused leaves the loop to others
            await asyncio.sleep(0)

    def _ease(self) -> None:
        """Back to the easy way, where nothing is kept that comes before the server's next."""
        if self._closed is None and self._ahead is None and self._reader is None and not self._read:
            self._easy = self._gate

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            if self._closed is None:
                if self._patient:
                    await self._send_or_read(message)
                else:
                    await self._send(message)
            elif self._told:
                raise ClosedByLimitsError("the limits have closed this WebSocket")
            else:
                # Until it is told, its answers are lost as on the wire; and one that does
                # nothing but send must let its other task hear of it.
                await asyncio.sleep(0)
            return
        if self._closed is not None:
            return
        if kind == "websocket.accept":
            await self._entry.respond(101)
        elif kind == "websocket.http.response.start":
            await self._entry.respond(message["status"])
        elif kind == "websocket.close":
            await self._entry.respond(403)  # of no effect once it is accepted
            try:
                await self._send(message)
            finally:
                self._entry.close()
            return
        await self._send(message)

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application on it, to its end."""
        self._frames = frames = _core.FrameSend(self._send, self.send)
        frames.straight = not self._patient
        receive = self.receive_patiently if self._patient else self.receive
        try:
            await app(scope, receive, frames)
        except Exception:
            await self._finish()
            raise
        else:
            await self._finish()
        finally:
            self._over()

    # ---- inside

    async def _finish(self) -> None:
        if self._closed is not None:
            await read_out(self._next)

    def _slow_down(self) -> None:
        """From here on each frame is looked at."""
        if self._frames is not None:
            self._frames.straight = False

    def _over(self) -> None:
        self._slow_down()
        self._frames = None
        self._entry.close()
        for task in (self._ahead, self._reader):
            if task is not None:
                task.add_done_callback(_seen)
                task.cancel()
        self._ahead = self._reader = None

    async def _next(self) -> Message:
        ahead = self._ahead
        if ahead is None:
            return await self._take()
        await asyncio.wait((ahead,))  # which a cancellation leaves as it is
        self._ahead = None
        return ahead.result()

    async def _take(self) -> Message:
        reader = self._reader
        if reader is not None:
            reader.cancel()
            await asyncio.wait((reader,))
            self._reader = None
        return self._read.popleft() if self._read else await self._receive()

    async def _send_or_read(self, message: Message) -> None:
        timer = asyncio.get_running_loop().call_later(PATIENCE, self._read_on)
        try:
            await self._send(message)
        finally:
            timer.cancel()

    def _read_on(self) -> None:
        if self._reader is None and not self._receiving:
            self._easy = None
            self._reader = asyncio.ensure_future(self._read_until_gone())
            self._reader.add_done_callback(_seen)

    async def _read_until_gone(self) -> None:
        while len(self._read) < READ_ON:
            message = await self._receive()
            self._read.append(message)
            if message["type"] == "websocket.disconnect":
                self._entry.close()
                return

    async def _admit(self, message: Message, verdict: Any) -> bool:
        """Whether the application gets it, if need be after a while."""
        excessive: Excessive | None
        if verdict is not None:
            excessive = self._guards[0].excessive(verdict)
        else:
            # one that was refused and is asked for again has been watched
            excessive = await decide(self._guards, () if self._refused else self._watching, message)
        if excessive is None:
            return True
        guard = excessive.by
        result: dict[str, Any] = {"reason": excessive.reason}
        if not self._refused:
            self._refused = True
            refusals = guard.counting.refusals
            if refusals is not None and not await refusals.hit(self._name):
                result["close"] = True

        async def again() -> _core.Decision:
            found = await decide(self._guards, (), message)
            return _core.Decision(True) if found is None else found.decision

        answer = await guard.excess.answer(excessive.decision, result, again, guard.counting.now)
        return answer is True  # None: it is closed, or has gone, which the next look tells

    def _end(self, closed: Message) -> Message:
        self._told = True
        return closed

    async def _tell(self, message: Any) -> None:
        with suppress(OSError):  # the client has gone: the next message tells
            if isinstance(message, bytes):
                await self._send({"type": "websocket.send", "bytes": message})
            else:
                text = message if isinstance(message, str) else json.dumps(message)
                await self._send({"type": "websocket.send", "text": text})

    async def _close(self, code: int, reason: str) -> None:
        self._closed = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._slow_down()
        self._held = None
        try:
            await send_close(self._send, code, reason)
        finally:
            self._entry.close()

    async def _pause(self, seconds: float) -> bool:
        """Reads on by one message, for a disconnect must be seen, and by no more."""
        store = self._guards[0].counting.store
        sleeper = asyncio.ensure_future(store.sleep(seconds))
        try:
            if self._ahead is None:
                self._ahead = asyncio.ensure_future(self._take())
            await asyncio.wait((sleeper, self._ahead), return_when=asyncio.FIRST_COMPLETED)
            if _is_over(self._ahead) or not await slept(sleeper, self._receive):
                return False
        finally:
            sleeper.cancel()
        return not _is_over(self._ahead)


class _Peer:
    """What `Excess` asks of it."""

    __slots__ = ("_socket",)

    def __init__(self, socket: LimitedWebSocket) -> None:
        self._socket = socket

    async def send(self, message: Any) -> None:
        await self._socket._tell(message)

    async def close(self, code: int, reason: str) -> None:
        await self._socket._close(code, reason)

    async def pause(self, seconds: float) -> bool:
        return await self._socket._pause(seconds)


def _is_over(received: asyncio.Task[Message]) -> bool:
    if not received.done():
        return False
    if received.cancelled() or received.exception() is not None:
        return True
    return bool(received.result()["type"] == "websocket.disconnect")


def _seen(task: asyncio.Task[Any]) -> None:
    """What it raised is nobody's any more."""
    if not task.cancelled():
        task.exception()
