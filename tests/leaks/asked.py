"""Asks a server that is not there, in every way that a question can end, and nothing is kept.

python tests/leaks/asked.py [ROUNDS]     (a round is some 60 questions; see everything.py)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import everything

sys.path.append(str(Path(__file__).parent.parent))

from redis_store.wire import ADMITTED, NOW_US, Link, Router, Store, limiter_of, refused
from sluicegate import StoreError, _core

HIT, PEEK, RESERVE = 1, 0, 2
TIME = b":%d\r\n" % NOW_US


class Loop:
    """As much of a loop as a link wants; nothing runs on it."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *_: Any, **__: Any) -> None: ...

    def create_future(self) -> Any:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]


LOOP: Any = Loop()
STORE = Store()
_core.set_running_loop(lambda: LOOP)
LINK = STORE._router(LOOP).link
LIMITERS = {
    policy: limiter_of(STORE, f"n{policy}", on_store_error=policy, deny_cache=deny)
    for policy, deny in [("raise", 0.0), ("allow", 50.0), ("deny", 0.0), ("local", 0.0)]
}
LIMITER = LIMITERS["raise"]


def outcome(future: Any) -> Any:
    """What it came to; a future's exception is looked at, for else it would be told of."""
    if not hasattr(future, "done"):
        return future
    assert future.done()
    if future.cancelled():
        return None
    return future.exception() or future.result()


def answered(asked: list[Any], reply: bytes) -> list[Any]:
    LINK._flush()
    LINK.sent = b""
    LINK.feed(reply)
    return [outcome(future) for future in asked]


def admitted() -> None:
    answered([LIMITER._ask(HIT, "k")], ADMITTED)
    answered([LIMITER._ask(HIT, "\ud800", {"m": 2}, [None], 60.0, 1)], ADMITTED)
    answered([LIMITER._ask(PEEK, b"k", 1)], ADMITTED)
    answered(
        [LIMITER._ask_many([("a", 1), ("b", {"m": 2}), ("c", 0)])],
        b"*4\r\n" + 3 * b"$-1\r\n" + TIME,
    )
    answered(
        [_core.ask_all([(LIMITER, "a", 1), (LIMITERS["deny"], "a", 1), (LIMITER, "a", 2)])],
        b"*4\r\n$-1\r\n$-1\r\n:1\r\n" + TIME,
    )


def refusals() -> None:
    for limiter in LIMITERS.values():
        (decision,) = answered([limiter._ask(HIT, f"{limiter.table}")], refused())
        assert not decision
    remembering = LIMITERS["allow"]
    assert not outcome(remembering._ask(HIT, f"{remembering.table}"))
    remembering._ask_many([(f"{remembering.table}", 1)] * 3)
    answered([remembering._change("reset", f"{remembering.table}")], TIME)


def reservations() -> None:
    ((_, ticket),) = answered([LIMITER._ask(RESERVE, "r", 2, None, 5.0)], ADMITTED)
    assert ticket.open and ticket.reserved == (2,)
    answered([ticket.settle({"m": 1})], TIME)
    assert ticket.settle(1) is None
    answered([LIMITER._ask(RESERVE, "r", 2, None, 5.0)], ADMITTED)  # never settled


def changes() -> None:
    for operation, argument in [
        ("penalize", {"m": 2}),
        ("reward", 1),
        ("ban", 5.0),
        ("unban", None),
    ]:
        answered([LIMITER._change(operation, "k", argument)], TIME)
    answered([LIMITER._change("reset", "k")], b"$1\r\n!\r\n")
    (fetched,) = answered([LIMITER._fetch("k")], ADMITTED)
    LIMITER._foretell(fetched, [1, {"m": 2}])
    server: Any = LIMITER.server
    answered([server.slots("count", bytes(16), 5, ["a", "b"], [], 5.0)], b"*2\r\n:1\r\n:1\r\n")
    answered([LINK.command(("PING", b"x", 5), 5.0)], b"*2\r\n+x\r\n*1\r\n-ERR\r\n")
    server.key("k")
    server.forget()


