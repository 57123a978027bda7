"""Rules from TOML: what they come to, and which line is wrong."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from calling import call
from sluicegate import MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule, StoreBackend
from sluicegate.asgi.config import ConfigError, parse_rules, read_rules
from sluicegate.asgi.reloading import ReloadingMiddleware
from sluicegate.cli.group import cli
from sluicegate.testing import Clock

RULES = """\
# what may be asked how often

[[rule]]
path = '^/towns'
second = 10
minute = 200

[[rule]]
path = "^/login"
minute = 5
method = "POST"
block_time = 60

[[rule]]
path = '^/towns'
group = "admin"
"""


@dataclass(frozen=True)
class WiderRule(Rule):
    """A rule that has more than this one, as later ones will."""

    rate: str | tuple[str, ...] | None = None
    cost: Callable[[Any], int] | None = None
    count_when: Callable[[int], bool] | None = None
    who: str | Callable[[Any], str] = "user"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate == "never":
            raise ValueError("rate is no rate")


def problems(text: str | bytes, kind: type[Rule] = Rule) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as raised:
        parse_rules(text.encode() if isinstance(text, str) else text, "limits.toml", kind)
    for line, what in raised.value.problems:
        assert f"limits.toml, line {line}: {what}" in str(raised.value)
    return raised.value.problems


def test_rules_in_their_order() -> None:
    found = parse_rules(RULES.encode())
    assert found == {
        "^/towns": [Rule(second=10, minute=200), Rule(group="admin")],
        "^/login": [Rule(minute=5, method="POST", block_time=60)],
    }
    assert list(found) == ["^/towns", "^/login"]
    assert parse_rules(RULES.replace("\n", "\r\n").encode()) == found


def test_fields_are_those_of_the_class() -> None:
    text = """\
[[rule]]
path = '^/'
minute = 5
rate = ["5/second", "9/minute"]
cost = 5
count_when = [401, 403]
who = "os.path:basename"

[[rule]]
path = '^/'
minute = 5
cost = "sluicegate.asgi.rule:Rule.only_method"
who = "ip"
"""
    (first, second) = parse_rules(text.encode(), kind=WiderRule)["^/"]
    assert isinstance(first, WiderRule) and isinstance(second, WiderRule)
    assert first.rate == ("5/second", "9/minute")
    assert first.cost is not None and first.cost({}) == 5
    assert first.count_when is not None
    assert [first.count_when(status) for status in (200, 401, 403)] == [False, True, True]
    assert callable(first.who) and first.who("/a/b") == "b"
    assert (second.cost, second.who) == (Rule.only_method, "ip")
    assert parse_rules(text.encode(), kind=WiderRule)["^/"][0] == first
    wrong = """\
