"""Which connection a key's questions go over: one server, a master that sentinels name, a cluster.

A store has a router for each event loop, made when the loop first asks and gone with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ... import _core
from ...errors import StoreError
from .connection import Connection
from .opening import open_transport, reason, talk
from .settings import Node, Settings

if TYPE_CHECKING:
    from .health import Past
    from .held import Held
    from .registry import Registry

__all__ = ["StoreRouter", "router_for"]

SLOTS = 16384
AGAIN = 0.005  # seconds after which a question about a slot that moves is put again
REFRESH = 0.1  # seconds between two looks at a cluster's map, at least


class StoreRouter(_core.Router):
    """The connections of one loop to one store."""

    registry: Registry  # set when the store has made it
    past: Past  # the store's

    # C makes it, from the loop alone
    def __new__(
        cls, loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float
    ) -> StoreRouter:
        return super().__new__(cls, loop)

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float) -> None:
        self.settings = settings
        self.timeout = timeout
        self.held: dict[str, Held] = {}  # slots of this loop, by the limiter's name
        self._life = _life(self)
        # The loop ends every generator that was begun on it when it shuts down.
        with suppress(StopIteration):
            self._life.__anext__().__await__().send(None)

    def connection(self, node: Node) -> Connection:
        async def opener(timeout: float) -> Any:
            return await open_transport(node, self.settings, timeout)

        where = self.settings.where() if self.settings.kind == "single" else f"redis://{node}"
        return Connection(self, where, opener, self.timeout)

    def connections(self) -> list[Connection]:
        """All there are; those that decide come first."""
        raise NotImplementedError

    def node_fell(self, connection: Connection) -> None:
        """A connection has gone down."""

    def instead_of(self, connection: Connection) -> Connection | None:
        """Who may be asked what waits for one that goes down."""
        return None

    async def ping(self) -> None:
        """StoreError unless the store answers."""
        for connection in await self.masters():
            await connection.command(("PING",), self.timeout, True)

    async def masters(self) -> list[Connection]:
        """Those that hold the keys."""
        return self.connections()

    async def master_of(self, slot: int) -> Connection:
        """The one of these that holds the keys of a slot. StoreError."""
        return (await self.masters())[0]

    async def aclose(self) -> None:
        """Gives back what this loop holds, and closes the connections."""
        if self.closed:
            return
        with suppress(Exception):
            await asyncio.wait_for(
                asyncio.gather(*(held.leave() for held in self.held.values())), self.timeout
            )
        self.end()
        await asyncio.sleep(0)  # transports close in the next turn

    def close_soon(self) -> None:
        """`aclose`, from a callback of its own loop."""
        task = self.loop.create_task(self.aclose())
        self._closing = task  # held: a loop keeps tasks weakly

    def end(self) -> None:
        self.registry.end()
        for held in self.held.values():
            held.end()
        for connection in self.connections():
            connection.end()
        self._end()

    # ---- C calls these

    def _locate(self, slot: int) -> Connection:
        raise NotImplementedError

    def _redirected(self, ask: bool, slot: int, node: str) -> Connection:
        raise StoreError("it is a node of a cluster: give its store as redis+cluster://")

    def _later(self) -> None:
        self.loop.call_later(AGAIN, self._again)


async def _life(router: StoreRouter) -> AsyncGenerator[None, None]:
    """Ends with the loop on which it was begun."""
    try:
        yield
    finally:
        await router.aclose()


class SingleRouter(StoreRouter):
    """One server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float) -> None:
        super().__init__(loop, settings, timeout)
        self._only = self.connection(settings.nodes[0])
        self._serve(self._only)

    def connections(self) -> list[Connection]:
        return [self._only]


