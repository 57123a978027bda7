"""How long the import takes in a program that has imported asyncio."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from .harness import environment, median
from .rows import Row, Topic

OURS = "from sluicegate import Limiter, WebSocketRateLimiter"
PEERS = {
    "limits": "import limits",
    "pyrate-limiter": "import pyrate_limiter",
    "ratethrottle": "from ratethrottle import WebSocketRateLimiter",
    "throttled-py": "import throttled",
}


def once(statement: str, byte_code: str) -> float:
    """Milliseconds in a fresh process that has imported asyncio and time, and no more.

    The byte code is read, as that of an installed package is, whatever the environment says
    about writing it.
    """
    code = (
        "import asyncio, time\nbegin = time.perf_counter()\n"
        f"{statement}\nprint((time.perf_counter() - begin) * 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **environment(),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": byte_code,
        },
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def milliseconds(statement: str, rounds: int) -> tuple[float, dict[str, object]]:
    with TemporaryDirectory() as byte_code:
        once(statement, byte_code)  # it is written now
        found = [once(statement, byte_code) for _ in range(rounds)]
    return median(found), {
        "spread_ms": [round(min(found), 2), round(max(found), 2)],
        "rounds": rounds,
    }


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    value, info = milliseconds(OURS, rounds)
    yield Row("imports", OURS, value, "ms", "after import asyncio", 15, info=info)


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    for name, statement in PEERS.items():
        what = f"{name}: {statement}"
        try:
            value, info = milliseconds(statement, rounds)
        except RuntimeError:
            why = f"not installed (pip install {name})"
            yield Row("imports", what, None, "ms", "after import asyncio", peer=True, missing=why)
            continue
        yield Row("imports", what, value, "ms", "after import asyncio", peer=True, info=info)


TOPIC = Topic("imports", "Import", measure, peers)
