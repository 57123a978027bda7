"""`sluicegate reset`: forgets a key."""

from __future__ import annotations

import click

from .changing import change
from .limiters import key_command


@click.command("reset")
@key_command
def command(limiter: str, key: bytes, url: str | None) -> None:
    """Forget a key: what it was charged, its ban, its open reservations.

    LIMITER and KEY are those of `sluicegate peek`.
    """
    change(url, limiter, key, "reset", said=lambda banned: "starts anew" + ", unbanned" * banned)
