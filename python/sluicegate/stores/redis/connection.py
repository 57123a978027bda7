"""One connection to one server, opened when it is first needed, and again when it was lost.

While the server does not answer, nothing is sent: each check is decided at once, by its
limiter's policy (`down` says why), and the server is tried in the background, so that an outage
costs one timeout and its end is soon seen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ... import _core
from ..._support import own
from .opening import reason

if TYPE_CHECKING:
    from .routers import StoreRouter

__all__ = ["Connection"]

PROBE = 0.2  # seconds between two tries while the server is away
PROBES_IDLE = 300  # tries without anybody asking, after which it is left alone
LATE = 0.05  # seconds behind its time at which a timer tells of this loop, not of the server
GRACE = 0.02  # seconds for what has come meanwhile to be read

Opener = Callable[[float], Awaitable[Any]]


class Connection(_core.Link, asyncio.Protocol):
    """What waits and flies (in C), and the transport."""

    def __init__(self, router: StoreRouter, where: str, opener: Opener, timeout: float) -> None:
        super().__init__(router.loop, where, router)
        self._loop: asyncio.AbstractEventLoop = router.loop
        self._owner = router
        self._opener = opener
        self._timeout = timeout
        self._transport: Any = None
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self._ended = False
        self.outages = 0  # times that it went down

    # ---- C calls these

    def _flush(self) -> None:
        """What was asked in the last turn of the loop leaves together. Where many ask, or one after
        the other, C calls this in the midst of a turn."""
        if self._transport is not None and not self._paused:
            data = self.take()
            if data is not None:
                self._transport.write(data)
                self.wrote()
        else:
            self._wait()
            if self._transport is None:
                self._open()
        if self._timer is None or self.hurry:
            self._tick()

    def _broken(self) -> None:
        self._abandon("what it replied is not the protocol of Redis")

    def _unfit(self, why: str) -> None:
        """An error that tells of the server, not of the check: it loads, is busy, is a replica."""
        self._loop.call_soon(self._abandon, why)

    # ---- the transport calls these

    data_received = _core.Link.feed  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._paused = False
        why = reason(error) if error is not None else "the server closed it"
        if self.lost(why) and not self._ended:
            self._open()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.waiting:
            self._flush()

    # ---- time

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expired, silent, seconds = self.expire()
        if expired and self._transport is None:
            self._fall("no connection in time")
        elif expired and silent:
            self._abandon("it does not answer")
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._due, self._loop.time() + seconds)

    def _due(self, when: float) -> None:
        """A loop that was held up itself first reads what has come meanwhile."""
        self._timer = None
        if self._loop.time() - when > LATE and not self._late:
            self._late = True
            self._timer = self._loop.call_later(GRACE, self._due, self._loop.time() + GRACE)
            return
        self._late = False
        self._tick()

    # ---- up and down

    def _fall(self, why: str) -> None:
        self.outages += self.down is None
        self.down = why
        other = self._owner.instead_of(self)
        if other is not None:
            self.pass_on(other)
        self.drop(why)
        self._owner.node_fell(self)

    def _abandon(self, why: str) -> None:
        """This connection is of no more use, nor is the server until a new one is open."""
        self._let_go()
        self._fall(why)
        # Not at once: a server that is there and does not decide would be tried without a pause.
        self._open(PROBE)

    def _open(self, pause: float = 0.0) -> None:
        if self._task is None and not self._ended:
            self._task = self._loop.create_task(self._opening(pause))
            self._task.add_done_callback(self._opened)

    async def _opening(self, pause: float) -> None:
        """Tries, after `pause` seconds, until it is open; while nobody asks, not for ever."""
        idle = 0
        await asyncio.sleep(pause)
        while idle < PROBES_IDLE and not self._ended:
            try:
                transport = await self._opener(self._timeout)
                if self._rise(transport):
                    return
                raise ConnectionError("the server closed it")
            except Exception as error:
                self._fall(reason(error))
                idle = 0 if self.asked() else idle + 1
                await asyncio.sleep(PROBE)
        self.down = None  # who asks next tries anew

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self._ended:
            return
        if task.cancelled():  # by somebody who ends all tasks and goes on
            self.down = None
        elif task.exception() is not None:
            self._fall(reason(task.exception()))  # type: ignore[arg-type]

    def _rise(self, transport: Any) -> bool:
        """False: it is closed already."""
        if self._ended or transport.is_closing():
            transport.abort()
            return self._ended
        transport.set_protocol(self)
        # What is written leaves at once, on uvloop too, while the server takes it.
        transport.set_write_buffer_limits(high=1, low=0)
        self._transport = transport
        self.down = None
        if self.waiting:
            self._flush()
        return True

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    # ---- the end

    def end(self, why: str = "the store was closed") -> None:
        """Closes it for good; what waits fails."""
        if not self._ended:
            self._owner.past.add(self)
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
        self._let_go()
        self.down = why
        self.drop(why)

    def _let_go(self) -> None:
        transport, self._transport = self._transport, None
        self._paused = False
        if transport is not None:
            # it tells of its end later, when there may be another
            transport.set_protocol(asyncio.Protocol())
            transport.abort()

    def leave_to_parent(self) -> Any:
        """In a forked child: the transport, which is not to be used or closed by it."""
        transport, self._transport = self._transport, None
        self._ended = True
        socket = None if transport is None else transport.get_extra_info("socket")
        if socket is not None and socket.fileno() >= 0:
            # The descriptor lets go of the connection, or that would outlive the parent's close.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, socket.fileno(), inheritable=False)
            os.close(nothing)
        return transport


own(Connection, data_received=_core.Link.feed)
