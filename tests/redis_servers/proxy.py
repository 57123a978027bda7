"""A proxy between a client and a server, in a thread, whose behaviour a test changes as it runs."""

from __future__ import annotations

import copy
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from redis_servers.behaviours import Behaviour, Pass
from redis_servers.ports import free_port
from redis_servers.waiting import PATIENCE, until

_CHUNK = 65536
_BOUND = 4 * _CHUNK  # bytes held for a side that does not read; more is not read for it
_CONNECT_SECONDS = 5.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Link:
    """A client's connection, and the one to the server that was made for it."""

    def __init__(self, number: int, client: socket.socket, behaviour: Behaviour) -> None:
        self.number = number  # counted from 1
        self.client = client
        self.server = client  # until there is one
        self.behaviour = behaviour
        self.to_server = bytearray()
        self.to_client: deque[tuple[float, bytes]] = deque()  # when it is due, what
        self.held = 0  # bytes in it
        self.client_ended = False
        self.server_ended = False
        self.over = False  # closes when everything due was sent

    def give(self, data: bytes) -> None:
        if data:
            self.to_client.append((time.monotonic() + self.behaviour.delay, data))
            self.held += len(data)

    @property
    def due(self) -> float | None:
        """When the client is to get something; None where nothing waits."""
        return self.to_client[0][0] if self.to_client else None


