"""No door knows another, and nothing below knows a door: each can be deleted without anything else
noticing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sluicegate

PACKAGE = Path(sluicegate.__file__).parent
DOORS = ("fastapi", "socketio", "channels", "quart", "asgi", "app")
# What is beside the doors and may use them: programs, not parts.
PROGRAMS = ("cli", "demo", "__main__.py")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The first name below the package of all that a module imports at run time, functions
    included."""
    inside = path.relative_to(PACKAGE).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for part in test.body
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            prefix = ".".join(("sluicegate", *base)) if node.level else ""
            module = ".".join(part for part in (prefix, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "sluicegate" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_door_is_imported_by_itself_alone(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in PROGRAMS or path.name in PROGRAMS:
        return
    assert {name for name in imported(path) if name in DOORS} <= {own}


def test_the_doors_are_there() -> None:
    for door in DOORS:
        assert (PACKAGE / door).is_dir() or (PACKAGE / f"{door}.py").is_file(), door
