"""What comes over the wire is cut, junk, endless, nested, out of order, doubled, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from redis_servers import behaviours
from redis_servers.behaviours import Behaviour
from redis_servers.kinds import KINDS
from redis_servers.proxy import Proxy
from redis_servers.server import Server
from redis_store.watching import MARGIN, eventually, outcomes, tries, watched
from sluicegate import ConcurrencyLimiter, Decision, Limiter, RedisStore, StoreError, hit_all

pytestmark = [
    pytest.mark.server,
    # it is the proxy that answers
    pytest.mark.parametrize("redis_kind", KINDS[:1], indirect=True, scope="session"),
]

TIMEOUT = 0.5


@pytest.fixture
def proxy(redis_server: Server, proxy_to: Callable[..., Proxy]) -> Proxy:
    return proxy_to(redis_server.port)


def store_behind(proxy: Proxy, **options: Any) -> RedisStore:
    given: dict[str, Any] = {"timeout": TIMEOUT} | options
    return RedisStore(f"redis://127.0.0.1:{proxy.port}", **given)


def limiter_over(store: RedisStore, quotas: Any = "1000/day", **options: Any) -> Limiter:
    given: dict[str, Any] = {"name": "wire", "timeout": TIMEOUT} | options
    return Limiter(quotas, store=store, **given)


KEYS = ("a", "b", "c")


async def batch(limiter: Limiter) -> list[Any]:
    return await outcomes([limiter.hit(key) for key in KEYS], limiter.timeout + MARGIN)


def told(line: str, *words: str) -> bool:
    return all(word in line for word in words)


async def reply_length(proxy: Proxy, limiter: Limiter) -> int:
    """Of the reply to a batch, once the scripts are known."""
    await batch(limiter)
    await batch(limiter)
    await asyncio.sleep(0.05)  # the proxy counts what it has sent a moment later
    before = proxy.replied
    await batch(limiter)
    await eventually(lambda: proxy.replied > before, "no reply passed")
    return proxy.replied - before


@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
async def test_a_reply_cut_at_every_byte(
    redis_server: Server, proxy: Proxy, by_reset: bool
) -> None:
    """A check whose reply was lost says so, and is charged once; never twice."""
    store = store_behind(proxy)
    async with watched(store) as watch:
        limiter = limiter_over(store, timeout=5)
        length = await reply_length(proxy, limiter)
        assert length > 20
        charged, lost = 3, 0
        for after in range(length):
            assert await tries(lambda: limiter.peek("a"))
            proxy.behave(behaviours.Cut(after, by_reset))
            found = await batch(limiter)
            proxy.behave(behaviours.Pass())
            assert all(isinstance(one, StoreError) for one in found), (after, found)
            assert all(told(str(one), f"127.0.0.1:{proxy.port}", "not known") for one in found)
            charged += 1
            lost += 1
        seen = await tries(lambda: limiter.peek("a"))
        print(f"{length} cuts: {lost} batches lost, {1000 - seen.remaining} charged")
        assert 1000 - seen.remaining == charged
        assert len(watch.lines) == 2 * length, watch.lines[:4]


async def test_a_reply_that_stops_at_every_byte(redis_server: Server, proxy: Proxy) -> None:
    """What was read of it is not taken for the beginning of what another connection brings."""
    store = store_behind(proxy, timeout=2)
    async with watched(store):
        limiter = limiter_over(store, timeout=0.1)
        length = await reply_length(proxy, limiter)
        for after in range(1, length, 5):
            before = await tries(lambda: limiter.peek("a"))
            proxy.behave(Stop(after))
            found = await batch(limiter)
            assert all(isinstance(one, StoreError) for one in found), (after, found)
            proxy.behave(behaviours.Pass())
            after_it = await tries(lambda: limiter.peek("a"))
            assert before.remaining - after_it.remaining == 1


@dataclass
class Stop(Behaviour):
    """Passes `after` bytes of replies, and then no more."""

    after: int

    def reply(self, data: bytes) -> bytes:
        kept = data[: self.after]
        self.after -= len(kept)
        return kept


async def test_peeks_whose_reply_is_lost_are_asked_again(proxy: Proxy) -> None:
    store = store_behind(proxy, timeout=5)
    async with watched(store):
        limiter = limiter_over(store, timeout=5)
        assert await limiter.hit("a")
        proxy.behave(behaviours.LoseReplies())
        requested = proxy.requested
        asked = [asyncio.ensure_future(limiter.peek("a")) for _ in range(5)]
        asked.append(asyncio.ensure_future(limiter.hit("a")))
        await eventually(lambda: proxy.requested > requested, "nothing was sent")
        await asyncio.sleep(0.05)
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        *seen, lost = await outcomes(asked, 5 + MARGIN)
        assert isinstance(lost, StoreError) and "not known" in str(lost)
        assert [one.remaining for one in seen] == [998] * 5


JUNK = {
    "text": b"this is no Redis at all\r\n",
    "zeros": b"\0" * 300,
    "high bytes": bytes(range(128, 256)) * 3,
    "newlines": b"\r\n" * 100,
    "http": b"HTTP/1.1 200 OK\r\n\r\n",
    "another type": b"+OK\r\n",
    "a number": b":7\r\n",
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "nothing in it": b"*0\r\n",
    "one too few": b"*3\r\n$-1\r\n$-1\r\n:1\r\n",
    "one too many": b"*5\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n:1\r\n",
    "time below zero": b"*4\r\n$-1\r\n$-1\r\n$-1\r\n:-1\r\n",
    "nested": b"*4\r\n*1\r\n$-1\r\n$-1\r\n$-1\r\n:1\r\n",
    "a length below zero": b"$-2\r\n",
    "an array of a length below zero": b"*-9\r\n",
    "a length that is none": b"$abc\r\n\r\n",
    "a length that overflows": b"$99999999999999999999999\r\n",
    "an array that overflows": b"*99999999999999999999999\r\n",
    "a huge array": b"*2147483647\r\n" + b":1\r\n" * 10000,
    "a number that overflows": b"*4\r\n$-1\r\n$-1\r\n$-1\r\n:99999999999999999999999\r\n",
    "a text longer than said": b"$2\r\nabcdef\r\n",
    "resp3 push": b">2\r\n+a\r\n+b\r\n",
    "resp3 null": b"_\r\n",
    "resp3 map": b"%1\r\n+a\r\n+b\r\n",
}


@pytest.mark.parametrize("name", JUNK)
async def test_junk(redis_server: Server, proxy: Proxy, name: str) -> None:
    """No check is decided by it, and the next connection knows nothing of it."""
    store = store_behind(proxy)
    async with watched(store) as watch:
        limiter = limiter_over(store)
        assert all(await batch(limiter))
        proxy.behave(behaviours.Replace(JUNK[name]))
        found = await batch(limiter)
        assert all(isinstance(one, StoreError) for one in found), found
        again = await batch(limiter)
        assert all(isinstance(one, StoreError) for one in again), again
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert await tries(lambda: limiter.hit("a"))
        assert all(await batch(limiter))
        assert len(watch.lines) == 2, watch.lines


ERRORS = {
    "an error": b"-ERR no\r\n",
    "an empty error": b"-\r\n",
    "an error of odd bytes": b"-\xff\xfe\x00 \xc3\r\n",
    "a long error": b"-ERR " + b"x" * 100_000 + b"\r\n",
    "no script for ever": b"-NOSCRIPT No matching script.\r\n",
    "moved to nowhere": b"-MOVED\r\n",
    "moved by junk": b"-MOVED 99999999 :::\r\n",
    "moved elsewhere": b"-MOVED 1 127.0.0.1:1\r\n",
    "ask": b"-ASK 1 127.0.0.1:1\r\n",
    "try again": b"-TRYAGAIN\r\n",
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors_without_end(redis_server: Server, proxy: Proxy, name: str) -> None:
    """A server that answers each command with it: nothing is asked for ever."""
    store = store_behind(proxy)
    async with watched(store):
        limiter = limiter_over(store)
        assert all(await batch(limiter))
        proxy.behave(Answering(ERRORS[name]))
        begin = time.monotonic()
        found = await batch(limiter)
        assert time.monotonic() - begin < TIMEOUT + MARGIN
        assert all(isinstance(one, StoreError) and len(str(one)) < 1000 for one in found), found
        proxy.behave(behaviours.Pass())
        assert await tries(lambda: limiter.hit("a"))


@dataclass
class Answering(Behaviour):
    """Each command (of ours: one a request) is answered by `data`; the server hears of none."""

    data: bytes
    asked: int = 0

    def request(self, data: bytes) -> bytes:
        # each begins with its number of words, and none of the texts has one of these
        self.asked += sum(data.count(b"*%d\r\n$" % words) for words in range(1, 60))
        return b""

    def more(self) -> bytes:
        given, self.asked = self.data * self.asked, 0
        return given


@pytest.mark.parametrize("what", ["text", "array", "status", "bomb"])
async def test_replies_that_never_end(redis_server: Server, proxy: Proxy, what: str) -> None:
    """What comes is given up, at the latest when the check is; what it takes is bounded."""
    endless = {
        "text": behaviours.endless_text(),
        "array": behaviours.Endless(b"*2000000000\r\n", b":1\r\n" * 10000),
        "status": behaviours.Endless(b"+", b"x" * 65536),
        "bomb": behaviours.nested_bomb(),
    }[what]
    store = store_behind(proxy)
    async with watched(store):
        limiter = limiter_over(store)
        assert all(await batch(limiter))
        proxy.behave(endless)
        found = await batch(limiter)
        assert all(isinstance(one, StoreError) for one in found), found
        for _ in range(5):
            found = await batch(limiter)
            assert all(isinstance(one, StoreError) for one in found), found
            await asyncio.sleep(0.05)
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert await tries(lambda: limiter.hit("a"))


async def test_replies_out_of_order(redis_server: Server, proxy: Proxy) -> None:
    """Of two commands in flight each gets the other's reply. Where that shows (another number of
    checks, another kind of state) nothing is decided by it and the connection ends."""
    store = store_behind(proxy)
    async with watched(store):
        one = limiter_over(store, "5/day", name="one")
        other = limiter_over(store, "1000/day using sliding-log", name="other")
        assert await one.hit("k", 5) and await other.hit("k")
        assert not await one.hit("k")
        proxy.behave(behaviours.reversed_by(2))
        found = await outcomes(
            [one.hit("k"), *(other.hit(f"k{number}") for number in range(3))], TIMEOUT + MARGIN
        )
        assert all(isinstance(each, StoreError) for each in found), found
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert not await tries(lambda: one.hit("k"))


async def test_replies_that_come_twice(redis_server: Server, proxy: Proxy) -> None:
    """Once by once it shows at the second, which answers nothing: the connection is ended, and
    what was decided stands."""
    store = store_behind(proxy)
    async with watched(store):
        limiter = limiter_over(store, "1000/day")
        assert await limiter.hit("a")
        proxy.behave(behaviours.doubled())
        found = await batch(limiter)
        decided = [one for one in found if isinstance(one, Decision)]
        assert all(one.allowed and one.remaining >= 998 for one in decided)
        await asyncio.sleep(0.05)
        assert isinstance((await outcomes([limiter.hit("a")], TIMEOUT + MARGIN))[0], StoreError)
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert (await tries(lambda: limiter.hit("a"))).remaining == 997


async def test_a_stall_and_its_end(redis_server: Server, proxy: Proxy) -> None:
    """Replies that come after their time belong to nobody, and shift none."""
    store = store_behind(proxy, timeout=2)
    async with watched(store):
        hasty = limiter_over(store, "1000/day", timeout=0.15)
        patient = limiter_over(store, "1000/day", timeout=2)
        assert await patient.hit("a", 10) and await patient.hit("b", 20)
        proxy.behave(behaviours.Delay(0.4))
        late = asyncio.ensure_future(hasty.hit("a"))
        await asyncio.sleep(0)
        kept = asyncio.ensure_future(patient.peek("b"))
        found = await outcomes([late, kept], 2 + MARGIN)
        assert isinstance(found[0], StoreError) and "in time" in str(found[0])
        assert found[1].remaining == 980
        proxy.behave(behaviours.Pass())
        assert (await tries(lambda: patient.peek("a"))).remaining == 989


@pytest.mark.parametrize(
    "behaviour", [behaviours.Stall(), behaviours.HalfOpen(), behaviours.LoseReplies()], ids=repr
)
async def test_an_open_connection_that_falls_silent(
    redis_server: Server, proxy: Proxy, behaviour: Behaviour
) -> None:
    """It is left for a new one, though nobody closed it."""
    store = store_behind(proxy)
    async with watched(store) as watch:
        limiter = limiter_over(store, on_store_error="local")
        assert not (await limiter.hit("a")).degraded
        proxy.behave(behaviour, connection=1)
        found = await batch(limiter)
        assert all(one.degraded and one.allowed for one in found)
        assert not (await tries(lambda: limiter.hit("a"))).degraded
        assert proxy.connections == 2
        assert len(watch.lines) == 2
        proxy.close_connections()


@pytest.mark.parametrize("behaviour", [behaviours.Cut(30), Stop(30)], ids=repr)
async def test_all_that_can_be_asked(
    redis_server: Server, proxy: Proxy, behaviour: Behaviour
) -> None:
    """Every operation fails as one, in time, with a StoreError."""
    store = store_behind(proxy)
    async with watched(store):
        limiter = limiter_over(store)
        slots = ConcurrencyLimiter(5, store=store, name="slots")
        slot = await slots.acquire("a")
        assert slot is not None
        reservation = await limiter.reserve("a", 5)
        asks: list[Callable[[], Any]] = [
            lambda: limiter.hit("a"),
            lambda: limiter.peek("a"),
            lambda: limiter.check("a"),
            lambda: limiter.hit_many([("a", 1), ("b", 1)]),
            lambda: hit_all((limiter, "a", 1), (limiter, "b", 1)),
            lambda: limiter.wait("a", timeout=1),
            lambda: limiter.reserve("a", 1),
            lambda: reservation.settle(1),
            lambda: limiter.penalize("a", 1),
            lambda: limiter.reward("a", 1),
            lambda: limiter.ban("a", 1),
            lambda: limiter.unban("a"),
            lambda: limiter.reset("a"),
            lambda: slots.acquire("a"),
            lambda: slots.count("a"),
            lambda: store.clear(),
        ]
        for number, ask in enumerate(asks):
            proxy.behave(behaviour)
            proxy.close_connections()
            found = await outcomes([ask()], TIMEOUT * 3 + MARGIN)
            assert isinstance(found[0], StoreError), (number, found)
            proxy.behave(behaviours.Pass())
            proxy.close_connections()
            assert await tries(lambda: limiter.peek("other"))
        assert await limiter.hit("a")
        await slots.release(slot)


@pytest.mark.parametrize("data", [b":7\r\n", b"*0\r\n", b"*2\r\n$1\r\nx\r\n+y\r\n"], ids=repr)
async def test_odd_replies_to_all_that_can_be_asked(
    redis_server: Server, proxy: Proxy, data: bytes
) -> None:
    """Well-formed, and none to what was asked: where that can be seen it is a StoreError."""
    store = store_behind(proxy)
    async with watched(store):
        limiter = limiter_over(store)
        slots = ConcurrencyLimiter(5, store=store, name="slots", ttl=60)
        reservation = await limiter.reserve("a", 5)
        proxy.behave(Answering(data))
        for number, ask in enumerate(
            [
                lambda: limiter.hit("a"),
                lambda: limiter.hit_many([("a", 1), ("b", 1)]),
                lambda: hit_all((limiter, "a", 1), (limiter, "b", 1)),
                lambda: limiter.reserve("a", 1),
                lambda: limiter.wait("a", timeout=0.1),
                lambda: asyncio.gather(*(limiter.wait("a", timeout=0.1) for _ in range(2))),
                lambda: slots.count("a"),
                lambda: slots.acquire("a"),
                lambda: store.clear(),
                lambda: reservation.settle(1),
                lambda: limiter.reset("a"),
            ]
        ):
            found = await outcomes([ask()], TIMEOUT * 3 + MARGIN)
            if number >= 9 and data == b":7\r\n":
                continue  # the time, as the server replies it to a change
            assert isinstance(found[0], StoreError), (number, found)
            await asyncio.sleep(0.25 if store_is_down(store) else 0)
        proxy.behave(behaviours.Pass())
        proxy.close_connections()
        assert await tries(lambda: limiter.hit("a"))


def store_is_down(store: RedisStore) -> bool:
    return any(one.down for router in store._routers.values() for one in router.connections())
