"""Calls everything of the extension, the errors too, and shows that nothing is kept.

    python tests/leaks/everything.py [ROUNDS]

Under a debug build of CPython it watches the sum of all reference counts, else the
resident memory of the process. Ends with 1 if either grows.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from sluicegate import StoreError, _core

QUOTA = _core.Quota(5, 60, name="m")
SIZE = _core.Quota(500, 60, name="b")
CLOCK = _core.Clock()


def table(*algorithms: str, **more: Any) -> _core.Table:
    return _core.Table(algorithms or ("gcra", "gcra"), clock=CLOCK, **more)


LIMITER = _core.Limiter(table(), [QUOTA, SIZE])
FULL = _core.Limiter(table(max_keys=1, on_full="raise"), [QUOTA, SIZE])
FULL.ban_nowait("somebody", 3e8)
SLOTS = _core.Slots(_core.Table([]), 2)
DECISION = LIMITER.hit_nowait("k")


def shared_path() -> str:
    """Of a file that the end of this process removes."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    made = tempfile.TemporaryDirectory(dir=where, prefix="sluicegate-leaks-")
    KEPT.append(made)
    return os.path.join(made.name, "file")


KEPT: list[Any] = []
PATH = shared_path()
FILE = _core.SharedFile(PATH, 4 << 20)


def shared_table(name: str, *algorithms: str, **more: Any) -> _core.Table:
    return _core.Table(algorithms, clock=CLOCK, shared=FILE, name=name, **more)


SHARED = _core.Limiter(shared_table("rates", "gcra", "sliding-log"), [
    QUOTA, _core.Quota(500, 60, name="b", algorithm="sliding-log")
])  # fmt: skip
SHARED_SLOTS_TABLE = shared_table("slots")
SHARED_SLOTS = _core.Slots(SHARED_SLOTS_TABLE, 2)


def values() -> None:
    quota = _core.Quota(7, 60.0, burst=9, name="q")
    assert quota == _core.Quota(7, 60.0, burst=9, name="q") and hash(quota) and repr(quota)
    quota.__getnewargs_ex__()
    decision = _core.Decision(False, quota=quota, retry_after=1.5)
    assert decision == _core.Decision(False, quota=quota, retry_after=1.5) and hash(decision)
    decision.__getnewargs_ex__()
    assert repr(decision) and decision.as_dict() and decision.quota is quota
    assert (decision.limit, decision.remaining, decision.retry_after) == (7, 0, 1.5)
    _core.fingerprint(bytes(16), "\ud800")
    clock = _core.Clock(5.0)
    clock.ns += 1
    assert clock.time() and repr(clock)


def hits() -> None:
    for key in ("k", b"k", "é", "\ud800", "".join(("u", "ser"))):
        LIMITER.hit_nowait(key)
    LIMITER.hit_nowait("k", 3)
    LIMITER.hit_nowait(key="k", cost={"b": 3})
    LIMITER.hit_nowait("k", quotas=[_core.Quota(9, 60), None])
    LIMITER.peek_nowait("k", {"m": 2}).as_dict()
    LIMITER.hit_many_nowait([("a", 1), (b"b", {"m": 2}), ("c", 9)])
    _core.hit_all_nowait([(LIMITER, "a", 1), (FULL, "somebody", 1), (LIMITER, "a", 2)])
    _core.hit_all_nowait([(LIMITER, f"{CLOCK.ns % 50}", 1), (LIMITER, "z", 0)])
    LIMITER.project_nowait("k", [1, {"b": 2}])
    CLOCK.ns += 1_000_000_000


def others() -> None:
    LIMITER.penalize_nowait("p", 2)
    LIMITER.reward_nowait("p", 1)
    LIMITER.ban_nowait("p", 5)
    LIMITER.unban_nowait("p")
    LIMITER.reset_nowait("p")
    decision, receipt = LIMITER.reserve_nowait("r", 2)
    if receipt is not None:
        assert receipt.reserved and receipt.open and decision
        receipt.settle_nowait(1)
        receipt.settle_nowait({"m": 0})
    LIMITER.reserve_nowait("r")
    LIMITER.reset_nowait("r")
    handle = LIMITER.bind("h")
    handle.hit_nowait()
    handle.hit_nowait(cost=2)
    handle.peek_nowait({"b": 2})
    assert handle.key == "h" and handle.limiter is LIMITER and len(LIMITER.quotas) == 2
    LIMITER.table.counters()
    LIMITER.table.top(3, refused=True)
    one, two = SLOTS.acquire_nowait("s"), SLOTS.acquire_nowait("s")
    assert SLOTS.acquire_nowait("s") is None and one is not None and two is not None
    one.release_nowait()
    two.release_nowait()
    SLOTS.acquire_nowait("forgotten")
    SLOTS.count_nowait("s")


