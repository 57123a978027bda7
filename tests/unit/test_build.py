"""What the build makes: one extension that exports one name, typed, with no dependency."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sluicegate import _core

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "csrc" / "core"


def vectors() -> ModuleType:
    """The independent SipHash of the C tests."""
    path = ROOT / "tests" / "core" / "siphash_vectors.py"
    spec = importlib.util.spec_from_file_location("siphash_vectors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_of_the_c_tests_are_siphash() -> None:
    siphash = vectors()
    siphash.check_self()
    assert siphash.text() == (ROOT / "tests" / "core" / "siphash_vectors.h").read_text()


@pytest.mark.parametrize("key", ["", "user:42", "ключ", "\x00", "a" * 1000, b"\xff\x00", "\ud800"])
def test_a_fingerprint_is_siphash_of_the_keys_bytes(key: str | bytes) -> None:
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    secret = bytes(range(16))
    assert _core.fingerprint(secret, key) == vectors().siphash(1, 3, secret, data, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_the_extension_exports_its_init_function_alone() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm of binutils")
    printed = subprocess.run(
        [nm, "-D", "--defined-only", str(_core.__file__)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {line.split()[-1] for line in printed.splitlines()}
    # A sanitizer's own are not ours.
    assert {name for name in names if not re.match(r"_?_?(asan|ubsan|sanitizer|odr)", name)} == {
        "PyInit__core"
    }


@pytest.mark.parametrize("path", sorted(CORE.glob("*.[ch]")), ids=lambda path: path.name)
def test_the_core_is_pure(path: Path) -> None:
    """No Python, no input or output, no clock; only its own headers and a few of C's."""
    allowed = {"stdbool.h", "stddef.h", "stdint.h", "string.h", "math.h", "emmintrin.h"}
    if path.name in {"arena.c", "blocks.c"}:  # where memory comes from
        allowed |= {"stdlib.h", "sys/mman.h"}
    for included in re.findall(r"#\s*include\s+<([^>]+)>", path.read_text()):
        assert included in allowed
    for included in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text()):
        assert (CORE / included).is_file()


def test_only_the_binding_includes_python() -> None:
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        if "Python.h" in re.findall(r"#\s*include\s+[<\"]([^>\"]+)", path.read_text()):
            assert path.parent.name == "binding"


def test_what_is_installed_is_typed_and_needs_nothing() -> None:
    spec = importlib.util.find_spec("sluicegate")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()
    if package.is_relative_to(ROOT / "python"):
        pytest.skip("built in place, not installed")
    requires = importlib.metadata.requires("sluicegate") or []
    assert [line for line in requires if "extra ==" not in line] == []
    assert importlib.metadata.metadata("sluicegate")["License-Expression"] == "MIT"
    assert (package / "demo" / "static").is_dir()
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["sluicegate"].value == "sluicegate.cli:main"


def test_importing_it_imports_no_framework() -> None:
    program = (
        "import sys, asyncio; before = set(sys.modules); import sluicegate;"
        "from sluicegate import Limiter, WebSocketRateLimiter;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    theirs = {"fastapi", "starlette", "click", "rich", "plotext", "websockets", "uvicorn", "redis"}
    assert not theirs & set(printed.split())
