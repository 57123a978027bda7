"""An echo over uvicorn, under limits and without: messages a second that come back.

Two servers, each in a process of its own, and this process is the client of both, in turns. It does
next to nothing: what it sends is written beforehand, and what comes back is counted by its bytes.
So the server is the one that is waited for, whose time is what limits would take. (Where other
programs take from that, the processor time of the server tells it apart.)
"""

from __future__ import annotations

import base64
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from serving import free_port, serving

from .harness import alternating, environment, median
from .rows import Row, Topic

__all__ = ["TOPIC", "Client"]

NAME = "echo"
WHAT = "echo over uvicorn with limits on connections, messages, bytes and size"
REFERENCE = "the same echo without limits"
CONNECTIONS, TOGETHER, SIZE = 8, 32, 64  # messages of 64 bytes, 32 of each connection under way
SECONDS = 1.0  # of either server in a round, in slices by turns
SLICES = 20
PATIENCE = 30.0  # seconds for one answer


class Client:
    """Some connections to one server, in the process `pid`."""

    def __init__(self, port: int, pid: int) -> None:
        self._pid = pid
        self.spent: list[float] = []  # seconds of the server's processor time, a run an entry
        self._sockets = [connected(port) for _ in range(CONNECTIONS)]
        # a mask of zeros leaves the text as it is
        frame = bytes([0x81, 0x80 | SIZE, 0, 0, 0, 0]) + b"x" * SIZE
        self._batch = frame * TOGETHER
        self._answer = TOGETHER * (2 + SIZE)

    def close(self) -> None:
        for one in self._sockets:
            one.close()

    def run(self, count: int) -> float:
        """The seconds of so many messages of each connection; they are rounded up to batches."""
        before, begin = processor_time(self._pid), time.perf_counter()
        for one in self._sockets:
            one.sendall(self._batch)
        for _ in range((count - 1) // TOGETHER):
            for one in self._sockets:
                self._read(one)
                one.sendall(self._batch)
        for one in self._sockets:
            self._read(one)
        seconds = time.perf_counter() - begin
        self.spent.append(processor_time(self._pid) - before)
        return seconds

    def _read(self, one: socket.socket) -> None:
        left = self._answer
        while left:
            data = one.recv(left)
            if not data or data[0] == 0x88:
                raise RuntimeError("the server closed a connection that echoes")
            left -= len(data)


def processor_time(pid: int) -> float:
    """Seconds that a process's first thread has had of the processors; 0 where nothing tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def connected(port: int) -> socket.socket:
    """A socket whose handshake is done."""
    made = socket.create_connection(("127.0.0.1", port), PATIENCE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    made.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        read = made.recv(1)  # no byte of what follows
        if not read:
            raise RuntimeError("the server closed the connection amid its handshake")
        answer += read
    if b" 101 " not in answer.split(b"\r\n", 1)[0]:
        raise RuntimeError(f"the handshake was answered by {answer[:80]!r}")
    return made


@contextmanager
def client_of(app: str) -> Iterator[Client]:
    """A server of that application, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"bench.echo_app:{app}", "--port", str(port)]
    # a ping amid the answers would be counted as one
    command += ["--log-level", "warning", "--ws-ping-interval", "3600"]
    with serving(command, port, env=environment()) as server:
        client = Client(port, server.process.pid)
        try:
            yield client
        finally:
            client.close()


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    row = Row(NAME, WHAT, None, "x", REFERENCE, 0.97, at_least=True)
    for package in ("uvicorn", "websockets"):
        if find_spec(package) is None:
            row.missing = f"needs {package}"
            yield row
            return
    with client_of("limited") as limited, client_of("bare") as bare:
        limited.run(2000), bare.run(2000)  # warm
        seconds = SECONDS / 5 if quick else SECONDS
        batches = max(1, int(2000 / TOGETHER * seconds / SLICES / bare.run(2000)))
        count = batches * TOGETHER
        limited.spent.clear(), bare.spent.clear()
        a: list[float] = []
        b: list[float] = []
        for _ in range(rounds):
            ours, theirs = alternating(
                lambda turn: limited.run(count), lambda turn: bare.run(count), SLICES
            )
            a.append(sum(ours))
            b.append(sum(theirs))
    each = count * SLICES * CONNECTIONS
    found = [theirs / ours for ours, theirs in zip(a, b, strict=True)]
    row.value = median(found)
    row.info = {
        "per_second": round(each / median(a)),
        "reference_per_second": round(each / median(b)),
        "spread": [round(min(found), 3), round(max(found), 3)],
        "rounds": rounds,
        "server_us": round(sum(limited.spent) / rounds / each * 1e6, 2),
        "reference_server_us": round(sum(bare.spent) / rounds / each * 1e6, 2),
    }
    yield row


TOPIC = Topic(NAME, "Echo over uvicorn, messages a second", measure)