[[rule]]
path = '^/'
minute = 5
rate = "never"
[[rule]]
path = '^/'
minute = 5
cost = 1.5
[[rule]]
path = '^/'
minute = 5
count_when = ["4xx"]
[[rule]]
path = '^/'
minute = 5
who = "os.path:nothing"
[[rule]]
path = '^/'
minute = 5
who = "os.path:sep"
[[rule]]
path = '^/'
minute = 5
count_when = 99
"""
    assert [line for line, _ in problems(wrong, WiderRule)] == [4, 8, 12, 16, 20, 24]
    said = [what for _, what in problems(wrong, WiderRule)]
    assert said[0] == "rate is no rate"
    assert "cost: it is a number of units" in said[1]
    assert "names no function" in said[3]
    assert "is no function, but str" in said[4]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[rule]]\npath = '^/'\nminutes = 5\n", 3, "'minutes' is unknown; did you mean minute?"),
        ("[[rule]]\npath = '^/'\n\nxyzzy = 5\n", 4, "'xyzzy' is unknown: a rule has path, second"),
        ("[[rule]]\npath = '^/'\nminute = 0\n", 3, "minute is 1 to 2**40 requests, not 0"),
        ("[[rule]]\npath = '^/'\nminute = '5'\n", 3, "minute is a number of requests"),
        ("[[rule]]\n\nminute = 5\npath = '('\n", 4, "path: '(' is no regular expression"),
        ("[[rule]]\npath = 5\n", 2, "path: it is a text, not int"),
        ("# a\n\n[[rule]]\nminute = 5\n", 3, "a rule says what it is for"),
        ("[[rule]]\npath = '^/'\nblock_time = 5\n", 3, "block_time does nothing"),
        ("debug = true\n[[rule]]\npath = '^/'\n", 1, "'debug' is unknown"),
        ("[[rule]]\npath = '^/'\n[other]\nx = 1\n", 3, "'other' is unknown"),
        ("[rule]\npath = '^/'\n", 1, "a rule is written as [[rule]]"),
        ("[[rule]]\npath = '^/'\n[[rules]]\npath = '^/'\n", 3, "'rules' is unknown"),
        ("", 1, "there is no [[rule]] in it"),
        ("# nothing\n", 1, "there is no [[rule]] in it"),
        ("[[rule]]\npath = '^/'\nminute = \n", 3, "invalid value"),
        ("[[rule]]\npath = '^/'\npath = '^/a'\n", 3, "cannot overwrite a value"),
        ("[[rule]]\npath = '''\n^/\n", 3, "expected"),
        ("rule = [{path = '^/', minute = 0}]\n", 1, "minute is 1 to"),
    ],
)
def test_the_line_of_what_is_wrong(text: str, line: int, words: str) -> None:
    ((at, what),) = problems(text)
    assert words.lower() in what.lower()
    assert at == line


def test_all_problems_are_told_in_the_order_of_their_lines() -> None:
    text = RULES.replace("minute = 5", "minute = -5").replace("second = 10", "secnd = 1")
    text += '[[rule]]\nminute = 1\ngroup = """\n[[rule]]\n"""\nzone = ""\n'
    assert [line for line, _ in problems(text)] == [5, 10, 17, 22]
    assert [line for line, _ in problems("[[rule]]\n" * 3)] == [1, 2, 3]
    assert problems(b"[[rule]]\npath = '\xff'\n") == [(2, "it is not UTF-8, as TOML is")]


def test_the_error_can_be_pickled() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_rules(b"x = 1", "a")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_text_without_bottom_is_refused() -> None:
    with pytest.raises(ConfigError, match="line 1: what is in it is nested too deeply"):
        parse_rules(b"a = " + b"[" * 100_000, "a")


@given(st.text(max_size=200) | st.text("[]rule=\n'\"#1 ", max_size=80))
def test_no_text_does_worse_than_to_be_refused(text: str) -> None:
    try:
        parse_rules(text.encode("utf-8", "surrogatepass"))
    except ConfigError as error:
        lines = text.count("\n") + 1
        assert all(1 <= line <= lines for line, _ in error.problems)


# ---- the middleware


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def statuses(app: Any, path: str, times: int) -> list[int]:
    return [(await call(app, path)).status for _ in range(times)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text("[[rule]]\npath = '^/'\nminute = 3\n")
    return path


async def test_from_config_without_reload(file: Path) -> None:
    app = RateLimitMiddleware.from_config(
        behind,
        file,
        backend=MemoryStore(clock=Clock()),
        authenticate=lambda scope: ("u", "default"),
    )
    assert isinstance(app, RateLimitMiddleware)
    assert await statuses(app, "/", 4) == [200, 200, 200, 429]
    file.write_text("")
    with pytest.raises(ConfigError):
        RateLimitMiddleware.from_config(behind, file)
    with pytest.raises(OSError):
        RateLimitMiddleware.from_config(behind, file.with_name("none"), reload="10s")
    with pytest.raises(ConfigError):
        RateLimitMiddleware.from_config(behind, file, reload="10s")
    file.write_text("[[rule]]\npath = '^/'\nminute = 3\n")
    for reload in ("soon", "0s", 0, -1.0):
        with pytest.raises(ValueError):
            RateLimitMiddleware.from_config(behind, file, reload=reload)
    with pytest.raises(TypeError):
        RateLimitMiddleware.from_config(behind, file, config={})


async def until(condition: Callable[[], bool], app: Any) -> None:
    """What comes in makes it look at its file; of a path that no rule is for."""
    give_up = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        await call(app, "nowhere")
        await asyncio.sleep(0.005)


async def test_a_changed_file_holds_and_no_count_is_lost(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sluicegate")
    app: Any = RateLimitMiddleware.from_config(
        behind, file, reload=0.01, backend=MemoryStore(clock=Clock())
    )
    assert isinstance(app, ReloadingMiddleware)
    assert isinstance(app.backend, StoreBackend)
    assert await statuses(app, "/", 2) == [200, 200]
    before = app._current
    file.write_text("[[rule]]\npath = '^/'\nminute = 5\n")
    await until(lambda: app._current is not before, app)
    assert await statuses(app, "/", 4) == [200, 200, 200, 429]  # two were counted before
    assert "1 rules hold now" in caplog.text

    caplog.clear()
    before = app._current
    file.write_text("[[rule]]\npath = '^/'\nminut = 9\n")
    await until(lambda: bool(caplog.records), app)
    for _ in range(20):  # it is said once, and the old rules hold
        await until(lambda: True, app)
        assert await statuses(app, "/", 1) == [429]
        await asyncio.sleep(0.012)
    assert app._current is before
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "line 3: 'minut' is unknown; did you mean minute?" in record.getMessage()
    assert "stay as they were" in record.getMessage()

    caplog.clear()
    file.unlink()
    await until(lambda: bool(caplog.records), app)
    assert "No such file" in caplog.text
    assert await statuses(app, "/", 1) == [429]

    # the same as before is no news, and a good one holds at once
    file.write_text("[[rule]]\npath = '^/'\nminute = 6\n")
    await until(lambda: app._current is not before, app)
    assert await statuses(app, "/", 2) == [200, 429]


async def test_lifespan_and_what_is_unknown_pass(file: Path) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware = RateLimitMiddleware.from_config(app, file, reload="1s")
    for kind in ("lifespan", "other"):
        await middleware({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "other"]


# ---- the command


def check(*files: Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["check", *map(str, files)])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(RULES)
    bad.write_text("[[rule]]\npath = '^/'\nminutes = 5\n")
    status, text = check(good)
    assert status == 0
    assert f"{good}: 3 rules, nothing wrong" in text
    assert text.index("^/towns") < text.index("second=10, minute=200") < text.index("group='admin'")
    status, text = check(good, bad)
    assert status == 1
    assert f"{bad}, line 3: 'minutes' is unknown; did you mean minute?" in text
    status, text = check(tmp_path / "none.toml")
    assert status == 1
    assert "No such file" in text
    assert read_rules(good)
