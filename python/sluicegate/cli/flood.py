"""`sluicegate flood`: press a limit with real WebSockets, and draw what came through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import click
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from . import plots
from .numbers import FiniteRange
from .replies import Judge, default_judge, judge_by
from .words import number

if TYPE_CHECKING:
    from .pressing import Plan, Tally

REDRAW_SECONDS = 0.1


@click.command("flood")
@click.argument("url")
@click.option(
    "--rate",
    type=FiniteRange(0, 100_000, min_open=True),
    default=50.0,
    show_default=True,
    help="Messages a second, all connections together.",
)
@click.option("--connections", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option(
    "--duration",
    type=FiniteRange(0, 86_400, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds.",
)
@click.option("--message", metavar="TEXT", help='Sent as {"text": TEXT}.')
@click.option("--raw", metavar="TEXT", help="Sent exactly so.")
@click.option("--size", type=click.IntRange(12, 2**24), help="Bytes of each frame.")
@click.option(
    "--refused-if",
    metavar="RULE",
    help="How to tell a refusal: /regex/ in the reply, key=value or key of a JSON reply. "
    "[default: what speaks of a limit]",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="ADDRESS",
    help="Local address to connect from; given several times, connections take turns.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def command(
    url: str,
    rate: float,
    connections: int,
    duration: float,
    message: str | None,
    raw: str | None,
    size: int | None,
    refused_if: str | None,
    sources: tuple[str, ...],
    as_json: bool,
) -> None:
    """Press a limit with real WebSockets, and draw what came through.

    URL is such as ws://127.0.0.1:8000/chat. Messages leave at a steady rate, whatever is
    refused. Ctrl-C ends it early and still tells what came.
    """
    if sum(value is not None for value in (message, raw, size)) > 1:
        raise click.UsageError("--message, --raw and --size exclude one another.")
    try:
        judge = judge_by(refused_if) if refused_if is not None else default_judge
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--refused-if") from None
    try:
        from .pressing import NobodyThereError, Plan, Tally
    except ImportError as error:
        raise click.ClickException(
            f'flood needs {error.name}: pip install "sluicegate[cli]"'
        ) from None
    plan = Plan(
        url=websocket_url(url),
        rate=rate,
        connections=connections,
        seconds=duration,
        frame=frames(message, raw, size),
        judge=judge,
        sources=sources,
    )
    tally = Tally(step=plan.step)
    try:
        asyncio.run(_run(plan, tally, quiet=as_json))
    except NobodyThereError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report(plan, tally)))
    else:
        _tell(plan, tally)


def websocket_url(url: str) -> str:
    """The URL with a WebSocket's scheme; raises click.BadParameter for what is none."""
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        known = scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise click.BadParameter(
            f"{url!r} is no address of a WebSocket; give one like ws://127.0.0.1:8000/chat",
            param_hint="URL",
        )
    return urlunsplit((scheme, parts.netloc, parts.path or "/", parts.query, ""))


def frames(message: str | None, raw: str | None, size: int | None) -> Any:
    """A function from a message's number to its frame."""
    if raw is not None:
        return lambda k: raw
    if message is not None:
        frame = json.dumps({"text": message}, ensure_ascii=False)
        return lambda k: frame
    if size is not None:
        filled = json.dumps({"text": "x" * (size - 12)})  # {"text": ""} is 12 bytes
        return lambda k: filled
    return lambda k: json.dumps({"text": f"flood {k + 1}"})


async def _run(plan: Plan, tally: Tally, *, quiet: bool) -> None:
    from .pressing import press

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        tally.interrupted = True
        stop.set()
        # A second Ctrl-C is meant.
        loop.remove_signal_handler(signal.SIGINT)

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        await press(plan, tally, stop)
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(24), console=console, transient=True
    ) as progress:
        bar = progress.add_task("", total=plan.messages)
        redraw = asyncio.ensure_future(_redraw(progress, bar, tally))
        try:
            await press(plan, tally, stop)
        finally:
            redraw.cancel()
            await asyncio.gather(redraw, return_exceptions=True)


