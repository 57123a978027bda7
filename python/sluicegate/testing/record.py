"""The decisions that are made, with limiter and key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .. import _core

__all__ = ["Record", "record"]


class Record(NamedTuple):
    """One decision: by which limiter, for which key."""

    limiter: _core.Limiter
    key: _core.Key
    decision: _core.Decision


_recording: list[list[Record]] = []


def _observe(limiter: _core.Limiter, key: _core.Key, decision: _core.Decision) -> None:
    made = Record(limiter, key, decision)
    for records in _recording:
        records.append(made)


@contextmanager
def record() -> Iterator[list[Record]]:
    """Collects every decision of every limiter of this process while the block runs.

        with record() as decisions:
            await limiter.hit("user:42")
        assert decisions[0].decision.allowed

    Blocks may be nested; each sees what is decided inside it.
    """
    records: list[Record] = []
    _recording.append(records)
    _core.set_observer(_observe)
    try:
        yield records
    finally:
        # by identity: two lists may be equal
        _recording[:] = [other for other in _recording if other is not records]
        if not _recording:
            _core.set_observer(None)
