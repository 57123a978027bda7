"""One hot key, synchronously: against `d[k] += 1` in the same loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sluicegate.cli.loops import KEY, PLENTY, hitting

from .harness import Timed, alternate, counting
from .peers import hot_peers
from .rows import Row, Topic

REFERENCE = "d[k] += 1"


def bound() -> Timed:
    """`handle.hit()`: the key prepared."""
    from sluicegate.sync import Limiter

    handle = Limiter("1000000000/second").bind(KEY)

    def run(count: int) -> float:
        made = handle
        begin = time.process_time()
        for _ in range(count):
            made.hit()
        return time.process_time() - begin

    return run


CASES: tuple[tuple[str, str, bool, float | None], ...] = (
    ("sync hit, admitted", f"{PLENTY}/second", True, 1.3),
    ("sync hit, refused", "1/day", False, 1.5),
    ("sync hit, two quotas", f"a: {PLENTY}/second; b: {PLENTY}/minute", True, 2.2),
    ("sync hit, fixed-window", f"{PLENTY}/second using fixed-window", True, None),
    ("sync hit, sliding-window", f"{PLENTY}/second using sliding-window", True, None),
    ("sync hit, sliding-log (full)", f"{PLENTY}/second using sliding-log", True, None),
)


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    for what, quotas, expect, target in CASES:
        found = alternate(hitting(quotas, expect), counting(KEY), rounds)
        yield Row("hot", what, found.ratio, "x", REFERENCE, target, info=found.info())
    found = alternate(bound(), counting(KEY), rounds)
    yield Row("hot", "sync hit of a bound key", found.ratio, "x", REFERENCE, info=found.info())


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    for name, make, why in hot_peers():
        if make is None:
            yield Row("hot", name, None, "x", REFERENCE, peer=True, missing=why)
            continue
        try:
            found = alternate(make(KEY), counting(KEY), rounds)
        except Exception as error:  # whatever another package does, the rest is measured
            yield Row("hot", name, None, "x", REFERENCE, peer=True, missing=repr(error))
            continue
        yield Row("hot", name, found.ratio, "x", REFERENCE, peer=True, info=found.info())


TOPIC = Topic("hot", "One hot key, the decision returned", measure, peers)
