"""`sluicegate top`, `peek`, `reset`, `ban` and `unban` over shared memory, on limiters of other
processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

import serving
from adapters.banning import banning
from sluicegate import Limiter, SharedMemoryStore
from sluicegate.cli.group import cli

pytestmark = pytest.mark.server

TESTS = Path(__file__).parent.parent

CHAT = """
limiter = Limiter("3/hour; bytes: 1MB/hour", store=store, name="chat")
charged = {"ann": 1, "bob": 3, "bad\\n\\\\\\x1b[31m": 2, b"\\xff": 1, "x" * 200: 1}
for key, times in charged.items():
    for _ in range(times):
        assert limiter.hit_nowait(key, {"bytes": 1000})
assert not any(limiter.hit_nowait("bob") for _ in range(4))
Limiter("5/second", store=store, name="quiet")
"""

ROOMS = """
rooms = ConcurrencyLimiter(4, store=store, name="rooms")
slots = [rooms.acquire_nowait("ann") for _ in range(2)]
"""


class Worker:
    """A process that has limiters in the file, and lives until it is told to end."""

    def __init__(self, path: Path, program: str) -> None:
        whole = (
            "import sys\n"
            "from sluicegate import ConcurrencyLimiter, Limiter, SharedMemoryStore\n"
            f"store = SharedMemoryStore({str(path)!r}, '4MB')\n{program}\n"
            "print('ready', flush=True)\n"
            "for line in sys.stdin:\n"
            "    print(eval(line), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", whole],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, expression: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app"


@pytest.fixture
def worker(path: Path) -> Iterator[Callable[[str], Worker]]:
    with ExitStack() as stack:
        yield lambda program: stack.enter_context(Worker(path, program))


def run(store: Path | str, *arguments: str, code: int = 0) -> str:
    """What a command prints; it must end so."""
    env = {"SLUICEGATE_STORE": store if isinstance(store, str) else f"shm://{store}"}
    done = CliRunner().invoke(cli, arguments, env=env, terminal_width=100)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output if code == 0 else " ".join(done.output.split())


def test_peek_tells_how_a_key_stands_and_charges_nothing(
    path: Path, worker: Callable[[str], Worker]
) -> None:
    worker(CHAT)
    for _ in range(5):
        text = run(path, "peek", "chat", "ann")
    assert "chat: admitted" in text
    assert "3/hour: 2 of 3 left" in text
    assert re.search(r"bytes: 1,047,[56]\d\d of 1,048,576 left", text)
    text = run(path, "peek", "chat", "bob")
    assert "chat: refused, again in" in text
    assert "3/hour: 0 of 3 left" in text
    told = json.loads(run(path, "peek", "chat", "bob", "--json"))["limiters"]["chat"]
    assert told["allowed"] is False and 0 < told["retry_after"] <= 1200
    assert told["quotas"][0]["remaining"] == 0
    assert "3/hour: 3 of 3 left" in run(path, "peek", "chat", "nobody")


def test_changes_are_those_of_the_process_that_limits(
    path: Path, worker: Callable[[str], Worker]
) -> None:
    live = worker(CHAT)
    assert live.ask("limiter.peek_nowait('bob').allowed") == "False"
    assert run(path, "reset", "chat", "bob") == "chat: bob starts anew\n"
    assert live.ask("limiter.peek_nowait('bob').remaining") == "3"
    assert run(path, "ban", "chat", "ann", "--for", "1h30m") == (
        "chat: ann is banned for 1 hour 30 minutes\n"
    )
    assert live.ask("5390 < limiter.hit_nowait('ann').retry_after <= 5400") == "True"
    assert live.ask("limiter.hit_nowait('bob').allowed") == "True"
    text = run(path, "peek", "chat", "ann")
    assert "chat: banned, ends in 1 hour 30 minutes" in text
    assert "left" not in text  # nothing is admitted, whatever is left
    assert run(path, "unban", "chat", "ann") == "chat: ann is no longer banned\n"
    assert run(path, "unban", "chat", "ann") == "chat: ann was not banned\n"
    assert live.ask("limiter.peek_nowait('ann').remaining") == "2"  # what was charged counts
    # a ban of the process is one to the command
    live.ask("limiter.ban_nowait('ann', 60)")
    assert run(path, "reset", "chat", "ann") == "chat: ann starts anew, unbanned\n"


def test_top_tells_what_all_processes_counted(path: Path, worker: Callable[[str], Worker]) -> None:
    worker(CHAT)
    worker(
        "limiter = Limiter('3/hour; bytes: 1MB/hour', store=store, name='chat')\n"
        "for _ in range(2): limiter.hit_nowait('ann')"
    )
    told = json.loads(run("", "top", f"shm://{path}", "--json"))
    assert (told["store"], told["size"], told["processes"]) == (str(path), 4 << 20, 2)
    rows = {row["name"]: row for row in told["limiters"]}
    assert rows["quiet"]["quotas"] == "5/second"
    assert rows["quiet"]["hottest"] == rows["quiet"]["most_refused"] == []
    row = rows["chat"]
    assert row["quotas"] == "3/hour; 1MB/hour"
    counters = row["counters"]
    assert (counters["admitted"], counters["refused"], counters["keys"]) == (10, 4, 5)
    hottest = {one["key"]: one for one in row["hottest"]}
    assert list(hottest)[:2] == ["bob", "ann"]
    assert (hottest["bob"]["events"], hottest["ann"]["events"]) == (7, 3)
    assert (hottest["bob"]["left"], hottest["bob"]["admitted"]) == ("0 of 3", False)
    assert hottest["bad\\x0a\\\\\\x1b[31m"]["left"] == "1 of 3"
    assert hottest["x" * 64]["cut"] and "left" not in hottest["x" * 64]
    assert row["most_refused"] == [{"key": "bob", "cut": False, "events": 4}]
    # what is shown can be given back
    assert "1 of 3 left" in run(path, "peek", "chat", "bad\\x0a\\\\\\x1b[31m")
    assert "2 of 3 left" in run(path, "peek", "chat", "\\xff")

    text = run(path, "top")
    assert text.splitlines()[0] == f"{path}, 4 MB, 2 processes" or len(str(path)) > 60
    assert "\x1b" not in text  # neither colours, nor what a key brings
    assert re.search(r"most refused\n +bob +4 times", text)
    assert "quiet" not in run("", "top", f"shm://{path}", "chat")
    assert "quiet" in run("redis://nowhere", "top", f"shm://{path}")  # said here, not there
    assert "one limiter at a time" in run(path, "top", "chat", "quiet", code=2)


def test_slots_are_counted_and_cannot_be_reset(path: Path, worker: Callable[[str], Worker]) -> None:
    worker(ROOMS)
    assert "rooms: 2 of 4 held" in run(path, "peek", "rooms", "ann")
    (row,) = json.loads(run(path, "top", "--json"))["limiters"]
    (ann,) = row["hottest"]
    assert (row["quotas"], ann["left"], ann["held"]) == ("4 at once", "2 of 4", 2)
    for command in ("reset", "ban", "unban"):
        assert f"which has no {command}" in run(path, command, "rooms", "ann", code=1)


def test_limiters_of_one_name_are_told_apart(path: Path, worker: Callable[[str], Worker]) -> None:
    """Slots belong to the limiter of their name; other algorithms are another limiter."""
    worker(CHAT + ROOMS.replace("rooms", "chat"))
    assert "chat: admitted, 2 of 4 held" in run(path, "peek", "chat", "ann")
    worker(
        "import warnings; warnings.simplefilter('ignore')\n"
        "Limiter('5/day using fixed-window', store=store, name='chat').hit_nowait('ann')"
    )
    text = run(path, "peek", "chat", "ann")
    assert "chat (gcra, gcra): admitted, 2 of 4 held" in text
    assert "chat (fixed-window): admitted" in text and "4 of 5 left" in text
    assert len(run(path, "ban", "chat", "ann").splitlines()) == 2


def test_numbers_are_those_of_now(path: Path, worker: Callable[[str], Worker]) -> None:
    live = worker(
        'limiter = Limiter("3/hour", store=store, name="chat")\nlimiter.hit_nowait("ann")'
    )
    assert "3/hour: 2 of 3 left" in run(path, "peek", "chat", "ann")
    live.ask("limiter.update('5/hour')")
    assert "5/hour: 3 of 5 left" in run(path, "peek", "chat", "ann")
    live.ask("setattr(sys, 'more', Limiter('9/day', store=store, name='chat'))")
    assert "by the largest numbers" in run(path, "peek", "chat", "ann")
    assert "9/day (and other numbers" in run(path, "top")


def test_what_is_not_told_is_not_made_up(path: Path, worker: Callable[[str], Worker]) -> None:
    """Of many quotas with long names the file has too little room for the numbers."""
    quotas = "; ".join(f"{'q' * 60}{n}: {n}/hour" for n in range(1, 9))
    worker(f'Limiter("{quotas}", store=store, name="chat").hit_nowait("ann")')
    assert "of numbers that are not known" in " ".join(run(path, "top").split())
    assert run(path, "ban", "chat", "ann") == "chat: ann is banned for 1 hour\n"


def test_a_command_makes_nothing_and_clears_nothing(
    path: Path, worker: Callable[[str], Worker]
) -> None:
    url = f"shm://{path}?size=8MB&keep=no"
    for words in (("top",), ("peek", "chat", "ann"), ("ban", "chat", "ann")):
        assert "is made by whoever has limiters in it" in run(url, *words, code=1)
    assert os.listdir(path.parent) == []

    SharedMemoryStore(path, "4MB")
    assert f"no process has made a limiter in {path} yet" in run(url, "top", code=1)
    assert "no process has made a limiter" in run(url, "peek", "chat", "ann", code=1)
    with worker(CHAT):
        pass
    text = run(url, "ban", "caht", "ann", code=1)
    assert "there is no limiter 'caht' in" in text
    assert "did you mean 'chat'? There are chat, quiet." in text
    assert "there is no limiter 'caht'" in run(url, "top", "caht", code=1)
    # nobody has it open, and what was counted is there
    assert "0 of 3 left" in run(url, "peek", "chat", "bob")
    store = SharedMemoryStore(path)
    assert [one.name for one in store.limiters()] == ["chat", "quiet"]
    assert store.size == 4 << 20
    assert "keep= is yes or no" in run(f"shm://{path}?keep=maybe", "top", code=1)


def test_make_false_takes_a_file_as_it_is(path: Path) -> None:
    first = SharedMemoryStore(path, "4MB")
    Limiter("5/minute", store=first, name="chat").hit_nowait("ann")
    look = SharedMemoryStore(path, make=False)
    assert (look.size, look.processes) == (4 << 20, 2)
    assert [one.name for one in look.limiters()] == ["chat"]
    with pytest.raises(ValueError, match="taken as it is"):
        SharedMemoryStore(path, "4MB", make=False)
    with pytest.raises(ValueError, match="taken as it is"):
        SharedMemoryStore(path, keep=False, make=False)
    with pytest.raises(TypeError, match="make is a bool"):
        SharedMemoryStore(path, make=1)  # type: ignore[arg-type]


def test_a_ban_reaches_the_live_connections_of_every_process(path: Path) -> None:
    url = f"shm://{path}?size=4MB"
    env = {"TEST_STORE": url, "PYTHONWARNINGS": "error"}
    with (
        serving.uvicorn("adapters.banned_app:app", env=env, app_dir=TESTS) as first,
        serving.uvicorn("adapters.banned_app:app", env=env, app_dir=TESTS) as second,
    ):
        asyncio.run(asyncio.wait_for(banning(url, first, second, lambda: None), 60))