async def _redraw(progress: Progress, bar: Any, tally: Tally) -> None:
    while True:
        progress.update(
            bar,
            completed=tally.sent,
            description=f"[dim]{tally.open} open[/] · {tally.sent} sent · "
            f"[cyan]{tally.admitted} admitted[/] · [yellow]{tally.refused} refused[/]",
        )
        await asyncio.sleep(REDRAW_SECONDS)


def report(plan: Plan, tally: Tally) -> dict[str, Any]:
    """The figures, for machines. Rates are messages a second, times seconds."""
    length = max(len(tally.sent_at), len(tally.admitted_at), len(tally.refused_at))

    def row(counts: Sequence[int]) -> list[int]:
        return [*counts, *[0] * (length - len(counts))]

    return {
        "url": plan.url,
        "rate": plan.rate,
        "connections": plan.connections,
        "duration": plan.seconds,
        "elapsed": round(tally.elapsed, 3),
        "interrupted": tally.interrupted,
        "opened": tally.opened,
        "not_opened": dict(tally.not_opened),
        "closed": {str(code): count for code, count in sorted(tally.closed.items())},
        "sent": tally.sent,
        "admitted": tally.admitted,
        "refused": tally.refused,
        "errors": tally.errors,
        "unanswered": max(0, tally.sent - tally.answered),
        "reasons": dict(tally.reasons),
        "series": {
            "every": tally.step,
            "sent": row(tally.sent_at),
            "admitted": row(tally.admitted_at),
            "refused": row(tally.refused_at),
        },
    }


def _tell(plan: Plan, tally: Tally) -> None:
    figures = report(plan, tally)
    series = figures["series"]
    if tally.sent:
        times = [series["every"] * i for i in range(len(series["sent"]) + 1)]
        lines = [
            plots.Series("sent", times, [0, *accumulate(series["sent"])], plots.SENT, "dot"),
            plots.Series("admitted", times, [0, *accumulate(series["admitted"])], plots.ADMITTED),
        ]
        click.echo(
            plots.draw(
                lines,
                title=f"messages to {plan.url}",
                x_label="seconds",
                width=plots.width_of_terminal(),
                color=plots.wants_color(),
            )
        )
        click.echo()
    Console(highlight=False, file=sys.stdout).print(_summary(plan, tally, figures))


def _summary(plan: Plan, tally: Tally, figures: dict[str, Any]) -> Padding:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    seconds = tally.elapsed or 1.0

    def row(label: str, count: int, note: str = "", style: str = "") -> None:
        # Text, for a note may be the server's own words: no markup is read in it.
        table.add_row(label, Text(number(count), style), Text(note))

    early = ", interrupted" if tally.interrupted else ""
    row("sent", tally.sent, f"{tally.sent / seconds:.1f} a second for {seconds:.1f} s{early}")
    share = 100 * tally.admitted / tally.sent if tally.sent else 0
    row("admitted", tally.admitted, f"{share:.1f} %", "bold cyan")
    why = ", ".join(f"{reason} {number(count)}" for reason, count in tally.reasons.most_common())
    row("refused", tally.refused, why if not tally.errors else "", "bold yellow")
    if tally.errors:
        row("errors", tally.errors, why, "bold red")
    if figures["unanswered"]:
        row("unanswered", figures["unanswered"], "no reply came in time")
    opened = f"of {number(plan.connections)}" if tally.opened < plan.connections else ""
    row("connections", tally.opened, opened)
    for reason, count in tally.not_opened.most_common():
        row("not opened", count, reason)
    for code, count in tally.closed.most_common():
        row("closed", count, f"by the server, code {code}{_CODES.get(code, '')}")
    return Padding(table, (0, 0, 0, 2))


_CODES = {
    1000: ", normal",
    1001: ", going away",
    1006: ", without a close frame",
    1008: ", policy: a limit, most likely",
    1009: ", message too big",
    1011: ", error in the server",
    1012: ", restarting",
    1013: ", try again later",
}
__all__ = ["Judge", "command", "report", "websocket_url"]