class SentinelRouter(StoreRouter):
    """The master that sentinels name; after a failover they name another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float) -> None:
        super().__init__(loop, settings, timeout)
        self._only = Connection(self, settings.where(), self._open_master, timeout)
        self._serve(self._only)
        self._sentinels = list(settings.nodes)
        self._of_sentinels = Settings(
            kind="single",
            nodes=settings.nodes,
            scheme=settings.scheme,
            username=settings.sentinel_username,
            password=settings.sentinel_password,
            tls=settings.tls,
        )

    def connections(self) -> list[Connection]:
        return [self._only]

    async def _open_master(self, timeout: float) -> Any:
        said = []
        for sentinel in [*self._sentinels]:
            try:
                reply = await talk(
                    sentinel,
                    self._of_sentinels,
                    timeout,
                    "SENTINEL",
                    "GET-MASTER-ADDR-BY-NAME",
                    self.settings.master,
                )
                if reply is None:
                    said.append(f"{sentinel} knows no master {self.settings.master!r}")
                    continue
                # the next time the first is one that answered
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                node = Node(reply[0].decode(), int(reply[1]))
                return await open_transport(node, self.settings, timeout, master=True)
            except Exception as error:
                said.append(f"{sentinel}: {reason(error)}")
        raise StoreError(f"no sentinel led to a master ({'; '.join(said)})")


class ClusterRouter(StoreRouter):
    """The masters of a cluster, by hash slot."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float) -> None:
        super().__init__(loop, settings, timeout)
        self._nodes: dict[Node, Connection] = {}
        self._owners: dict[Node, list[tuple[int, int]]] = {}  # masters, and their slots
        self._refreshing: asyncio.Task[None] | None = None
        self._wanted = False  # another look, after the one under way
        for node in settings.nodes:
            self._node(node)

    def connections(self) -> list[Connection]:
        return list(self._nodes.values())

    async def masters(self) -> list[Connection]:
        if not self._owners:
            await self._look()
        return [self._node(node) for node in self._owners]

    async def master_of(self, slot: int) -> Connection:
        masters = await self.masters()
        for node, ranges in self._owners.items():
            if any(first <= slot <= last for first, last in ranges):
                return self._node(node)
        return masters[0]  # which says where to go

    def node_fell(self, connection: Connection) -> None:
        self._refresh()

    def instead_of(self, connection: Connection) -> Connection | None:
        """For a node that has no slots, or where it is not yet known who has which: any."""
        if self.closed or any(self._nodes.get(node) is connection for node in self._owners):
            return None
        others = [one for one in self.connections() if one is not connection and one.down is None]
        return max(others, key=lambda one: one.is_open, default=None)

    def _node(self, node: Node) -> Connection:
        connection = self._nodes.get(node)
        if connection is None:
            connection = self._nodes[node] = self.connection(node)
        return connection

    # ---- C calls these

    def _locate(self, slot: int) -> Connection:
        """Any node answers, if only with where to go."""
        self._refresh()
        known = self.connections()
        for connection in known:
            if connection.is_open:
                return connection
        for connection in known:
            if connection.down is None:
                return connection
        return known[0]

    def _redirected(self, ask: bool, slot: int, node: str) -> Connection:
        host, _, port = node.rpartition(":")
        # without a host it is that of who said so; with several seeds that is not known here
        found = self._node(Node(host.strip("[]") or self.settings.nodes[0].host, int(port)))
        if not ask:
            self._assign(slot, slot, found)
            self._refresh()
        return found

    # ---- the map

    def _refresh(self) -> None:
        self._wanted = True
        if self._refreshing is None and not self.closed:
            self._refreshing = self.loop.create_task(self._keep_looking())

    async def _keep_looking(self) -> None:
        try:
            while self._wanted and not self.closed:
                self._wanted = False
                try:
                    await self._look()
                except Exception:
                    # no node answers: its probes go on, and each has another look when it fell
                    self._wanted = any(connection.down is None for connection in self.connections())
                if self._masters_are_down():
                    self._wanted = True
                await asyncio.sleep(REFRESH)
        finally:
            self._refreshing = None

    def _masters_are_down(self) -> bool:
        return any(self._node(node).down is not None for node in self._owners)

    async def _look(self) -> None:
        """Reads the map from the first node that tells it."""
        error: Exception | None = None
        known = sorted(self._nodes.items(), key=lambda pair: not pair[1].is_open)
        for node, connection in known:
            if connection.down is not None:
                continue
            try:
                reply = await connection.command(("CLUSTER", "SLOTS"), self.timeout, True)
                self._learn(node, reply)
                return
            except Exception as failure:
                error = failure
        raise (
            error
            if error is not None
            else StoreError(f"no node of {self.settings.where()} answers")
        )

    def _learn(self, teller: Node, reply: list[Any]) -> None:
        owners: dict[Node, list[tuple[int, int]]] = {}
        for first, last, master, *_ in reply:
            host = master[0].decode() if master[0] else ""
            node = Node(teller.host if host in ("", "?") else host, int(master[1]))
            owners.setdefault(node, []).append((int(first), int(last)))
        if not owners:
            raise StoreError(f"{self.settings.where()} has no slots: it is not yet a cluster")
        self._assign(0, SLOTS - 1, None)
        for node, ranges in owners.items():
            for first, last in ranges:
                self._assign(first, last, self._node(node))
        self._owners = owners
        for node in [*self._nodes]:
            if node not in owners and node not in self.settings.nodes:
                gone = self._nodes.pop(node)
                # what it still has to say (ASK, MOVED) is heard first
                self.loop.call_later(self.timeout, gone.end, "it left the cluster")

    def end(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        super().end()


_KINDS = {"single": SingleRouter, "sentinel": SentinelRouter, "cluster": ClusterRouter}


def router_for(loop: asyncio.AbstractEventLoop, settings: Settings, timeout: float) -> StoreRouter:
    """The router of a loop that runs now, in this thread."""
    return _KINDS[settings.kind](loop, settings, timeout)
