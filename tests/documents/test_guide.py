"""Every program that our own documents print runs, as printed, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/guide.md", "docs/demo.md", "docs/routes.md", "docs/operating.md")


def programs() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if ", at its end" in match[1].partition("\n")[0]:
                continue  # what is added to a file: test_five_minutes runs it there
            line = text.count("\n", 0, match.start()) + 2
            found.append((f"{page}:{line}", match.group(1)))
    return found


@pytest.mark.parametrize(("place", "program"), [pytest.param(*p, id=p[0]) for p in programs()])
def test_a_printed_program_runs(place: str, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{place}:\n{done.stderr}"


def test_the_first_program_admits_its_burst() -> None:
    program = next(text for place, text in programs() if place.startswith("README"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["admitted"] * 20 + ["wait"] * 5


def test_each_page_that_is_linked_is_there() -> None:
    for page in ("README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page} links {target}"
