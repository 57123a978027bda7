"""What reset, ban and unban have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sluicegate.observe import escape_key

from .found import Found
from .limiters import CommandStore, limiters_named, run, shown

__all__ = ["change"]


def change(
    url: str | None,
    name: str,
    key: bytes,
    operation: str,
    argument: Any = None,
    *,
    said: Callable[[bool], str],
) -> None:
    """Does it to the key in that limiter, or in all its parts, and says so: `said` is told
    whether the key was banned before."""

    async def work(store: CommandStore) -> list[tuple[Found, bool]]:
        found = [one for one in await limiters_named(store, name) if one.has_quotas]
        if not found:
            raise click.ClickException(
                f"{name!r} counts what is held at once, which has no {operation}: a slot is free "
                "when its holder gives it back, or its process has ended."
            )
        done = []
        for one in found:
            looked = await one.look(key, 0)
            try:
                await one.change(operation, key, argument)
            except ValueError as error:
                raise click.ClickException(str(error)) from None
            done.append((one, looked is not None and looked.banned))
        return done

    for one, banned in run(url, work):
        click.echo(f"{shown(one.name)}: {escape_key(key)} {said(banned)}")
