"""The programs of the page on rules run as printed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from documents.programs import ROOT, fenced_blocks

PAGE = ROOT / "docs" / "rules.md"
PROGRAMS = [one for found in fenced_blocks(PAGE.read_text()).values() for one in found]


@pytest.mark.parametrize("program", PROGRAMS, ids=range(1, len(PROGRAMS) + 1))
def test_a_program(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_there_are_programs_and_what_is_linked() -> None:
    assert len(PROGRAMS) == 2
    assert (PAGE.parent / "examples" / "one_line.py").exists()
