"""The programs printed in the source documents, as they stand there.

The documents lie in `../shared/seeds` beside the checkout, or where SLUICEGATE_SEEDS says.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_UNDERLINE = re.compile(r"(=+|-+|~+)\s*$")


def document(name: str) -> str:
    """The text of a source document; skips the test where it is not to be had."""
    folder = Path(os.environ.get("SLUICEGATE_SEEDS", ROOT.parent / "shared" / "seeds"))
    path = folder / name
    if not path.is_file():
        reason = f"{path} is not there; set SLUICEGATE_SEEDS to the folder of the documents"
        print(reason)
        pytest.skip(reason)
    return path.read_text(encoding="utf-8")


def python_blocks(text: str) -> dict[str, list[str]]:
    """The Python blocks of an .rst, by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    lines = text.splitlines()
    heading = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        if number and _UNDERLINE.match(line) and lines[number - 1].strip():
            heading = lines[number - 1].strip()
        if line.strip() == ".. code-block:: python":
            body = []
            number += 1
            while number < len(lines) and (not lines[number].strip() or lines[number][0] == " "):
                body.append(lines[number])
                number += 1
            found.setdefault(heading, []).append(textwrap.dedent("\n".join(body)).strip() + "\n")
            continue
        number += 1
    return found


def moved(program: str, old: str, new: str) -> str:
    """The program with its import root changed, and nothing else."""
    return re.sub(rf"^(\s*(?:from|import)\s+){re.escape(old)}\b", rf"\1{new}", program, flags=re.M)


def fenced_blocks(text: str) -> dict[str, list[str]]:
    """The Python blocks of a Markdown document, by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    heading = ""
    for match in re.finditer(r"^#+ +(.+?)\s*$|^```(\w*)\n(.*?)^```", text, re.M | re.DOTALL):
        if match[1] is not None:
            heading = match[1]
        elif match[2] == "python":
            found.setdefault(heading, []).append(match[3])
    return found
