"""Who waits for what, first come first served.

Those who wait for one key of one table stand in a queue. Its head alone tries; it sleeps
until its time has come, then tries again, since others who do not wait may have been
there first. Who leaves the head, for whatever reason, wakes the next. Nothing polls.

The rule is a generator (`_turns`) that yields how long to park. Tasks and threads drive
it each in their own way, and may stand in one queue.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core

if TYPE_CHECKING:
    import asyncio

    from ._protocols import Cancellable, Claim, ServerClaim, Wanted

__all__ = [
    "LOOK_AGAIN",
    "sleep",
    "wait_for_server",
    "wait_in_task",
    "wait_in_thread",
    "wake",
    "wake_table",
]

T = TypeVar("T")
StoreClock = _core.Clock | Callable[[], float] | None

LOOK_AGAIN = 0.1  # seconds after which who waits for a slot that another process may give back
# looks again: it cannot be told
_LONGEST = 86400.0  # seconds parked in one go; a longer wait is several


class _Waiter:
    """One claim, and how to wake who has it."""

    __slots__ = ("asking", "claim", "held_up", "together")

    def __init__(self, claim: Wanted) -> None:
        self.claim = claim
        # Of a server:
        self.asking = False  # it has no answer yet, so it may not have to wait at all
        self.together = False  # its first question does not wait for those of others before it
        self.held_up = False  # by such who are asking alone: it may not wait for more

    def wake(self) -> bool:
        """Wakes it, from any thread; False if it can run no more."""
        raise NotImplementedError

    def lives(self) -> bool:
        """Whether it can still run."""
        return True


class _Queue:
    """Who waits for one key of one table, in order of arrival."""

    __slots__ = ("table", "waiters")

    def __init__(self, table: _core.Table) -> None:
        self.table = table  # held: its id is part of the name of the queue
        self.waiters: OrderedDict[_Waiter, None] = OrderedDict()

    def head(self) -> _Waiter:
        # locked, for another thread may come or leave between the two calls
        with _lock:
            return next(iter(self.waiters))


_lock = threading.RLock()
_queues: dict[tuple[int, bytes], _Queue] = {}  # none is empty


def _forget_parent() -> None:
    """A forked child has none of its parent's other threads: whoever waits there is not here."""
    global _lock
    _lock = threading.RLock()
    _queues.clear()


os.register_at_fork(after_in_child=_forget_parent)


def _at_once(claim: Claim[T], timeout: float, max_waiters: float) -> tuple[bool, T]:
    """The usual case, cheaply: nobody waits, and what is wanted is there (or never will be)."""
    if (id(claim.table), claim.key) in _queues:
        return False, None  # type: ignore[return-value]
    done, outcome, _ = claim.attempt(timeout if max_waiters >= 1 else 0.0)
    return done, outcome


def _turns(
    waiter: _Waiter, claim: Claim[T], timeout: float, max_waiters: float
) -> Generator[float, None, T]:
    """Yields for how many seconds to park at most; returns what the claim came to."""
    clock = claim.clock
    now = clock.time if isinstance(clock, _core.Clock) else time.monotonic
    deadline = now() + timeout
    name = (id(claim.table), claim.key)
    with _lock:
        queue = _queue_of(name, claim.table)
        if queue.waiters:
            ahead = [other.claim for other in list(queue.waiters)]
            if len(ahead) >= max_waiters or claim.too_late(ahead, timeout):
                return claim.refusal(ahead)
        queue.waiters[waiter] = None
    try:
        while True:
            left = deadline - now()
            if waiter is queue.head():
                # who may not wait has this one attempt
                done, outcome, pause = claim.attempt(max(0.0, left) if max_waiters >= 1 else 0.0)
                if done:
                    return outcome
                yield max(left, 0.0) if pause == inf else pause
            elif left > 0:
                yield left
            else:
                with _lock:
                    return claim.refusal(_ahead(queue, waiter))
    finally:
        _leave(name, queue, waiter)


