"""`sluicegate top`: the limiters of a server, and who has least left there."""

from __future__ import annotations

import asyncio
import heapq
import json
from math import inf, isinf
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.observe import escape_key

from .limiters import Found, nothing_known, quotas_in_words, run, shown, standing, store_option
from .words import number, plural

if TYPE_CHECKING:
    from sluicegate.stores.redis import RedisStore
    from sluicegate.stores.registered import Registered

TOGETHER = 512  # keys that are asked about at once


@click.command("top")
@click.argument("limiter", required=False, metavar="[LIMITER]")
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
def command(limiter: str | None, url: str | None, count: int, scan: int, as_json: bool) -> None:
    """List the limiters that processes have on a server, and the keys that have least left.

    Keys are found by a scan (SCAN) of a part of the server, and each that is found is peeked at,
    which charges nothing. [LIMITER] shows that one alone. Who is hottest or refused most often
    only the processes know, and tell in their metrics.
    """
    told = run(url, lambda store: _told(store, limiter, count, scan))
    if as_json:
        click.echo(json.dumps(told))
    else:
        _show(told)


async def _told(store: RedisStore, only: str | None, count: int, scan: int) -> dict[str, Any]:
    from sluicegate.stores.redis.scanning import subjects

    listed = await store.limiters()
    if only is not None:
        listed = [
            one
            for one in listed
            if one.name == only or one.name.startswith((f"{only}.", f"{only}:"))
        ]
    if not listed:
        missing = nothing_known(store)
        raise click.ClickException(f"{missing}." if only is None else f"{only!r}: {missing}.")
    seen = await subjects(store, scan)
    return {
        "store": store.settings.where(),
        "prefix": store.prefix,
        "looked": seen.looked,
        "whole": seen.whole,
        "limiters": [
            await _limiter(store, one, seen.subjects.get(one.name, set()), count)
            | {"long_keys": seen.digests.get(one.name, 0)}
            for one in listed
        ],
    }


async def _limiter(
    store: RedisStore, known: Registered, subjects: set[bytes], count: int
) -> dict[str, Any]:
    found = Found(store, known)
    rows: list[tuple[float, dict[str, Any]]] = []
    refused = 0
    ordered = sorted(subjects)
    for start in range(0, len(ordered), TOGETHER):
        batch = ordered[start : start + TOGETHER]
        told = await asyncio.gather(*(_key(found, key) for key in batch))
        refused += sum(not row["admitted"] for _, row in told)
        rows = heapq.nsmallest(count, [*rows, *told], key=lambda pair: pair[0])
    return {
        "name": shown(known.name),
        "quotas": quotas_in_words(known),
        "keys": len(subjects),
        "refused": refused,
        "least": [row for _, row in rows],
    }


async def _key(found: Found, key: bytes) -> tuple[float, dict[str, Any]]:
    """By what to sort a key, least first, and its row."""
    row: dict[str, Any] = {"key": escape_key(key), "admitted": True, "left": "", "stands": ""}
    share = inf
    looked = await found.look(key)
    if looked is not None:
        decision, quota = looked.decision, looked.decision.quota
        row["admitted"], row["stands"] = decision.allowed, standing(looked)
        row["retry_after"] = None if isinf(decision.retry_after) else decision.retry_after
        if quota is not None:
            row["left"] = f"{number(decision.remaining)} of {number(quota.burst)}"
            share = decision.remaining / quota.burst
        if not decision.allowed:  # those that are held back for longest come first
            share = -min(decision.retry_after, 1e12)
    held = await found.held(key)
    if held:
        most = found.known.slots
        row["held"] = held
        row["stands"] = f"{row['stands']}, {held} held".removeprefix(", ")
        share = min(share, 1 - held / most if most else 1 / (1 + held))
        if not row["left"] and most:
            row["left"] = f"{number(max(most - held, 0))} of {number(most)}"
    return share, row


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
