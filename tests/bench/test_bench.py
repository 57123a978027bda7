"""That `make bench` measures what it says, and fails for no missing peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import (
    cli,
    doors,
    echo,
    echo_app,
    hot,
    metrics,
    middleware,
    peers,
    redis_one,
    redis_peers,
    redis_setup,
    shared,
)
from bench.report import grouped, markdown, note_of
from bench.rows import Row
from bench.workers import net


def row(value: float | None, target: float | None = None, **more: object) -> Row:
    return Row("hot", "a row", value, "x", "d[k] += 1", target, **more)  # type: ignore[arg-type]


def test_a_target_is_reached_or_not() -> None:
    assert row(1.3, 1.3).reached is True
    assert row(1.31, 1.3).reached is False
    assert row(1.7, 1.8, at_least=True).reached is False
    assert row(1.9, 1.8, at_least=True).reached is True
    assert row(5.0).reached is None
    assert row(None, 1.3).reached is None


def test_rows_survive_json_and_stand_in_the_markdown() -> None:
    rows = [row(1.25, 1.3, info={"ns": 50, "reference_ns": 40}), row(None, missing="not installed")]
    read = [Row.from_dict(json.loads(json.dumps(found.as_dict()))) for found in rows]
    assert read == rows
    machine = {
        "python": "CPython",
        "python_optimised": True,
        "processor": "one",
        "cores": 2,
        "system": "Linux",
        "peers": {"limits": "5.8.0"},
    }
    text = markdown(machine, read, {"hot": "One hot key"})
    assert "| a row | 1.25 | at most 1.3 | yes | 50 ns / 40 ns |" in text
    assert "| a row | - |  |  | not installed |" in text
    assert "limits 5.8.0" in text


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "version_of", lambda package: None)
    found = list(hot.peers(1, True))
    assert len(found) == len(peers.PEERS)
    assert all(peer.value is None and "pip install" in (peer.missing or "") for peer in found)


def test_a_broken_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        package = "broken"

        def hot(self, key: str) -> None:
            raise RuntimeError("it is broken")

    monkeypatch.setattr(peers, "version_of", lambda package: "1.0")
    monkeypatch.setattr(peers, "PEERS", {"broken": Broken()})
    (found,) = hot.peers(1, True)
    assert "it is broken" in (found.missing or "")


def test_what_the_machine_does_alone_is_taken_from_the_tail() -> None:
    quick = [1] * 90
    assert net(sorted([*quick, *[50] * 10]), sorted([*quick, *[1] * 10]), 5) == 50
    assert net(sorted([*quick, *[50] * 10]), sorted([*quick, *[50] * 8]), 5) == 1


def test_it_runs_and_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--rounds", "1", "--no-peers", "--only", "hot", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    targets = [measured["target"] for measured in found["rows"]]
    assert [target for target in targets if target] == [1.3, 1.5, 2.2]
    assert all(measured["value"] > 0.1 for measured in found["rows"])
    assert not any(str(Path.home()) in str(fact) for fact in found["machine"].values())


def test_peers_of_the_best_throughput_come_first() -> None:
    ours = row(2.0, 1.5, at_least=True)
    slow, fast = (row(value, at_least=True, peer=True) for value in (0.01, 0.05))
    ((_, found),) = grouped([ours, slow, fast], {})
    assert found == [ours, fast, slow]


def test_it_names_what_redis_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_setup.shutil, "which", lambda program: None)
    (found,) = redis_one.measure(1, True)
    assert found.value is None and "redis-server is not installed" in (found.missing or "")


@pytest.mark.server
def test_it_measures_redis(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--rounds", "1", "--no-peers", "--only", "redis-one", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["rows"]
    assert [measured["missing"] for measured in found] == [None, None]
    assert all(measured["value"] > 0.1 for measured in found)
    assert all(measured["info"]["reference_p50_us"] > 1 for measured in found)


@pytest.mark.server
def test_a_peer_that_refuses_or_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"ratio": 9.0, "info": {}, "trouble": "refuses 5 of 5", "failed": 0}
    monkeypatch.setattr(redis_peers, "REDIS_PEERS", {"peer": redis_peers.Limits()})
    monkeypatch.setattr(redis_peers, "version_of", lambda package: "1.0")
    monkeypatch.setattr(redis_peers, "worker", lambda *arguments, timeout: {**told})
    (found,) = redis_peers.one_at_a_time("redis-one", "", 1)
    assert found.value == 9.0 and "refuses 5 of 5" in note_of(found)
    told |= {"trouble": "raises in 5 of 5: OSError: no", "failed": 5}
    (found,) = redis_peers.one_at_a_time("redis-one", "", 1)
    assert found.value is None and "OSError" in note_of(found)


def test_every_door_is_measured() -> None:
    rows = list(doors.measure(1, True))
    assert len(rows) == len(doors.DOORS)
    assert all(row.value is not None or row.missing for row in rows)


def test_the_middleware_is_measured_beside_one_that_does_nothing() -> None:
    rows = list(middleware.measure(1, True))
    assert [row.target for row in rows if row.target] == [1.5, 0.7]
    assert all(row.value is not None and row.info["reference_ns"] > 1 for row in rows)
    # what it does can never cost nothing, and what more it does costs more
    values = {row.what: row.value or 0.0 for row in rows}
    assert values['an HTTP request, headers="both"'] > values["an HTTP request, no headers"] > 0


@pytest.mark.parametrize("headers", ["ietf", None])
async def test_the_middleware_that_is_measured_limits(headers: str | None) -> None:
    door = middleware.limited(middleware.application, headers, requests="1/hour")
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    for _ in range(2):
        await door(dict(middleware.SCOPE), middleware.empty_receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert [start["status"] for start in starts] == [200, 429]
    names = {name for name, _ in starts[0]["headers"]}
    assert (b"ratelimit" in names) is (headers == "ietf")


async def test_a_refusal_is_no_figure() -> None:
    door = middleware.limited(middleware.application, requests="1/hour")
    with pytest.raises(AssertionError, match="refused"):
        await middleware.requests(door)(2)
    reading = middleware.limited(middleware.reading, messages="2/hour")
    with pytest.raises(AssertionError, match="closed"):
        await middleware.websocket(reading)(1000)


def test_other_middlewares_are_measured_or_named() -> None:
    rows = list(middleware.peers(1, True))
    assert [row.what for row in rows] == [*middleware.PEERS]
    assert all(row.peer and (row.value is None) == bool(row.missing) for row in rows)


@pytest.mark.server
def test_an_echo_under_limits_is_measured_beside_one_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(echo, "SECONDS", 0.1)
    (found,) = echo.measure(1, True)
    assert found.missing is None and found.target == 0.97 and found.at_least
    assert found.value is not None and 0.1 < found.value < 10
    assert "µs of the server a message" in note_of(found)


def test_the_echo_s_limits_are_those_that_it_says() -> None:
    ((_, _, rules),) = echo_app.limited._patterns  # type: ignore[attr-defined]
    (held,) = rules.websocket
    assert held.counting.messages is not None and held.counting.connections is not None
    assert held.counting.places is not None and held.rule.bytes and held.rule.max_message_size


def test_collecting_metrics_is_measured_beside_not_collecting_them() -> None:
    prometheus, opentelemetry = metrics.measure(1, True)
    assert prometheus.value is not None and "µs a reading" in note_of(prometheus)
    assert opentelemetry.value is not None or "opentelemetry" in (opentelemetry.missing or "")


def test_shared_memory_is_measured_by_one_process_and_by_two() -> None:
    rows = list(shared.measure(1, True))
    assert [found.target for found in rows] == [1.5, 1.5, 1.8]
    assert all(found.value is not None and found.value > 0.1 for found in rows)
    assert rows[-1].at_least and rows[-1].info["per_second"] > 10_000
