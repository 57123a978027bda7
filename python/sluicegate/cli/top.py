"""`sluicegate top`: the limiters of a store, and who presses them."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.observe import escape_key
from sluicegate.stores.shared import SharedMemoryStore

from .found import Found
from .limiters import (
    CommandStore,
    found_in,
    nothing_known,
    parts_of,
    place_of,
    quotas_in_words,
    run,
    shown,
    store_option,
)
from .top_file import show_file, tell_file
from .top_keys import keyed
from .words import number, plural

TOGETHER = 512  # keys that are asked about at once


@click.command("top")
@click.argument("words", nargs=-1, metavar="[URL] [LIMITER]")
@store_option
@click.option(
    "--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="Keys to list."
)
@click.option(
    "--scan",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Keys of the server to look at, at most (of each node of a cluster).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def command(words: tuple[str, ...], url: str | None, count: int, scan: int, as_json: bool) -> None:
    """List the limiters that processes have in a store, and the keys that press them.

    In shared memory (shm:///run/app), the hottest keys, with what each has left, and the most
    refused, over all processes. Of a server, the keys that have least left: they are found by a
    scan (SCAN) of a part of it, and who is hottest or refused most often only the processes know,
    and tell in their metrics. Looking charges nothing. [URL] stands for --store; [LIMITER] shows
    that one alone.
    """
    limiter, url = _words(words, url)
    told = run(url, lambda store: _told(store, limiter, count, scan))
    if as_json:
        click.echo(json.dumps(told))
    elif "processes" in told:
        show_file(told)
    else:
        _show(told)


def _words(words: tuple[str, ...], url: str | None) -> tuple[str | None, str | None]:
    """The limiter, and the URL of the store: what has a scheme is one, unless --store says it."""
    rest = list(words)
    source = click.get_current_context().get_parameter_source("url")
    if rest and "://" in rest[0] and source is not ParameterSource.COMMANDLINE:
        url = rest.pop(0)
    if len(rest) > 1:
        raise click.UsageError(
            f"one limiter at a time, not {', '.join(escape_key(os.fsencode(one)) for one in rest)}."
        )
    return (rest[0] if rest else None), url


async def _told(store: CommandStore, only: str | None, count: int, scan: int) -> dict[str, Any]:
    listed = await found_in(store)
    if only is not None:
        listed = [one for one in listed if one.known.name == only] + parts_of(listed, only)
    if not listed:
        raise click.ClickException(
            f"{nothing_known(store)}."
            if only is None
            else f"{escape_key(os.fsencode(only))!r}: {nothing_known(store)}."
            if not await found_in(store)
            else f"there is no limiter {escape_key(os.fsencode(only))!r} in {place_of(store)}."
        )
    if isinstance(store, SharedMemoryStore):
        return await tell_file(store, listed, count)
    from sluicegate.stores.redis.scanning import subjects

    seen = await subjects(store, scan)
    return {
        "store": store.settings.where(),
        "prefix": store.prefix,
        "looked": seen.looked,
        "whole": seen.whole,
        "limiters": [
            await _limiter(one, seen.subjects.get(one.name, set()), count)
            | {"long_keys": seen.digests.get(one.name, 0)}
            for one in listed
        ],
    }


async def _limiter(found: Found, subjects: set[bytes], count: int) -> dict[str, Any]:
    rows: list[tuple[float, dict[str, Any]]] = []
    refused = 0
    ordered = sorted(subjects)
    for start in range(0, len(ordered), TOGETHER):
        batch = ordered[start : start + TOGETHER]
        told = await asyncio.gather(*(keyed(found, key) for key in batch))
        refused += sum(not row["admitted"] for _, row in told)
        rows = heapq.nsmallest(count, [*rows, *told], key=lambda pair: pair[0])
    return {
        "name": shown(found.name),
        "quotas": quotas_in_words(found.known),
        "keys": len(subjects),
        "refused": refused,
        "least": [row for _, row in rows],
    }


def _show(told: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(Text(f"{told['store']}, prefix {told['prefix']}", style="bold"))
    for limiter in told["limiters"]:
        console.print()
        keys = f"{plural(limiter['keys'], 'key')} seen"
        if limiter["long_keys"]:
            keys += f" (and {number(limiter['long_keys'])} too long to be named)"
        if limiter["refused"]:
            keys += f", {number(limiter['refused'])} held back now"
        console.print(
            Text.assemble((limiter["name"], "bold cyan"), f"  {limiter['quotas']}  ", (keys, "dim"))
        )
        if limiter["least"]:
            table = Table.grid(padding=(0, 2))
            for row in limiter["least"]:
                table.add_row("", Text(row["key"]), row["left"], row["stands"])
            console.print(table)
    console.print()
    console.print(
        "All keys of the server were looked at."
        if told["whole"]
        else f"About {number(told['looked'])} keys of the server were looked at, not all: --scan "
        "looks further.",
        style="dim",
    )
