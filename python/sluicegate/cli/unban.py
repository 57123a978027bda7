"""`sluicegate unban`: lifts a ban."""

from __future__ import annotations

import click

from .changing import change
from .limiters import key_command


@click.command("unban")
@key_command
def command(limiter: str, key: bytes, url: str | None) -> None:
    """Lift the ban of a key; what it was charged before still counts.

    LIMITER and KEY are those of `sluicegate peek`.
    """
    change(
        url,
        limiter,
        key,
        "unban",
        said=lambda banned: "is no longer banned" if banned else "was not banned",
    )
