"""Makes each allocation of CPython's fail in turn, in every call of the extension: it must
come out as MemoryError (or as nothing), never as a crash. Needs _testcapi."""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found]
import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import everything

from sluicegate import _core

KEY, ODD = "user:42", "\ud800"
PAIRS: Any = [("a", 1), (ODD, {"m": 2})]
PASSES: Any = [(everything.LIMITER, "a", 1), (everything.LIMITER, ODD, 2)]
HANDLE = everything.LIMITER.bind(ODD)
GATE = _core.Connections()
DECISION = everything.LIMITER.hit_nowait(KEY)
FIELDS = [(b"more", b"m")]
SENDER = _core.Sender(lambda message: None, FIELDS)
HTTP_GATE = everything.http_gate()
FRAMES = _core.FrameSend(str, str)
MESSAGE_GATE = _core.MessageGate(everything.LIMITER, ODD, 1, 100)


def reserve_and_settle() -> None:
    _, receipt = everything.LIMITER.reserve_nowait(ODD, 0)
    if receipt is not None:
        receipt.settle_nowait({"m": 1})


def slot() -> None:
    held = everything.SLOTS.acquire_nowait(ODD)
    if held is not None:
        held.release_nowait()


def shared_slot() -> None:
    held = everything.SHARED_SLOTS.acquire_nowait(ODD)
    if held is not None:
        held.release_nowait()


def shared_reserve() -> None:
    _, receipt = everything.SHARED.reserve_nowait(ODD, 0)
    if receipt is not None:
        receipt.settle_nowait({"m": 1})


def send(call: Any) -> None:
    with contextlib.suppress(StopIteration):
        call.send(None)


CALLS: list[Callable[[], Any]] = [
    lambda: everything.LIMITER.hit_nowait(KEY),
    lambda: everything.LIMITER.hit_nowait(ODD, {"b": 2}),
    lambda: everything.LIMITER.hit_nowait(KEY, quotas=[everything.QUOTA, None]),
    lambda: everything.LIMITER.hit_nowait(KEY, {"none": 1}),
    lambda: everything.LIMITER.hit_nowait(KEY, -1),
    lambda: everything.LIMITER.hit_many_nowait(PAIRS),
    lambda: everything.LIMITER.project_nowait(ODD, [1, 2]),
    lambda: _core.hit_all_nowait(PASSES),
    lambda: everything.LIMITER.bind(ODD),
    lambda: HANDLE.hit_nowait(2),
    lambda: HANDLE.peek_nowait(),
    reserve_and_settle,
    slot,
    lambda: send(everything.LIMITER.hit_awaitable(ODD)),
    lambda: send(HANDLE.hit_awaitable()),
    lambda: everything.SHARED.hit_nowait(ODD, {"b": 2}),
    lambda: everything.SHARED.peek_nowait(KEY),
    lambda: everything.SHARED.hit_many_nowait(PAIRS),
    lambda: _core.hit_all_nowait([(everything.SHARED, "a", 1), (everything.LIMITER, ODD, 2)]),
    lambda: everything.SHARED.project_nowait(ODD, [1, 2]),
    lambda: everything.SHARED.table.counters(),
    lambda: everything.SHARED.table.top(),
    lambda: everything.FILE.limiters(),
    lambda: everything.FILE.check(),
    lambda: everything._held(),
    lambda: _core.SharedFile(everything.PATH),
    lambda: everything.shared_table("rates", "gcra", "sliding-log", text="x", listener=print),
    lambda: everything.shared_table("another", "gcra"),
    lambda: everything.SHARED._when_stalled("local", everything.table("gcra", "sliding-log")),
    shared_reserve,
    shared_slot,
    lambda: everything.LIMITER.table.counters(),
    lambda: everything.LIMITER.table.top(),
    lambda: _core.Table(["gcra", "sliding-log"]),
    lambda: _core.Limiter(everything.table(), [everything.QUOTA, None]),
    lambda: everything.LIMITER._rebind(everything.table(), [everything.QUOTA, None]),
    lambda: _core.Quota(5, 60, burst=9, name="n"),
    lambda: repr(everything.QUOTA),
    lambda: hash(everything.QUOTA) and _core.Quota(5, 60, name="m") == everything.QUOTA,
    lambda: _core.Decision(True, quota=everything.QUOTA),
    lambda: repr(DECISION),
    lambda: DECISION.as_dict(),
    lambda: hash(DECISION),
    lambda: DECISION.__getnewargs_ex__(),
    lambda: _core.fingerprint(bytes(16), ODD),
    lambda: _core.Clock(1.0),
    lambda: _core.ConnectionInfo("c", "k"),
    lambda: _core.raw_headers(DECISION, "both"),
    lambda: DECISION.headers("x"),
    lambda: _core.Decision(True, quota=_core.Quota(5, 60, name="new")).headers(),
    lambda: _core.completed([(b"a", b"b"), [b"c", b"d"]], [(b"e", b"f")]),
    lambda: SENDER(everything.START),
    lambda: _core.Sender(str, FIELDS),
    everything.http_gate,
    lambda: everything.http_gate()(everything.HTTP, str),
    lambda: HTTP_GATE(everything.HTTP, str),
    lambda: HTTP_GATE({**everything.HTTP, "path": "/by/path"}, str),
    lambda: _core.MessageGate(everything.LIMITER, ODD, 1, 100),
    lambda: MESSAGE_GATE({"type": "websocket.receive", "text": "é"}),
    lambda: _core.FrameSend(str, str),
    lambda: FRAMES({"type": "websocket.send"}),
]


def nothing() -> None: ...


def fail_each(calls: list[Callable[[], Any]], after: Callable[[], Any] = nothing) -> int:
    """Makes each allocation of each call fail; how many came out as MemoryError."""
    failed = 0
    for call in calls:
        for start in range(60):
            error: BaseException | None = None
            _testcapi.set_nomemory(start, start + 1)
            try:
                call()
            except (MemoryError, TypeError, ValueError) as raised:
                error = raised
            finally:
                _testcapi.remove_mem_hooks()
            failed += isinstance(error, MemoryError)
            after()
    return failed


def rebound() -> None:
    if everything.LIMITER.quotas[1] is None:
        everything.LIMITER._rebind(everything.table(), [everything.QUOTA, everything.SIZE])


def main() -> int:
    warnings.simplefilter("ignore")
    failed = fail_each(CALLS, rebound)
    everything.run(10)
    print(failed, "allocations failed as MemoryError")
    return int(failed == 0)


if __name__ == "__main__":
    sys.exit(main())
