"""`sluicegate ban`: refuses a key for some time."""

from __future__ import annotations

import click

from .changing import change
from .limiters import key_command
from .numbers import as_seconds
from .words import duration


@click.command("ban")
@key_command
@click.option(
    "--for",
    "seconds",
    callback=as_seconds,
    default="1h",
    show_default=True,
    help="For how long, as 90s, 10min, 1h, 2d.",
)
def command(limiter: str, key: bytes, url: str | None, seconds: float) -> None:
    """Refuse all of a key for some time, in every process.

    LIMITER and KEY are those of `sluicegate peek`. A connection that is open stays open, and its
    next message is refused; where units were leased or refusals are cached, at most as much later
    as those hold.
    """
    until = f"is banned for {duration(seconds)}"
    change(url, limiter, key, "ban", seconds, said=lambda banned: until + ", from now" * banned)
