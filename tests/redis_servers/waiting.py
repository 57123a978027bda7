"""A bounded wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0  # seconds; for what takes far less on a machine that is not overloaded


def until(
    condition: Callable[[], T | None], what: str | Callable[[], str], seconds: float = PATIENCE
) -> T:
    """The first true value of `condition()`; AssertionError with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            reason = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {seconds} s in vain: {reason}")
        time.sleep(0.01)
