"""Nothing is kept by calls of the extension: in resident memory always, and by the counts
of references where a debug build of this CPython is at hand (SLUICEGATE_DEBUG_PYTHON)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sluicegate

SCRIPT = Path(__file__).with_name("everything.py")
ROOT = str(Path(sluicegate.__file__).parent.parent)


def run(python: str, rounds: int, path: str) -> None:
    result = subprocess.run(
        [python, str(SCRIPT), str(rounds)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_resident_memory_stays() -> None:
    run(sys.executable, 10_000, ROOT)  # of some 100 calls each


@pytest.mark.skipif(
    "SLUICEGATE_DEBUG_PYTHON" not in os.environ,
    reason="SLUICEGATE_DEBUG_PYTHON names no debug build of CPython with the extension built",
)
def test_reference_counts_stay() -> None:
    run(os.environ["SLUICEGATE_DEBUG_PYTHON"], 2_000, ROOT)
