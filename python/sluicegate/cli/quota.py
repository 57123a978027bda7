"""`sluicegate quota`: a rate string in words, and what it lets through under a flood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sluicegate import _core
from sluicegate.quota import as_quotas

from . import plots
from .explain import Simulation, facts, quota_text, rate_words, simulate, together
from .numbers import FiniteRange
from .words import duration, number


@click.command("quota")
@click.argument("text", metavar="RATE")
@click.option(
    "--seconds",
    type=FiniteRange(0.001, 1e9),
    help="How long the flood lasts. [default: until the long run shows]",
)
@click.option(
    "--rate",
    type=FiniteRange(1e-9, 1e9),
    help="Events a second that press. [default: twice what is admitted for long]",
)
@click.option(
    "--size",
    type=click.IntRange(1, 2**30),
    default=256,
    show_default=True,
    help="Bytes of one event, where a byte quota is among them.",
)
@click.option("--no-plot", is_flag=True, help="Words only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def command(
    text: str,
    seconds: float | None,
    rate: float | None,
    size: int,
    no_plot: bool,
    as_json: bool,
) -> None:
    """Explain a rate string, and draw what it admits.

    RATE is such as "5/second burst 20", "1MB/minute", "60/hour using fixed-window", or
    several joined by ";". The plot is made by the core itself, on a clock moved by hand.
    """
    try:
        quotas = as_quotas(text)  # as a limiter would
    except ValueError as error:
        # The message shows the string and points at the place; it needs its own lines.
        raise click.ClickException(str(error)) from None
    try:
        flood = simulate(quotas, rate=rate, span=seconds, size=size)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--seconds") from None
    if as_json:
        click.echo(json.dumps(_as_dict(quotas, flood, size)))
        return
    console = Console(highlight=False)
    _explain(console, quotas, size)
    if not no_plot:
        _plot(console, quotas, flood, size)


def _explain(console: Console, quotas: Sequence[_core.Quota], size: int) -> None:
    for quota in quotas:
        console.print(Text(quota_text(quota), style="bold cyan"))
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for label, value in facts(quota):
            table.add_row(label, value)
        console.print(Padding(table, (0, 0, 0, 2)))
        console.print()
    words = together(quotas, size)
    if words:
        console.print(words)
        console.print()


def _plot(console: Console, quotas: Sequence[_core.Quota], flood: Simulation, size: int) -> None:
    unit, scale = time_unit(flood.span)
    times = [at / scale for at in flood.times]
    series = [plots.Series("sent", times, flood.sent, plots.SENT, "dot")]
    if len(quotas) > 1:
        series += [
            plots.Series(f"{quota_text(quota)} alone", times, line, color, "dot")
            for quota, line, color in zip(quotas, flood.alone, plots.OTHERS * 4, strict=False)
            if line is not None
        ]
    label = "admitted by all" if len(quotas) > 1 else "admitted"
    series.append(plots.Series(label, times, flood.admitted, plots.ADMITTED))
    top = max(1.0, flood.admitted[-1]) * 1.25
    sized = f" of {size} bytes" if any(quota.name == "bytes" for quota in quotas) else ""
    text = plots.draw(
        series,
        title=f"events admitted when {rate_words(flood.rate, '')}{sized} are sent",
        x_label=unit,
        width=plots.width_of_terminal(),
        top=min(top, max(flood.sent[-1], flood.admitted[-1])),
        color=plots.wants_color(),
    )
    # Not through rich, which would measure and wrap it.
    click.echo(text)
    console.print()
    console.print(
        f"Of {number(flood.sent[-1])} sent in {duration(flood.span)}, "
        f"{number(flood.admitted[-1])} come through."
    )


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit for an axis of so many seconds, and how many seconds it has."""
    for name, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * size:
            return name, size
    return ("seconds", 1.0) if seconds >= 1 else ("milliseconds", 0.001)


def _as_dict(quotas: Sequence[_core.Quota], flood: Simulation, size: int) -> dict[str, Any]:
    return {
        "quotas": [
            {
                "name": quota.name,
                "limit": quota.limit,
                "period": quota.period,
                "burst": quota.burst,
                "algorithm": quota.algorithm,
                "shadow": quota.shadow,
                "rate_per_second": quota.limit / quota.period,
                "interval": quota.period / quota.limit if quota.algorithm == "gcra" else None,
                "seconds_to_full": quota.period * quota.burst / quota.limit
                if quota.algorithm == "gcra"
                else quota.period,
            }
            for quota in quotas
        ],
        "flood": {
            "rate_per_second": flood.rate,
            "seconds": flood.span,
            "bytes_each": size,
            "times": flood.times,
            "sent": flood.sent,
            "admitted": flood.admitted,
            "alone": flood.alone,
        },
    }
