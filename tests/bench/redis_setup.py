"""What the rows about Redis share: a server of the benchmark's own, the two references, and
checks that run one after the other or many at once.

Times are by the wall: two processes take part, and either may be the one that is waited for.
"""

from __future__ import annotations

import asyncio
import csv
import random
import shlex
import shutil
import subprocess
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .harness import alternating, median
from .rows import Row

__all__ = [
    "KEYS",
    "KIND",
    "LIMIT",
    "QUOTA",
    "TIMEOUT",
    "WIDTH",
    "BlockingLoop",
    "Check",
    "Setup",
    "Tally",
    "all_at_once",
    "alternating",
    "closed",
    "missing",
    "names",
    "new_loop",
    "one_by_one",
    "ours_over",
    "plain_gcra",
    "rates",
    "setup",
    "why_not",
    "words_of",
]

KIND = "redis-server"
KEYS = 100_000
WIDTH = 512  # checks at once
LIMIT, PERIOD_US = 1000, 3_600_000_000
QUOTA = f"{LIMIT}/hour"  # admits all that is measured, and no state ends meanwhile
TIMEOUT = 20.0  # seconds of a check: a busy machine is to be measured, not to fail
HERE = Path(__file__).resolve().parent

Check = Callable[[str], Awaitable[bool]]


def why_not() -> str | None:
    """Why nothing of this can be measured here; None: it can."""
    for program in (KIND, "redis-benchmark"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install redis-server redis-tools)"
    if shutil.which("cc") is None or not has_hiredis():
        return "no C compiler with hiredis (apt-get install gcc libhiredis-dev pkg-config)"
    try:
        import redis  # noqa: F401
    except ImportError:
        return "redis is not installed (pip install redis)"
    try:
        from sluicegate import RedisStore  # noqa: F401
    except RuntimeError:
        return "sluicegate was built without hiredis (apt-get install libhiredis-dev pkg-config)"
    return None


def has_hiredis() -> bool:
    try:
        return subprocess.run(["pkg-config", "--exists", "hiredis"], check=False).returncode == 0
    except OSError:
        return False


def missing(topic: str, what: str, reference: str, why: str) -> Row:
    return Row(topic, what, None, "x", reference, missing=why)


# ---- servers and references


@dataclass(frozen=True)
class Setup:
    """Where a worker finds the server and the program of the blocking loop."""

    socket: str
    program: str

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"


@contextmanager
def setup() -> Iterator[Setup]:
    """A server on a Unix socket, which ends with the block, and the compiled loop."""
    from redis_servers.server import server

    with tempfile.TemporaryDirectory(prefix="sluicegate-") as folder, server(KIND) as running:
        yield Setup(str(running.socket), compiled(Path(folder)))


def compiled(folder: Path) -> str:
    """redis_loop.c with the system's hiredis; RuntimeError with what the compiler says."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "hiredis"], capture_output=True, text=True, check=True
    ).stdout
    program = folder / "redis_loop"
    done = subprocess.run(
        ["cc", "-O2", str(HERE / "redis_loop.c"), "-o", str(program), *shlex.split(flags)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"redis_loop.c: {done.stderr.strip()}")
    return str(program)


class BlockingLoop:
    """redis_loop.c at work on one command: the reference of one check at a time."""

    def __init__(self, made: Setup, words: list[bytes]) -> None:
        self.percentiles: list[tuple[int, int]] = []  # ns, a run an entry
        self._process = subprocess.Popen(
            [made.program, made.socket, *(word.hex() for word in words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> BlockingLoop:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate(timeout=60)  # its input ends, and so does it

    def __call__(self, count: int) -> float:
        """The seconds of so many checks."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        seconds, p50, p99 = self._process.stdout.readline().split()
        self.percentiles.append((int(p50), int(p99)))
        return float(seconds)


def words_of(made: Setup, act: Callable[[], object]) -> list[bytes]:
    """The words of the script call that `act` makes, as the server got them."""
    import redis

    with redis.Redis(unix_socket_path=made.socket) as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
        act()
        client.config_set("slowlog-log-slower-than", -1)
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command("SLOWLOG", "GET", "100")
            entries = connection.read_response()
        finally:
            client.connection_pool.release(connection)
    return next([*entry[3]] for entry in entries if entry[3][0] == b"EVALSHA")


