"""Many threads on one key, and two interpreters in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sluicegate
from sluicegate import _core

ALGORITHMS = ["gcra", "fixed-window", "sliding-window", "sliding-log"]
THREADS = 8


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * THREADS
    start = threading.Barrier(THREADS)

    def run(i: int) -> None:
        start.wait(30)
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("quotas", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exactly_the_limit(algorithm: str, quotas: int, weight: int) -> None:
    limit = 3000
    rows = [_core.Quota(limit + i, 86400, algorithm=algorithm) for i in range(quotas)]
    limiter = _core.Limiter(_core.Table([algorithm] * quotas, clock=_core.Clock()), rows)
    handle = limiter.bind("key")

    def work(i: int) -> int:
        admitted = 0
        for n in range(2 * limit // THREADS):
            # Keys made anew, a Python clock's turn, handles: every path at once.
            key = "".join(("k", "ey")) if n % 2 else b"key"
            hit = handle.hit_nowait(weight) if n % 3 == 0 else limiter.hit_nowait(key, weight)
            admitted += bool(hit)
        return admitted

    assert sum(in_threads(work)) == limit // weight


@pytest.mark.usefixtures("switching")
def test_with_a_clock_in_python() -> None:
    """The clock runs Python code, and so gives other threads their turn, in each hit."""
    limiter = _core.Limiter(
        _core.Table(["gcra"], clock=lambda: float(str(5.0))), [_core.Quota(500, 86400)]
    )
    admitted = in_threads(lambda i: sum(bool(limiter.hit_nowait("k")) for _ in range(150)))
    assert sum(admitted) == 500


@pytest.mark.usefixtures("switching")
def test_slots_and_reservations() -> None:
    slots = _core.Slots(_core.Table([]), 3)
    quota = _core.Quota(50, 86400, algorithm="fixed-window")
    limiter = _core.Limiter(_core.Table([quota.algorithm], clock=_core.Clock()), [quota])
    most = [0] * THREADS

    def work(i: int) -> None:
        for _ in range(500):
            slot = slots.acquire_nowait("k")
            _, receipt = limiter.reserve_nowait("k", 7)
            most[i] = max(most[i], slots.count_nowait("k"))
            if receipt is not None:
                receipt.settle_nowait(0)
            if slot is not None:
                slot.release_nowait()

    in_threads(work)
    assert slots.count_nowait("k") == 0 and 1 <= max(most) <= 3
    assert limiter.peek_nowait("k", 0).remaining == 50


@pytest.mark.usefixtures("switching")
def test_rebinding_while_hitting() -> None:
    quota = _core.Quota(10**6, 1)
    limiter = _core.Limiter(_core.Table(["gcra"]), [quota])

    def work(i: int) -> int:
        done = 0
        for n in range(2000):
            if i == 0 and n % 10 == 0:
                limiter._rebind(_core.Table(["gcra"]), [quota])
            done += bool(limiter.hit_nowait("k"))
        return done

    assert sum(in_threads(work)) == THREADS * 2000


INTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
from sluicegate import _core

CODE = '''
from sluicegate import _core
limiter = _core.Limiter(_core.Table(["gcra"]), [_core.Quota(5, 3600)])
assert sum(bool(limiter.hit_nowait("k")) for _ in range(9)) == 5
seen = []
_core.set_observer(lambda *event: seen.append(event))
limiter.hit_nowait("k")
assert len(seen) == 1
try:
    limiter.hit_awaitable("k").send(None)
except StopIteration as stop:
    kept = stop.value
'''

quota = _core.Quota(5, 3600)
limiter = _core.Limiter(_core.Table(["gcra"]), [quota])
calls = []
_core.set_observer(lambda *event: calls.append(event))
for round in range(20):
    other = interpreters.create()
    failed = interpreters.run_string(other, CODE)
    assert failed is None, failed
    interpreters.destroy(other)
assert sum(bool(limiter.hit_nowait("k")) for _ in range(9)) == 5
assert len(calls) == 9 and all(call[2].quota in (quota, None) for call in calls)
print("both")
"""


def test_two_interpreters() -> None:
    root = str(Path(sluicegate.__file__).parent.parent)
    result = subprocess.run(
        [sys.executable, "-c", INTERPRETERS],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("both\n", "", 0)