HTTP: dict[str, Any] = {"path": "/", "client": ("127.0.0.1", 1), "name": "somebody"}
MESSAGE = {"type": "websocket.receive"}
START = {"type": "http.response.start", "headers": [(b"RateLimit", b"own"), [b"x", b"y"]]}
NOBODY = _core.Limiter(table("gcra"), [QUOTA])


def five(who: str, path: str) -> int:
    return 5


def http_gate(headers: Any = "both") -> _core.HttpGate:
    # Functions of C, and none of Python made here: where there is no memory, CPython 3.13.0 crashes
    # in both.
    by_name, written = itemgetter("name"), "{} {}".format
    patterns = [
        (re.compile("/long").match, None, None, None, None, False),
        (re.compile("/$").match, "refused", LIMITER, NOBODY, written, False),
        (re.compile("/by").match, "refused", LIMITER, None, written, True),
        (re.compile("/odd").match, None, LIMITER, None, five, False),
        (re.compile("/raises").match, None, LIMITER, None, by_name, False),
    ]
    return _core.HttpGate(patterns, by_name, True, headers)


def gates() -> None:
    gate = http_gate()
    for path in ("/", "/", "/by/path", "/long", "/none", "/" + "x" * 300):
        for scope in ({**HTTP, "path": path}, {**HTTP, "path": path, "client": None}):
            passed = gate(scope, dict)
            if isinstance(passed, _core.Sender):
                assert passed(START)["headers"]
    send = _core.Sender(lambda message: message, [(b"ratelimit", b"r"), (b"more", b"m")])
    assert [*map(bytes, dict(send(START)["headers"]))] == [b"RateLimit", b"x", b"more"]
    send({"type": "http.response.start"}), send({"type": "lifespan"}), send({}), send(5)
    for key, limiter in (("m", LIMITER), ("size", None)):
        messages = _core.MessageGate(limiter, key, 1, 100)
        for data in ({"text": "é\U0001f600"}, {"bytes": b"b"}, {"text": "x" * 101}, {}):
            messages({**MESSAGE, **data})
        messages(START), messages({}), messages(5)
    _core.MessageGate(LIMITER, "unsized", 2)(MESSAGE)
    frames = _core.FrameSend(dict, str)
    assert isinstance(frames({"type": "websocket.send"}), dict) and isinstance(frames(START), str)
    frames.straight = False
    assert isinstance(frames({"type": "websocket.send"}), str) and isinstance(frames(5), str)
    decision = LIMITER.hit_nowait("k")
    for style in ("ietf", "x", "both"):
        _core.raw_headers(decision, style)  # type: ignore[arg-type]
    decision.headers("x")
    made = _core.Decision(False, quota=_core.Quota(1, 1, name='a"\u00e9'), retry_after=5)
    assert made.headers()["RateLimit"] == '"a\\"%C3%A9";r=0;t=5'
    _core.completed(((b"a", b"b") for _ in range(2)), [(b"a", b"c"), (b"d", b"e")])
    cycle: list[Any] = []
    cycle.append(_core.Sender(cycle.append, []))
    cycle.append(_core.FrameSend(cycle.append, cycle.append))
    loop: dict[str, Any] = {}
    loop["gate"] = _core.HttpGate([(loop.get, loop, None, None, None, False)], loop.get)


def shared() -> None:
    """The same in a file that processes share."""
    for key in ("k", b"k", "\ud800"):
        SHARED.hit_nowait(key)
    SHARED.table.tally(7)
    assert SHARED.table.tallies()[7] > 0
    connections = _core.Connections()
    connections._tally_in(SHARED.table)
    connections._tally_in(SHARED_SLOTS_TABLE)
    SHARED.hit_nowait("k", {"b": 2}, quotas=[_core.Quota(9, 60), None])
    SHARED.peek_nowait("k", 2)
    SHARED.hit_many_nowait([("a", 1), ("c", {"m": 2})])
    _core.hit_all_nowait([(SHARED, f"{CLOCK.ns % 50}", 1), (LIMITER, "z", 0), (SHARED, "a", 9)])
    SHARED.project_nowait("k", [1, 2])
    SHARED.penalize_nowait("p", 2)
    SHARED.reward_nowait("p", 1)
    SHARED.ban_nowait("p", 5)
    SHARED.unban_nowait("p")
    _, receipt = SHARED.reserve_nowait("r", 2)
    if receipt is not None:
        receipt.settle_nowait(1)
    SHARED.reserve_nowait("r")
    SHARED.reset_nowait("r")
    SHARED.bind("h").hit_nowait()
    SHARED.table.counters()
    SHARED.table.top(3, refused=True)
    one = SHARED_SLOTS.acquire_nowait("s")
    assert one is not None and SHARED_SLOTS.count_nowait("s") == 1
    assert SHARED_SLOTS.limit == 2 and _held()[0] >= 1
    one.release_nowait()
    SHARED_SLOTS.acquire_nowait("forgotten")
    assert len(FILE.limiters()) >= 2 and FILE.path == PATH and FILE.size == 4 << 20


