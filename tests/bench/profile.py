"""Instructions a call, and where they go: valgrind's callgrind over a loop of hits.

Instructions do not depend on what else the machine does: the difference of two runs of
different lengths leaves only the loop.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .harness import environment

__all__ = ["LOOPS", "run"]

SYNC = "from sluicegate.sync import Limiter; l = Limiter({quotas!r}); k = 'user:42'; l.hit(k)\n"
ASYNC = "import asyncio\nasync def main():\n"
LOOPS = {
    "reference": "d = {'user:42': 0}; k = 'user:42'\nfor _ in range(N): d[k] += 1\n",
    "hit": SYNC.format(quotas="1000000000/second") + "for _ in range(N): l.hit(k)\n",
    "refused": SYNC.format(quotas="1/day") + "for _ in range(N): l.hit(k)\n",
    "two": SYNC.format(quotas="a: 1000000000/second; b: 1000000000/minute")
    + "for _ in range(N): l.hit(k)\n",
    "empty": "async def empty(): pass\n"
    + ASYNC
    + "    for _ in range(N): await empty()\nasyncio.run(main())\n",
    "awaited": ASYNC
    + "    from sluicegate import Limiter; l = Limiter('1000000000/second'); k = 'user:42'\n"
    + "    for _ in range(N): await l.hit(k)\nasyncio.run(main())\n",
    "check_message": ASYNC
    + "    from sluicegate import WebSocketLimits, WebSocketRateLimiter\n"
    + "    l = WebSocketRateLimiter(WebSocketLimits(messages_per_minute=10**9, "
    + "bytes_per_minute=5 * 10**10))\n"
    + "    await l.register_connection('c', 'client')\n"
    + "    for _ in range(N): await l.check_message('c', 128)\nasyncio.run(main())\n",
}
SHORT, LONG = 20_000, 120_000


def counted(loop: str, count: int, out: Path) -> int:
    """Instructions of a whole process that runs the loop `count` times."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable]
    done = subprocess.run(
        [*command, "-c", f"N = {count}\n{LOOPS[loop]}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=1800,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return int(found.group(1))


def by_function(out: Path) -> dict[str, int]:
    """Instructions of each function itself, whatever called it."""
    listing = subprocess.run(
        ["callgrind_annotate", "--threshold=100", str(out)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found: dict[str, int] = {}
    for line in listing.splitlines():
        match = re.match(r"\s*([\d,]+) \([^)]*\)\s+\S+:(\S+)(?: \[|$)", line)
        if match is not None:
            name = match.group(2)
            found[name] = found.get(name, 0) + int(match.group(1).replace(",", ""))
    return found


def run(loop: str) -> int:
    if shutil.which("valgrind") is None:
        sys.stderr.write("valgrind is not installed (apt-get install valgrind)\n")
        return 2
    turns = LONG - SHORT
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short", Path(folder) / "long"
        each = (counted(loop, LONG, long) - counted(loop, SHORT, short)) / turns
        before, after = by_function(short), by_function(long)
    sys.stdout.write(f"{loop}: {each:.0f} instructions a turn of the loop, of these in\n")
    shares = {name: (count - before.get(name, 0)) / turns for name, count in after.items()}
    for name in sorted(shares, key=lambda name: -shares[name])[:24]:
        if shares[name] >= 1:
            sys.stdout.write(f"{shares[name]:8.1f}  {name}\n")
    return 0
