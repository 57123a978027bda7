"""The slots that one loop of this process holds on a server.

On the server an owner (a loop of a process) has one entry a key: how many it holds, and when that
lapses unless it is renewed. All of a limiter's entries are renewed by one heartbeat, which also
says how many are really held: what a lost reply left in doubt is put right by it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ... import _core
from ... import releasing as releasing  # what is let go of is given back on the server
from ..._support import key_bytes
from ...errors import StoreError

if TYPE_CHECKING:
    from .routers import StoreRouter

__all__ = ["Held", "held_by"]

BATCH = 256  # keys one heartbeat's command renews

_by_table: WeakValueDictionary[int, Held] = WeakValueDictionary()


def held_by(table: _core.Table) -> Held | None:
    """Who keeps the slots that this table counts; None: the table itself does."""
    return _by_table.get(id(table)) if _by_table else None


class Held:
    """One limiter's slots, of one loop."""

    def __init__(
        self, server: _core.Server, router: StoreRouter, ttl: float, timeout: float
    ) -> None:
        self.server = server
        self.table = _core.Table(())  # counts what is held here; its Slots are what users hold
        self._slots = _core.Slots(self.table, _core.COST_MAX)
        self._router = router
        self._loop: asyncio.AbstractEventLoop = router.loop
        self._owner = os.urandom(16)
        self._ttl = ttl
        self._timeout = timeout
        self._counts: Counter[bytes] = Counter()  # held, or just being asked for
        self._doubtful: set[bytes] = set()  # of these the server may count more
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self._given: set[asyncio.Future[Any]] = set()
        _by_table[id(self.table)] = self

    # ---- taking and giving

    async def acquire(self, key: _core.Key, limit: int) -> _core.Slot | None:
        """A slot, or None where `limit` are held. StoreError."""
        name = key_bytes(key)
        self._counts[name] += 1
        future = self._ask("acquire", [name], [limit])
        try:
            count = _number(await future, key)
        except asyncio.CancelledError:
            # Whether it comes to be held is not known before the heartbeat says it is not.
            self._forget(name, doubtful=True)
            raise
        except StoreError:
            self._forget(name, doubtful=True)
            raise
        if count <= 0:
            self._forget(name)
            return None
        slot = self._slots.acquire_nowait(key)
        if slot is None:  # the table has no room for it
            self.give_back(name)
            return None
        self._keep_beating()
        return slot

    def give_back(self, name: bytes) -> None:
        """A slot was released or forgotten; in this loop's thread."""
        self._forget(name)
        if self._router.closed or self._loop.is_closed():
            return
        try:
            future = self._ask("release", [name], [1])
        except (StoreError, RuntimeError):
            self._doubtful.add(name)
            return
        self._given.add(future)
        future.add_done_callback(lambda done: self._gave(done, name))

    def give_back_threadsafe(self, name: bytes) -> None:
        """The same from wherever a slot was let go."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self.give_back(name)
            return
        try:
            self._loop.call_soon_threadsafe(self.give_back, name)
        except RuntimeError:  # its loop is closed: the entry lapses
            self._counts.pop(name, None)

    async def given_back(self) -> None:
        """Until the server has heard of all that was given back."""
        while self._given:
            await asyncio.wait(tuple(self._given))

    def _gave(self, done: asyncio.Future[Any], name: bytes) -> None:
        self._given.discard(done)
        if done.cancelled() or done.exception() is not None:
            self._doubtful.add(name)
            self._keep_beating()

    async def count(self, key: _core.Key) -> int:
        """How many slots of the key are held, by all. StoreError."""
        return _number(await self._ask("count", [key_bytes(key)], []), key)

    async def leave(self) -> None:
        """Gives all back at once: a clean shutdown."""
        names = [*{*self._counts, *self._doubtful}]
        self._counts.clear()
        self._doubtful.clear()
        for batch in self._batches(names):
            await self._ask("leave", batch, [])

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            self._beat.cancel()

    # ---- the heartbeat

    def _keep_beating(self) -> None:
        if self._timer is None and not self._router.closed:
            self._timer = self._loop.call_later(self._ttl / 3, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._counts or self._doubtful:
            self._keep_beating()
            if self._beat is None or self._beat.done():
                self._beat = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        doubtful, self._doubtful = self._doubtful, set()
        names = [*{*self._counts, *doubtful}]
        for batch in self._batches(names):
            try:
                await self._ask("renew", batch, [self._counts[name] for name in batch])
            except StoreError:
                # the next heartbeat says it again; what lapses meanwhile is told to nobody
                self._doubtful |= doubtful.intersection(batch)

    def _batches(self, names: list[bytes]) -> list[list[bytes]]:
        # in a cluster keys of one command are of one slot
        size = 1 if self._router.settings.kind == "cluster" else BATCH
        return [names[start : start + size] for start in range(0, len(names), size)]

    def _ask(self, operation: str, names: list[bytes], numbers: list[int]) -> asyncio.Future[Any]:
        ttl_us = round(self._ttl * 1e6)
        return self.server.slots(operation, self._owner, ttl_us, names, numbers, self._timeout)

    def _forget(self, name: bytes, *, doubtful: bool = False) -> None:
        left = self._counts[name] - 1
        if left > 0:
            self._counts[name] = left
        else:
            del self._counts[name]
        if doubtful:
            self._doubtful.add(name)
            self._keep_beating()


def _number(reply: Any, key: _core.Key) -> int:
    """What was replied of the only key; StoreError."""
    if not isinstance(reply, list) or len(reply) != 2:  # and the time
        raise StoreError(f"a reply about the slots of {key!r} is none to what was asked")
    if not isinstance(reply[0], int):
        raise StoreError(f"the key of {key!r} holds what is not sluicegate's")
    return reply[0]
