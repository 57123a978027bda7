"""When checks leave: together at the end of a turn of the loop; at once where as many wait as one
command takes, so that the server begins while more are asked for, and where they are asked one
after the other."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from redis_store.wire import ADMITTED, Link, Store, admitted, limiter_of, turn
from sluicegate import Limiter, RedisStore, _core

HIT = 1
BATCH, ALONE = 256, 8


@pytest.fixture
def store() -> Store:
    return Store()


def sizes(sent: bytes) -> list[int]:
    """How many keys each command has."""
    lines = sent.split(b"\r\n")
    return [int(lines[i + 4]) for i, line in enumerate(lines) if line in (b"EVAL", b"EVALSHA")]


async def one_by_one(link: Link, limiter: _core.Limiter, count: int) -> None:
    for _ in range(count):
        asked: Any = limiter._ask(HIT, "k")
        await turn()
        link.feed(ADMITTED)
        assert await asked


async def test_those_of_a_turn_leave_together(store: Store) -> None:
    link, limiter = store.link, limiter_of(store)
    asked: list[Any] = [limiter._ask(HIT, f"k{number}") for number in range(BATCH - 1)]
    assert (link.waiting, link.flying) == (BATCH - 1, 0)
    await turn()
    assert (link.waiting, link.flying) == (0, BATCH - 1)
    assert sizes(link.sent) == [BATCH - 1]
    link.feed(admitted(BATCH - 1))
    assert all([await one for one in asked])


async def test_those_of_one_call_leave_together_though_others_were_alone(store: Store) -> None:
    link, limiter = store.link, limiter_of(store)
    await one_by_one(link, limiter, ALONE)
    asked: Any = limiter._ask_many([("k", 1), ("l", 1)])
    assert (link.waiting, link.flying) == (2, 0)
    await turn()
    assert sizes(link.sent)[-1] == 2
    link.feed(admitted(2))
    assert all(await asked)


@pytest.mark.parametrize("how", ["hit", "hit_many"])
async def test_where_many_wait_they_leave_before_the_turn_ends(store: Store, how: str) -> None:
    link, limiter, rest = store.link, limiter_of(store), 44
    count = 2 * BATCH + rest
    keys = [f"k{number}" for number in range(count)]
    asked: list[Any] = (
        [limiter._ask(HIT, key) for key in keys]
        if how == "hit"
        else [limiter._ask_many([(key, 1) for key in keys])]
    )
    assert (link.waiting, link.flying) == (rest, 2 * BATCH)
    assert sizes(link.sent) == [BATCH, BATCH]
    await turn()
    assert sizes(link.sent) == [BATCH, BATCH, rest]
    for size in (BATCH, BATCH, rest):
        link.feed(admitted(size))
    found = [await one for one in asked]
    assert len(found if how == "hit" else found[0]) == count and all(found)


async def test_one_after_the_other_waits_for_no_turn(store: Store) -> None:
    link, limiter = store.link, limiter_of(store)
    await one_by_one(link, limiter, ALONE - 1)
    early: Any = limiter._ask(HIT, "k")
    assert link.waiting == 1  # it has not been so for long
    await turn()
    link.feed(ADMITTED)
    assert await early
    for _ in range(3):
        asked: Any = limiter._ask(HIT, "k")
        assert (link.waiting, link.flying) == (0, 1)
        link.feed(ADMITTED)
        assert await asked


async def test_one_that_is_not_alone_waits_for_the_others_again(store: Store) -> None:
    link, limiter = store.link, limiter_of(store)
    await one_by_one(link, limiter, ALONE)
    first: Any = limiter._ask(HIT, "k")
    second: Any = limiter._ask(HIT, "l")
    assert (link.waiting, link.flying) == (1, 1)
    await turn()
    link.feed(ADMITTED + ADMITTED)
    assert await first and await second
    both: list[Any] = [limiter._ask(HIT, key) for key in "kl"]
    assert link.waiting == 2  # nothing flies, and still
    await turn()
    link.feed(admitted(2))
    assert all([await one for one in both])


class Failing(Link):
    error: BaseException | None = None

    def _flush(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        super()._flush()


@pytest.fixture
async def failing(store: Store) -> Failing:
    """The link of the store."""
    loop = asyncio.get_running_loop()
    link = Failing(loop, store._router(loop))
    store._router(loop)._serve(link)
    return link


async def test_a_flush_that_fails_is_said_and_made_again(
    store: Store, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = limiter_of(store)
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: said.append(told.exc_value))
    await one_by_one(failing, limiter, ALONE)
    failing.error = RuntimeError("no")
    asked: Any = limiter._ask(HIT, "k")
    assert [str(error) for error in said] == ["no"] and failing.waiting == 1
    await turn()
    assert failing.flying == 1
    failing.feed(ADMITTED)
    assert await asked


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_who_asks_is_interrupted_by_a_signal_meanwhile(
    store: Store, failing: Failing, error: type[BaseException]
) -> None:
    """As by a handler of SIGTERM that calls sys.exit() and happens to run in the midst of it."""
    limiter = limiter_of(store)
    await one_by_one(failing, limiter, ALONE)
    failing.error = error()
    with pytest.raises(error):
        limiter._ask(HIT, "k")
    assert failing.waiting == 1  # it is asked all the same
    await turn()
    assert failing.flying == 1
    failing.feed(ADMITTED)
    failing.error = error()
    with pytest.raises(error):
        limiter._ask_many([(f"k{number}", 1) for number in range(BATCH + 1)])
    await turn()
    assert sizes(failing.sent)[-1] == BATCH and failing.flying == BATCH
    failing.feed(admitted(BATCH))
    assert (failing.waiting, failing.flying) == (0, 0)


async def test_what_asks_in_the_midst_of_a_write_is_written_after_it(store: Store) -> None:
    """As a finalizer does that runs while the transport writes."""
    limiter = limiter_of(store)
    asked: list[Any] = []

    class Writing(Link):
        def _flush(self) -> None:
            data = self.take()
            if data is not None and len(asked) < BATCH:
                asked.extend(limiter._ask(HIT, f"k{number}") for number in range(BATCH))
                assert self.flying == 1
            self.sent += data or b""
            self.wrote()

    loop = asyncio.get_running_loop()
    link = Writing(loop, store._router(loop))
    store._router(loop)._serve(link)
    asked.append(limiter._ask(HIT, "k"))
    await turn()
    assert sizes(link.sent) == [1]
    await turn()
    assert sizes(link.sent) == [1, BATCH]
    link.feed(admitted(1) + admitted(BATCH))
    assert all([await one for one in asked])


async def test_a_future_that_asks_while_others_leave(store: Store) -> None:
    """It is asked whether it is done, in the midst of a write: what it asks leaves later."""
    link, limiter = store.link, limiter_of(store)
    more: list[Any] = []

    class Asking(asyncio.Future[Any]):
        def done(self) -> bool:
            if not more:
                more.extend(limiter._ask(HIT, f"more{number}") for number in range(2 * BATCH))
            return super().done()

    loop = asyncio.get_running_loop()
    made = iter([Asking(loop=loop)])
    loop.create_future = lambda: next(made, None) or asyncio.Future(loop=loop)  # type: ignore[method-assign]
    asking = Link(loop, store._router(loop))
    store._router(loop)._serve(asking)
    asked: list[Any] = [limiter._ask(HIT, f"k{number}") for number in range(BATCH)]
    assert len(more) == 2 * BATCH
    await turn()
    await turn()
    assert (asking.waiting, asking.flying, link.flying) == (0, 3 * BATCH, 0)
    for size in sizes(asking.sent):
        asking.feed(admitted(size))
    assert all([await one for one in asked + more])


@pytest.mark.server
async def test_many_at_once_are_on_their_way_while_others_are_asked(single: str) -> None:
    async with RedisStore(single, timeout=5) as store:
        limiter = Limiter("1000/day", store=store, name="leaving")
        await limiter.hit("k")
        (router,) = store._routers.values()
        (connection,) = router.connections()
        seen: list[int] = []

        async def ask(key: str) -> bool:
            decision = limiter.hit(key)
            seen.append(connection.flying)
            return bool(await decision)

        assert all(await asyncio.gather(*(ask(f"k{number}") for number in range(3 * BATCH))))
        assert max(seen) >= BATCH
