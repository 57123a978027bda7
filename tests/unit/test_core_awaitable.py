"""hit_awaitable returns what asyncio takes for a coroutine, and behaves as one."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sluicegate import _core

collections.abc.Coroutine.register(_core.Call)


@pytest.fixture
def limiter() -> _core.Limiter:
    return _core.Limiter(
        _core.Table(["gcra"], clock=_core.Clock()), [_core.Quota(5, 10, name="chat")]
    )


async def test_decides_when_awaited(limiter: _core.Limiter) -> None:
    call = limiter.hit_awaitable("k")
    assert limiter.table.keys == 0
    assert (await call).remaining == 4
    assert (await limiter.hit_awaitable("k", 2)).remaining == 2
    assert (await limiter.hit_awaitable("k", cost={"chat": 2})).remaining == 0
    assert not await limiter.hit_awaitable("k", quotas=None)
    assert (await limiter.hit_awaitable("k", quotas=[_core.Quota(50, 100)])).limit == 50
    assert (await limiter.bind("h").hit_awaitable(cost=3)).remaining == 2


async def test_works_wherever_a_coroutine_does(limiter: _core.Limiter) -> None:
    assert await asyncio.create_task(limiter.hit_awaitable("k"))  # type: ignore[arg-type]
    assert await asyncio.ensure_future(limiter.hit_awaitable("k"))
    assert await asyncio.wait_for(limiter.hit_awaitable("k"), 5)
    both = await asyncio.gather(*(limiter.hit_awaitable("k") for _ in range(4)))
    assert [bool(decision) for decision in both] == [True, True, False, False]
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(limiter.hit_awaitable("g"))  # type: ignore[arg-type]
                for _ in range(6)
            ]
        assert sum(bool(task.result()) for task in tasks) == 5


def test_runs_by_itself(limiter: _core.Limiter) -> None:
    assert asyncio.run(limiter.hit_awaitable("k"))  # type: ignore[arg-type]
    assert asyncio.run(limiter.hit_awaitable("k"), debug=True)
    call: Any = limiter.hit_awaitable("k")
    assert asyncio.iscoroutine(call) and inspect.isawaitable(call)
    assert (call.__name__, call.__qualname__) == ("hit", "Limiter.hit")
    assert "Limiter.hit" in repr(call)
    assert next(iter_of(call)).remaining == 2


def iter_of(call: Any) -> Iterator[Any]:
    """What `yield from` makes of it."""
    result = yield from call.__await__()
    yield result


def test_result_comes_as_stop_iteration(limiter: _core.Limiter) -> None:
    call: Any = limiter.hit_awaitable("k")
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    assert stop.value.value.remaining == 4
    with pytest.raises(StopIteration) as stop:
        next(limiter.hit_awaitable("k"))  # type: ignore[call-overload]
    assert stop.value.value.remaining == 3


def test_misuse(limiter: _core.Limiter) -> None:
    call: Any = limiter.hit_awaitable("k")
    with pytest.raises(TypeError, match="just-started"):
        call.send(1)
    with pytest.raises(StopIteration):
        call.send(None)
    for again in (lambda: call.send(None), lambda: next(call), lambda: call.throw(ValueError)):
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            again()
    call.close()
    closed: Any = limiter.hit_awaitable("k")
    closed.close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        closed.send(None)
    assert limiter.peek_nowait("k").remaining == 4
    with pytest.raises(TypeError):
        _core.Call()


def test_errors_come_out(limiter: _core.Limiter) -> None:
    for key, cost, error in ((5, 1, TypeError), ("k", -1, ValueError), ("k", 1.5, TypeError)):
        call: Any = limiter.hit_awaitable(key, cost)  # type: ignore[arg-type]
        with pytest.raises(error):
            call.send(None)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            call.send(None)


@pytest.mark.parametrize(
    "thrown",
    [
        (ValueError,),
        (ValueError("mine"),),
        (ValueError, "mine"),
        (ValueError, ValueError("mine")),
        (ValueError, None, None),
    ],
)
@pytest.mark.filterwarnings("ignore:the \\(type, exc, tb\\)")
def test_thrown_into_a_fresh_one(limiter: _core.Limiter, thrown: tuple[Any, ...]) -> None:
    call: Any = limiter.hit_awaitable("k")
    with pytest.raises(ValueError):
        call.throw(*thrown)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)
    assert limiter.table.keys == 0
    for wrong in ((5,), (), (ValueError, None, None, None), (ValueError("a"), "b")):
        other: Any = limiter.hit_awaitable("k")
        with pytest.raises(TypeError):
            other.throw(*wrong)
        other.close()


async def test_cancelled_before_it_ran(limiter: _core.Limiter) -> None:
    task = asyncio.create_task(limiter.hit_awaitable("k"))  # type: ignore[arg-type]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limiter.table.keys == 0


def test_never_awaited_warns(limiter: _core.Limiter) -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'Limiter.hit' was never awaited"):
        limiter.hit_awaitable("k")
    with pytest.warns(RuntimeWarning, match="coroutine 'Handle.hit' was never awaited"):
        limiter.bind("k").hit_awaitable()
    assert limiter.table.keys == 0


def test_in_a_cycle_it_is_collected() -> None:
    class Holder(_core.Limiter):
        kept: Any

    limiter = Holder(_core.Table(["gcra"]), [_core.Quota(5, 10)])
    limiter.kept = limiter.hit_awaitable("k")
    gone = weakref.ref(limiter)
    del limiter
    with pytest.warns(RuntimeWarning, match="never awaited"):
        gc.collect()
    assert gone() is None


# ---- an inner awaitable: Connections is the one that has it


class Gate(_core.Connections):
    """Refuses every message, by way of `inner`."""

    inner: Callable[[], Any]

    def _refused(self, *refusal: Any) -> Any:
        return self.inner()


def gate_of(inner: Callable[[], Any]) -> Gate:
    gate = Gate()
    gate.inner = inner
    return gate


async def test_passes_on_to_an_inner_coroutine() -> None:
    async def inner() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"allowed": False}

    gate = gate_of(inner)
    assert await gate.check_message_awaitable("nobody", 5) == {"allowed": False}
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, (1, 2))
    gate.inner = lambda: future
    result: Any = await gate.check_message_awaitable("nobody", 5)
    assert result == (1, 2)
    gate.inner = lambda: 5
    with pytest.raises(TypeError, match="await"):
        await gate.check_message_awaitable("nobody", 5)


async def test_an_inner_error_comes_out() -> None:
    async def inner() -> None:
        await asyncio.sleep(0)
        raise KeyError("inner")

    with pytest.raises(KeyError, match="inner"):
        await gate_of(inner).check_message_awaitable("nobody", 5)


async def test_cancelling_reaches_the_inner_one() -> None:
    seen: list[str] = []

    async def inner() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "never"

    call: Any = gate_of(inner).check_message_awaitable("nobody", 5)
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(gate_of(inner).check_message_awaitable("nobody", 5), 0.01)
    assert seen == ["cancelled", "cancelled"]


class Once:
    """Yields one None, then returns what it was sent; tells what was done to it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __await__(self) -> Iterator[None]:
        try:
            value = yield None
            self.events.append(f"sent {value}")
        except ValueError:
            self.events.append("thrown")
            return "caught"  # type: ignore[return-value]
        except GeneratorExit:
            self.events.append("closed")
            raise
        return value


