"""The table of docs/attacks.md: `python tests/bench/attacks.py`, and with `--write` into the page.

The attacks are those of tests/attacks, which test that what is admitted is exact.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attacks.every import Row

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "attacks.md"
HEADS = (
    *("attack", "what is sent", "admitted", "refused"),
    *("longest pause", "of the processor", "memory grown"),
)


def table(rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        pauses = (f"{seconds * 1e3:.0f} ms" for seconds in (row.pause, row.busy))
        memory = f"{row.memory / 1e6:.1f} MB"
        cells = (row.what, row.sent, row.admitted, row.refused, *pauses, memory)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


async def measured() -> str:
    from attacks.every import rows

    from .machine import facts
    from .report import about

    found = []
    async for row in rows():
        found.append(row)
        sys.stderr.write(f"{row.what}\n")
    return f"{about({**facts(), 'redis': None})}; uvicorn, asyncio.\n\n{table(found)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="attacks", description="What attacks come to.")
    parser.add_argument("--write", action="store_true", help="write docs/attacks.md, too")
    given = parser.parse_args(arguments)
    made = asyncio.run(measured())
    if given.write:
        from .capacity import put

        PAGE.write_text(put(PAGE.read_text("utf-8"), {"attacks": made}), "utf-8")
    sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)
    from bench.attacks import main as of_package

    raise SystemExit(of_package())
