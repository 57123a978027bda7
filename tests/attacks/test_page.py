"""That docs/attacks.md has a row of every attack that is measured, and of no other."""

from __future__ import annotations

from attacks.every import Row, named
from bench.attacks import HEADS, PAGE, table


def first_cells(text: str) -> list[str]:
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows]


def test_the_page_has_its_rows() -> None:
    page = PAGE.read_text("utf-8")
    made = page.partition("<!-- attacks -->")[2].partition("<!-- /attacks -->")[0]
    assert first_cells(made) == [HEADS[0], "---", *named()]


def test_a_row() -> None:
    row = Row("pings", "many", "-", "-", 0.0314, 0.02, 2_500_000)
    assert table([row]).splitlines()[-1] == "| pings | many | - | - | 31 ms | 20 ms | 2.5 MB |"
