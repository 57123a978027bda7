"""Nothing is kept by messages and connections: in resident memory, and in a debug build of
this CPython by the counts of references (SLUICEGATE_DEBUG_PYTHON)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sluicegate

SCRIPT = Path(__file__).with_name("connections.py")
ROOT = str(Path(sluicegate.__file__).parent.parent)


def run(python: str, rounds: int) -> None:
    result = subprocess.run(
        [python, str(SCRIPT), str(rounds)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_resident_memory_stays_over_a_million_messages() -> None:
    run(sys.executable, 13_000)


@pytest.mark.skipif(
    "SLUICEGATE_DEBUG_PYTHON" not in os.environ,
    reason="SLUICEGATE_DEBUG_PYTHON names no debug build of CPython with the extension built",
)
def test_reference_counts_stay() -> None:
    run(os.environ["SLUICEGATE_DEBUG_PYTHON"], 1_000)
