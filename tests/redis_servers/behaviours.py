"""What a proxy can do to a connection. Each is given to `Proxy.behave`.

One is made anew for each connection, and counts from when it began there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from redis_servers import replies


@dataclass
class Behaviour:
    """Passes everything on. Others say what they do otherwise."""

    reads = True  # whether what the client sends is read
    passes_end = True  # whether one side hears that the other has closed
    delay = 0.0  # seconds from a reply to its delivery

    # Set where the connection is to be closed once what is due has been sent, or reset by RST.
    over: bool = field(default=False, init=False)
    reset: bool = field(default=False, init=False)

    def request(self, data: bytes) -> bytes:
        """What the server gets for what the client sent."""
        return data

    def reply(self, data: bytes) -> bytes:
        """What the client gets for what the server sent."""
        return data

    def more(self) -> bytes:
        """What the client gets when nothing else is on its way to it."""
        return b""


@dataclass
class Pass(Behaviour):
    """Passes everything on."""


@dataclass
class Cut(Behaviour):
    """Closes when `after` bytes of replies have passed; with 0, when there is one to pass.
    `by_reset` with RST."""

    after: int
    by_reset: bool = False

    def reply(self, data: bytes) -> bytes:
        kept = data[: self.after]
        self.after -= len(kept)
        if self.after == 0:
            self.over, self.reset = True, self.by_reset
        return kept


@dataclass
class Refuse(Behaviour):
    """Accepts and closes at once, `by_reset` with RST; also what is open already."""

    by_reset: bool = False

    def __post_init__(self) -> None:
        self.over, self.reset = True, self.by_reset


@dataclass
class Stall(Behaviour):
    """Reads what the client sends and never answers; the server hears nothing of it."""

    def request(self, data: bytes) -> bytes:
        return b""

    def reply(self, data: bytes) -> bytes:
        return b""


@dataclass
class HalfOpen(Behaviour):
    """As if the network were gone: nothing passes in either direction, nor does a close."""

    passes_end = False

    def request(self, data: bytes) -> bytes:
        return b""

    def reply(self, data: bytes) -> bytes:
        return b""


@dataclass
class LoseReplies(Behaviour):
    """The server gets and does everything; the client hears nothing of it."""

    def reply(self, data: bytes) -> bytes:
        return b""


@dataclass
class Unread(Behaviour):
    """Never reads what the client sends, so that its socket fills."""

    reads = False


@dataclass
class Delay(Behaviour):
    """Delivers what the server sends `seconds` later, in order."""

    seconds: float

    def __post_init__(self) -> None:
        self.delay = self.seconds


@dataclass
class Replace(Behaviour):
    """`data` once in place of all that the server sends from here on."""

    data: bytes

    def reply(self, data: bytes) -> bytes:
        given, self.data = self.data, b""
        return given


@dataclass
class Endless(Behaviour):
    """`first`, and `rest` again and again without end, from the client's first request on; the
    server hears nothing of it."""

    first: bytes
    rest: bytes
    _begun: bool = field(default=False, init=False)

    def request(self, data: bytes) -> bytes:
        self._begun = True
        return b""

    def reply(self, data: bytes) -> bytes:
        return b""

    def more(self) -> bytes:
        if not self._begun:
            return b""
        given, self.first = self.first or self.rest, b""
        return given


def endless_text(size: int = 2**62) -> Endless:
    """A string that is said to have `size` bytes, and goes on."""
    return Endless(b"$%d\r\n" % size, b"x" * 65536)


def nested_bomb() -> Endless:
    """An array in an array in an array."""
    return Endless(b"", b"*1\r\n" * 16384)


@dataclass
class Rearrange(Behaviour):
    """Whole replies, `count` at a time, in the order that `order` makes of them."""

    count: int
    order: Callable[[list[bytes]], list[bytes]]
    _partial: bytearray = field(default_factory=bytearray, init=False)
    _held: list[bytes] = field(default_factory=list, init=False)

    def reply(self, data: bytes) -> bytes:
        self._partial += data
        self._held += replies.take(self._partial)
        given = b""
        while len(self._held) >= self.count:
            given += b"".join(self.order(self._held[: self.count]))
            del self._held[: self.count]
        return given


def reversed_by(count: int) -> Rearrange:
    """Each `count` replies in the wrong order."""
    return Rearrange(count, lambda held: held[::-1])


def doubled() -> Rearrange:
    """Each reply twice."""
    return Rearrange(1, lambda held: held * 2)
