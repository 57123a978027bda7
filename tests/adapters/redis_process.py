"""A Redis for one test, on a port of 127.0.0.1, that the test may kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import serving


@contextmanager
def redis_server(port: int) -> Iterator[serving.Server]:
    """Empty; keeps nothing on disk; ends with the block."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with serving.serving([*command, "--appendonly", "no"], port) as server:
        yield server
