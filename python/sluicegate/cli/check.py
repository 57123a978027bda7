"""`sluicegate check`: whether a file of rules is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sluicegate.asgi.rule import Rule


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.pass_context
def command(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Check files of rules, as RateLimitMiddleware.from_config reads them.

    Says what is unknown or wrong, by line, and ends with status 1 where anything is. Functions
    that rules name are imported. What only an application in front of them could tell (its
    server, its framework) is not looked at.
    """
    fine = [_check(file) for file in files]
    ctx.exit(0 if all(fine) else 1)


def _check(file: str) -> bool:
    from sluicegate import MemoryStore
    from sluicegate.asgi import RateLimitMiddleware, StoreBackend
    from sluicegate.asgi.config import ConfigError, read_rules
    from sluicegate.asgi.types import Receive, Scope, Send

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        """In place of an application."""

    try:
        rules = read_rules(file)
        # what is wrong with them together shows in a middleware of their own
        RateLimitMiddleware(nothing, backend=StoreBackend(MemoryStore()), config=rules)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return False
    except OSError as error:
        click.echo(f"{file}: {error.strerror or error}", err=True)
        return False
    except (ImportError, TypeError, ValueError) as error:
        click.echo(f"{file}: {error}", err=True)
        return False
    click.secho(f"{file}: {_number(rules)}", bold=True)
    for pattern, of_pattern in rules.items():
        click.echo(f"  {pattern}")
        for rule in of_pattern:
            click.echo(f"    {_in_words(rule)}")
    return True


def _number(rules: dict[str, list[Rule]]) -> str:
    count = sum(map(len, rules.values()))
    return f"{count} rule{'s' if count != 1 else ''}, nothing wrong"


def _in_words(rule: Rule) -> str:
    """What of a rule is not as it would be anyway."""
    from dataclasses import fields

    said = [
        f"{field.name}={_shown(value)}"
        for field in fields(rule)
        if (value := getattr(rule, field.name)) != field.default
    ]
    return ", ".join(said) or "unlimited"


def _shown(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    return str(name) if callable(value) and name else repr(value)
