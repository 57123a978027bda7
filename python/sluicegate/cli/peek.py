"""`sluicegate peek`: how a key stands."""

from __future__ import annotations

import json
from typing import Any

import click

from sluicegate.observe import escape_key

from .found import Found
from .limiters import (
    CommandStore,
    key_command,
    labels,
    limiters_named,
    rounded,
    run,
    shown,
    standing,
)
from .words import number


@click.command("peek")
@key_command
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def command(limiter: str, key: bytes, url: str | None, as_json: bool) -> None:
    """Show how a key stands with a limiter; charges nothing.

    LIMITER is a limiter's name, or what the names of its parts begin with: "chat" for
    chat.messages and chat.connections. KEY is written as `sluicegate top` shows it.
    """

    async def work(store: CommandStore) -> dict[str, Any]:
        found = await limiters_named(store, limiter)
        return {one.name: await _told(one, key) for one in found}

    told = run(url, work)
    if as_json:
        click.echo(json.dumps({"key": escape_key(key), "limiters": told}))
        return
    click.secho(escape_key(key), bold=True)
    for name, stands in told.items():
        click.echo(f"  {shown(name)}: {stands['stands']}")
        for quota in stands["quotas"]:
            left = f"{number(quota['remaining'])} of {number(quota['burst'])} left"
            click.echo(f"    {quota['label']}: {left}")
        if stands.get("reset_after") and not stands["banned"]:
            click.echo(f"    whole again in {rounded(stands['reset_after'])}")


async def _told(found: Found, key: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {"stands": "", "quotas": []}
    looked = await found.look(key)
    if looked is not None:
        told = looked.decision.as_dict()
        told["banned"] = looked.banned
        told["stands"] = standing(looked)
        if found.known.various:
            told["stands"] += " (by the largest numbers under this name)"
        told["quotas"] = [
            {"label": label, "limit": quota.limit, "burst": quota.burst, "remaining": left}
            for label, quota, left in zip(
                labels(found.known), found.known.quotas, looked.remaining, strict=True
            )
            if quota is not None and left is not None
        ]
    held = await found.held(key)
    if held is not None:
        most = found.known.slots
        told["held"] = held
        words = f"{held} of {most} held" if most else f"{held} held"
        told["stands"] = f"{told['stands']}, {words}" if told["stands"] else words
    return told