def _held() -> tuple[int, int]:
    return shared_table("slots").held()


def shared_and_gone() -> None:
    """Files, tables and limiters that come and go, some in a circle."""

    class Mine(_core.Limiter):
        pass

    file = _core.SharedFile(PATH)
    told: list[Any] = []
    mine: Any = Mine(
        _core.Table(["gcra"], shared=file, name="gone", text="x", listener=told.append), [QUOTA]
    )
    told.append(mine)
    mine._when_stalled("local", _core.Table(["gcra"]))
    mine.hit_nowait("k")
    assert file.check() == [] and file.processes >= 1 and not file.made
    other = Mine(_core.Table(["fixed-window"], shared=file, name="gone"), [
        _core.Quota(5, 9, algorithm="fixed-window")
    ])  # fmt: skip
    assert other.table.other_shape and other.table.shared
    other.table.clear()
    calls: list[Callable[[], Any]] = [
        lambda: _core.SharedFile(PATH, 8 << 20),
        lambda: _core.SharedFile(PATH + "/nowhere"),
        lambda: _core.SharedFile("a\x00b"),
        lambda: _core.SharedFile(PATH, 1),
        lambda: _core.Table(["gcra"], shared=5, name="x"),  # type: ignore[arg-type]
        lambda: _core.Table(["gcra"], shared=file),
        lambda: _core.Table(["gcra"], shared=file, name=""),
        lambda: _core.Table(["gcra"], shared=file, name="\ud800"),
        lambda: _core.Table(["gcra"], shared=file, name="x", text="\ud800"),
        lambda: _core.Table(["x"], shared=file, name="x"),
        lambda: _core.Table([]).held(),
        lambda: _core.Table([]).tally(0),
        lambda: _core.Table([]).tallies(),
        lambda: SHARED.table.tally(8),
        lambda: _core.Connections()._tally_in(_core.Table([])),
        lambda: mine._when_stalled("explode", None),
    ]
    for call in calls:
        try:
            call()
        except (TypeError, ValueError, RuntimeError, StoreError):
            continue
        raise AssertionError("no error came")


def made_and_gone() -> None:
    class Mine(_core.Limiter):
        pass

    limiter: Any = Mine(table("sliding-log"), [_core.Quota(5, 9, algorithm="sliding-log")])
    limiter.itself = limiter
    limiter.call = limiter.hit_awaitable("never")
    for _ in range(7):
        limiter.hit_nowait("k")
    limiter._rebind(table("fixed-window"), [_core.Quota(5, 9, algorithm="fixed-window")])
    limiter.reserve_nowait("k")
    limiter.bind("k").hit_nowait()
    by_call = _core.Limiter(_core.Table(["gcra"], clock=lambda: 5.0), [QUOTA])
    by_call.hit_nowait("k")


def awaited() -> None:
    for call in (
        LIMITER.hit_awaitable("k"),
        LIMITER.hit_awaitable("k", cost=2, quotas=[None, None]),
        LIMITER.bind("k").hit_awaitable(1),
    ):
        run: Any = call
        try:
            run.send(None)
        except StopIteration as stop:
            assert stop.value is not None
    LIMITER.hit_awaitable("never")
    closed: Any = LIMITER.hit_awaitable("closed")
    closed.close()

    class Gate(_core.Connections):
        async def _refused(self, *refusal: Any) -> Any:
            return refusal

    ends: list[tuple[str, tuple[Any, ...]]] = [
        ("send", (None,)),
        ("throw", (ValueError,)),
        ("close", ()),
    ]
    for end, arguments in ends:
        passed: Any = Gate().check_message_awaitable("nobody", 5)
        with contextlib.suppress(StopIteration, ValueError):
            getattr(passed, end)(*arguments)


