"""`sluicegate quota`: words, figures and plots; all of it without a clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from demo.helpers import SECONDS
from sluicegate.cli import explain
from sluicegate.cli.group import cli
from sluicegate.cli.plots import Series, draw, nice_ticks
from sluicegate.cli.words import duration, number, size
from sluicegate.quota import parse_quotas


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["quota", *arguments], terminal_width=100)
    return done.exit_code, done.output


def test_in_words() -> None:
    status, text = run("5/second burst 20; 100/minute", "--no-plot")
    assert status == 0
    for words in (
        "5/second burst 20",
        "gcra, a token bucket",
        "20 units",
        "5 units a second",
        "every 200 ms",
        "4 seconds",
        "100/minute",
        "1.67 units a second",
        "every 600 ms",
        "At once 5/second burst 20 binds (20)",
        "in the long run 100/minute (1.67 a second)",
    ):
        assert words in " ".join(text.split()), words


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("60/hour using fixed-window", "starts at a key's first event"),
        ("60/hour using sliding-window", "weighted by overlap"),
        ("60/hour using sliding-log", "at most 60 units in any 1 hour, to the event"),
        ("1000/hour using sliding-log", "it only ever refuses longer"),
        ("1MB/minute", "17.1 KB a second"),
        ("7/minute", "every 8.57 seconds"),
        ("1/day", "every day"),
        ("chat: 10 per 5 seconds", "chat: 10 per 5 seconds"),
    ],
)
def test_each_algorithm(rate: str, words: str) -> None:
    status, text = run(rate)
    assert status == 0
    assert words in " ".join(text.split())
    assert "come through." in text


@pytest.mark.parametrize(
    ("rate", "column"), [("5/parsec", 2), ("5/second;; 3", 9), ("0/second", 0), ("", 0)]
)
def test_a_bad_one_points_at_the_place(rate: str, column: int) -> None:
    done = CliRunner().invoke(cli, ["quota", rate])
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    shown = next(i for i, line in enumerate(lines) if line.strip() == "^")
    assert lines[shown - 1] == f"    {rate}"
    assert lines[shown].index("^") == 4 + column
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("rate", "wrong"),
    [
        ("a: 5/second; a: 6/minute", "two quotas are named 'a'"),
        ("; ".join(["5/second"] * 9), "1 to 8 quotas"),
    ],
)
def test_what_no_limiter_takes_is_not_explained(rate: str, wrong: str) -> None:
    done = CliRunner().invoke(cli, ["quota", rate])
    assert done.exit_code == 1
    assert wrong in done.stderr
    assert "--seconds" not in done.stderr


def test_for_machines() -> None:
    status, text = run("5/second burst 20; 1MB/minute", "--json", "--seconds", "10", "--rate", "50")
    assert status == 0
    told = json.loads(text)
    assert [quota["name"] for quota in told["quotas"]] == [None, "bytes"]
    assert told["quotas"][0]["interval"] == 0.2
    assert told["quotas"][0]["seconds_to_full"] == 4.0
    flood = told["flood"]
    assert flood["times"][-1] == 10.0
    # At 0 s the burst, then one every 200 ms, the last at 10 s; the core's own rounding
    # may hold back the very last.
    assert flood["admitted"][-1] in (69, 70)
    assert len(flood["alone"]) == 2
    assert flood["alone"][0] == flood["admitted"]


@pytest.mark.parametrize(
    ("rate", "span", "most"),
    [
        ("5/second burst 20", 10.0, 20 + 50),
        ("7/minute", 600.0, 7 + 70),
        ("60/hour using fixed-window", 3 * 3600.0 - 1, 180),
        ("60/hour using sliding-log", 3 * 3600.0 - 1, 180),
        ("100/minute; 5/second", 120.0, 300),
        ("10/day", 86400.0 * 9, 100),
        ("1000000/second", 1.0, 2_000_000),
        ("1 per 1 ms", 2.0, 2001),
        ("5/second; 1000000/minute", 60.0, 305),
    ],
)
def test_the_flood_gets_what_is_promised_and_no_less(rate: str, span: float, most: int) -> None:
    quotas = parse_quotas(rate)
    flood = explain.simulate(quotas, span=span)
    assert len(flood.times) == len(flood.sent) == len(flood.admitted)
    assert flood.admitted == sorted(flood.admitted)
    assert all(a <= s for a, s in zip(flood.admitted, flood.sent, strict=True))
    assert 0.93 * most <= flood.admitted[-1] <= most
    for line in flood.alone:
        assert line is not None
        assert line[-1] >= flood.admitted[-1]


def test_an_event_above_the_burst_never_passes() -> None:
    flood = explain.simulate(parse_quotas("1KB/minute"), size=2000)
    assert flood.admitted[-1] == 0
    status, text = run("1KB/minute", "--size", "2000")
    assert status == 0
    assert ", 0 come through." in text


def test_odd_companies_take_no_time() -> None:
    for rate in (
        "500MB/second; 1/day; 999999/minute using sliding-log",
        "1 per 1 ms; 1000000000/day",
        "1 per 1 ms; 1/day",
    ):
        assert run(rate)[0] == 0
    status, text = run("1 per 1 ms", "--seconds", "1e8")
    assert status == 2
    assert "too many decisions here: at most" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (5e-8, "50 ns"),
        (0.0002, "200 µs"),
        (0.2, "200 ms"),
        (1, "1 second"),
        (8.5714, "8.57 seconds"),
        (60, "1 minute"),
        (90, "1 minute 30 seconds"),
        (3599.9, "1 hour"),
        (3600, "1 hour"),
        (86400 * 1.5, "1 day 12 hours"),
        (365.25 * 86400 * 10, "10 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers_and_sizes() -> None:
    assert [number(1234567), number(1.6667), number(12345.6)] == ["1,234,567", "1.67", "12,346"]
    assert [size(1), size(300), size(2048), size(1024**2 * 1.5)] == [
        "1 byte",
        "300 bytes",
        "2 KB",
        "1.5 MB",
    ]


@pytest.mark.parametrize("highest", [1e-6, 0.3, 1, 7, 30, 99.9, 1e6, 3.7e9])
def test_ticks_are_few_and_reach_up(highest: float) -> None:
    ticks = nice_ticks(highest)
    assert 3 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert highest * 0.6 <= ticks[-1] <= highest * (1 + 1e-9)


def test_a_plot_is_cut_at_the_top() -> None:
    series = [
        Series("sent", [0, 1], [0, 1000], "gray", "dot"),
        Series("in", [0, 1], [0, 5], "cyan"),
    ]
    text = draw(series, title="t", x_label="seconds", width=60, height=12, top=6, color=False)
    assert "1,000" not in text
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "\x1b" not in text
    assert "\x1b" in draw(series, title="t", x_label="s", width=60, height=12, color=True)


def test_help_names_the_commands_and_loads_none() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from sluicegate.cli.group import cli; "
        "done = CliRunner().invoke(cli, ['--help']); print(done.output); "
        "assert 'sluicegate.cli.flood' not in sys.modules; assert 'plotext' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    for name in ("demo", "flood", "quota"):
        assert name in done.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from sluicegate.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    assert 'pip install "sluicegate[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["demo"], "fastapi", "demo"),
        (["demo"], "uvicorn", "demo"),
        (["demo"], "prometheus_client", "demo"),
        (["flood", "ws://127.0.0.1:1/"], "websockets", "cli"),
    ],
)
def test_without_an_extra_a_command_says_so(
    arguments: list[str], missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("sluicegate.demo", "sluicegate.cli.pressing", f"{missing}.")) or (
            name == "sluicegate.observe.prometheus"
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert f'pip install "sluicegate[{extra}]"' in done.stderr or (
        'pip install "sluicegate[prometheus]"' in done.stderr
    )
