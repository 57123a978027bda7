"""`sluicegate bench`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from redis_servers.server import Server
from sluicegate.cli import bench
from sluicegate.cli.group import cli
from sluicegate.cli.timing import Ratio

QUICK = ["--rounds", "1", "--keys", "1000"]
IN_MEMORY = ["hit, one hot key", "hit, awaited", "hit, 1,000 keys in random order"]


def run(*arguments: str, code: int = 0, **environment: str | None) -> str:
    done = CliRunner().invoke(cli, ["bench", *arguments], env=environment, terminal_width=120)
    assert done.exit_code == code, done.output
    return done.output


def test_it_measures_memory_and_no_server_unless_told_to() -> None:
    # that of the other commands' variable may be at work
    told = json.loads(run(*QUICK, "--json", SLUICEGATE_STORE="redis://nobody.invalid"))
    assert [figure["what"] for figure in told["figures"]] == IN_MEMORY
    for figure in told["figures"]:
        assert 1 < figure["ns"] < 1e6 and 1 < figure["reference_ns"] < 1e6
        assert figure["spread"][0] <= figure["ratio"] <= figure["spread"][1]


def test_it_says_what_a_figure_is_beside() -> None:
    text = run(*QUICK)
    assert "hit, one hot key" in text and "of d[k] += 1 (" in text
    assert "medians of 1 rounds" in text and "/s" in text


@pytest.mark.server
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_server_is_measured_under_a_prefix_of_its_own(
    redis_server: Server, by_variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MANY", 2048)
    url = f"{redis_server.url}?prefix=ours"
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.set("ours:{bench:user:42}", "untouched")
        if by_variable:
            told = json.loads(run(*QUICK, "--json", "--store", SLUICEGATE_STORE=url))
        else:
            told = json.loads(run(*QUICK, "--json", "--store", url))
        names = {key.decode() for key in client.scan_iter()}
        assert client.get("ours:{bench:user:42}") == b"untouched"
        lasting = [key for key in names if key.startswith("sg-bench:{") and client.ttl(key) > 60]
    figures: dict[str, Any] = {figure["what"]: figure for figure in told["figures"]}
    assert [*figures] == [*IN_MEMORY, "one hit at a time", "512 hits at once"]
    assert figures["one hit at a time"]["reference"] == "a PING at a time"
    assert all(figure["ns"] > 100 for figure in figures.values() if "hits" in figure["what"])
    assert all(name.startswith(("sg-bench:", "ours:")) for name in names)
    assert not lasting


def test_what_is_no_server_is_told() -> None:
    assert "memory is measured anyway" in run(*QUICK, "--store", "memory://", code=2)
    assert "which store?" in run(*QUICK, "--store", code=2, SLUICEGATE_STORE=None)
    assert "Error" in run(*QUICK, "--store", "ftp://x", code=1)


@pytest.mark.server
def test_a_server_that_is_not_there_is_told() -> None:
    said = run(*QUICK, "--store", "redis://127.0.0.1:1", code=1)
    assert "Traceback" not in said and "127.0.0.1:1" in said


def test_medians_are_of_the_rounds_own_ratios_and_differences() -> None:
    found = Ratio.of([2.0, 9.0, 4.0], [1.0, 3.0, 4.0], 2)
    assert (found.ratio, found.spread) == (2.0, (1.0, 3.0))
    assert (found.subject_ns, found.reference_ns) == (2e9, 1.5e9)
    assert (found.added_ns, found.added_spread) == (0.5e9, (0.0, 3e9))


@pytest.mark.parametrize(
    ("ns", "text"), [(36.42, "36.4 ns"), (999.9, "1 µs"), (3291.0, "3.29 µs"), (2.5e9, "2.5 s")]
)
def test_times_have_three_digits(ns: float, text: str) -> None:
    assert bench.time_of(ns) == text
