"""Processes that use one store at once: see worker.py."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS = 40.0  # that any of them may take


class Worker:
    """One of them; killed after SECONDS."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._timer = threading.Timer(SECONDS, self.process.kill)
        self._timer.start()

    def read(self) -> Any:
        """What it says next; AssertionError where it ended."""
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        assert told, f"a process ended with {self.process.wait(SECONDS)} and said nothing"
        return json.loads(told)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self.process.kill()
        self.process.wait(SECONDS)

    def end(self) -> None:
        self._timer.cancel()
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # it was killed before it read
                pipe.close()


@contextmanager
def workers(count: int, **given: Any) -> Iterator[list[Worker]]:
    """So many that are ready to go; they end with the block."""
    made: list[Worker] = []
    try:
        made += [Worker(given) for _ in range(count)]
        for one in made:
            assert one.read() == "ready"
        yield made
    finally:
        for one in made:
            one.end()


def together(made: list[Worker]) -> None:
    """Lets all go at once."""
    for one in made:
        one.go()
