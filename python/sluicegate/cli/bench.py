"""`sluicegate bench`: what a check costs on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate import Limiter
from sluicegate.errors import StoreError
from sluicegate.stores import LocalStore, open_store

from . import loops
from .timing import Ratio, alternate, alternate_async, alternating, no_gc
from .words import number

if TYPE_CHECKING:
    from sluicegate.stores.redis import RedisStore

ROUNDS = 9
FROM_ENVIRONMENT = "$SLUICEGATE_STORE"

# On a server: names of its own, whose state ends within a second of the last check.
PREFIX = "sg-bench"
QUOTA = f"{10**6}/second"
TIMEOUT = 10.0  # seconds of a check: a busy server is to be measured, not to fail
ONE, MANY, WIDTH, KEYS = 1000, 16 * 1024, 512, 10_000


@dataclass(frozen=True)
class Figure:
    """One line: `ns` of one, and of its reference, which ran in turns with it."""

    what: str
    ns: float
    reference: str
    reference_ns: float
    ratio: float  # the median of the rounds' own; so are the two before
    spread: tuple[float, float]

    @classmethod
    def of(cls, what: str, reference: str, found: Ratio) -> Figure:
        return cls(what, found.subject_ns, reference, found.reference_ns, found.ratio, found.spread)


@click.command("bench")
@click.option(
    "--store",
    "url",
    is_flag=False,
    flag_value=FROM_ENVIRONMENT,
    metavar="[URL]",
    help="Measure this Redis or Valkey too, as fast as it answers: not one that is at work. "
    f"Without a URL it is that of {FROM_ENVIRONMENT}.",
)
@click.option(
    "--keys",
    type=click.IntRange(1000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="How many there are where they come in random order.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=ROUNDS, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def command(url: str | None, keys: int, rounds: int, as_json: bool) -> None:
    """Measure what a check costs on this machine.

    Each figure is the median of some rounds, and beside it stands what it is to be compared with,
    timed in turns with it: so a slow machine, or one at work, shows in both. Limits in memory are
    measured by the processor time of this process, those on a server by the clock.
    """
    store = None if url is None else opened(url)
    figures: list[Figure] = []
    console = Console(highlight=False)
    with console.status("measuring", spinner="line") if console.is_terminal else nullcontext():
        figures += in_memory(keys, rounds)
        if store is not None:
            figures += on_server(store, rounds)
    if as_json:
        click.echo(json.dumps({**machine(), "figures": [asdict(figure) for figure in figures]}))
        return
    about = machine()
    console.print(
        f"{about['python']}, {about['system']}, {number(about['cores'])} cores; "
        f"medians of {rounds} rounds",
        style="dim",
    )
    console.print(table_of(figures))


# ---- what is measured


def in_memory(keys: int, rounds: int) -> Iterator[Figure]:
    """The core figures."""
    found = alternate(loops.hitting(), loops.counting(), rounds)
    yield Figure.of("hit, one hot key", "d[k] += 1", found)
    found = alternate_async(loops.awaited_hit(), loops.awaiting_empty, rounds)
    yield Figure.of("hit, awaited", "awaiting an empty async def", found)
    found = over_keys(keys, rounds)
    yield Figure.of(f"hit, {keys:,} keys in random order", "d[k] += 1 of the same", found)


def over_keys(count: int, rounds: int) -> Ratio:
    """Each key once as a hit and once in a dict, in as many parts as there are rounds, so that
    both meet every key as cold as the other does."""
    names = [f"user:{place}" for place in range(count)]
    order = loops.shuffled(names)
    hit, counted = loops.hitting_keys(count), loops.counting_keys(names)
    part = max(1, count // rounds)
    pieces = [[order[(turn * part + at) % count] for at in range(part)] for turn in range(rounds)]
    with no_gc():
        hit(names)  # all are there
        a, b = alternating(
            lambda turn: hit(pieces[turn]), lambda turn: counted(pieces[turn]), rounds
        )
    return Ratio.of(a, b, part)


def on_server(store: RedisStore, rounds: int) -> list[Figure]:
    """One check at a time beside a PING on the same connection, and many at once."""

    async def measured() -> list[Figure]:
        async with store:
            limiter = Limiter(QUOTA, store=store, name="bench", timeout=TIMEOUT)
            chance = random.Random(7)
            one = ["user:42"] * ONE
            many = [f"user:{chance.randrange(KEYS)}" for _ in range(MANY)]

            async def ping(key: str) -> None:
                await store.ping()

            async def timed(do: Callable[[], Any], count: int) -> float:
                return float(await do()) / count

            ways: list[Callable[[], Any]] = [
                lambda: timed(lambda: loops.one_by_one(limiter.hit, one), ONE),
                lambda: timed(lambda: loops.one_by_one(ping, one), ONE),
                lambda: timed(lambda: loops.at_once(limiter.hit, many, WIDTH), MANY),
            ]
            for way in ways:
                await way()  # the server knows the script now, and all is warm
            spent: list[list[float]] = [[] for _ in ways]
            for turn in range(rounds):
                order = range(len(ways)) if turn % 2 else reversed(range(len(ways)))
                for place in order:
                    spent[place].append(await ways[place]())
            hits, pings, together = spent
            return [
                Figure.of("one hit at a time", "a PING at a time", Ratio.of(hits, pings, 1)),
                Figure.of(f"{WIDTH} hits at once", "one at a time", Ratio.of(together, hits, 1)),
            ]

    try:
        with no_gc():
            return asyncio.run(measured())
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def opened(url: str) -> RedisStore:
    """The store, with a prefix of the command's own; errors in words."""
    if url == FROM_ENVIRONMENT:
        url = os.environ.get("SLUICEGATE_STORE", "")
        if not url:
            raise click.UsageError(f"which store? Say --store URL, or set {FROM_ENVIRONMENT}.")
    if url.partition("://")[0].lower() in ("memory", "shm"):  # before a file is made
        raise click.UsageError(
            "memory is measured anyway, and shared memory takes about as long: --store is for "
            "redis:// and so on."
        )
    try:
        store = open_store(url)
        assert not isinstance(store, LocalStore)
        return type(store)(url, prefix=PREFIX, timeout=TIMEOUT)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None


# ---- how it is told


def machine() -> dict[str, Any]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
    }


def table_of(figures: list[Figure]) -> Table:
    table = Table.grid(padding=(0, 2))
    for column in range(6):
        table.add_column(justify="right" if column in (1, 2, 3) else "left")
    for figure in figures:
        low, high = figure.spread
        table.add_row(
            figure.what,
            time_of(figure.ns),
            f"{number(float(f'{1e9 / figure.ns:.3g}'))}/s",
            f"{figure.ratio:.2f}",
            Text(f"of {figure.reference} ({time_of(figure.reference_ns)})"),  # no markup
            f"{low:.2f} to {high:.2f}",
        )
    return table


def time_of(ns: float) -> str:
    """`36 ns`, `3.29 µs`: three digits at most."""
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= size * 0.9995:
            return f"{number(float(f'{ns / size:.3g}'))} {unit}"
    return f"{number(float(f'{ns:.3g}'))} ns"
