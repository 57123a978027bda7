"""Python code that runs in the midst of a question, and does what it should not: nothing crashes,
nothing is lost, and who waits is told."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from redis_store.wire import (
    ADMITTED,
    NOW_US,
    QUOTA,
    Link,
    Router,
    Store,
    admitted,
    limiter_of,
    refused,
    turn,
)
from sluicegate import Limiter, RedisStore, StoreError, _core

HIT, RESERVE = 1, 2
POLICIES = ("raise", "allow", "deny", "local")


class Cost(dict[str, int]):
    """A cost that runs code when it is read."""

    def __init__(self, code: Callable[[], Any]) -> None:
        super().__init__(m=1)
        self.code = code

    def items(self) -> Any:
        self.code()
        return super().items()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def observe() -> Iterator[Callable[[Any], None]]:
    yield _core.set_observer
    _core.set_observer(None)


async def test_nobody_sees_results_that_are_not_all_there(store: Store) -> None:
    """A list that is still being filled is not Python's: to read it would crash, and where the
    garbage collector emptied it, what is filled in next would be written nowhere."""
    count = 211  # as many as no other list has, and one command takes

    def lists(seen: list[Any]) -> list[Any]:
        return [one for one in seen if type(one) is list and len(one) == count]

    before = len(lists(gc.get_objects()))
    limiter = limiter_of(store)
    asked: Any = limiter._ask_many([(f"k{number}", 1) for number in range(count)])
    await turn()
    assert not lists(gc.get_referents(store.link))
    assert len(lists(gc.get_objects())) == before
    store.link.feed(admitted(count))
    found = await asked
    assert len(found) == count and all(found)
    assert gc.is_tracked(found)
    nothing: Any = limiter._ask_many([])
    assert nothing == [] and gc.is_tracked(nothing)


# ---- objects that are not whole


async def test_a_link_that_was_not_made_does_nothing(store: Store) -> None:
    class Unmade(_core.Link):
        def __init__(self) -> None:
            pass

    link = Unmade()
    calls: list[Callable[[], Any]] = [
        link.take,
        link.expire,
        lambda: link.feed(b"+OK\r\n"),
        lambda: link.lost("x"),
        lambda: link.drop("x"),
        lambda: link.command(("PING",), 1.0),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="was not made"):
            call()
    assert (link.waiting, link.flying, link.down, link.asked()) == (0, 0, None, False)
    limiter = limiter_of(store)
    store._router(asyncio.get_running_loop())._serve(link)
    with pytest.raises(RuntimeError, match="was not made"):
        limiter._ask(HIT, "k")
    with pytest.raises(RuntimeError, match="was not made"):
        limiter._ask_many([("k", 1)])
    with pytest.raises(RuntimeError, match="was not made"):
        limiter._change("reset", "k")


async def test_a_link_is_made_once_and_may_fail_to_be(store: Store) -> None:
    link = Link.__new__(Link)
    for _ in range(3):
        with pytest.raises(AttributeError):
            _core.Link.__init__(link, object(), "redis://nowhere")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Link.__init__(link, asyncio.get_running_loop(), "w", object())  # type: ignore[arg-type]
    link.__init__(asyncio.get_running_loop())  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="once"):
        link.__init__(asyncio.get_running_loop())  # type: ignore[misc]


# ---- costs that change the limiter


@pytest.mark.parametrize(
    "call",
    [
        lambda limiter, cost: limiter._ask(HIT, "k", cost),
        lambda limiter, cost: limiter._ask(HIT, "k", cost, [QUOTA]),
        lambda limiter, cost: limiter._ask_many([("a", 1), ("k", cost), ("b", 1)]),
        lambda limiter, cost: limiter._change("penalize", "k", cost),
        lambda limiter, cost: _core.ask_all([(limiter, "k", cost)]),
        lambda limiter, cost: _core.ask_all([(limiter, "a", 1), (limiter, "k", cost)]),
    ],
)
@pytest.mark.parametrize("change", ["nowhere", "elsewhere", "another table", "other numbers"])
async def test_a_cost_that_changes_the_limiter_is_an_error(
    store: Store, call: Callable[[Any, Any], Any], change: str
) -> None:
    limiter = limiter_of(store)

    def code() -> None:
        if change == "nowhere":
            limiter._serve(None)
        elif change == "elsewhere":
            other = _core.Server(Store(), "sg", "other", limiter.table)
            limiter._serve(other)
        elif change == "another table":
            quota = _core.Quota(5, 9, name="m", algorithm="sliding-log")
            limiter._rebind(_core.Table(["sliding-log", "gcra"]), [quota, QUOTA])
        else:
            limiter._rebind(limiter.table, [_core.Quota(1, 60, name="m")])
        gc.collect()

    with pytest.raises(RuntimeError, match="changed"):
        call(limiter, Cost(code))


async def test_a_cost_that_changes_another_limiter_of_hit_all(store: Store) -> None:
    one, two = limiter_of(store, "one"), limiter_of(store, "two")
    asked = _core.ask_all([(one, "k", 1), (two, "k", Cost(lambda: one._serve(None)))])
    await turn()
    store.link.feed(b"*4\r\n$-1\r\n$-1\r\n:1\r\n:%d\r\n" % NOW_US)
    decision, _ = await asked
    assert decision.allowed


# ---- limiters that change while they are asked


async def test_a_limiter_that_moves_on_gets_its_answer_all_the_same(store: Store) -> None:
    limiter = limiter_of(store)
    asked = [
        limiter._ask(HIT, "k"),
        limiter._ask_many([("a", 1), ("b", 1)]),
        limiter._ask(RESERVE, "k", 1, None, 5.0),
        limiter._change("reset", "k"),
    ]
    table = limiter.table
    limiter._serve(None)
    limiter._rebind(_core.Table(["gcra"]), [QUOTA])
    gc.collect()
    await turn()
    link = store.link
    assert link.flying == 5
    link.feed(b"*4\r\n" + 3 * b"$-1\r\n" + b":%d\r\n" % NOW_US + ADMITTED + b":%d\r\n" % NOW_US)
    decision, many, (_, ticket), nothing = await asyncio.gather(*asked)
    assert decision.allowed and all(many) and ticket.open and nothing is None
    assert ticket.settle(0) is None  # there it stays charged
    assert table.counters()["admitted"] == 4


async def test_a_server_outlives_what_waits(store: Store) -> None:
    """What keeps the order of a limiter's questions is the server's."""
    limiter = limiter_of(store)
    link = store.link
    asked = limiter._ask(HIT, "k")
    limiter._serve(None)
    del limiter
    gc.collect()
    await turn()
    link.feed(ADMITTED)
    assert (await asked).allowed


async def test_enabled_may_change_while_several_are_asked(store: Store) -> None:
    one, two = limiter_of(store, "one"), limiter_of(store, "two")
    two.enabled = False
    asked = _core.ask_all([(one, "k", 1), (two, "k", 1)])
    one.enabled, two.enabled = False, True
    await turn()
    store.link.feed(b"*3\r\n$-1\r\n:1\r\n:%d\r\n" % NOW_US)
    decision, index = await asked
    assert decision.allowed and index == 0


async def test_a_time_that_cannot_be_is_no_answer(store: Store) -> None:
    asked = _core.ask_all([(limiter_of(store), "k", 1)])
    await turn()
    store.link.feed(b"*3\r\n$-1\r\n:1\r\n:-5\r\n")
    with pytest.raises(StoreError, match="a reply that is none"):
        await asked


async def test_another_table_is_not_decided_by_the_server(store: Store) -> None:
    limiter = limiter_of(store)
    limiter._rebind(_core.Table(["gcra", "gcra"]), [QUOTA, QUOTA])
    assert limiter.server is None
    assert limiter.hit_nowait("k").allowed


# ---- a refusal that is remembered


@pytest.mark.parametrize("change", ["reset", "unban", "reward"])
async def test_what_was_given_back_is_not_refused_from_memory(store: Store, change: str) -> None:
    limiter = limiter_of(store, deny_cache=50.0)
    hit = limiter._ask(HIT, "k")
    back = limiter._change(change, "k")  # asked after it, so done after it
    await turn()
    store.link.feed(refused() + b":%d\r\n" % NOW_US)
    assert not await hit
    await back
    again = limiter._ask(HIT, "k")
    assert asyncio.isfuture(again)  # the server is asked
    await turn()
    store.link.feed(ADMITTED)
    assert (await again).allowed


# ---- who hears of it, and does something


def ways(store: Store, limiter: _core.Limiter, link: Link) -> dict[str, Callable[[], Any]]:
    def ask_again() -> None:
        limiter._ask(HIT, "again")

    def close() -> None:
        link.down = "closed by who heard of it"
        link.drop("closed")

    def fail() -> None:
        raise ValueError("on purpose")

    return {
        "closes": close,
        "loses": lambda: link.lost("lost"),
        "moves": lambda: limiter._serve(None),
        "asks": ask_again,
        "feeds": lambda: link.feed(b"+OK\r\n"),
        "expires": link.expire,
        "takes": link.take,
        "ends": lambda: store._router(asyncio.get_running_loop())._end(),
        "fails": fail,
    }


WAYS = ("closes", "loses", "moves", "asks", "feeds", "expires", "takes", "ends", "fails")


async def settle_down(link: Link, asked: list[Any]) -> list[Any]:
    """All that was asked, ended."""
    await turn()
    link.drop("the end")
    await turn()
    link.drop("the end")
    waiting = [answer for answer in asked if asyncio.isfuture(answer)]
    return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)


def happens(link: Link, limiter: _core.Limiter, event: str) -> list[Any]:
    """Something that all of those who were asked for hear of; what is asked besides."""
    if event == "answer":
        link.feed(b"*5\r\n" + 4 * b"$-1\r\n" + b":%d\r\n" % NOW_US)
        link.feed(b"*3\r\n$1\r\n!\r\n$-1\r\n:%d\r\n" % NOW_US)
    elif event == "late":
        link.expire()
    elif event == "lost":
        link.lost("gone")
    elif event == "error":
        link.feed(2 * b"-LOADING it loads\r\n")
    elif event == "down":
        link.down = "away " * 20
        return [limiter._ask(HIT, "k")]
    else:
        link.drop("gone")
    return []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("event", ["answer", "late", "lost", "down", "error", "drop"])
@pytest.mark.parametrize("by", ["observer", "log"])
async def test_who_hears_of_it_may_do_anything(
    observe: Callable[[Any], None], way: str, event: str, by: str
) -> None:
    for policy in POLICIES:
        store = Store()
        limiter = limiter_of(
            store, on_store_error=policy, timeout=1e-9 if event == "late" else 5.0, deny_cache=1.0
        )
        link = store.link
        busy = False

        def react(*_: object) -> None:
            nonlocal busy
            if not busy:
                busy = True
                try:
                    ways(store, limiter, link)[way]()  # noqa: B023  # called in this round
                finally:
                    busy = False

        asked: list[Any] = [
            limiter._ask(HIT, "k"),
            limiter._ask_many([("a", 1), ("b", 1)]),
            limiter._ask(HIT, "c", 1, None, 60.0, 1),
            limiter._ask(RESERVE, "r", 1, None, 5.0),
            limiter._ask(RESERVE, "r", 1, None, 5.0),
        ]
        await turn()
        asked.append(limiter._ask(HIT, "waits"))
        if by == "observer":
            observe(react)
        else:
            store.react = react
        with suppress(ValueError, StoreError, RuntimeError):
            asked += happens(link, limiter, event)
        observe(None)
        store.react = lambda: None
        for outcome in await settle_down(link, asked):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, StoreError | ValueError | RuntimeError), outcome


# ---- garbage


async def test_a_link_with_questions_in_flight_is_collected(store: Store) -> None:
    """Questions hold futures, whose callbacks may lead back to the link."""

    def make() -> list[weakref.ref[Any]]:
        mine = Store()
        limiter = limiter_of(mine)
        link = mine.link
        asked: list[Any] = [
            limiter._ask(HIT, "k"),
            limiter._ask_many([("a", 1), ("b", 1)]),
            limiter._ask_many([("c", 1)]),
            _core.ask_all([(limiter, "k", 1), (limiter, "a", 1)]),
            limiter._change("reset", "k"),
            limiter._fetch("k"),
            link.command(("PING",), 5.0),
        ]
        link._flush()
        assert link.flying == 8
        for future in asked:
            future.add_done_callback(lambda _, held=(asked, mine, limiter): held)
        return [weakref.ref(link), weakref.ref(limiter), *map(weakref.ref, asked)]

    gone = make()
    await turn()  # the loop held the flush
    await turn()
    gc.collect()
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


async def test_a_router_with_questions_put_off_is_collected() -> None:
    def make() -> list[weakref.ref[Any]]:
        mine = Store()
        limiter = limiter_of(mine)
        asked = limiter._ask(HIT, "k")
        mine.link._flush()
        mine.link.feed(b"-TRYAGAIN it moves\r\n")
        router = mine._router(asyncio.get_running_loop())
        assert router.laters == 1
        asked.add_done_callback(lambda _, held=(asked, mine): held)
        return [weakref.ref(router), weakref.ref(asked), weakref.ref(limiter)]

    gone = make()
    await turn()
    await turn()
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


async def test_a_link_ends_in_the_midst_of_an_exception(store: Store) -> None:
    link = Link(asyncio.get_running_loop())
    future = link.command(("PING",), 5.0)
    await turn()
    assert link.flying == 1
    link.__dict__.clear()

    def last() -> None:
        mine = [link_box.pop()]
        mine[0] = None  # type: ignore[call-overload]
        raise KeyError("mine")

    link_box: list[Any] = [link]
    del link
    with pytest.raises(KeyError, match="mine"):
        last()
    gc.collect()
    with pytest.raises(StoreError, match="its loop is gone"):
        await future


async def test_slots_change_hands_while_questions_are_sent(store: Store) -> None:
    """The last reference to a link goes where its slots are given away: what waited there fails,
    and who hears of it gives slots away too."""
    loop = asyncio.get_running_loop()
    router: Router = store._router(loop)
    limiter = limiter_of(store, on_store_error="allow")
    router._assign(0, 16383, Link(loop, router))
    asked = [limiter._ask(HIT, f"k{n}") for n in range(20)]
    await turn()

    def react() -> None:
        router._assign(0, 16383, Link(loop, router))
        asked.append(limiter._ask(HIT, "again"))
        router._end()

    store.react = react
    router._assign(0, 16383, None)
    for _ in range(3):  # what is asked in the midst of one end needs another
        await turn()
        gc.collect()
    store.react = lambda: None
    outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert all(isinstance(outcome, _core.Decision | Exception) for outcome in outcomes)
    for first, last in [(5, 4), (0, 16384), (16384, 16384)]:
        with pytest.raises(ValueError, match="slots are"):
            router._assign(first, last, None)


# ---- the end of a stream


@pytest.mark.parametrize("last", [b"*2\r\n$100\r\nabc", b"nonsense\r\n"])
async def test_what_one_connection_said_is_nothing_to_the_next(last: bytes) -> None:
    """A server that stops in the middle of a reply, or says what is none, and then is well."""
    peers: list[Any] = []
    ended = asyncio.Event()

    class Peer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            peers.append(self)

        def data_received(self, data: bytes) -> None:
            if b"return 1" in data:  # it greets: PING, and a script
                self.transport.write(b"+PONG\r\n:1\r\n")
            else:
                self.transport.write(last if self is peers[0] else ADMITTED)

        def connection_lost(self, error: Exception | None) -> None:
            if self is peers[-1]:
                ended.set()

    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RedisStore(f"redis://127.0.0.1:{port}") as store:
        limiter = Limiter("60/minute", store=store, name="n", timeout=0.2)
        with pytest.raises(StoreError, match=r"in time|ended before its reply"):
            await limiter.hit("k")
        for _ in range(500):
            with suppress(StoreError):
                assert (await limiter.hit("k")).allowed
                break
            await asyncio.sleep(0.02)
    await asyncio.wait_for(ended.wait(), 5)
    server.close()
    await server.wait_closed()
    assert len(peers) == 2
