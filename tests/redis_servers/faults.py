"""What can be wrong with a server that runs; each lasts as long as its block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from redis_servers.server import Server
from redis_servers.waiting import until

_ENDLESS = "while true do end"


@contextmanager
def paused(server: Server, seconds: float, *, writes: bool = False) -> Iterator[None]:
    """Answers nobody for `seconds`, or for `writes` nobody who writes; only the latter ends with
    the block, for a server that answers nobody does not hear that either."""
    with server.client() as client:
        client.client_pause(round(seconds * 1000), all=not writes)
        try:
            yield
        finally:
            if writes:
                client.client_unpause()


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """Dead in the block, and started again behind it."""
    server.kill()
    yield
    server.restart()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Does nothing in the block, and keeps its connections."""
    server.stop()
    try:
        yield
    finally:
        server.cont()


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Answers BUSY: a script runs that does not end by itself."""
    with server.client() as client:
        before = client.config_get("lua-time-limit")
        client.config_set("lua-time-limit", 1)

    def run() -> None:
        ended = (redis.ConnectionError, redis.ResponseError)
        with server.client() as caller, suppress(*ended):
            caller.eval(_ENDLESS, 0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: _answers(server, "BUSY"), "no script runs")
        yield
    finally:
        if server.running:
            with server.client() as client, suppress(redis.ResponseError):
                client.script_kill()  # none runs after a restart in the block
        thread.join(30)
        if server.running:
            with server.client() as client:
                client.config_set("lua-time-limit", before["lua-time-limit"])


def _answers(server: Server, error: str) -> bool:
    with server.client() as client:
        try:
            client.ping()
        except (redis.ConnectionError, redis.ResponseError) as answer:
            # Some have a class of their own, whose message lacks the first word.
            return error in str(answer) or error in type(answer).__name__.upper()
    return False


@contextmanager
def out_of_memory(server: Server) -> Iterator[None]:
    """Answers OOM to what would take memory; `noeviction`."""
    with server.client() as client:
        before = client.config_get("maxmemory*")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            for name in ("maxmemory", "maxmemory-policy"):
                client.config_set(name, before[name])


@contextmanager
def read_only(server: Server, of: Server) -> Iterator[None]:
    """Answers READONLY to writes: it has become a replica of another, whose keys it then has."""
    with server.client() as client:
        client.replicaof("127.0.0.1", of.port)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def loading(server: Server, seconds: float = 1.0) -> Iterator[None]:
    """Answers LOADING: it was killed and takes `seconds` or a little more to read its disk,
    whose end the block waits for. The server must be one with `disk=True`; its keys stay."""
    with server.client() as client:
        with client.pipeline(transaction=False) as pipeline:
            for number in range(round(seconds * 1000)):
                pipeline.set(f"loading:{number}", "x" * 100)
            pipeline.execute()
        # As one snapshot: while it reads that, it answers after each KiB.
        client.bgrewriteaof()
        until(lambda: _rewritten(client), "the file is not rewritten")
    server.restart(
        *("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"),
        ready=False,
    )
    until(lambda: _answers(server, "LOADING"), "it loads nothing")
    yield
    if server.running:
        server.wait_ready()


def _rewritten(client: redis.Redis) -> bool:
    info = client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]