def _queue_of(name: tuple[int, bytes], table: _core.Table) -> _Queue:
    """The queue of that name, or a new one, to which the caller adds; under the lock."""
    queue = _queues.get(name)
    if queue is not None and not queue.head().lives():
        _wake_head(name, queue)
        queue = _queues.get(name)
    if queue is None:
        queue = _queues[name] = _Queue(table)
    return queue


def _waiters_ahead(queue: _Queue, waiter: _Waiter) -> list[_Waiter]:
    # a copy: a collected task may leave the queue in the middle, in this very thread
    return list(takewhile(lambda other: other is not waiter, list(queue.waiters)))


def _ahead(queue: _Queue, waiter: _Waiter) -> list[Any]:
    return [other.claim for other in _waiters_ahead(queue, waiter)]


def _leave(name: tuple[int, bytes], queue: _Queue, waiter: _Waiter) -> None:
    with _lock:
        if waiter not in queue.waiters:  # its loop was closed
            return
        was_head = queue.head() is waiter
        del queue.waiters[waiter]
        if not queue.waiters:
            if _queues.get(name) is queue:
                del _queues[name]
        elif was_head:
            _wake_head(name, queue)


def _wake_head(name: tuple[int, bytes], queue: _Queue) -> None:
    """One whose loop was closed under it gives way to the next."""
    while queue.waiters:
        head = queue.head()
        if head.wake():
            return
        queue.waiters.pop(head, None)
    if _queues.get(name) is queue:
        del _queues[name]


def wake(table: _core.Table, key: bytes) -> None:
    """There may be more for that key than its head was told: let it try again."""
    if _queues:
        with _lock:
            name = (id(table), key)
            queue = _queues.get(name)
            if queue is not None:
                _wake_head(name, queue)


def wake_table(table: _core.Table) -> None:
    """The same for all keys of a table."""
    if _queues:
        with _lock:
            for name, queue in list(_queues.items()):
                if queue.table is table:
                    _wake_head(name, queue)


# ---- tasks


class _TaskWaiter(_Waiter):
    __slots__ = ("_future", "_loop", "_woken")

    def __init__(self, claim: Wanted, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(claim)
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def lives(self) -> bool:
        return not self._loop.is_closed()

    def _set(self) -> None:
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def park(self, seconds: float) -> None:
        if not self._woken:
            self._future = self._loop.create_future()
            timer = _timer(self._loop, self.claim.clock, seconds, self._set, self.wake)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._woken = False


def _timer(
    loop: asyncio.AbstractEventLoop,
    clock: StoreClock,
    seconds: float,
    call: Callable[[], object],
    call_threadsafe: Callable[[], object],
) -> Cancellable | None:
    if isinstance(clock, _core.Clock):
        if seconds == inf:
            return None
        return _call_later(clock, seconds, call_threadsafe)
    return loop.call_later(min(seconds, _LONGEST), call)


def _call_later(clock: _core.Clock, seconds: float, call: Callable[[], object]) -> Cancellable:
    call_later = getattr(clock, "call_later", None)
    if call_later is None:
        raise TypeError("to wait by a clock that stands, use sluicegate.testing.Clock")
    timer: Cancellable = call_later(seconds, call)
    return timer


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs; a RuntimeError that says what to do where it is not asyncio's."""
    from asyncio import get_running_loop

    try:
        return get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "sluicegate waits on asyncio, and no asyncio loop runs here (trio, curio?): "
            "use hit_nowait, which needs none, sluicegate.sync in a thread, "
            "or anyio's asyncio backend"
        ) from None


async def wait_in_task(claim: Claim[T], timeout: float, max_waiters: float = inf) -> T:
    """Waits for the claim up to `timeout` seconds; a cancelled task gives its turn back."""
    done, outcome = _at_once(claim, timeout, max_waiters)
    if done:
        return outcome
    waiter = _TaskWaiter(claim, running_loop())
    turns = _turns(waiter, claim, timeout, max_waiters)
    try:
        while True:
            await waiter.park(next(turns))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        turns.close()


