"""RateLimitSettings, and what sluicegate.app imports when."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from sluicegate.app import RateLimitSettings

DEFAULTS = {
    "RATE_LIMIT_ENABLED": True,
    "RATE_LIMIT_PER_MINUTE": 60,
    "RATE_LIMIT_BURST": 10,
    "WS_MAX_CONNECTIONS_PER_USER": 5,
    "WS_MESSAGE_RATE_LIMIT": 100,
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults() -> None:
    assert RateLimitSettings().model_dump() == DEFAULTS


def test_they_are_read_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RateLimitSettings()
    for name, text in (
        ("RATE_LIMIT_ENABLED", "false"),
        ("RATE_LIMIT_PER_MINUTE", "120"),
        ("RATE_LIMIT_BURST", "0"),
        ("WS_MAX_CONNECTIONS_PER_USER", "1"),
        ("WS_MESSAGE_RATE_LIMIT", "7"),
    ):
        monkeypatch.setenv(name, text)
    assert list(RateLimitSettings().model_dump().values()) == [False, 120, 0, 1, 7]
    assert before.model_dump() == DEFAULTS
    assert RateLimitSettings(RATE_LIMIT_BURST=3).RATE_LIMIT_BURST == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RATE_LIMIT_ENABLED", "perhaps"),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_PER_MINUTE", "many"),
        ("RATE_LIMIT_BURST", "-1"),
        ("WS_MAX_CONNECTIONS_PER_USER", "0"),
        ("WS_MESSAGE_RATE_LIMIT", "0.5"),
    ],
)
def test_a_variable_that_makes_no_sense(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValidationError, match=name):
        RateLimitSettings()


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_limiters_need_no_framework() -> None:
    program = (
        "import sys\n"
        "from sluicegate.app import ConnectionLimiter, EndpointLimit, RateLimiter\n"
        "RateLimiter(); ConnectionLimiter()\n"
        "print({m.partition('.')[0] for m in sys.modules}\n"
        "      & {'starlette', 'pydantic', 'prometheus_client', 'redis', 'valkey'})\n"
    )
    assert python(program) == "set()"


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        ("starlette", "RateLimitedWebSocketEndpoint"),
        ("pydantic_settings", "RateLimitSettings"),
        ("prometheus_client", "RateLimitMiddleware"),
    ],
)
def test_what_is_missing_is_named_with_the_command(missing: str, name: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import sluicegate.app\n"
        f"try: sluicegate.app.{name}\n"
        "except ImportError as error: print(error)\n"
    )
    assert 'pip install "sluicegate[app]"' in python(program)


def test_a_metric_of_the_same_name_is_named() -> None:
    program = (
        "import prometheus_client\n"
        "prometheus_client.Counter('rate_limit_hits_total', 'mine', ['limit_type'])\n"
        "try: from sluicegate.app import RateLimitMiddleware\n"
        "except ValueError as error: print(error)\n"
    )
    assert "rate_limit_hits_total" in python(program)
