"""Writes the scripts as C: each as one text with what it needs in front, and its SHA-1.

``python embed.py OUT.c``; setup.py calls it for every build, so nothing that it writes is kept.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

NAMES = ("gcra", "decide", "change", "fetch", "all", "slots")  # the order of sg_script_id
HERE = Path(__file__).parent


def part(name: str) -> bytes:
    return (HERE / f"{name}.lua").read_bytes()


def script(name: str) -> bytes:
    """A script's text. Its functions are made anew by every call, so it has those that it needs,
    and gcra, which is called the most, has the rule as one function."""
    rule = part("log") + part("state") + part("judge")
    if name == "gcra":
        made = b"P = plan_of(plan)\nreturn check, C1, C2\nend\n"
        rule = b"local function rule(plan)\n" + rule + made
    elif name in ("fetch", "slots"):
        rule = b""
    return part("prelude") + rule + part(name)


def source() -> str:
    lines = ['#include "script.h"', ""]
    rows = []
    for name in NAMES:
        text = script(name)
        numbers = [str(byte) for byte in text + b"\0"]
        lines.append(f"static const char {name}_text[] = {{")
        lines += ["    " + ", ".join(numbers[i : i + 20]) + "," for i in range(0, len(numbers), 20)]
        lines += ["};", ""]
        sha1 = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        rows.append(f'    {{"{name}", "{sha1}", {name}_text, sizeof {name}_text - 1}},')
    return "\n".join([*lines, "const sg_script sg_scripts[SG_SCRIPTS] = {", *rows, "};", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(source())
