"""A file in shared memory for each test, and stores over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared_store import places
from sluicegate import SharedMemoryStore
from sluicegate.testing import Clock


@pytest.fixture
def path() -> Iterator[str]:
    with places.a_path() as path:
        yield path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: str) -> SharedMemoryStore:
    """By the machine's clock."""
    return SharedMemoryStore(path, places.SIZE)


@pytest.fixture
def timed(path: str, clock: Clock) -> SharedMemoryStore:
    """By the test's clock."""
    return SharedMemoryStore(path, places.SIZE, clock=clock)
