"""A build where hiredis is not to be had: it says so, works over memory, and says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import sluicegate
from sluicegate import _core, open_store

assert not hasattr(_core, "HIREDIS") and not hasattr(_core, "Link")
assert sluicegate.Limiter("5/minute").hit_nowait("k").allowed
for make in (
    lambda: sluicegate.RedisStore(),
    lambda: open_store("redis://localhost"),
    lambda: open_store("valkeys+cluster://localhost"),
    lambda: sluicegate.Limiter("5/minute", store="unix:///run/redis.sock", name="n"),
):
    try:
        make()
    except RuntimeError as error:
        assert "hiredis" in str(error) and "SLUICEGATE_REDIS=1 pip install" in str(error), error
    else:
        raise AssertionError("no error came")
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built from, where nothing that was built lies about."""
    folder = Path(tmp_path_factory.mktemp("checkout"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("csrc", "python"):
        ignored = shutil.ignore_patterns("*.so", "*.pyc", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def build(
    checkout: Path, into: Path, *, redis: str | None, pkg_config: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLUICEGATE_WERROR": "1", "SLUICEGATE_DEBUG": "1"}
    environment.pop("SLUICEGATE_SANITIZE", None)
    environment.pop("SLUICEGATE_REDIS", None)
    if redis is not None:
        environment["SLUICEGATE_REDIS"] = redis
    if pkg_config is not None:
        environment["PKG_CONFIG"] = pkg_config
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "-b", "b", f"--build-lib={into}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def run(package: Path, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(package), "LD_PRELOAD": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
def test_it_is_built_with_one_warning_and_says_what_to_do(checkout: Path, tmp_path: Path) -> None:
    built = build(checkout, tmp_path, redis=None, pkg_config="false")
    assert built.returncode == 0, built.stderr
    said = [line for line in built.stderr.splitlines() if "hiredis was not found" in line]
    assert said == [
        "warning: hiredis was not found, so this build has no path to Redis and Valkey."
    ]
    assert "apt-get install libhiredis-dev pkg-config" in built.stderr
    run(tmp_path, "-W", "error", "-c", ASK)
    # All of tests/unit passes; these are what a limiter is made of.
    tests = ("core_limiter", "core_values", "native_limiter", "native_concurrency")
    paths = [f"tests/unit/test_{name}.py" for name in tests]
    run(tmp_path, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *paths)


def test_it_is_left_out_on_demand_without_a_word(checkout: Path, tmp_path: Path) -> None:
    built = build(checkout, tmp_path, redis="0")
    assert built.returncode == 0, built.stderr
    assert "hiredis" not in built.stdout + built.stderr
    run(tmp_path, "-W", "error", "-c", ASK)


def test_it_is_an_error_where_it_was_asked_for(checkout: Path, tmp_path: Path) -> None:
    built = build(checkout, tmp_path, redis="1", pkg_config="false")
    assert built.returncode != 0
    assert "error: hiredis was not found" in built.stderr