def failures() -> None:
    for limiter in LIMITERS.values():
        for end in (
            lambda: LINK.feed(b"-ERR x\r\n"),
            lambda: LINK.feed(b"*2\r\n$1\r\n!\r\n" + TIME),
            lambda: LINK.feed(b"nonsense\r\n"),
            lambda: LINK.lost("gone"),
            lambda: LINK.drop("dropped"),
            lambda: LINK.feed(b"-MOVED 1 a:1\r\n") or LINK.drop("moved"),
            lambda: LINK.feed(b"-NOSCRIPT x\r\n") or LINK._flush() or LINK.drop("unknown"),
        ):
            asked = [limiter._ask(HIT, "k")]
            LINK._flush()
            end()
            outcome(asked[0])
            LINK.sent = b""
        asked = [limiter._ask_many([("a", 1), ("b", 1)]), limiter._ask(RESERVE, "k")]
        LINK.drop("unsent")
        for future in asked:
            outcome(future)
        LINK.down = "away"
        with suppress(StoreError):
            limiter._ask(HIT, "k")
        with suppress(StoreError):
            limiter._ask_many([("k", 1), ("k", 1)])
        LINK.down = None
        answered([limiter._ask(HIT, "k")], ADMITTED)
        answered([LIMITER._ask(HIT, "k")], ADMITTED)
    STORE.heard.clear()


def cancelled() -> None:
    before, after = LIMITER._ask(HIT, "k"), LIMITER._ask(HIT, "k")
    before.cancel()
    LINK._flush()
    after.cancel()
    LINK.feed(ADMITTED)
    many = LIMITER._ask_many([("a", 1), ("b", 1)])
    many.cancel()
    LINK.sent = b""
    answered([many], b"*3\r\n$-1\r\n$-1\r\n" + TIME)


def torn_down() -> None:
    """With questions in flight, and in a circle."""
    mine = Store()
    _core.set_running_loop(lambda: LOOP)
    limiter = limiter_of(mine, on_store_error="local")
    link = mine._router(LOOP).link
    asked: list[Any] = [
        limiter._ask(HIT, "k"),
        limiter._ask_many([("a", 1), ("b", 1)]),
        _core.ask_all([(limiter, "k", 1)]),
        link.command(("PING",), 5.0),
    ]
    link._flush()
    asked.append(limiter._ask(HIT, "waits"))
    link.feed(b"-TRYAGAIN x\r\n")
    asked[0].circle = asked if hasattr(asked[0], "__dict__") else None
    asked[0].add_done_callback(lambda _: (asked, mine, limiter))
    mine.react = lambda: limiter
    mine.routers[Loop()] = Router(LOOP)
    mine._router(LOOP)._assign(0, 100, Link(LOOP))


def errors() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: LIMITER._ask(HIT, 5),  # type: ignore[arg-type]
        lambda: LIMITER._ask(HIT, "k", {"x": 1}),
        lambda: LIMITER._ask(HIT, "k", 1, [None, None]),
        lambda: LIMITER._ask(7, "k"),
        lambda: LIMITER._ask(RESERVE, "k", 1, None, -1.0),
        lambda: LIMITER._ask_many([("k", 1), ("k", -1)]),
        lambda: LIMITER._ask_many([("k", 1), "k"]),  # type: ignore[list-item]
        lambda: LIMITER._change("nothing", "k"),
        lambda: LIMITER._change("ban", "k", -1),
        lambda: LIMITER._foretell([], [1]),
        lambda: _core.ask_all([]),
        lambda: _core.ask_all([(LIMITER, "k", 1), (LIMITER, "k", -1)]),
        lambda: _core.ask_all([(LIMITER, "k", 1), (everything.LIMITER, "k", 1)]),
        lambda: LINK.command((), 5.0),
        lambda: LINK.command((b"x", None), 5.0),  # type: ignore[arg-type]
        lambda: LINK.command(("x",), -5.0),
        lambda: LINK.feed("x"),  # type: ignore[arg-type]
        lambda: _core.Server(STORE, "\ud800", 5, LIMITER.table),  # type: ignore[arg-type]
        lambda: LIMITER.server.slots("x", b"", 1, ["k"], [], 5.0),  # type: ignore[union-attr]
    ]
    for call in calls:
        try:
            call()
        except (TypeError, ValueError, RuntimeError, StoreError):
            continue
        raise AssertionError("no error came")


EVERYTHING = (
    admitted, refusals, reservations, changes, failures, cancelled, torn_down, errors,
)  # fmt: skip

if __name__ == "__main__":
    everything.EVERYTHING = EVERYTHING
    sys.exit(everything.main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
