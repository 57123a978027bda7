"""Makes each allocation of CPython's fail in turn while a server is asked, and while its answer is
read: it comes out as MemoryError (of the call, or of the future) or as nothing, never as a crash,
and all that was asked ends. Needs _testcapi."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import asked
import no_memory
from asked import HIT, LIMITER, LIMITERS, LINK, LOOP, PEEK, RESERVE, STORE, TIME

from sluicegate import _core

FUTURES: list[Any] = []
create_future = LOOP.create_future


def kept_future() -> Any:
    future = create_future()
    FUTURES.append(future)
    return future


def exchange(ask: Callable[[], Any], reply: bytes) -> None:
    ask()
    LINK._flush()
    LINK.feed(reply)


ASKED: list[tuple[Callable[[], Any], bytes]] = [
    (lambda: LIMITER._ask(HIT, "k"), asked.ADMITTED),
    (lambda: LIMITER._ask(HIT, "\ud800", {"m": 2}, [None], 60.0, 1), asked.ADMITTED),
    (lambda: LIMITER._ask(PEEK, b"k"), asked.refused()),
    (lambda: LIMITER._ask(RESERVE, "k", 1, None, 5.0), asked.ADMITTED),
    (lambda: LIMITERS["allow"]._ask(HIT, "k", 1, None, 60.0, 1), asked.refused()),
    (lambda: LIMITER._ask_many([("a", 1), ("\ud800", 1)]), b"*3\r\n$-1\r\n$-1\r\n" + TIME),
    (lambda: _core.ask_all([(LIMITER, "a", 1), (LIMITERS["deny"], "a", 1)]),
     b"*4\r\n$-1\r\n$-1\r\n:1\r\n" + TIME),
    (lambda: LIMITER._change("penalize", "k", {"m": 1}), TIME),
    (lambda: LIMITER._fetch("k"), b"*2\r\n$9\r\n123456789\r\n" + TIME),
    (lambda: LINK.command(("PING", 5), 5.0), b"*4\r\n+x\r\n*1\r\n-ERR\r\n$1\r\nx\r\n" + TIME),
    (lambda: LIMITER.server.slots("count", bytes(16), 5, ["a"], [1], 5.0), b"*1\r\n:1\r\n"),  # type: ignore[union-attr]
    *[
        (partial(limiter._ask, RESERVE, "k", 1, None, 5.0), reply)
        for limiter in LIMITERS.values()
        for reply in (b"-ERR x\r\n", b"nonsense\r\n", b"*2\r\n$1\r\n!\r\n" + TIME)
    ],
    (lambda: LIMITER._ask(HIT, "k"), b"-MOVED 1 a:1\r\n"),
    (lambda: LIMITER._ask(HIT, "k"), b"-TRYAGAIN\r\n"),
]  # fmt: skip
CALLS: list[Callable[[], Any]] = [
    *[partial(exchange, ask, reply) for ask, reply in ASKED],
    lambda: asked.Link(LOOP),
    lambda: asked.Router(LOOP)._assign(0, 5, LINK),
    lambda: asked.limiter_of(STORE, on_store_error="local"),
]


def all_ended() -> None:
    LINK.drop("the end")
    LINK.down = None
    LINK.sent = b""
    STORE._router(LOOP)._again()
    LINK.drop("the end")
    for future in FUTURES:
        asked.outcome(future)
    FUTURES.clear()


def main() -> int:
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None  # the store hears of nothing where there is no memory
    LOOP.create_future = kept_future
    failed = no_memory.fail_each(CALLS, all_ended)
    del LOOP.create_future
    for work in asked.EVERYTHING:
        work()
    print(failed, "allocations failed as MemoryError")
    return int(failed == 0)


if __name__ == "__main__":
    sys.exit(main())