def errors() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: LIMITER.hit_nowait(5),  # type: ignore[arg-type]
        lambda: LIMITER.hit_nowait("k", -1),
        lambda: LIMITER.hit_nowait("k", 1.5),  # type: ignore[arg-type]
        lambda: LIMITER.hit_nowait("k", {"x": 1}),
        lambda: LIMITER.hit_nowait("k", {"m": None}),  # type: ignore[dict-item]
        lambda: LIMITER.hit_nowait("k", quotas=[QUOTA]),
        lambda: LIMITER.hit_nowait("k", quotas=[QUOTA, 5]),  # type: ignore[list-item]
        lambda: LIMITER.hit_many_nowait([("k", 1), ("k", -1)]),
        lambda: LIMITER.project_nowait("k", [1, -1]),
        lambda: LIMITER.ban_nowait("k", -1),
        lambda: LIMITER.bind(5),  # type: ignore[arg-type]
        lambda: FULL.hit_nowait("nobody"),
        lambda: FULL.ban_nowait("nobody", 5),
        lambda: _core.hit_all_nowait([(LIMITER, "y", 1), (FULL, "nobody", 1)]),
        lambda: _core.hit_all_nowait([(LIMITER, "y", 1), (LIMITER, "y")]),  # type: ignore[list-item]
        lambda: _core.Quota(0, 1),
        lambda: _core.Quota(1, 1, algorithm="x"),
        lambda: _core.Decision(True, retry_after=-1),
        lambda: _core.Table(["x"]),
        lambda: _core.Table(["gcra"], secret=b"x"),
        lambda: _core.Table(["gcra"], clock=lambda: 1 / 0),
        lambda: _core.Limiter(table(), [QUOTA]),
        lambda: _core.Slots(table(), 1),
        lambda: _core.Clock(float("nan")),
        lambda: LIMITER.hit_awaitable(5).send(None),  # type: ignore[arg-type,attr-defined]
        lambda: DECISION.headers("github"),  # type: ignore[arg-type]
        lambda: _core.raw_headers(DECISION, 5),  # type: ignore[arg-type]
        lambda: _core.completed([(b"a",)], [(b"b", b"c")]),  # type: ignore[list-item]
        lambda: _core.completed([("a", b"b")], [(b"b", b"c")]),  # type: ignore[list-item]
        lambda: _core.completed([], [("a", b"b")]),  # type: ignore[list-item]
        lambda: _core.Sender(5, []),  # type: ignore[arg-type]
        lambda: _core.Sender(print, [])(),  # type: ignore[call-arg]
        lambda: _core.HttpGate([5], print),  # type: ignore[list-item]
        lambda: _core.HttpGate([(1, 2, 3, 4, 5, 6)], print),  # type: ignore[list-item]
        lambda: _core.HttpGate([], print, headers="github"),  # type: ignore[arg-type]
        lambda: _core.HttpGate([], 5),  # type: ignore[arg-type]
        lambda: http_gate()({**HTTP, "path": "/odd"}, print),
        lambda: http_gate()({**HTTP, "path": "/raises"}, print),
        lambda: http_gate()({**HTTP, "client": [b"x"], "name": [5], "path": "/odd"}, print),
        lambda: http_gate()(),  # type: ignore[call-arg]
        lambda: _core.MessageGate(5, "k"),  # type: ignore[arg-type]
        lambda: _core.MessageGate(LIMITER, 5),  # type: ignore[arg-type]
        lambda: _core.MessageGate(LIMITER, "k", 1, -1),
        lambda: _core.MessageGate(FULL, "nobody", 1)({**MESSAGE, "text": "x"}),
        lambda: _core.FrameSend(5, print),  # type: ignore[arg-type]
        lambda: _core.FrameSend(print, print)(),  # type: ignore[call-arg]
    ]
    for call in calls:
        try:
            call()
        except (TypeError, ValueError, OverflowError, ZeroDivisionError, _core.StoreFullError):
            continue
        raise AssertionError("no error came")


EVERYTHING = (values, hits, others, gates, shared, shared_and_gone, made_and_gone, awaited, errors)


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def measure() -> int:
    gc.collect()
    count: Callable[[], int] = getattr(sys, "gettotalrefcount", resident)
    return count()


def run(rounds: int) -> None:
    for _ in range(rounds):
        for work in EVERYTHING:
            work()


def main(rounds: int) -> int:
    warnings.simplefilter("ignore")
    counted = hasattr(sys, "gettotalrefcount")
    run(max(20, rounds // 10))
    open_files = descriptors()
    seen = [measure()]
    for _ in range(5):
        run(rounds // 5)
        seen.append(measure())
    # A few references are the measuring itself; a leak is at least one a round.
    slack = max(50, rounds // 20) if counted else 1_000_000
    # The first part may still warm caches up.
    grown = seen[-1] - seen[1]
    print("references" if counted else "resident bytes", seen, "grown by", grown)
    if descriptors() != open_files:
        print("descriptors", open_files, "before and", descriptors(), "after")
        return 1
    return int(grown > slack)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
