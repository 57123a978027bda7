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
        self._why_ended = ""

    @property
    def ended(self) -> bool:
        return bool(self._why_ended)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._why_ended = reason(error) if error is not None else "it closed the connection"
        self.drop(self._why_ended)

    def _flush(self) -> None:
        if self.ended:
            self._wait()
            self.drop(self._why_ended)
            return
        data = self.take()
        if data is not None:
            self._transport.write(data)
            self.wrote()

    def _broken(self) -> None:
        self.drop("what it replied is not the protocol of Redis")
        self._transport.abort()


def reason(error: BaseException) -> str:
    """Why something failed, for an error text: what it says, or else what it is."""
    if isinstance(error, asyncio.TimeoutError | TimeoutError) and not str(error):
        return "timed out"
    # of a greeting it does not matter whether it arrived
    return str(error).partition("; whether it has charged")[0] or type(error).__name__


# How servers begin their answers to a login. What another says may repeat the password, whole or
# in part: "ERR unknown command 'AUTH', with args beginning with: ...".
_LOGIN_ERRORS = (
    "WRONGPASS invalid username-password pair or user is disabled.",
    "ERR AUTH <password> called without any password configured for the default user.",
    "ERR Client sent AUTH, but no password is set",
    "LOADING ",
    "BUSY ",
    "MASTERDOWN ",
)


def _discreet(error: BaseException, where: str) -> BaseException:
    """The error of a login, without what it might give away."""
    _, refused, said = str(error).partition(f"{where} refused: ")
    if not refused or said.strip("'\"").startswith(_LOGIN_ERRORS):
        return error
    return StoreError(
        f"{where} refused the login (AUTH); what it said may repeat the password and is left out"
    )


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


def _words(settings: Settings, *, master: bool, decides: bool) -> list[tuple[Any, ...]]:
    username, password = settings.login()
    words: list[tuple[Any, ...]] = []
    if password is not None:
        words.append(("AUTH", username, password) if username else ("AUTH", password))
    if settings.db:
        words.append(("SELECT", settings.db))
    words.append(("PING",))  # answered with an error while the server loads or is busy
    if decides:
        words.append(("EVAL", "return 1", 0))  # not answered while writes are paused
    if master:
        words.append(("ROLE",))
    return words


async def open_transport(
    node: Node,
    settings: Settings,
    timeout: float,
    *,
    master: bool = False,
    decides: bool = True,
) -> Any:
    """A transport that is logged in; its protocol is still to be set. OSError, StoreError,
    asyncio.TimeoutError. With `master`, a StoreError unless the server is one; with `decides`,
    unless it runs scripts now."""
    words = _words(settings, master=master, decides=decides)
    # A greeting has no timer of its own: who accepts and says nothing is left by this.
    return await asyncio.wait_for(_open(node, settings, timeout, words, master), timeout)


async def _open(
    node: Node, settings: Settings, timeout: float, words: list[tuple[Any, ...]], master: bool
) -> Any:
    where = f"{settings.scheme}://{node}" if not node.path else f"unix://{node}"
    transport, greeting = await _connect(node, settings, where)
    try:
        replies: list[Any] = await asyncio.gather(
            *(greeting.command(one, timeout) for one in words),
            return_exceptions=True,
        )
        for said, reply in zip(words, replies, strict=True):
            if isinstance(reply, BaseException):
                raise _discreet(reply, where) if said[0] == "AUTH" else reply
        if master and replies[-1][0] != b"master":
            raise StoreError(f"{where} is no master now")
        if greeting.ended:
            raise StoreError(f"{where} closed the connection")
    except BaseException:
        transport.abort()
        raise
    return transport


async def talk(node: Node, settings: Settings, timeout: float, *words: Any) -> Any:
    """The reply to one command of a server that need not run scripts, over a connection of its
    own."""
    transport = await open_transport(node, settings, timeout, decides=False)
    greeting = transport.get_protocol()
    try:
        return await asyncio.wait_for(greeting.command(words, timeout), timeout)
    finally:
        transport.abort()
