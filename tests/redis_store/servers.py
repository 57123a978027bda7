"""A client of a real server, for tests that need no more of it: see redis_servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

import redis_servers.server
from redis_servers.kinds import KINDS

__all__ = ["KINDS", "server"]


@contextmanager
def server(kind: str, *options: str) -> Iterator[redis.Redis]:
    """A client of an empty server that keeps nothing on disk; the server ends with the block.

    `options` are its command line's: "--maxmemory", "10mb".
    """
    names = (name.removeprefix("--") for name in options[::2])
    settings = dict(zip(names, options[1::2], strict=True))
    with redis_servers.server.server(kind, **settings) as running, running.client() as client:
        yield client
