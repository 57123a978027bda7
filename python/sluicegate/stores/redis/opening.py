"""Opening a connection: the transport, then who we are and which database, in one round trip."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import _core
from ...errors import StoreError
from .settings import Node, Settings

__all__ = ["open_transport", "reason", "talk"]


class _Greeting(_core.Link, asyncio.Protocol):
    """The protocol of a transport until it is handed on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, where: str) -> None:
        super().__init__(loop, where)
        self._transport: Any = None
        self.ended = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.drop(reason(error) if error is not None else "it closed the connection")

    def _flush(self) -> None:
        data = self.take()
        if self.ended:  # before it was asked anything: nothing would tell again
            self.drop("it closed the connection")
        elif data is not None:
            self._transport.write(data)

    async def ask(self, timeout: float, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies, or the first error. A server that says nothing has until `timeout`:
        nothing else here looks at the time."""
        asked = asyncio.gather(*(self.command(words, timeout) for words in commands))
        return await asyncio.wait_for(asked, timeout)

    def _broken(self) -> None:
        self.drop("what it replied is not the protocol of Redis")
        self._transport.abort()


def reason(error: BaseException) -> str:
    """Why something failed, for an error text: what it says, or else what it is."""
    if isinstance(error, asyncio.TimeoutError | TimeoutError) and not str(error):
        return "timed out"
    # of a greeting it does not matter whether it arrived
    return str(error).partition("; whether it has charged")[0] or type(error).__name__


async def _connect(node: Node, settings: Settings, where: str) -> tuple[Any, _Greeting]:
    loop = asyncio.get_running_loop()
    greeting = _Greeting(loop, where)
    if node.path:
        transport, _ = await loop.create_unix_connection(lambda: greeting, node.path)
    elif settings.tls is not None:
        transport, _ = await loop.create_connection(
            lambda: greeting,
            node.host,
            node.port,
            ssl=settings.tls,
            server_hostname=settings.server_hostname or node.host,
        )
    else:
        transport, _ = await loop.create_connection(lambda: greeting, node.host, node.port)
    return transport, greeting


def _words(settings: Settings, *, master: bool) -> list[tuple[Any, ...]]:
    username, password = settings.login()
    words: list[tuple[Any, ...]] = []
    if password is not None:
        words.append(("AUTH", username, password) if username else ("AUTH", password))
    if settings.db:
        words.append(("SELECT", settings.db))
    words.append(("PING",))  # answered with an error while the server loads or is busy
    if master:
        words.append(("ROLE",))
    return words


async def open_transport(
    node: Node, settings: Settings, timeout: float, *, master: bool = False
) -> Any:
    """A transport that is logged in; its protocol is still to be set. OSError, StoreError,
    asyncio.TimeoutError. With `master`, a StoreError unless the server is one."""
    where = f"{settings.scheme}://{node}" if not node.path else f"unix://{node}"
    transport, greeting = await asyncio.wait_for(_connect(node, settings, where), timeout)
    try:
        replies = await greeting.ask(timeout, *_words(settings, master=master))
        if master and replies[-1][0] != b"master":
            raise StoreError(f"{where} is no master now")
        if greeting.ended:
            raise StoreError(f"{where} closed the connection")
    except BaseException:
        transport.abort()
        raise
    return transport


async def talk(node: Node, settings: Settings, timeout: float, *words: Any) -> Any:
    """The reply to one command, over a connection of its own."""
    transport = await open_transport(node, settings, timeout)
    greeting: _Greeting = transport.get_protocol()
    try:
        return (await greeting.ask(timeout, words))[0]
    finally:
        transport.abort()
