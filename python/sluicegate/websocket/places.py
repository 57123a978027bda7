"""Places: the concurrency of a client's connections, reserved by tasks or held by connections.

A reservation is given back when its task ends, when its loop is closed, or after `HOLD`
seconds; none of these needs the others to work, so that a place cannot leak.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from .. import _core
from ..errors import StoreError
from .groups import Groups
from .tasks import TaskWatch, running_loop, running_task

if TYPE_CHECKING:
    from ..stores.redis import RedisStore

__all__ = ["HOLD", "TTL", "Place", "Places", "ServerPlaces"]

HOLD = 10.0  # seconds that a reservation lasts
TTL = 30.0  # seconds after which a server gives back the places of a process that died

Client = str | bytes


class Timer(Protocol):
    def cancel(self) -> None: ...


class Place:
    """A slot that is given back when nobody holds it any more: a limiter may be dropped with
    all its connections."""

    __slots__ = ("_slot",)

    def __init__(self) -> None:
        self._slot: _core.Slot | None = None

    def take(self, slot: _core.Slot | None) -> bool:
        self._slot = slot
        if slot is None:
            return False
        slot.quiet = True  # of a cycle, slot and place are finalised in any order
        return True

    def release(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release_nowait()

    __del__ = release


class Reservation:
    """A place that one task holds for one client while it sets up a connection."""

    __slots__ = ("_place", "_places", "_timer", "_watch", "client", "expires", "owner")

    def __init__(self, places: Places, client: Client, place: Place) -> None:
        task = running_task()
        self._places = places
        self._place: Place | None = place
        self._watch = None if task is None else TaskWatch(task, self.give_back)
        self._timer: Timer | None = None
        self.client = client
        self.owner = id(task) if task is not None else 0
        self.renew()

    def renew(self) -> None:
        self._cancel_timer()
        self.expires = self._places.now() + HOLD
        self._timer = self._places.call_later(HOLD, self._lapse)

    @property
    def timed(self) -> bool:
        return self._timer is not None

    @property
    def lapsed(self) -> bool:
        """Whether it is over, though nothing may have given it back yet."""
        if self._place is None or (self._watch is not None and self._watch.over):
            return True
        return self._places.now() >= self.expires

    def take(self) -> Place | None:
        """Ends it, and hands its place on to the caller."""
        self._places.forget(self)
        self._cancel_timer()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        place, self._place = self._place, None
        return place

    def give_back(self) -> None:
        place = self.take()
        if place is not None:
            place.release()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _lapse(self) -> None:
        self._timer = None
        self.give_back()


class Places:
    """The places of one limiter's clients, in the store's table of slots."""

    __slots__ = ("_clock", "_reserved", "_slots", "_untimed", "table")

    def __init__(self, table: _core.Table, clock: Any | None) -> None:
        self.table = table
        self._slots = _core.Slots(table, _core.COST_MAX)
        self._clock = clock
        self._reserved: Groups[Client, int, Reservation] = Groups()
        # made where no loop runs that could call back; looked at when the next is made
        self._untimed: deque[Reservation] = deque()

    def now(self) -> float:
        return self.table.now()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer | None:
        """By the store's clock; None where there is nothing that could call."""
        call_later = getattr(self._clock, "call_later", None)
        if call_later is None:
            loop = running_loop()
            if loop is None:
                return None
            call_later = loop.call_later
        timer: Timer = call_later(seconds, callback)
        return timer

    async def reserve(self, client: Client, limit: int | None) -> tuple[Reservation | None, bool]:
        """The running task's reservation, and whether it is a new one (else: to be renewed).

        None where no place is left. StoreError, StoreFullError as the store raises it.
        """
        held = self._held(client)
        if held is not None:
            return held, False
        place = await self.acquire(client, limit)
        if place is None:
            return None, False
        made = Reservation(self, client, place)
        self._reserved.put(client, made.owner, made)
        if not made.timed:
            while self._untimed and self._untimed[0].lapsed:
                self._untimed.popleft().give_back()
            self._untimed.append(made)
        return made, True

    async def claim(self, client: Client, limit: int | None) -> Place | None:
        """The place that the running task has reserved, else a new one, or None."""
        held = self._held(client)
        return await self.acquire(client, limit) if held is None else held.take()

    async def acquire(self, client: Client, limit: int | None) -> Place | None:
        """A place, or None; what has lapsed is given back first."""
        bound = _core.COST_MAX if limit is None else limit
        place = Place()
        if place.take(await self._take(client, bound)):
            return place
        if self._sweep(client) and place.take(await self._take(client, bound)):
            return place
        return None

    async def _take(self, client: Client, bound: int) -> _core.Slot | None:
        return self._slots.acquire_nowait(client, bound)

    async def count(self, client: Client) -> int:
        """Places of the client that are taken in the store, by connections or reservations."""
        self._sweep(client)
        return self._slots.count_nowait(client)

    def known(self) -> dict[str, int]:
        """What all processes hold, where that can be told without a question: in shared memory,
        places being set up included."""
        if not self.table.shared:
            return {}
        connections, clients = self.table.held()
        messages, size, *_ = self.table.tallies()
        return {
            "active_connections": connections,
            "unique_clients": clients,
            "total_messages": messages,
            "total_bytes_sent": size,
        }

    def connections_of(self, client: Client) -> int | None:
        """The same of one client; None where this process does not know."""
        if not self.table.shared:
            return None
        with suppress(StoreError):  # a stopped process is in the way
            return self._slots.count_nowait(client)
        return None

    async def totals(self) -> dict[str, int]:
        """What is learned by a question alone: more than `known`, of all clients."""
        return {}

    def forget(self, reservation: Reservation) -> None:
        if self._reserved.get(reservation.client, reservation.owner) is reservation:
            self._reserved.take(reservation.client, reservation.owner)

    def _held(self, client: Client) -> Reservation | None:
        """What the running task has reserved, and is not over."""
        task = running_task()
        held = self._reserved.get(client, id(task) if task is not None else 0)
        if held is not None and held.lapsed:
            held.give_back()
            return None
        return held

    def _sweep(self, client: Client) -> bool:
        """Gives back what is over unnoticed: a loop closed, a clock that nothing follows."""
        lapsed = [held for held in self._reserved.values(client) if held.lapsed]
        for held in lapsed:
            held.give_back()
        return bool(lapsed)


class ServerPlaces(Places):
    """The same in the slots of a server: all processes share them, and those of a process that
    died come back after `TTL` seconds."""

    __slots__ = ("_name", "_store")

    def __init__(self, store: RedisStore, name: str) -> None:
        super().__init__(store.slots(name), None)
        store.made_slots(name)
        self._store = store
        self._name = name

    async def _take(self, client: Client, bound: int) -> _core.Slot | None:
        return await self._store.held(self._name, TTL).acquire(client, bound)

    async def count(self, client: Client) -> int:
        self._sweep(client)
        held = self._store.held(self._name, TTL)
        await held.given_back()
        return await held.count(client)

    async def totals(self) -> dict[str, int]:
        held = self._store.held(self._name, TTL)
        await held.given_back()
        connections, clients = await self._store.count_slots(self._name)
        return {"active_connections": connections, "unique_clients": clients}
