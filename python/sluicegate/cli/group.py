"""The group of commands. A command's module is imported when it is named, not before."""

from __future__ import annotations

from importlib import import_module, metadata

import click

COMMANDS = {
    "demo": "Serve a chat whose messages are limited, and its dashboard.",
    "flood": "Press a limit with real WebSockets, and draw what came through.",
    "quota": "Explain a rate string, and draw what it admits.",
    "check": "Check a file of rules.",
    "bench": "Measure what a check costs on this machine.",
    "top": "List the limiters of a store, and the keys that press them.",
    "peek": "Show how a key stands with a limiter.",
    "reset": "Forget a key.",
    "ban": "Refuse a key for some time.",
    "unban": "Lift the ban of a key.",
}


class LazyGroup(click.Group):
    """Knows its commands by name, and loads one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f".{cmd_name}", __package__).command
        if not isinstance(command, click.Command):  # pragma: no cover - a mistake of ours
            raise TypeError(f"{cmd_name} has no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The list is written from the names, so that help loads no command.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def version() -> str:
    """The installed version, or "unknown" in a checkout that was not installed."""
    try:
        return metadata.version("sluicegate")
    except metadata.PackageNotFoundError:
        return "unknown"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="sluicegate")
def cli() -> None:
    """Rate limiting for realtime Python."""
