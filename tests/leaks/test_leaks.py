"""Nothing is kept by calls of the extension: in resident memory always, and by the counts
of references where a debug build of this CPython is at hand (SLUICEGATE_DEBUG_PYTHON).
And none of them crashes where there is no memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sluicegate

HERE = Path(__file__).parent
ROOT = str(Path(sluicegate.__file__).parent.parent)


def run(python: str, script: str, *arguments: str) -> None:
    result = subprocess.run(
        [python, "-X", "faulthandler", str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_resident_memory_stays() -> None:
    run(sys.executable, "everything.py", "10000")  # of some 100 calls each


@pytest.mark.skipif(
    "SLUICEGATE_DEBUG_PYTHON" not in os.environ,
    reason="SLUICEGATE_DEBUG_PYTHON names no debug build of CPython with the extension built",
)
def test_reference_counts_stay() -> None:
    run(os.environ["SLUICEGATE_DEBUG_PYTHON"], "everything.py", "2000")


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this CPython has no _testcapi"
)
def test_no_memory() -> None:
    run(sys.executable, "no_memory.py")
