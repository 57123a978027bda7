"""The first five minutes of the guide, step by step, as a newcomer goes through them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from documents.programs import ROOT
from documents.shell import Block, Shell, blocks
from redis_servers.kinds import KINDS
from redis_servers.server import Server, server
from redis_servers.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.slow]

STEPS = blocks((ROOT / "docs" / "guide.md").read_text("utf-8"), "Five minutes")
RATE, BURST = 5, 20  # of the rule that is printed
FIVE = 5.0  # seconds that a flood takes


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of its own: what the build leaves does not come into ours."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("csrc", "python"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    yield folder
    shutil.rmtree(folder)  # an environment with all that is built is large


@pytest.fixture
def store() -> Iterator[Server]:
    """One server: either kind will do, and the steps take their time."""
    if not KINDS:
        pytest.skip("neither redis-server nor valkey-server is there")
    with server(KINDS[0]) as running:
        yield running


@pytest.fixture
def shell(checkout: Path, store: Server) -> Iterator[Shell]:
    """A shell in it. pip finds what it needs where this Python does, and asks no index."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV", "SLUICEGATE_", "LIMITS_"))
    }
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is to be none
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "SLUICEGATE_REDIS": "1",
        "COLUMNS": "100",
    }
    replaced = {"redis://127.0.0.1:6379/0": store.url}
    with Shell(checkout, env, replaced) as shell:
        yield shell


def share_what_is_installed(venv: Path) -> None:
    """What this Python has installed is there in that environment too, behind its own."""
    (site,) = venv.glob("lib/python*/site-packages")
    for old in site.glob("setuptools*"):  # that of before Python 3.12 reads no pyproject of ours
        shutil.rmtree(old)
    (site / "installed.pth").write_text(
        "".join(f"{sysconfig.get_path(kind)}\n" for kind in ("purelib", "platlib"))
    )


def flooded(printed: str) -> dict[str, int]:
    """The figures under a plot of `sluicegate flood`."""
    rows = re.findall(r"^  ([a-z][a-z ]*?)  +([\d,]+)(?:  |$)", printed, re.M)
    return {label: int(count.replace(",", "")) for label, count in rows}


def allowed(figures: dict[str, int]) -> bool:
    """Whether what came through is the burst and the rate of five seconds; a busy machine may
    take two more."""
    return BURST + RATE * (FIVE - 1) - 1 <= figures["admitted"] <= BURST + RATE * (FIVE + 2)


def test_the_steps(shell: Shell, store: Server) -> None:
    steps = iter(STEPS)
    typed: list[str] = []

    def step(language: str) -> Block:
        block = next(steps)
        assert block.language == language, block
        return block

    def type_(block: Block) -> dict[str, str]:
        printed = {}
        for line, output in shell.run(block):
            if line.startswith("python3 -m venv"):
                share_what_is_installed(shell.folder / ".venv")
            typed.append(line.split()[0])
            printed[line.partition(" --")[0]] = output
        return printed

    flood = "sluicegate flood ws://127.0.0.1:8000/ws"

    # 1 to 3: everything comes through
    type_(step("sh"))
    where = shutil.which("sluicegate", path=shell.env["PATH"])
    assert where is not None and Path(where).is_relative_to(shell.folder)
    shell.write(step("python"))
    type_(step("sh"))
    before = flooded(type_(step("sh"))[flood])
    assert before["sent"] == before["admitted"] == 250
    assert before == flooded(step("").text)

    # 4: one line
    shell.write(step("python"))
    after = flooded(type_(step("sh"))[flood])
    assert after["sent"] == 250 and allowed(after)
    assert after["refused"] + after["unanswered"] == 250 - after["admitted"]
    shown = flooded(step("").text)
    assert shown.keys() == after.keys() and allowed(shown)
    assert sum(shown[what] for what in ("admitted", "refused", "unanswered")) == shown["sent"]

    # 5 and 6: a file, a page that shows it, and a change while it runs
    shell.write(step("toml"))
    assert "1 rule, nothing wrong" in type_(step("sh"))["sluicegate check limits.toml"]
    shell.write(step("python"))
    printed = type_(step("sh"))
    assert allowed(flooded(printed[flood])) and flooded(printed[flood])["connections"] == 3
    token = printed['echo "$LIMITS_TOKEN"'].strip()
    assert shell.server is not None
    with httpx.Client(base_url=shell.server.http, timeout=20) as http:
        assert http.get("/limits/").status_code == 401
        assert http.get("/limits/", headers={"authorization": f"Bearer {token}"}).status_code == 200
    rules = shell.folder / "limits.toml"
    old = rules.read_text("utf-8")
    assert "5/second" in old
    rules.write_text(old.replace("5/second", "25/second"), "utf-8")
    flood_again = Block("sh", f"{flood} --duration 5\n")

    def faster() -> bool:  # looked at when something comes, two seconds after the last time
        ((_, output),) = shell.run(flood_again)
        return flooded(output)["admitted"] > BURST + RATE * (FIVE + 2)

    until(faster, "the new rules hold")
    rules.write_text(old, "utf-8")

    # 7: four workers, one allowance
    printed = type_(step("sh"))
    assert allowed(flooded(printed[flood]))
    assert flooded(printed[flood])["connections"] == 3
    with store.client() as client:
        until(lambda: client.hlen("sg:limiters") >= 4, "its limiters are told")
    block = step("sh")
    printed = type_(block)
    assert "pattern:* 127.0.0.1 ^/ws" in printed["sluicegate top"]
    assert "is banned for 1 minute" in printed[next(k for k in printed if " ban " in k)]
    ((_, output),) = shell.run(flood_again)
    assert flooded(output)["admitted"] == 0
    shell.end()

    assert next(steps, None) is None, "a step that is not run"
    assert typed.count("sluicegate") == 7