def test_send_throw_and_close_go_through() -> None:
    once = Once()
    call: Any = gate_of(lambda: once).check_message_awaitable("nobody", 5)
    assert call.send(None) is None
    assert call.cr_await is not None
    with pytest.raises(StopIteration) as stop:
        call.send("x")
    assert stop.value.value == "x" and once.events == ["sent x"]

    once = Once()
    call = gate_of(lambda: once).check_message_awaitable("nobody", 5)
    call.send(None)
    with pytest.raises(StopIteration) as stop:
        call.throw(ValueError("in"))
    assert stop.value.value == "caught" and once.events == ["thrown"]
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)


@pytest.mark.parametrize(("end", "arguments"), [("close", ()), ("throw", (GeneratorExit,))])
def test_the_inner_one_is_closed(end: str, arguments: tuple[Any, ...]) -> None:
    once = Once()
    call: Any = gate_of(lambda: once).check_message_awaitable("nobody", 5)
    call.send(None)
    with contextlib.suppress(GeneratorExit):
        getattr(call, end)(*arguments)
    assert once.events == ["closed"]
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)


def test_a_tuple_and_an_exception_are_values() -> None:
    for value in ((1, 2), ValueError("a value"), None, ()):

        async def inner(value: Any = value) -> Any:
            return value

        call: Any = gate_of(inner).check_message_awaitable("nobody", 5)
        with pytest.raises(StopIteration) as stop:
            next(call)
        assert stop.value.value is value


def test_it_does_not_run_in_itself() -> None:
    calls: list[Any] = []

    async def inner() -> None:
        calls[0].send(None)

    calls.append(gate_of(inner).check_message_awaitable("nobody", 5))
    with pytest.raises(ValueError, match="already executing"):
        calls[0].send(None)