async def wait_for_server(claim: ServerClaim[T], timeout: float, max_waiters: float = inf) -> T:
    """The same where each look and each attempt is a question to a server.

    Who comes joins the queue before it asks: while it does, others come behind it. Where all
    before it are still asking too, and would get theirs wherever it gets its own, it need not
    wait for their answers: questions arrive in their order.
    """
    waiter = _TaskWaiter(claim, running_loop())
    deadline = time.monotonic() + timeout
    name = (id(claim.table), claim.key)
    with _lock:
        queue = _queue_of(name, claim.table)
        waiter.asking = True
        waiter.together = all(
            other.asking and other.together and claim.follows(other.claim)
            for other in queue.waiters
        )
        queue.waiters[waiter] = None
    try:
        pause = 0.0
        if waiter.together:
            # who may not wait has this one attempt
            done, outcome, pause = await claim.attempt(timeout if max_waiters >= 1 else 0.0)
            if done:
                return outcome
            _has_asked(queue, waiter)
        ahead = _ahead(queue, waiter)
        if ahead:
            before = len(ahead)
            if before < max_waiters:
                await claim.look()
                ahead = _ahead(queue, waiter)
            if before >= max_waiters or claim.too_late(ahead, deadline - time.monotonic()):
                return await claim.refusal(ahead)
            pause = 0.0  # they may be gone by now
        while True:
            left = deadline - time.monotonic()
            if waiter is queue.head():
                if pause <= 0.0:
                    done, outcome, pause = await claim.attempt(
                        max(0.0, left) if max_waiters >= 1 else 0.0
                    )
                    if done:
                        return outcome
                    _has_asked(queue, waiter)
                await waiter.park(min(pause, max(deadline - time.monotonic(), 0.0)))
            elif left > 0:
                await waiter.park(left)
            elif _is_held_up(queue, waiter):
                await waiter.park(inf)  # till all before it have got theirs, or one has not
            else:
                return await claim.refusal(_ahead(queue, waiter))
            pause = 0.0
    finally:
        _has_asked(queue, waiter)
        _leave(name, queue, waiter)


def _is_held_up(queue: _Queue, waiter: _Waiter) -> bool:
    """Whether of those before it nobody has been told yet to wait."""
    with _lock:
        waiter.held_up = all(other.asking for other in _waiters_ahead(queue, waiter))
        return waiter.held_up


def _has_asked(queue: _Queue, waiter: _Waiter) -> None:
    """It has its first answer, or has gone: who is held up by that alone looks again."""
    if waiter.asking:
        with _lock:
            waiter.asking = False
            for other in list(queue.waiters):
                if other.held_up:
                    other.held_up = False
                    other.wake()


async def sleep(seconds: float, clock: StoreClock) -> None:
    """asyncio.sleep, by a store's clock."""
    loop = running_loop()
    if not isinstance(clock, _core.Clock) or seconds <= 0:
        from asyncio import sleep as asyncio_sleep

        await asyncio_sleep(seconds)
        return
    future = loop.create_future()

    def end() -> None:
        if not future.done():
            future.set_result(None)

    def end_threadsafe() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(end)

    timer = _call_later(clock, seconds, end_threadsafe)
    try:
        await future
    finally:
        timer.cancel()


# ---- threads


class _ThreadWaiter(_Waiter):
    __slots__ = ("_event",)

    def __init__(self, claim: Claim[Any]) -> None:
        super().__init__(claim)
        self._event = threading.Event()

    def wake(self) -> bool:
        self._event.set()
        return True

    def park(self, seconds: float) -> None:
        clock = self.claim.clock
        timer = None
        if isinstance(clock, _core.Clock):
            if seconds != inf:
                timer = _call_later(clock, seconds, self._event.set)
            seconds = inf
        try:
            self._event.wait(None if seconds == inf else min(seconds, _LONGEST))
        finally:
            self._event.clear()
            if timer is not None:
                timer.cancel()


def wait_in_thread(claim: Claim[T], timeout: float, max_waiters: float = inf) -> T:
    """Blocks this thread until the claim is met or refused, up to `timeout` seconds."""
    done, outcome = _at_once(claim, timeout, max_waiters)
    if done:
        return outcome
    waiter = _ThreadWaiter(claim)
    turns = _turns(waiter, claim, timeout, max_waiters)
    try:
        while True:
            waiter.park(next(turns))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        turns.close()
