"""What docs/shared-memory.md says: its programs run, its errors are those that come, and as many
keys fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import shared_room
from documents.programs import ROOT
from sluicegate import Limiter, SharedMemoryStore, StoreError

PAGE = (ROOT / "docs" / "shared-memory.md").read_text("utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SAID = set(re.findall(r"^\| (.+?) \|", PAGE.partition("## When it is refused")[2], re.MULTILINE))


def ran(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize(("number", "printed"), [(0, "admitted"), (1, "1 process; ['chat'] []")])
def test_a_printed_program_runs(number: int, printed: str, tmp_path: Path) -> None:
    assert len(PROGRAMS) == 2
    program = PROGRAMS[number].replace("/run/app", f"{tmp_path}/app")
    assert program != PROGRAMS[number]
    assert ran(program) == f"{printed}\n"
    assert ran(program) == f"{printed}\n"  # over a file that is there


def test_each_error_is_on_the_page_as_it_is() -> None:
    file, binding = (
        re.sub(r'"\s*"', "", (ROOT / "csrc" / place).read_text("utf-8"))
        for place in ("shared/file_why.c", "binding/shared_file.c")
    )
    errors = set(re.findall(r'return "([^"]+)";', file.partition("*sg_file_why(")[2]))
    errors |= set(re.findall(r'"%U: ([^"]{20,})"', binding))
    errors.remove("is open")
    assert len(errors) == 23
    said = {re.sub(r"^16 |(?<=^it has )256", lambda m: m[0].replace(m[0].strip(), "%u"), text)
            for text in SAID}  # fmt: skip
    assert errors <= said, errors - said


def linked(path: Path) -> None:
    path.with_name("other").write_bytes(b"")
    path.symlink_to("other")


def opened_to_others(path: Path) -> None:
    SharedMemoryStore(path, "4MB")
    path.chmod(0o640)


def named_twice(path: Path) -> None:
    SharedMemoryStore(path, "4MB")
    os.link(path, path.with_name("other"))


def cut(path: Path) -> None:
    SharedMemoryStore(path, "8MB")
    os.truncate(path, 4 << 20)


@pytest.mark.parametrize(
    ("before", "size", "begins"),
    [
        (Path.mkdir, None, "is not a regular file"),
        (linked, None, "is a symbolic link"),
        (opened_to_others, None, "can be read or written by other users"),
        (named_twice, None, "has a second name"),
        (None, "1MB", "cannot be made as small"),
        (None, "2000GB", "cannot be made as large"),
        (None, (4 << 20) + 1, "cannot be made of the size"),
        (lambda path: (path.write_bytes(b"x" * 5000), path.chmod(0o600)), None, "is not a file of"),
        (lambda path: SharedMemoryStore(path, "4MB"), "8MB", "has its size from who made it"),
        (cut, None, "is shorter or longer"),
    ],
)
def test_an_error_is_the_one_that_is_printed(
    tmp_path: Path, before: Callable[[Path], object] | None, size: int | str | None, begins: str
) -> None:
    path = tmp_path / "app"
    if before is not None:
        before(path)
    with pytest.raises(StoreError) as refused:
        SharedMemoryStore(path, size)
    text = re.sub(r" \([A-Z][^()]+\)$", "", str(refused.value).removeprefix(f"{path}: "))
    assert text.startswith(begins)
    assert text in SAID


def test_a_directory_that_is_not_there_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is in a directory that does not exist"):
        SharedMemoryStore(tmp_path / "none" / "app")
    with pytest.raises(StoreError, match="is not there, or is from before the last boot"):
        SharedMemoryStore(tmp_path / "app", make=False)
    assert os.listdir(tmp_path) == []


def test_a_file_of_sixteen_megabytes_has_seats_for_sixteen(tmp_path: Path) -> None:
    stores = [SharedMemoryStore(tmp_path / "app", "16MB") for _ in range(16)]
    with pytest.raises(StoreError) as refused:
        SharedMemoryStore(tmp_path / "app")
    assert str(refused.value).removeprefix(f"{tmp_path}/app: ") in SAID
    assert len({store.path for store in stores}) == 1


def test_a_restart_keeps_or_clears(tmp_path: Path) -> None:
    program = """
from sluicegate import Limiter
limiter = Limiter("2/day", store={url!r}, name="chat")
print([limiter.hit_nowait("a").allowed for _ in range(2)])
"""
    url = f"shm://{tmp_path}/app?size=4MB"
    assert ran(program.format(url=url)) == "[True, True]\n"
    assert ran(program.format(url=url)) == "[False, False]\n"
    assert ran(program.format(url=f"{url}&keep=no")) == "[True, True]\n"
    with_one = SharedMemoryStore(tmp_path / "app")
    assert ran(program.format(url=f"{url}&keep=no")) == "[False, False]\n"
    assert with_one.processes == 1


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_children_share_it(tmp_path: Path, way: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing
from sluicegate import Limiter

limiter = Limiter("50/day", store="shm://{tmp_path}/app?size=4MB", name="chat")

def admitted(_):
    return sum(limiter.hit_nowait("a").allowed for _ in range(20))

if __name__ == "__main__":
    limiter.hit_nowait("a")
    with multiprocessing.get_context({way!r}).Pool(4) as pool:
        print(1 + sum(pool.map(admitted, range(8), chunksize=1)))
""")
    done = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("50\n", "")


def test_as_many_keys_fit(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (.+?) \| ([\d,]+(?:, [\d,]+)*) \|$", PAGE, re.MULTILINE)
    printed = [int(n.replace(",", "")) for _, numbers in rows for n in numbers.split(", ")]
    assert len(printed) == 7
    cases = [case for case in shared_room.CASES if case[0] != "two gcra quotas"]
    for (what, quotas, hits), promised in zip(cases, printed[:6], strict=True):
        keys, _, size = shared_room.flooded(os.fspath(tmp_path), "8MB", quotas, hits)
        a_megabyte = keys / (size / shared_room.MB)
        assert 0.85 * promised <= a_megabyte <= 1.05 * promised, (what, a_megabyte)
    keys, _, size = shared_room.held(os.fspath(tmp_path), "8MB")
    assert 0.85 * printed[6] <= keys / (size / shared_room.MB) <= 1.05 * printed[6]


def test_a_limiter_that_comes_late_has_room_of_its_own(tmp_path: Path) -> None:
    store = SharedMemoryStore(tmp_path / "app", "8MB")
    held = []
    for name in ("first", "second"):
        limiter = Limiter("1000/day burst 5", store=store, name=name)
        number = 0
        while limiter.table.counters()["evictions"] < 1000:
            limiter.hit_many_nowait([(b"%d" % (number + n), 1) for n in range(1000)])
            number += 1000
        held.append(limiter.table.counters()["keys"])
    assert held[1] > held[0] / 20
