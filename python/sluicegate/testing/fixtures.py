"""pytest fixtures, found by pytest where sluicegate is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..stores.memory import MemoryStore
    from .clock import Clock


@pytest.fixture
def sluice_clock() -> Clock:
    """A clock that stands until the test advances it."""
    from .clock import Clock

    return Clock()


@pytest.fixture
def sluice_store(sluice_clock: Clock) -> Iterator[MemoryStore]:
    """An empty memory store on `sluice_clock`, which every limiter uses for this test."""
    from ..stores.memory import MemoryStore
    from .override import override

    store = MemoryStore(clock=sluice_clock)
    with override(store=store):
        yield store
