"""Which servers there are, and the program that goes with each."""

from __future__ import annotations

import shutil

KNOWN = ("redis-server", "valkey-server")
KINDS = tuple(kind for kind in KNOWN if shutil.which(kind))


def cli(kind: str) -> str:
    """The command-line client that came with the server."""
    return kind.removesuffix("-server") + "-cli"
