"""Processes that use one file at once, spawned or forked, each told what to do again and again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shared_store import work

SECONDS = 40.0  # that any one thing may take


def _serve(path: str, made: work.Made | None, pipe: Any, gate: Any, held: Any) -> None:
    """What a process does: (function of `work`, arguments) → (True, result) or (False, error)."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(1e-5)
    made = made or work.Made(path)
    made.gate, made.held = gate, held
    with suppress(EOFError, BrokenPipeError):
        pipe.send((True, "ready"))
        while True:
            name, given = pipe.recv()
            made.tell = lambda what: pipe.send(("told", what))
            made.hear = pipe.recv
            try:
                pipe.send((True, getattr(work, name)(made, **given)))
            except BaseException:
                pipe.send((False, traceback.format_exc()))


class Worker:
    def __init__(self, process: Any, pipe: Any) -> None:
        self.process = process
        self.pipe = pipe

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    def start(self, what: str, /, **given: Any) -> None:
        self.pipe.send((what, given))

    def read(self, seconds: float = SECONDS) -> Any:
        """What it tells next, or what came of what it was to do."""
        assert self.pipe.poll(seconds), f"a process said nothing within {seconds} s"
        try:
            done, result = self.pipe.recv()
        except EOFError:
            self.process.join(SECONDS)
            raise AssertionError(f"a process ended with {self.process.exitcode}") from None
        assert done is not False, result
        return result

    def do(self, what: str, /, **given: Any) -> Any:
        self.start(what, **given)
        return self.read()

    def say(self, what: object = None) -> None:
        self.pipe.send(what)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self.process.kill()
        self.process.join(SECONDS)

    def stop(self) -> None:
        """SIGSTOP, and waits until it stands."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + SECONDS
        while self.state() != "T":
            assert time.monotonic() < deadline
            time.sleep(0)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def state(self) -> str:
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]

    def end(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(SECONDS)
        self.process.close()


class Crew(list[Worker]):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held  # how many slots all of them hold now, and how many at most

    def do(self, what: str, /, **given: Any) -> list[Any]:
        """All at once; what came of it, in their order."""
        for one in self:
            one.start(what, **given)
        return [one.read() for one in self]


@contextmanager
def crew(
    path: str,
    count: int,
    method: str = "spawn",
    prepare: Callable[[work.Made], object] | None = None,
) -> Iterator[Crew]:
    """So many; forked, they have what `prepare` made in this process. They end with the block."""
    context = multiprocessing.get_context(method)
    gate, held = context.Barrier(count), context.Array("i", 2)
    made = None
    if method == "fork":
        made = work.Made(path)
        if prepare is not None:
            prepare(made)
            made.complete = True
    found = Crew(held)
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(path, made, theirs, gate, held), daemon=True
            )
            process.start()
            theirs.close()
            found.append(Worker(process, ours))
        for one in found:
            assert one.read() == "ready"
        yield found
    finally:
        for one in found:
            one.end()
