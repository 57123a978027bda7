"""State on a Redis or Valkey server, shared by all who use it."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, finalize

from ... import _core
from ..._support import check_number
from ..layout import Layout, arrange, layout_of, shape_error
from ..registered import Registered
from .health import Health, Past
from .registry import Known, Registry
from .routers import StoreRouter, router_for
from .settings import settings_of

if TYPE_CHECKING:
    from ..._support import Done
    from .held import Held

__all__ = ["RedisStore"]

log = logging.getLogger("sluicegate")

_stores: WeakSet[RedisStore] = WeakSet()
_inherited: list[Any] = []  # a parent's transports: touching them here would disturb it


class RedisStore:
    """State on Redis or Valkey, one round trip a check, by the server's clock.

    `source` is a URL (redis://, rediss://, unix://, valkey://, valkeys://,
    redis+sentinel://host1,host2/master, redis+cluster://host1,host2, with user:password@), or
    a client of the packages redis or valkey, which lends its settings and never a connection.
    `prefix` begins the names of all keys. `timeout` (seconds) bounds what is not a limiter's
    check, which has its own: opening a connection, slots, `ping`. `tls` is an ssl.SSLContext
    in place of the one that the URL's options make.

    Nothing is opened before it is needed. Each event loop has a connection of its own, closed
    with the loop or by `aclose`; a forked child opens its own.

    ValueError for a URL that makes no sense; RuntimeError where sluicegate was built without
    hiredis.
    """

    clock = None  # the server's

    def __init__(
        self,
        source: Any = "redis://localhost:6379/0",
        prefix: str | None = None,
        *,
        timeout: float = 0.5,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.settings = settings_of(source, tls)
        prefix = prefix if prefix is not None else self.settings.prefix
        prefix = "sg" if prefix is None else prefix
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is a str, not {type(prefix).__name__}")
        if not prefix:
            raise ValueError("prefix is not empty: it keeps these keys apart from all others")
        self.prefix = prefix
        self.timeout = check_number(timeout, "timeout")
        self._lock = threading.Lock()
        self._named: dict[str, tuple[_core.Table, Layout, _core.Server]] = {}
        self._slots: dict[str, tuple[_core.Table, _core.Server]] = {}
        self._routers: dict[int, StoreRouter] = {}  # by the id of their loop
        self._past = Past()
        self.known: dict[str, Known] = {}  # what is told to the server: see registry
        _core.set_running_loop(asyncio.get_running_loop)
        _stores.add(self)
        # one that is dropped without aclose() leaves no connection on a loop that goes on
        finalize(self, _close_all, self._routers).atexit = False

    # ---- what limiters ask of a store

    def table(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> _core.Table:
        """What counts the decisions of that name here, and decides where the policy is "local".

        ValueError without a name, and where the name has another shape.
        """
        name = _named(name)
        layout = layout_of(quotas)
        with self._lock:
            found = self._named.get(name)
            if found is None:
                table = _core.Table([algorithm for _, algorithm in layout])
                found = (table, layout, _core.Server(self, self.prefix, name, table))
                self._named[name] = found
        if arrange(found[1], quotas) is None:
            raise shape_error(
                name, found[1], quotas, "one name has one shape in a store; give this one its own"
            )
        return found[0]

    def layout(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> Layout:
        """The places of that name's quotas."""
        return self._named[_named(name)][1]

    def loose_name(self) -> str:
        """A name for a limiter that has none, and that `testing.override` brings here: nobody
        else's."""
        return f"override.{os.urandom(8).hex()}"

    def server(self, name: str | None) -> _core.Server:
        """The limiter of that name on the server."""
        return self._named[_named(name)][2]

    def slots(self, name: str | None) -> _core.Table:
        """What tells of a concurrency limiter of that name here."""
        return self._slots_of(_named(name))[0]

    def _slots_of(self, name: str) -> tuple[_core.Table, _core.Server]:
        with self._lock:
            found = self._slots.get(name)
            if found is None:
                table = _core.Table(())
                found = self._slots[name] = (table, _core.Server(self, self.prefix, name, table))
            return found

    def held(self, name: str | None, ttl: float) -> Held:
        """The slots of that name that the running loop holds."""
        from .held import Held

        name = _named(name)
        router = self._router(asyncio.get_running_loop())
        held = router.held.get(name)
        if held is None:
            server = self._slots_of(name)[1]
            held = router.held[name] = Held(server, router, ttl, self.timeout)
        return held

    def tables(self) -> list[tuple[str | None, _core.Table]]:
        """What counts decisions here, with the names of the limiters."""
        with self._lock:
            return [
                *((name, found[0]) for name, found in self._named.items()),
                *((name, found[0]) for name, found in self._slots.items()),
            ]

    def made(self, name: str | None, limiter: _core.Limiter) -> None:
        """Makes that limiter of this process known to the server, some time after it is used."""
        self._known(name).limiter(limiter)

    def made_slots(self, name: str | None, limit: int | None = None) -> None:
        """The same of one that counts slots; None: their limit is not one number."""
        self._known(name).slots(limit)

    def _known(self, name: str | None) -> Known:
        return self.known.setdefault(_named(name), Known())

    # ---- C calls these

    def _router(self, loop: asyncio.AbstractEventLoop) -> StoreRouter:
        """The running loop's."""
        router = self._router_of(loop)
        router.registry.look()
        return router

    def _router_of(self, loop: asyncio.AbstractEventLoop) -> StoreRouter:
        with self._lock:
            for key, router in [*self._routers.items()]:
                if router.loop.is_closed():  # it was not shut down: its transports are dead
                    del self._routers[key]
                    self._drop(router)
            router_of_loop = self._routers.get(id(loop))
            if router_of_loop is None or router_of_loop.closed:
                router_of_loop = router_for(loop, self.settings, self.timeout)
                router_of_loop.registry = Registry(self, router_of_loop)
                router_of_loop.past = self._past
                self._routers[id(loop)] = router_of_loop
            return router_of_loop

    def _degraded(self, name: str, why: str) -> None:
        log.warning(
            "limiter %r: its store does not decide (%s); its on_store_error does", name, why
        )

    def _recovered(self, name: str) -> None:
        log.warning("limiter %r: its store decides again", name)

    def _other_shape(self, name: str) -> None:
        log.warning(
            "limiter %r finds state of other quotas under its name in %s: somewhere it is made "
            "with another number of quotas, or other algorithms, and each takes the other's state "
            "for none",
            name,
            self.settings.where(),
        )

    # ---- what users ask of it

    async def ping(self) -> bool:
        """True, or StoreError: the server does not answer."""
        await self.router().ping()
        return True

    async def limiters(self) -> list[Registered]:
        """The limiters that processes have on this server under this prefix, by name; each is
        known from a few seconds after its first check until a minute after its last process
        ended. StoreError."""
        from .registry import read

        return await read(self)

    def health(self) -> Health:
        """How it fares in this process: its connections, round trips and outages. Asks nothing."""
        with self._lock:
            routers = [*self._routers.values()]
        return self._past.health(
            connection
            for router in routers
            if not router.closed
            for connection in router.connections()
        )

    def router(self) -> StoreRouter:
        """The connections of the running loop."""
        return self._router_of(asyncio.get_running_loop())

    async def clear(self) -> Done:
        """Deletes every key of its prefix, and no other."""
        from .scanning import clear

        with self._lock:
            servers = [found[2] for found in self._named.values()]
        for server in servers:
            server.forget()
        return await clear(self)

    async def count_slots(self, name: str) -> tuple[int, int]:
        """Slots of a limiter that are held by all, and of how many keys; a scan, for operators."""
        from .scanning import count_slots

        return await count_slots(self, name)

    async def sleep(self, seconds: float) -> None:
        """asyncio.sleep: the time of a server passes as any."""
        await asyncio.sleep(check_number(seconds, "a sleep", equal=True))

    async def aclose(self) -> None:
        """Gives back the slots held here, and closes the connections. Used again, it opens new
        ones."""
        with self._lock:
            routers = [*self._routers.values()]
            self._routers.clear()
        running = asyncio.get_running_loop()
        for router in routers:
            if router.loop is running:
                await router.aclose()
            elif not router.loop.is_closed():
                # its own loop, in another thread, is to do it
                router.loop.call_soon_threadsafe(router.close_soon)
            else:
                self._drop(router)

    def _drop(self, router: StoreRouter) -> None:
        """Of a loop that was closed before it."""
        for connection in router.connections():
            self._past.add(connection)
        router._end()

    async def __aenter__(self) -> RedisStore:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        prefix = f", prefix={self.prefix!r}" if self.prefix != "sg" else ""
        return f"{type(self).__name__}({self.settings.where()!r}{prefix})"

    def _forget_parent(self) -> None:
        """In a forked child: its parent's connections are none of its own."""
        self._lock = threading.Lock()
        for router in self._routers.values():
            # kept, for their end would touch the poll that the parent shares
            _inherited.append(router)
            for connection in router.connections():
                _inherited.append(connection.leave_to_parent())
        self._routers.clear()
        for _, _, server in self._named.values():
            server.forget()
        for _, server in self._slots.values():
            server.forget()


def _close_all(routers: dict[int, StoreRouter]) -> None:
    for router in [*routers.values()]:
        if not router.closed:
            with suppress(RuntimeError):  # its loop is closed
                router.loop.call_soon_threadsafe(router.close_soon)


def _named(name: str | None) -> str:
    if name is None:
        raise ValueError(
            "a limiter over a server needs a name= : its keys there are found by it, by this "
            "process after a restart and by all others"
        )
    return name


def _forget_parent() -> None:
    for store in [*_stores]:
        store._forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
