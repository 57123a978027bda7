"""What the rows share: how two things are timed is the command's own (sluicegate.cli.timing), and
so are the plainest loops; here is what runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sluicegate.cli.loops import awaiting_empty, counting
from sluicegate.cli.timing import (
    Ratio,
    Timed,
    TimedAsync,
    alternate,
    alternate_async,
    alternating,
    count_for,
    median,
    no_gc,
)

__all__ = [
    "Ratio",
    "Timed",
    "TimedAsync",
    "alternate",
    "alternate_async",
    "alternating",
    "awaiting_empty",
    "count_for",
    "counting",
    "environment",
    "median",
    "no_gc",
    "worker",
]


def worker(name: str, *arguments: object, timeout: float = 1800) -> Any:
    """Runs `bench.workers.NAME(*arguments)`, or NAME of another module of bench where it is
    "module.name", in a fresh process; what it returned."""
    module, _, name = name.rpartition(".")
    call = (
        "import importlib, json, sys; module = importlib.import_module('bench.' + sys.argv[1]); "
        "print(json.dumps(getattr(module, sys.argv[2])(*json.loads(sys.argv[3]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call, module or "workers", name, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )
    if done.returncode != 0:
        # What is told of its end after that is no cause of it.
        said = done.stderr.partition("Exception ignored in")[0]
        last = said.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{name} ended with {done.returncode}: {last[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """This environment, with the tests (and a checkout's package, if used) importable."""
    found = os.environ.copy()
    paths = [str(Path(__file__).resolve().parent.parent), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return found