def plain_gcra(made: Setup) -> Callable[[int], float]:
    """redis-benchmark, 64 checks of reference.lua in flight on one connection, random keys: the
    reference of many at once. Returns what gives the seconds of so many checks."""
    import redis

    with redis.Redis(unix_socket_path=made.socket) as client:
        sha = client.script_load((HERE / "reference.lua").read_text())
    if isinstance(sha, bytes):
        sha = sha.decode()
    fixed = ["redis-benchmark", "-s", made.socket, "-P", "64", "-c", "1", "-r", str(KEYS), "--csv"]
    check = ["EVALSHA", sha, "1", "key:__rand_int__", str(PERIOD_US // LIMIT), str(LIMIT)]

    def run(count: int) -> float:
        done = subprocess.run(
            [*fixed, "-n", str(count), *check],
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        rows = [*csv.DictReader(done.stdout.splitlines())]
        if len(rows) != 1 or "rps" not in rows[0]:
            raise RuntimeError(f"redis-benchmark said {(done.stdout + done.stderr).strip()!r}")
        return count / float(rows[0]["rps"])

    return run


# ---- checks


@dataclass
class Tally:
    """What became of checks."""

    admitted: int = 0
    refused: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)  # each once
    latencies: array[int] = field(default_factory=lambda: array("q"))  # ns, of one by one

    def fail(self, error: Exception) -> None:
        self.failed += 1
        text = f"{type(error).__name__}: {error}"
        if text not in self.errors and len(self.errors) < 3:
            self.errors.append(text)

    def clear(self) -> None:
        self.admitted = self.refused = self.failed = 0
        self.errors.clear()
        del self.latencies[:]

    @property
    def all(self) -> int:
        return self.admitted + self.refused + self.failed

    def trouble(self) -> str | None:
        """What is not as it should be: all of these checks ought to be admitted."""
        said = []
        if self.failed:
            said.append(f"raises in {self.failed:,} of {self.all:,}: {self.errors[0]}")
        if self.refused:
            said.append(f"refuses {self.refused:,} of {self.all:,}")
        return "; ".join(said) or None

    def percentiles(self) -> tuple[float, float]:
        """The median and the 99th percentile, in µs."""
        ordered = sorted(self.latencies)
        return ordered[len(ordered) // 2] / 1000, ordered[len(ordered) * 99 // 100] / 1000


def ours_over(url: str, quota: str, name: str) -> Any:
    """A limiter of our own."""
    from sluicegate import Limiter, RedisStore

    return Limiter(quota, store=RedisStore(url, timeout=TIMEOUT), name=name, timeout=TIMEOUT)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """ "asyncio" or "uvloop"; ImportError. See `closed`."""
    if kind == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


def closed(loop: asyncio.AbstractEventLoop) -> None:
    """Ends it, and the connections that were made on it."""
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def names(count: int, seed: int, keys: int = KEYS) -> list[str]:
    """So many random subjects out of `keys`."""
    drawn = random.Random(seed)
    return [f"user:{drawn.randrange(keys)}" for _ in range(count)]


async def one_by_one(check: Check, subjects: list[str], tally: Tally) -> float:
    """The seconds of all, each after the other's end."""
    clock, note = time.perf_counter_ns, tally.latencies.append
    begin = last = clock()
    for subject in subjects:
        try:
            if await check(subject):
                tally.admitted += 1
            else:
                tally.refused += 1
        except Exception as error:  # whatever another package does, the rest is measured
            tally.fail(error)
        now = clock()
        note(now - last)
        last = now
    return (last - begin) / 1e9


async def all_at_once(
    check: Check,
    subjects: list[str],
    tally: Tally,
    width: int = WIDTH,
    enter: Callable[[], Awaitable[None]] | None = None,
) -> float:
    """The seconds of all, by `width` tasks that each have one check under way. `enter` is awaited
    by each task before the time begins."""
    left, ready, go = iter(subjects), asyncio.Semaphore(0), asyncio.Event()

    async def work() -> None:
        if enter is not None:
            await enter()
        ready.release()
        await go.wait()
        admitted = refused = 0
        for subject in left:
            try:
                if await check(subject):
                    admitted += 1
                else:
                    refused += 1
            except Exception as error:
                tally.fail(error)
        tally.admitted += admitted
        tally.refused += refused

    tasks = [asyncio.ensure_future(work()) for _ in range(width)]
    for _ in tasks:
        await ready.acquire()
    begin = time.perf_counter()
    go.set()
    await asyncio.gather(*tasks)
    return time.perf_counter() - begin


def rates(
    ours: list[float], count: int, theirs: list[float], their_count: int
) -> tuple[float, dict[str, Any]]:
    """The median of the ratios of throughput, and what to tell of it."""
    found = [(count / a) / (their_count / b) for a, b in zip(ours, theirs, strict=True)]
    return median(found), {
        "per_second": round(count / median(ours)),
        "reference_per_second": round(their_count / median(theirs)),
        "spread": [round(min(found), 3), round(max(found), 3)],
        "rounds": len(found),
    }
