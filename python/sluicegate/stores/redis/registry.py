"""Which limiters there are: each process tells its store the names and the quotas of its own.

They stand in one hash, beside the keys of the limiters:

    sg:limiters    field: a limiter's name; value: the server's time and its quotas, as JSON

It is written in the background, all names of a process at once, some time after the first check
and then again and again while the process lives. What was not renewed for `LAPSES` seconds is
dropped, and the hash itself expires. Commands find limiters by it; no check ever asks for it, and
a store that refuses it (by its access rules, say) only leaves the commands without names.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from ... import _core
from ..._support import key_bytes
from ...errors import StoreError
from ..registered import Known, Registered, from_json

if TYPE_CHECKING:
    from .routers import StoreRouter
    from .store import RedisStore

__all__ = ["Known", "Registry", "forget", "read", "registry_key"]

FIRST = 2.0  # seconds after a name is first asked about; those that come together are one write
RENEWED = 20.0  # seconds between two writes
LAPSES = 60  # seconds for which a name is remembered without one
NAMES = 1000  # that one process tells; more are made without end, and nobody reads them
SLOTS = 16384  # hash slots of a cluster

# KEYS: the hash. ARGV: LAPSES, then names and values in turn.
TELL = """
local now, key, lapses = tonumber(redis.call('TIME')[1]), KEYS[1], tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  redis.call('HSET', key, ARGV[i], string.format('%d ', now) .. ARGV[i + 1])
end
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local told = tonumber(string.match(all[i + 1], '^%d+'))
  if not told or told < now - lapses then
    redis.call('HDEL', key, all[i])
  end
end
redis.call('EXPIRE', key, lapses)
return now
"""

log = logging.getLogger("sluicegate")


class Registry:
    """One loop's writing of what its store knows; ends with the loop's router."""

    def __init__(self, store: RedisStore, router: StoreRouter) -> None:
        self._store = ref(store)
        self._router = router
        self._timer: asyncio.TimerHandle | None = None
        self._due = False  # soon, for a new name
        self._task: asyncio.Task[None] | None = None
        self._told = 0  # names at the last write
        self._failed = False  # the last write

    def look(self) -> None:
        """A name was asked about for the first time on this loop; it is told soon."""
        store = self._store()
        if store is None or self._due or self._told == min(len(store.known), NAMES):
            return
        self._due = True
        self._set(FIRST)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # the loop is not to keep alive what nobody uses any more
        self._timer = self._router.loop.call_later(seconds, _start, ref(self))

    def start(self) -> None:
        store = self._store()
        if store is None or self._router.closed:
            return
        self._due = True
        self._set(RENEWED)
        if self._task is None or self._task.done():
            self._task = self._router.loop.create_task(self._tell_and_look(store))

    async def _tell_and_look(self, store: RedisStore) -> None:
        known = len(store.known)
        await self._tell(store)
        self._due = False
        if len(store.known) != known:  # some were made meanwhile
            self.look()

    async def _tell(self, store: RedisStore) -> None:
        known = [*store.known.items()][:NAMES]
        if not known:
            return
        words: list[Any] = ["EVAL", TELL, 1, registry_key(store.prefix), LAPSES]
        for name, limiter in known:
            words += (key_bytes(name), limiter.as_json())
        try:
            connection = await self._router.master_of(_slot(store.prefix))
            # An outage is noticed in other ways, and a server that nobody asks is left alone.
            if connection.is_open or (connection.down is None and not self._failed):
                await connection.command(words, store.timeout, True)
                self._told, self._failed = len(known), False
        except (StoreError, OSError) as error:
            self._failed = True
            log.debug("%r does not take the names of its limiters: %s", store, error)


def _start(registry: ReferenceType[Registry]) -> None:
    found = registry()
    if found is not None:
        found.start()


async def read(store: RedisStore) -> list[Registered]:
    """The limiters that a store knows, by name. StoreError."""
    connection = await store.router().master_of(_slot(store.prefix))
    now, found = await asyncio.gather(
        connection.command(("TIME",), store.timeout, True),
        connection.command(("HGETALL", registry_key(store.prefix)), store.timeout, True),
    )
    listed = []
    try:
        pairs = [*zip(found[::2], found[1::2], strict=True)]
        seconds = int(now[0])
    except (LookupError, TypeError, ValueError):
        raise StoreError(f"{connection.where} replied to HGETALL what is none") from None
    for name, value in pairs:
        # what is of another version, or not ours, is not shown
        with suppress(AttributeError, LookupError, RecursionError, TypeError, ValueError):
            listed.append(_registered(name, value, seconds))
    return sorted(
        (one for one in listed if one.age <= LAPSES), key=lambda registered: registered.name
    )


async def forget(store: RedisStore) -> None:
    """Drops the hash; those that live tell of themselves again."""
    connection = await store.router().master_of(_slot(store.prefix))
    await connection.command(("UNLINK", registry_key(store.prefix)), store.timeout, True)


def registry_key(prefix: str) -> bytes:
    """What the hash is called: never as that of another prefix, whose colons are escaped."""
    key = _core.Server(None, prefix, "", _core.Table(())).key("")
    return key[: key.index(b":{")] + b":limiters"


def _slot(prefix: str) -> int:
    return binascii.crc_hqx(registry_key(prefix), 0) % SLOTS  # there are no braces in it


def _registered(name: bytes, value: bytes, now: int) -> Registered:
    """What a field says; one of many errors where it says nothing of the kind."""
    told_at, _, text = value.partition(b" ")
    return from_json(name.decode("utf-8", "surrogatepass"), text, max(now - int(told_at), 0))
