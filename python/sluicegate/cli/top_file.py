"""`sluicegate top` over shared memory: what all its processes counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.observe import escape_key, top_keys

from .limiters import place_of, quotas_in_words, shown
from .shared import InFile
from .top_keys import keyed
from .words import number, plural, size

if TYPE_CHECKING:
    from sluicegate.stores.shared import SharedMemoryStore

    from .found import Found

__all__ = ["show_file", "tell_file"]

# what is said of a limiter where it is not 0
SAID = {
    "banned": "of those by a ban",
    "shadow_refused": "refused by a shadow alone",
    "full": "found no room",
    "evictions": "forgotten for want of room",
    "damages": "shards cleared because they were damaged",
}


async def tell_file(store: SharedMemoryStore, found: list[Found], count: int) -> dict[str, Any]:
    return {
        "store": place_of(store),
        "size": store.size,
        "processes": store.processes - 1,  # this one has it open, too
        "limiters": [await _limiter(one, count) for one in found if isinstance(one, InFile)],
    }


async def _limiter(found: InFile, count: int) -> dict[str, Any]:
    counters: Counter[str] = Counter()
    for table in found.tables:
        counters.update(table.counters())
    del counters["degraded"]  # those of this process
    table = found.tables[0]
    hottest = []
    for name, cut, events in table.top(count):
        # of a key that is cut nobody knows here how it stands
        row: dict[str, Any] = {} if cut else (await keyed(found, name))[1]
        hottest.append(row | {"key": escape_key(name), "cut": cut, "events": events})
    return {
        "name": shown(found.name),
        "quotas": quotas_in_words(found.known),
        "counters": dict(counters),
        "hottest": hottest,
        "most_refused": top_keys(table, count, refused=True),
    }


def show_file(told: dict[str, Any]) -> None:
    console = Console(highlight=False)
    processes = told["processes"]
    of = f"{number(processes)} process{'' if processes == 1 else 'es'}"
    console.print(Text(f"{told['store']}, {size(told['size'])}, {of}", style="bold"))
    for limiter in told["limiters"]:
        counters = limiter["counters"]
        console.print()
        room = f"{plural(counters['keys'], 'key')}, {size(counters['bytes'])}"
        console.print(
            Text.assemble((limiter["name"], "bold cyan"), f"  {limiter['quotas']}  ", (room, "dim"))
        )
        said = [f"admitted {number(counters['admitted'])}, refused {number(counters['refused'])}"]
        said += [f"{number(counters[one])} {what}" for one, what in SAID.items() if counters[one]]
        console.print(Text(f"  {', '.join(said)}"))
        _rows(
            console,
            "hottest",
            [
                (
                    _named(row),
                    plural(row["events"], "event"),
                    row.get("left", ""),
                    row.get("stands", ""),
                )
                for row in limiter["hottest"]
            ],
        )
        _rows(
            console,
            "most refused",
            [(_named(row), plural(row["events"], "time")) for row in limiter["most_refused"]],
        )


def _named(row: dict[str, Any]) -> str:
    return f"{row['key']}…" if row["cut"] else str(row["key"])


def _rows(console: Console, title: str, rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    console.print(Text(f"  {title}", style="dim"))
    table = Table.grid(padding=(0, 2))
    for key, *rest in rows:
        table.add_row("  ", Text(key), *rest)
    console.print(table)
