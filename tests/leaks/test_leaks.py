"""Nothing is kept by calls of the extension, nor by questions to a server: in resident memory
always, and by the counts of references where a debug build of this CPython is at hand
(SLUICEGATE_DEBUG_PYTHON). And none of them crashes where there is no memory, or where the
interpreter ends."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sluicegate
from sluicegate import _core

HERE = Path(__file__).parent
ROOT = str(Path(sluicegate.__file__).parent.parent)

without_hiredis = pytest.mark.skipif(
    not hasattr(_core, "Link"), reason="the extension is built without hiredis"
)


def run(python: str, script: str, *arguments: str) -> str:
    """What it said on its standard error."""
    result = subprocess.run(
        [python, "-X", "faulthandler", str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def test_resident_memory_stays() -> None:
    run(sys.executable, "everything.py", "10000")  # of some 100 calls each


@without_hiredis
def test_resident_memory_stays_when_a_server_is_asked() -> None:
    run(sys.executable, "asked.py", "3000")


@pytest.mark.skipif(
    "SLUICEGATE_DEBUG_PYTHON" not in os.environ,
    reason="SLUICEGATE_DEBUG_PYTHON names no debug build of CPython with the extension built",
)
def test_reference_counts_stay() -> None:
    run(os.environ["SLUICEGATE_DEBUG_PYTHON"], "everything.py", "2000")
    if hasattr(_core, "Link"):
        run(os.environ["SLUICEGATE_DEBUG_PYTHON"], "asked.py", "500")


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this CPython has no _testcapi"
)
def test_no_memory() -> None:
    run(sys.executable, "no_memory.py")


@without_hiredis
@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this CPython has no _testcapi"
)
def test_no_memory_when_a_server_is_asked() -> None:
    run(sys.executable, "no_memory_asked.py")


@without_hiredis
@pytest.mark.parametrize("way", ["exit", "collected", "closed", "exception", "interpreter"])
def test_the_interpreter_ends_while_a_server_is_asked(way: str) -> None:
    if way == "interpreter" and importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this CPython has no _testcapi")
    assert run(sys.executable, "ending.py", way) == ""
