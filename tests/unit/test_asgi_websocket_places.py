"""Places and reserved units under the middleware's rules: all come back, however it ends."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from calling import Dialog, call, echo, hello, turns
from sluicegate import ConcurrencyLimiter, Limiter, MemoryStore, StoreError
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.testing import Clock


class Door:
    """A middleware on a clock, and what its rules hold in the store."""

    def __init__(self, *rules: Rule, app: Any = echo, **options: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.app = RateLimitMiddleware(app, backend=self.store, config={"": list(rules)}, **options)

    def client(self, host: str = "203.0.113.9", **scope: Any) -> Dialog:
        return Dialog(self.app, client=(host, 1), **scope)

    def taken(self) -> int:
        """How many places are, of everybody."""
        return sum(table.keys for name, table in self.store.tables() if ":places" in (name or ""))

    async def enters(self, host: str = "203.0.113.9") -> bool:
        async with self.client(host) as client:
            return client.accepted


async def test_as_many_as_there_are_places_and_no_more() -> None:
    door = Door(Rule(concurrent=3))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(door.client()) for _ in range(5)]
        assert [client.accepted for client in clients] == [True] * 3 + [False] * 2
        assert await door.enters("203.0.113.10")
        clients[1].leave()
        await clients[1].over()
        assert await door.enters()
    assert door.taken() == 0


async def test_of_many_at_once_exactly_the_places() -> None:
    door = Door(Rule(concurrent=3), Rule(key="app", concurrent=7), Rule(key="ip", concurrent=5))
    clients = [door.client(f"203.0.113.{n % 4}") for n in range(40)]
    await asyncio.gather(*(client.__aenter__() for client in clients))
    accepted = [client for client in clients if client.accepted]
    assert len(accepted) == 7
    by_host = [sum(client.scope["client"][0] == f"203.0.113.{n}" for client in accepted)
               for n in range(4)]  # fmt: skip
    assert max(by_host) <= 3
    for client in clients:
        await client.__aexit__()
    assert door.taken() == 0


async def test_requests_in_flight_take_places_where_the_rule_is_of_them() -> None:
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await gate.wait()
            await hello(scope, receive, send)

    door = Door(Rule(concurrent=2), app=slow)
    async with door.client() as client:
        calls = [asyncio.ensure_future(call(door.app)) for _ in range(3)]
        await turns()
        assert not await door.enters()
        gate.set()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status for answer in answers) == [200, 429, 429]
        assert client.accepted
        assert await door.enters()
    assert door.taken() == 0
    gate.clear()
    for rule in (
        Rule(concurrent=1, messages="9/second"),
        Rule(concurrent=1, connections="9/second"),
    ):
        door = Door(rule, app=slow)
        calls = [asyncio.ensure_future(call(door.app)) for _ in range(3)]
        await turns()
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        gate.clear()


async def test_a_refused_handshake_leaves_its_place_and_charges_nothing() -> None:
    door = Door(
        Rule(concurrent=1, connections="2/minute"), Rule(key="app", connections="9/minute burst 2")
    )
    assert await door.enters()
    async with door.client() as client:
        assert client.accepted
        for _ in range(3):  # for want of a place: no connection of either rule
            assert not await door.enters()
        assert not await door.enters("203.0.113.10")  # by the application's rate
    assert door.taken() == 0
    door.clock.advance(7)
    assert await door.enters("203.0.113.10")


# ---- how it may end


async def crash(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    raise RuntimeError("boom")


async def crash_first(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("boom")


async def close_and_stay(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})
    await asyncio.Event().wait()


async def leave_and_stay(scope: Any, receive: Any, send: Any) -> None:
    await echo(scope, receive, send)
    await asyncio.Event().wait()


async def deny(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def return_at_once(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize("app", [crash, crash_first])
async def test_an_application_that_raises(app: Any) -> None:
    door = Door(Rule(concurrent=1, messages="9/second"), app=app)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="boom"):
            async with door.client():
                pass
        assert door.taken() == 0


@pytest.mark.parametrize("app", [deny, return_at_once])
async def test_an_application_that_returns(app: Any) -> None:
    door = Door(Rule(concurrent=1, messages="9/second"), app=app)
    for _ in range(3):
        async with door.client() as client:
            assert client.answer["type"] in ("websocket.close", "websocket.accept")
            await client.over()
            assert door.taken() == 0


@pytest.mark.parametrize("app", [close_and_stay, leave_and_stay])
async def test_a_connection_is_over_before_its_application_is(app: Any) -> None:
    door = Door(Rule(concurrent=1), app=app)
    for _ in range(3):
        client = await door.client().__aenter__()
        assert client.accepted
        client.leave()
        await turns()
        assert door.taken() == 0
        assert not client.task.done()
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.task


async def test_a_connection_that_the_limits_close_is_over() -> None:
    async def stay(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        await asyncio.Event().wait()

    door = Door(Rule(concurrent=1, messages="1/minute"), app=stay)
    client = await door.client().__aenter__()
    client.put("a", "b")
    await turns()
    assert client.sent()[-1]["code"] == 1008
    assert door.taken() == 0
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task


async def test_a_timeout_around_the_application() -> None:
    door = Door(Rule(concurrent=1, messages="1/minute", on_excess="delay", max_delay=90))
    client = door.client()
    client.put({"type": "websocket.connect"}, "a", "b")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(door.app(client.scope, client.receive, client.send), 0.05)
    assert door.taken() == 0
    await turns()
    assert len(asyncio.all_tasks()) == 1  # the one that was reading ahead has ended


async def test_an_application_that_nobody_runs_on() -> None:
    """Its coroutine is collected, with nothing left to await."""
    door = Door(Rule(concurrent=1, requests="1/minute", count_when=lambda status: status == 401))
    client = door.client()
    client.put({"type": "websocket.connect"})
    running = door.app(client.scope, client.receive, client.send)
    for _ in range(3):  # as a loop does, until it waits for the client
        if running.send(None) is not None:
            break
    assert door.taken() == 1
    running.close()
    del running
    gc.collect()
    assert door.taken() == 0
    assert await door.enters()


@pytest.mark.parametrize("messages", [0, 5, 14])
async def test_a_send_that_waits_for_a_receive(
    monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    """As hypercorn's: its queue is full, so that a send to a client that has gone waits until
    the application has received; and that one waits for the send."""
    monkeypatch.setitem(sys.modules, "hypercorn", SimpleNamespace())
    monkeypatch.setattr("sluicegate.asgi.connection.PATIENCE", 0.01)
    got: list[str] = []

    class Stuck(Dialog):
        stuck = False

        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            while self.stuck and self._incoming:
                await asyncio.sleep(0.001)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noted() -> Any:
            message = await receive()
            got.append(message.get("text", message["type"]))
            return message

        await echo(scope, noted, send)
        assert door.taken() == 0

    door = Door(Rule(concurrent=1, messages="9999/second"), app=app)
    client = Stuck(door.app)
    async with client:
        client.stuck = True
        client.put("first", *(str(n) for n in range(messages)))
        client.leave()
        await client.over()
    assert got == [
        "websocket.connect", "first", *(str(n) for n in range(messages)), "websocket.disconnect",
    ]  # fmt: skip
    await turns()
    assert len(asyncio.all_tasks()) == 1


class Fails(Exception):
    pass


class Failing(Dialog):
    """A server whose n-th await raises."""

    def __init__(self, app: Any, fails: int, **scope: Any) -> None:
        super().__init__(app, **scope)
        self.left = fails

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Fails

    async def receive(self) -> dict[str, Any]:
        self._count()
        message = await super().receive()
        self._count()
        return message

    async def send(self, message: dict[str, Any]) -> None:
        self._count()
        await super().send(message)
        self._count()


RULES = [
    Rule(concurrent=1, connections="9/minute", messages="2/minute", on_excess="delay", max_delay=1),
    Rule(key="app", concurrent=1, requests="1/minute", count_when=lambda status: False),
    Rule(key="ip", group="*", concurrent=1, bytes="1KB/minute"),
    Rule(concurrent=1, requests="1/minute", count_when=lambda status: False, shadow=True),
]


async def slow_who(scope: Any) -> tuple[str, str]:
    await asyncio.sleep(0)
    return "ada", "default"


@pytest.mark.parametrize("fails", range(1, 20))
async def test_an_exception_at_every_await_of_the_server(fails: int) -> None:
    door = Door(*RULES, authenticate=slow_who)
    client = Failing(door.app, fails)
    client.put({"type": "websocket.connect"}, "a", "b", "c")
    client.leave()
    with suppress(Fails):
        await asyncio.wait_for(door.app(client.scope, client.receive, client.send), 10)
    assert door.taken() == 0
    assert await door.enters()  # and the unit of the application's rule is there, too


@pytest.mark.parametrize("when", range(45))
async def test_a_cancellation_at_every_await(when: int) -> None:
    door = Door(*RULES, authenticate=slow_who)
    client = door.client()
    client.put({"type": "websocket.connect"}, "a", "b", "c")
    task = asyncio.ensure_future(door.app(client.scope, client.receive, client.send))
    await turns(when)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert door.taken() == 0
    await turns()
    assert len(asyncio.all_tasks()) == 1
    assert await door.enters()


@pytest.mark.parametrize("fails", range(1, 12))
@pytest.mark.parametrize(
    "error", [StoreError("gone"), RuntimeError("odd"), asyncio.CancelledError()]
)
async def test_an_exception_at_every_await_of_the_store(
    monkeypatch: pytest.MonkeyPatch, fails: int, error: BaseException
) -> None:
    left = fails

    def failing(function: Any) -> Any:
        async def maybe(*given: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise error
            return await function(*given, **more)

        return maybe

    door = Door(*RULES, authenticate=slow_who)
    with monkeypatch.context() as patch:
        patch.setattr(ConcurrencyLimiter, "acquire", failing(ConcurrencyLimiter.acquire))
        patch.setattr(Limiter, "reserve", failing(Limiter.reserve))
        patch.setattr(Limiter, "hit", failing(Limiter.hit))
        patch.setattr(Limiter, "hit_all", staticmethod(failing(Limiter.hit_all)))
        client = door.client()
        client.put({"type": "websocket.connect"}, "a", "b")
        client.leave()
        with suppress(type(error)):
            await asyncio.wait_for(door.app(client.scope, client.receive, client.send), 10)
    assert left <= 0 or fails > 8
    assert door.taken() == 0
    assert await door.enters()


async def test_a_store_that_keeps_no_places_has_them_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(Rule(concurrent=1))
    own = ConcurrencyLimiter.acquire

    async def gone(self: ConcurrencyLimiter, key: Any, timeout: float = 0) -> Any:
        if self.store is door.store:
            raise StoreError("gone")
        return await own(self, key, timeout)

    async with AsyncExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(ConcurrencyLimiter, "acquire", gone)
            first = await stack.enter_async_context(door.client())
            assert first.accepted
            assert not await door.enters()
            assert await door.enters("203.0.113.10")
        assert await door.enters()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the places of 'asgi:places': gone; now: local",
        "the places of 'asgi:places': the store answers again",
    ]


# ---- what is counted by status


def by_status(*statuses: Any) -> Any:
    """An application that answers with these, one after the other; or raises."""
    left = list(statuses)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        status = left.pop(0)
        if isinstance(status, Exception):
            raise status
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_only_what_is_to_count_is_counted() -> None:
    rule = Rule(requests="2/minute", key="ip", count_when=lambda status: status == 401)
    door = Door(rule, app=by_status(200, 401, 200, 404, 401, 200))
    found = [(await call(door.app)).status for _ in range(8)]
    assert found == [200, 401, 200, 404, 401, 429, 429, 429]


async def test_it_is_exact_under_concurrency() -> None:
    """Whether they count is known at the end alone: so many at once, and no more, are let in."""
    gates: list[asyncio.Future[int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gates.append(asyncio.get_running_loop().create_future())
        status = await gates[-1]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    door = Door(Rule(requests="3/minute", count_when=lambda status: status == 401), app=app)

    async def begin(count: int) -> list[asyncio.Task[Any]]:
        tasks = [asyncio.ensure_future(call(door.app)) for _ in range(count)]
        await turns()
        return tasks

    first = await begin(10)
    assert len(gates) == 3
    gates[0].set_result(200)
    gates[1].set_result(401)
    await turns()
    second = await begin(10)
    assert len(gates) == 4  # the one that did not count made room for one
    gates[2].set_result(401)
    gates[3].set_result(401)
    await turns()
    await begin(3)
    assert len(gates) == 4
    answers = await asyncio.gather(*first, *second)
    assert sorted(a.status for a in answers) == [200, 401, 401, 401] + [429] * 16


async def test_what_raises_is_a_500_and_what_is_cancelled_never_was() -> None:
    for counted, then in ((500, 429), (200, 200)):
        door = Door(
            Rule(requests="1/minute", count_when=lambda status, c=counted: status == c),
            app=by_status(Fails(), 200),
        )
        with pytest.raises(Fails):
            await call(door.app)
        assert (await call(door.app)).status == then

    async def stay(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    door = Door(Rule(requests="1/minute", count_when=lambda status: True), app=stay)
    for _ in range(3):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call(door.app), 0.01)


async def test_a_count_when_that_raises_counts() -> None:
    def odd(status: int) -> bool:
        raise Fails

    door = Door(Rule(requests="1/minute", count_when=odd), app=by_status(200, 200))
    with pytest.raises(Fails):
        await call(door.app)
    assert (await call(door.app)).status == 429


async def test_a_unit_that_comes_back_mints_none() -> None:
    rule = Rule(requests="2/minute", count_when=lambda status: status == 401)
    door = Door(rule, app=by_status(*[200] * 20, 401, 401))
    for _ in range(20):
        assert (await call(door.app)).status == 200
    assert [(await call(door.app)).status for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(("app", "status"), [(echo, 101), (deny, 403)], ids=["accepted", "denied"])
async def test_handshakes_are_counted_by_status_too(app: Any, status: int) -> None:
    for counts in (True, False):
        door = Door(
            Rule(connections="1/minute", count_when=lambda s, c=counts: (s == status) is c),
            app=app,
        )
        async with door.client():
            pass
        async with door.client() as client:
            assert (client.answer.get("status") == 429) is counts


async def test_rules_that_count_at_once_and_those_that_wait_are_one_decision() -> None:
    door = Door(
        Rule(requests="3/minute", count_when=lambda status: status == 401),
        Rule(key="app", requests="2/minute"),
        app=by_status(401, 401, 401),
    )
    assert [(await call(door.app)).status for _ in range(3)] == [401, 401, 429]
    door.clock.advance(30)  # one of the application's, and of the user's the refused one's too
    assert [(await call(door.app)).status for _ in range(2)] == [401, 429]
