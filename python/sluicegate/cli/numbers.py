"""Numbers on the command line."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click

from sluicegate.durations import seconds_of


class FiniteRange(click.FloatRange):
    """A FloatRange that refuses `nan`, which no comparison does."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value!r} is not a number that can be used.", param, ctx)
        return number


def as_seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The callback of an option that is a time, as `90s`, `10 min`, `1h30m`, `2d`."""
    try:
        return seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
