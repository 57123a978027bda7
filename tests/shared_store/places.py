"""Files that limiters of several processes share, for one test each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from directories import quick_directory

SIZE = 4 << 20  # the least that there is
ROOMY = 16 << 20  # where thousands of keys must not be forgotten
_numbers = itertools.count()


@contextmanager
def a_path() -> Iterator[str]:
    """Of a file that is not there yet, and that is removed at the end."""
    path = Path(quick_directory(), f"sluicegate-test-{os.getpid()}-{next(_numbers)}")
    try:
        yield str(path)
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
