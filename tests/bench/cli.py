"""Options of `python tests/bench`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import (
    awaited,
    doors,
    echo,
    hot,
    imports,
    many,
    memory,
    metrics,
    middleware,
    profile,
    redis_costs,
    redis_many,
    redis_memory,
    redis_one,
    shared,
)
from .machine import facts
from .report import markdown, show
from .rows import Row, Topic

__all__ = ["TOPICS", "main"]

TOPICS: tuple[Topic, ...] = (
    hot.TOPIC,
    awaited.TOPIC,
    many.TOPIC,
    memory.MEMORY,
    memory.GROWTH,
    imports.TOPIC,
    middleware.TOPIC,
    echo.TOPIC,
    metrics.TOPIC,
    doors.TOPIC,
    shared.TOPIC,
    redis_one.TOPIC,
    redis_many.TOPIC,
    redis_many.LOGS,
    redis_memory.TOPIC,
    redis_costs.TOPIC,
)
GROUPS = ("redis",)  # all topics whose names begin so


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measures sluicegate, each figure against a reference timed in alternation.",
    )
    names = [topic.name for topic in TOPICS]
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--quick", action="store_true", help="3 rounds for 9, fewer keys")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*names, *GROUPS],
        metavar="TOPIC",
        help=f"one of {', '.join(names)}; redis: all of those",
    )
    parser.add_argument("--no-peers", action="store_true", help="measure no other limiter")
    parser.add_argument("--rounds", type=int, help="rounds a row (9; with --quick 3)")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="measure nothing: print what --json wrote to FILE as Markdown",
    )
    parser.add_argument(
        "--profile",
        choices=sorted(profile.LOOPS),
        help="instructions a call, by valgrind's callgrind, instead of the table",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    return parser


def measure(topics: Sequence[Topic], rounds: int, quick: bool, with_peers: bool) -> list[Row]:
    rows: list[Row] = []
    for topic in topics:
        note(f"{topic.name}: measuring")
        rows += topic.measure(rounds, quick)
        if with_peers and topic.peers is not None:
            note(f"{topic.name}: peers")
            rows += topic.peers(rounds, quick)
    return rows


def chosen(name: str, only: Sequence[str]) -> bool:
    return name in only or any(group in only and name.startswith(group) for group in GROUPS)


def note(text: str) -> None:
    """Progress, beside what is printed for machines."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    given = options().parse_args(arguments)
    titles = {topic.name: topic.title for topic in TOPICS}
    if given.profile:
        return profile.run(given.profile)
    if given.markdown:
        saved = json.loads(Path(given.markdown).read_text())
        rows = [Row.from_dict(row) for row in saved["rows"]]
        sys.stdout.write(markdown(saved["machine"], rows, titles))
        return 0
    rounds = given.rounds or (3 if given.quick else 9)
    topics = [topic for topic in TOPICS if given.only is None or chosen(topic.name, given.only)]
    rows = measure(topics, rounds, given.quick, not given.no_peers)
    note("")
    if given.json:
        found = {"machine": facts(), "rounds": rounds, "rows": [row.as_dict() for row in rows]}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        show(facts(), rows, titles)
    return 1 if given.strict and any(row.reached is False for row in rows) else 0
