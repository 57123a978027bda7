"""The command `sluicegate`: a file a command, each loaded when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; returns the exit status."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        print(
            f"sluicegate: the command needs {error.name}: "
            'pip install "sluicegate[cli]" (or "sluicegate[demo]" for the demo as well)',
            file=sys.stderr,
        )
        return 1
    from .group import cli

    cli()
    return 0
