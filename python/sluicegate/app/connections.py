"""How many at once: the connections of a user."""

from __future__ import annotations

from math import inf
from typing import Any
from weakref import finalize

from .. import _core
from ..concurrency import ConcurrencyLimiter
from ..errors import StoreError
from ..stores import Store
from .backing import store_of
from .outage import Outage, logger

__all__ = ["ConnectionLimiter"]


class ConnectionLimiter:
    """At most `max_connections` connections of a user at once, over all processes of a store.

    `redis_or_store`: a URL, a store, a client of redis or valkey (which lends its settings);
    None is this process's memory. ConnectionLimiters of one `name` on one store share their
    places. The process that adds a connection keeps its place until it removes it; places of
    a process that died lapse after `ttl` seconds. It keeps at most `max_held` places: more
    are refused, and that is logged.

    When the store fails, connections are refused.
    """

    __slots__ = ("__weakref__", "_full", "_held", "_outage", "_slots", "max_held")

    def __init__(
        self,
        redis_or_store: Any = None,
        max_connections: int = 5,
        *,
        name: str = "app",
        ttl: float = 30,
        max_held: int = 100_000,
    ) -> None:
        if isinstance(max_held, bool) or not isinstance(max_held, int):
            raise TypeError(f"max_held is an int, not {type(max_held).__name__}")
        if max_held < 1:
            raise ValueError(f"max_held is at least 1, not {max_held}")
        self._held: dict[tuple[str, str], _core.Slot] = {}
        self._full = False
        self._outage = Outage(f"ConnectionLimiter {name!r}")
        self._slots = ConcurrencyLimiter(
            max_connections, store=store_of(redis_or_store), name=name, ttl=ttl
        )
        self.max_held = max_held
        finalize(self, _forget, self._held)

    @property
    def max_connections(self) -> int:
        """How many connections of a user there may be at once."""
        return self._slots.limit

    @property
    def store(self) -> Store:
        """Where the places are."""
        return self._slots.store

    async def add_connection(self, user_id: str, connection_id: str) -> bool:
        """Takes a place for the connection: False when none is left, or the store fails.

        One that has its place already keeps it: the same id twice is one connection.
        """
        return (await self.decide_connection(user_id, connection_id)).allowed

    async def decide_connection(self, user_id: str, connection_id: str) -> _core.Decision:
        """`add_connection`, with a decision. It is `degraded` where no limit was reached, but
        the store failed, or this process holds `max_held` places."""
        place = (str(user_id), str(connection_id))
        if place in self._held:
            return _core.Decision(True, limit=self.max_connections)
        if len(self._held) >= self.max_held:
            return self._refuse_more()
        self._full = False
        try:
            slot = await self._slots.acquire(_subject(user_id))
        except StoreError as error:
            self._outage.begins(error, "connections are refused")
            return self._refusal(degraded=True)
        self._outage.ends()
        if place in self._held:  # the same id came twice at once, and the other was quicker
            if slot is not None:
                await self._give_back(slot)
        elif slot is None:
            return self._refusal()
        else:
            self._held[place] = slot
        return _core.Decision(True, limit=self.max_connections)

    async def remove_connection(self, user_id: str, connection_id: str) -> None:
        """Gives the place back. Twice is harmless, and so is a connection that has none here."""
        slot = self._held.pop((str(user_id), str(connection_id)), None)
        if slot is not None:
            await self._give_back(slot)

    async def get_connection_count(self, user_id: str) -> int:
        """How many connections the user has, in all processes. StoreError when the store fails."""
        return await self._slots.count(_subject(user_id))

    async def _give_back(self, slot: _core.Slot) -> None:
        try:
            await self._slots.release(slot)
        except StoreError as error:
            self._outage.begins(error, "places that end meanwhile lapse by their ttl")

    def _refuse_more(self) -> _core.Decision:
        if not self._full:
            self._full = True
            logger.error(
                "%d connections are held here; more are refused. Is each removed when it ends?",
                len(self._held),
            )
        return self._refusal(degraded=True)

    def _refusal(self, *, degraded: bool = False) -> _core.Decision:
        # how long others hold theirs nobody knows
        return _core.Decision(False, limit=self.max_connections, retry_after=inf, degraded=degraded)

    def __repr__(self) -> str:
        return (
            f"ConnectionLimiter({self.store!r}, {self.max_connections}, name={self._slots.name!r})"
        )


def _forget(held: dict[tuple[str, str], _core.Slot]) -> None:
    """Of a limiter that nobody has any more, nobody can remove a connection. A slot that is only
    forgotten warns of a leak; one elsewhere, which cannot be released here, lapses."""
    for slot in held.values():
        release = getattr(slot, "release_nowait", None)
        if release is not None:
            release()


def _subject(user_id: str) -> str:
    return f"ws:connections:{user_id}"
