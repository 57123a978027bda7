"""What no well-meaning program does: it must raise, not crash, hang or be half done."""

from __future__ import annotations

import asyncio
import collections.abc
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from sluicegate import (
    ConnectionInfo,
    Limiter,
    MemoryStore,
    Quota,
    WebSocketLimits,
    WebSocketRateLimiter,
    _core,
    waiting,
)

collections.abc.Coroutine.register(_core.Call)


@pytest.fixture
def limiter() -> _core.Limiter:
    return _core.Limiter(_core.Table(["gcra"]), [_core.Quota(5, 10, name="chat")])


# ---- the coroutine object


async def test_a_clock_that_runs_out_ends_the_task() -> None:
    """StopIteration would be taken for the end of a coroutine; a task would wait for ever."""
    limiter = _core.Limiter(_core.Table(["gcra"], clock=iter([0.0]).__next__), [_core.Quota(5, 10)])
    with pytest.raises(RuntimeError, match="StopIteration") as raised:
        await limiter.hit_awaitable("k")
    assert isinstance(raised.value.__cause__, StopIteration)
    task = asyncio.ensure_future(limiter.hit_awaitable("k"))
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert isinstance(task.exception(), RuntimeError)


def test_a_long_chain_of_calls_is_let_go(limiter: _core.Limiter) -> None:
    chain: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200_000):
            chain = limiter.hit_awaitable(chain)
        del chain
    assert limiter.hit_nowait("k")


def test_what_it_awaits_may_not_close_it_while_thrown_into() -> None:
    refused: list[ValueError] = []

    class Inner:
        def __await__(self) -> Iterator[int]:
            return self

        def __iter__(self) -> Inner:
            return self

        def __next__(self) -> int:
            return 1

        def __getattr__(self, name: str) -> Any:
            if name != "throw":
                raise AttributeError(name)
            try:
                call.close()
            except ValueError as error:
                refused.append(error)
            return lambda *given: 2

    class Door(_core.Connections):
        def _refused(self, *given: Any) -> Inner:
            return Inner()

    call: Any = Door().check_message_awaitable("nobody", 1)
    assert call.send(None) == 1
    assert call.throw(KeyError("k")) == 2
    assert len(refused) == 1
    assert call.send(None) == 1
    call.close()


# ---- objects that are not whole


def test_without_init_every_call_raises() -> None:
    bare = _core.Limiter.__new__(_core.Limiter)
    assert bare.hit_many_nowait([]) == []
    for call in (bare.hit_nowait, bare.peek_nowait, bare.reserve_nowait, bare.bind):
        with pytest.raises(RuntimeError, match="__init__"):
            call("k")


def test_a_cost_that_changes_the_limiter_is_no_crash(limiter: _core.Limiter) -> None:
    class Cost:
        def __getattr__(self, name: str) -> Any:
            if name != "items":
                raise AttributeError(name)
            limiter._rebind(_core.Table(["gcra"]), [_core.Quota(5, 10, name="chat")])
            return lambda: [("chat", 1)]

    for _ in range(50):
        with pytest.raises(RuntimeError, match="changes the limiter"):
            limiter.hit_nowait("k", Cost(), quotas=[_core.Quota(5, 10)])  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [5, ConnectionInfo(client_id="ada", connected_at=1.0)])
def test_connections_put_there_from_outside(junk: Any) -> None:
    connections = _core.Connections()
    connections._live["c"] = junk
    with pytest.raises(TypeError, match="register_connection"):
        connections._check("c", 0)


# ---- connections


async def test_the_last_message_is_told_after_a_move_to_another_table() -> None:
    """Each table counts from when it was made: a log beside a bucket, made much later."""
    now = [1000.0]
    other = WebSocketLimits(messages="5/second", bytes="1MB/second")
    limiter = WebSocketRateLimiter(
        lambda client: other if client == "grace" else WebSocketLimits(),
        MemoryStore(clock=lambda: now[0]),
    )
    assert await limiter.register_connection("c", "ada")
    assert (await limiter.check_message("c", 1))["allowed"]
    now[0] += 5000
    assert await limiter.rebind("c", "grace")
    info = limiter.get_connection_info("c")
    assert info is not None
    assert info.last_message_time == pytest.approx(time.time() - 5000, abs=60)


def test_a_clock_that_rebinds_each_time_is_no_hang() -> None:
    connections = _core.Connections()
    quota = _core.Quota(5, 10)
    tables: list[_core.Table] = []
    asked = 0

    def clock() -> float:
        nonlocal asked
        if len(tables) == 2:
            asked += 1
            assert asked < 1000, "asked for ever"
            asked_of._rebind(tables[asked % 2], [quota])
        return 1.0

    tables.extend([_core.Table(["gcra"], clock=clock), _core.Table(["gcra"], clock=clock)])
    asked_of = _core.Limiter(tables[0], [quota])
    connections._add(ConnectionInfo("c", "ada", 1.0), asked_of, 0, None)
    with pytest.raises(RuntimeError, match="changes the limiter"):
        connections._check("c", 0)


# ---- queues


def test_the_head_of_a_queue_is_looked_at_alone() -> None:
    """Another thread that comes between the iterator and its first item breaks it."""

    class Interrupted(OrderedDict[Any, None]):
        def __iter__(self) -> Iterator[Any]:
            found = super().__iter__()

            def come() -> None:
                if waiting._lock.acquire(timeout=0.2):
                    try:
                        self[object()] = None
                    finally:
                        waiting._lock.release()

            thread = threading.Thread(target=come)
            thread.start()
            thread.join(10)
            return found

    limiter = Limiter(Quota(5, 10))
    queue = waiting._Queue(limiter.table)
    waiter = waiting._Waiter(limiter._hit_claim("k", 1))
    queue.waiters = Interrupted({waiter: None})
    assert queue.head() is waiter


# ---- frames


@pytest.mark.parametrize("frame", ["[" * 60_000, b"\xff\xfe\xff", b"", "1" * 60_000, "\ud800"])
async def test_every_frame_that_is_no_json_is_a_value_error(frame: str | bytes) -> None:
    """An endpoint that handles ValueError is not brought down by brackets."""
    websockets = pytest.importorskip("starlette.websockets")
    from sluicegate import FastAPIWebSocketLimiter

    kind = "text" if isinstance(frame, str) else "bytes"
    coming = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", kind: frame}])

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        pass

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    door = FastAPIWebSocketLimiter()
    with pytest.raises(ValueError):
        async with door.connection(websockets.WebSocket(scope, receive, send)) as c:
            async for _ in c.iter_json():
                pass
    assert not door.limiter.active_connections
    assert await door.limiter.count("192.0.2.1") == 0