class Proxy:
    """Listens on `port` of 127.0.0.1 and speaks to `target` (a port there, or the path of a Unix
    socket); `with` starts and ends it. Every client has a connection to the server of its own.

    `connections` counts those accepted since the start, `requested` and `replied` the bytes that
    clients sent and got.
    """

    def __init__(self, target: int | str, *, receive_buffer: int | None = None) -> None:
        """`receive_buffer` bytes, where a client's socket is to fill soon when nobody reads."""
        self.target = target
        self.port = free_port()
        self.connections = 0
        self.requested = 0
        self.replied = 0
        self._default: Behaviour = Pass()
        self._single: dict[int, Behaviour] = {}
        self._links: dict[int, _Link] = {}
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    # ---- from the test's thread

    def __enter__(self) -> Proxy:
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(1024)
        for one in (self._listener, self._woken):
            one.setblocking(False)
            self._selector.register(one, _READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._order(self._end)
        self._thread.join(PATIENCE)
        for one in (self._listener, self._wake, self._woken):
            one.close()
        self._selector.close()

    def behave(self, behaviour: Behaviour, *, connection: int | None = None) -> None:
        """Begins it on all connections that have none of their own, those to come too; or on one
        alone, by its number, counted from 1 since the start. Returns when it is in force."""

        def begin() -> None:
            if connection is None:
                self._default = behaviour
            else:
                self._single[connection] = behaviour
            for link in list(self._links.values()):
                if connection is None and link.number in self._single:
                    continue
                if connection in (None, link.number):
                    link.behaviour = copy.deepcopy(behaviour)
                    self._advance(link)

        self._order(begin)

    def close_connections(self, *, by_reset: bool = False) -> None:
        """Closes all that are open, at once; `by_reset` with RST."""

        def close() -> None:
            for link in list(self._links.values()):
                self._close(link, by_reset=by_reset)

        self._order(close)

    @property
    def open(self) -> int:
        """How many connections of clients are open."""
        return len(self._links)

    def wait_for(self, condition: Callable[[Proxy], bool], seconds: float = PATIENCE) -> None:
        """Waits until `condition(proxy)`, such as that bytes have come."""
        until(lambda: condition(self), "what the proxy was to see", seconds)

    def _order(self, what: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.append((what, done))
        self._wake.send(b"\0")
        done.result(PATIENCE)

    # ---- in its own

    def _run(self) -> None:
        while not self._ended:
            for key, events in self._selector.select(self._rest()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._obey()
                elif key.data.number in self._links:
                    self._serve(key.data, key.fileobj, events)
            now = time.monotonic()
            for link in [one for one in self._links.values() if one.due and one.due <= now]:
                self._advance(link)

    def _rest(self) -> float | None:
        due = [link.due for link in self._links.values() if link.due]
        # What is due and was not sent waits for the socket, not for the time.
        later = [when for when in due if when > time.monotonic()]
        return max(min(later) - time.monotonic(), 0) if later else None

    def _obey(self) -> None:
        self._woken.recv(_CHUNK)
        while self._orders:
            what, done = self._orders.popleft()
            try:
                what()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _end(self) -> None:
        for link in list(self._links.values()):
            self._close(link)
        self._ended = True

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            client, _ = self._listener.accept()
            self.connections += 1
            given = self._single.get(self.connections, self._default)
            link = self._links[self.connections] = _Link(
                self.connections, client, copy.deepcopy(given)
            )
            client.setblocking(False)
            _send_at_once(client)
            if not link.behaviour.over:
                self._connect(link)
            self._advance(link)

    def _connect(self, link: _Link) -> None:
        link.server = socket.socket(
            socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET
        )
        link.server.settimeout(_CONNECT_SECONDS)
        try:
            link.server.connect(
                self.target if isinstance(self.target, str) else ("127.0.0.1", self.target)
            )
        except OSError:
            link.server_ended = True
        link.server.setblocking(False)
        _send_at_once(link.server)

    def _serve(self, link: _Link, one: object, events: int) -> None:
        if events & _READ:
            if one is link.client:
                self._from_client(link)
            else:
                self._from_server(link)
        self._advance(link)

    def _from_client(self, link: _Link) -> None:
        data = _received(link.client)
        if data is None:
            link.client_ended = True
            return
        self.requested += len(data)
        link.to_server += link.behaviour.request(data)

    def _from_server(self, link: _Link) -> None:
        data = _received(link.server)
        if data is None:
            link.server_ended = True
            return
        # What comes after the last that is due is nobody's.
        if not link.over:
            link.give(link.behaviour.reply(data))

    def _advance(self, link: _Link) -> None:
        """Sends what can be sent, closes what is over, and says what to wait for next."""
        behaviour = link.behaviour
        link.over |= behaviour.over
        if not self._send_to_client(link):
            link.client_ended = True
        if not link.server_ended and link.to_server:
            sent = _sent(link.server, link.to_server)
            link.server_ended = sent is None
            del link.to_server[: sent or 0]
        if not link.over and not link.to_client:
            link.give(behaviour.more())
        ended = (link.client_ended and (link.server_ended or not link.to_server)) or (
            link.server_ended and not link.to_client
        )
        if (link.over and not link.to_client) or (behaviour.passes_end and ended):
            self._close(link, by_reset=behaviour.reset)
        else:
            self._await(link)

    def _send_to_client(self, link: _Link) -> bool:
        now = time.monotonic()
        while link.to_client and link.to_client[0][0] <= now and not link.client_ended:
            due, data = link.to_client.popleft()
            sent = _sent(link.client, data)
            if sent is None:
                return False
            link.held -= sent
            self.replied += sent
            if sent < len(data):
                link.to_client.appendleft((due, data[sent:]))
                break
        return True

    def _await(self, link: _Link) -> None:
        client = server = 0
        if not link.client_ended:
            if link.behaviour.reads and len(link.to_server) < _BOUND:
                client |= _READ
            begun = link.due is not None and link.due <= time.monotonic()
            if begun:
                client |= _WRITE
        if not link.server_ended:
            if link.held < _BOUND:
                server |= _READ
            if link.to_server:
                server |= _WRITE
        for one, events in ((link.client, client), (link.server, server)):
            self._register(one, events, link)

    def _register(self, one: socket.socket, events: int, link: _Link) -> None:
        known = self._selector.get_map().get(one) if one.fileno() >= 0 else None
        if known is None:
            if events:
                self._selector.register(one, events, link)
        elif not events:
            self._selector.unregister(one)
        elif known.events != events:
            self._selector.modify(one, events, link)

    def _close(self, link: _Link, *, by_reset: bool = False) -> None:
        del self._links[link.number]
        for one in (link.client, link.server):
            self._register(one, 0, link)
        if by_reset:
            # No lingering: what was not sent is dropped, and the peer is told by RST.
            link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            # Unread bytes would make a reset of the close.
            while _received(link.client):
                pass
        link.client.close()
        link.server.close()


def _send_at_once(one: socket.socket) -> None:
    if one.family == socket.AF_INET:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _received(one: socket.socket) -> bytes | None:
    """What has come, perhaps nothing; None at the end."""
    try:
        return one.recv(_CHUNK) or None
    except (BlockingIOError, InterruptedError):
        return b""
    except OSError:
        return None


def _sent(one: socket.socket, data: bytes | bytearray) -> int | None:
    """How much went out; None where nothing more can."""
    try:
        return one.send(data)
    except (BlockingIOError, InterruptedError):
        return 0
    except OSError:
        return None
