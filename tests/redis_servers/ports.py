"""Ports for servers that are killed and come back.

They lie below those that the system gives to outgoing connections: one of these could take the
port of a server that is down, and a client that calls a port of that range where nobody listens
can by chance be given the very same port and be connected to itself.
"""

from __future__ import annotations

import random
import socket

BUS = 10_000  # a cluster node talks to the others on its port plus this

_random = random.SystemRandom()  # runs side by side must not draw alike


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port that only has old connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 that is free just now, as is the one that its cluster bus would take."""
    for _ in range(1000):
        port = _random.randrange(11_000, 11_000 + BUS)
        if _is_free(port) and _is_free(port + BUS):
            return port
    raise RuntimeError("no free port was found")
