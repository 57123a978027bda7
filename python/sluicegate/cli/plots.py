"""Plots in the terminal, through plotext."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Literal

SENT = "gray"
ADMITTED = "cyan"
REFUSED = "orange"
OTHERS = ("blue", "magenta", "green", "red")


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: str
    marker: Literal["braille", "dot"] = "braille"


def wants_color() -> bool:
    """Colour only where a person looks, and has not said no (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def width_of_terminal(most: int = 100) -> int:
    """Columns for a plot."""
    return max(40, min(most, shutil.get_terminal_size((80, 24)).columns))


def nice_ticks(highest: float) -> list[float]:
    """Three to six round numbers from 0 up, the last not far from `highest`."""
    highest = max(highest, 1e-9)
    power = 10 ** floor(log10(highest / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 5 >= highest)
    return [step * i for i in range(int(highest / step + 1e-9) + 1)]


def until(series: Series, top: float | None) -> tuple[list[float], list[float]]:
    """The line as far as it stays below `top`, and the point where it leaves.

    plotext would draw all of a line, also the billions of cells above the plot.
    """
    xs, ys = list(series.xs), list(series.ys)
    if top is not None:
        for i, y in enumerate(ys):
            if y > top:
                if i == 0:
                    return [xs[0]], [top]
                share = (top - ys[i - 1]) / (y - ys[i - 1])
                return [*xs[:i], xs[i - 1] + share * (xs[i] - xs[i - 1])], [*ys[:i], top]
    return xs, ys


def draw(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    width: int,
    height: int = 18,
    top: float | None = None,
    color: bool = True,
) -> str:
    """The plot as text, without a newline at the end.

    `top` cuts the plot there: a line that leaves it runs off the top.
    """
    import plotext

    plotext.clear_figure()
    plotext.plot_size(width, height)
    plotext.theme("clear")
    longest = max(len(one.label) for one in series)
    for one in series:
        xs, ys = until(one, top)
        plotext.plot(
            xs,
            ys,
            label=one.label.ljust(longest),
            color=one.color,
            marker="·" if one.marker == "dot" else one.marker,
        )
    highest = top if top is not None else max(max(one.ys) for one in series)
    highest = max(highest, 1.0)
    # Counts are whole; between few of them no tick has a meaning.
    ticks = [tick for tick in nice_ticks(highest) if tick == round(tick)]
    plotext.ylim(0, max(highest, ticks[-1]))
    plotext.yticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    last = max(one.xs[-1] for one in series)
    plotext.xlim(0, last)
    ticks = nice_ticks(last)
    plotext.xticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    plotext.title(title)
    plotext.xlabel(x_label)
    text: str = plotext.build()
    plotext.clear_figure()
    if not color:
        text = plotext.uncolorize(text)
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))
