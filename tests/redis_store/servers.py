"""Real servers for the tests: Redis and Valkey, each on a Unix socket, ended by process id."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

KINDS = tuple(kind for kind in ("redis-server", "valkey-server") if shutil.which(kind))


@contextmanager
def server(kind: str, *options: str) -> Iterator[redis.Redis]:
    """A client of an empty server that keeps nothing on disk; the server ends with the block."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-") as directory:
        path = Path(directory) / "socket"
        process = subprocess.Popen(
            [kind, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no",
             "--dir", directory, *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        client = redis.Redis(unix_socket_path=str(path), socket_timeout=30)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert process.poll() is None, f"{kind} did not start"
                    assert time.monotonic() < deadline, f"{kind} does not answer"
                    time.sleep(0.01)
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait(10)
