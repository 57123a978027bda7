"""Rules from a file, in front of a served application over a real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

import serving
from redis_servers.server import Server
from redis_servers.waiting import until
from sluicegate.cli.group import cli

pytestmark = pytest.mark.server

RULES = "[[rule]]\npath = '^/limited'\nhour = {}\n"
SECONDS = 20.0


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "limits.toml"
    file.write_text(RULES.format(3))
    return file


@pytest.fixture
def pair(redis_server: Server, rules: Path) -> Iterator[list[httpx.Client]]:
    """Clients of two processes over one store."""
    env = {
        "TEST_RULES": str(rules),
        "TEST_STORE": redis_server.url,
        "PYTHONWARNINGS": "error",
    }
    with (
        serving.uvicorn("adapters.config_app:app", env=env) as first,
        serving.uvicorn("adapters.config_app:app", env=env) as second,
        httpx.Client(base_url=first.http, timeout=SECONDS) as one,
        httpx.Client(base_url=second.http, timeout=SECONDS) as two,
    ):
        yield [one, two]


def statuses(client: httpx.Client, times: int, user: str = "ann") -> list[int]:
    return [client.get(f"/limited?{user}").status_code for _ in range(times)]


def test_a_changed_file_holds_in_every_process_and_no_count_is_lost(
    pair: list[httpx.Client], rules: Path
) -> None:
    one, two = pair
    assert statuses(one, 2) == [200, 200]
    assert statuses(two, 2) == [200, 429]
    rules.write_text(RULES.format(5))

    def new_rules(client: httpx.Client, names: Iterator[str]) -> bool:
        # four of a new user pass under the new rules alone
        return statuses(client, 4, next(names)) == [200] * 4

    names = map(str, range(10_000))
    for client in pair:
        until(partial(new_rules, client, names), "the new rules hold")
    assert statuses(two, 3) == [200, 200, 429]
    assert statuses(one, 1) == [429]
    # a bad one changes nothing, though both have had the time to look
    rules.write_text("[[rule]]\npath = '^/limited'\nhours = 1000\n")
    give_up = time.monotonic() + 1
    while time.monotonic() < give_up:
        for client in pair:
            assert statuses(client, 1) == [429]


def test_a_user_is_kept_out_of_the_middleware(
    pair: list[httpx.Client], redis_server: Server
) -> None:
    def command(*words: str) -> str:
        done = CliRunner().invoke(cli, words, env={"SLUICEGATE_STORE": redis_server.url})
        assert done.exit_code == 0, done.output
        return done.output

    for client in pair:
        assert statuses(client, 1) == [200]
    with redis_server.client() as store:
        until(lambda: store.hexists("sg:limiters", "asgi:blocked"), "its limiters are told")
    assert "asgi:blocked: ann is banned for 10 minutes" in command(
        *("ban", "asgi:blocked", "ann", "--for", "10min")
    )
    for client in pair:
        answer = client.get("/limited?ann")
        assert answer.status_code == 429
        assert 590 <= int(answer.headers["retry-after"]) <= 600
        assert client.get("/limited?bob").status_code == 200
    assert "is no longer banned" in command("unban", "asgi:blocked", "ann")
    assert statuses(pair[0], 1) == [200]
