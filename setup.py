"""Builds the one extension, ``sluicegate._core``; everything else is in pyproject.toml.

Switches, all read from the environment:

``SLUICEGATE_WERROR=1``      warnings of our own code are errors (what CI builds with)
``SLUICEGATE_SANITIZE=LIST`` builds with ``-fsanitize=LIST``, such as ``address,undefined``
``SLUICEGATE_DEBUG=1``       no optimisation, assertions on
``SLUICEGATE_LTO=0``         no optimisation across files
``SLUICEGATE_REDIS=1``       a missing hiredis is an error, not a warning; ``0`` leaves Redis out

The path to Redis and Valkey is built where pkg-config knows hiredis (0.14 or 1.x).
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WERROR = os.environ.get("SLUICEGATE_WERROR", "") not in ("", "0")
DEBUG = os.environ.get("SLUICEGATE_DEBUG", "") not in ("", "0")
LTO = os.environ.get("SLUICEGATE_LTO", "1") not in ("", "0") and not DEBUG
SANITIZE = os.environ.get("SLUICEGATE_SANITIZE", "")

REDIS = os.environ.get("SLUICEGATE_REDIS", "")
# What binds csrc/redis; without hiredis both are left out.
_ASKING = [
    "answer",
    "ask",
    "check",
    "lease",
    "link",
    "router",
    "server",
    "ticket",
    "together",
    "words",
]
REDIS_BINDING = {f"csrc/binding/{name}.c" for name in _ASKING}
SOURCES = sorted(
    {*glob("csrc/core/*.c"), *glob("csrc/shared/*.c"), *glob("csrc/binding/*.c")} - REDIS_BINDING
)
REDIS_SOURCES = sorted({*glob("csrc/redis/*.c"), *REDIS_BINDING})
HEADERS = sorted(glob("csrc/**/*.h", recursive=True))

# Pieces of the arena are given out again as other types: no optimisation may rest on types.
COMPILE = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing", "-pthread"]
LINK: list[str] = ["-pthread"]
# Clocks and getrandom are POSIX and Linux; -std=c11 alone hides them.
MACROS: list[tuple[str, str | None]] = [("_GNU_SOURCE", "1"), ("_DARWIN_C_SOURCE", "1")]

if DEBUG or SANITIZE:
    COMPILE += ["-O1", "-g", "-UNDEBUG"]
else:
    COMPILE += ["-O3"]
if SANITIZE:
    flags = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    COMPILE += flags
    LINK += flags
if WERROR and not SANITIZE:  # gcc finds conversions in what its own sanitizer inserts
    COMPILE += ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    # As system headers, CPython's own do not count.
    for name in ("include", "platinclude"):
        COMPILE += ["-isystem", sysconfig.get_path(name)]


def hiredis() -> tuple[list[str], list[str]] | None:
    """Flags to compile and to link with hiredis; None where it is not to be had."""
    if REDIS == "0":
        return None
    pkg_config = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    found = []
    for what in ("--cflags", "--libs"):
        try:
            run = subprocess.run([*pkg_config, what, "hiredis >= 0.14"], capture_output=True)
        except OSError:
            return None
        if run.returncode != 0:
            return None
        found.append(shlex.split(run.stdout.decode()))
    # As system headers, its own do not count among our warnings.
    compile_flags = [
        part
        for flag in found[0]
        for part in (["-isystem", flag[2:]] if flag.startswith("-I") else [flag])
    ]
    return compile_flags, found[1]


MISSING = """hiredis was not found, so this build has no path to Redis and Valkey.
To have it, install the C library hiredis and pkg-config, then build sluicegate again:
  Debian, Ubuntu:  apt-get install libhiredis-dev pkg-config
  Fedora:          dnf install hiredis-devel pkgconf
  macOS:           brew install hiredis pkg-config
  then:            pip install --no-binary sluicegate --force-reinstall --no-deps sluicegate"""


class BuildExt(build_ext):
    """Compiles only what changed: a source, any header, this file, or the flags."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.hiredis = hiredis()
        asked = [
            *COMPILE,
            *LINK,
            str(LTO),
            str(self.hiredis),
            *(os.environ.get(name, "") for name in ("CC", "CFLAGS")),
        ]
        digest = hashlib.sha256("\0".join(asked).encode()).hexdigest()[:12]
        self.build_temp = os.path.join(self.build_temp, digest)

    def lto_flags(self) -> list[str]:
        """What this compiler and its linker take for optimisation across files, if anything.

        It is worth a tenth: the core is small functions in files of their own.
        """
        if not LTO or SANITIZE:
            return []
        with tempfile.TemporaryDirectory() as folder:
            source, obj, lib = (os.path.join(folder, name) for name in ("a.c", "a.o", "a.so"))
            with open(source, "w") as file:
                file.write("int answer(void);\nint answer(void) { return 42; }\n")
            for flag in ("-flto=auto", "-flto"):
                steps = (
                    [*self.compiler.compiler_so, flag, "-c", source, "-o", obj],
                    [*self.compiler.linker_so, flag, obj, "-o", lib],
                )
                if all(subprocess.run(step, capture_output=True).returncode == 0 for step in steps):
                    return [flag]
        return []

    def embed_scripts(self) -> str:
        """The Lua scripts as C, in the build directory; written only where they changed."""
        source = runpy.run_path("csrc/redis/scripts/embed.py")["source"]()
        path = os.path.join(self.build_temp, "scripts.c")
        os.makedirs(self.build_temp, exist_ok=True)
        try:
            with open(path) as file:
                known = file.read()
        except OSError:
            known = ""
        if known != source:
            with open(path, "w") as file:
                file.write(source)
        return path

    def add_redis(self, compile_flags: list[str], link_flags: list[str]) -> None:
        for extension in self.extensions:
            extension.sources += [*REDIS_SOURCES, self.embed_scripts()]
            extension.define_macros.append(("SG_REDIS", "1"))
            extension.extra_compile_args += compile_flags
            extension.extra_link_args += link_flags

    def build_extensions(self) -> None:
        if self.hiredis is not None:
            self.add_redis(*self.hiredis)
        elif REDIS not in ("", "0"):
            sys.exit(f"error: {MISSING}")
        elif not REDIS:
            print(f"warning: {MISSING}", file=sys.stderr)
        for extension in self.extensions:
            flags = self.lto_flags()
            extension.extra_compile_args += flags
            extension.extra_link_args += [*flags, "-O3"] if flags else []
        compile_one = self.compiler._compile
        all_of_it, self.force = self.force, True  # always link: the flags may have changed
        shared = max(os.path.getmtime(path) for path in [*HEADERS, "setup.py"])

        def compile_if_changed(obj: str, src: str, *rest: object) -> None:
            newest = max(shared, os.path.getmtime(src))
            if all_of_it or not os.path.exists(obj) or os.path.getmtime(obj) <= newest:
                begun = time.time()
                compile_one(obj, src, *rest)
                os.utime(obj, (begun, begun))  # what changes while it compiles is newer

        self.compiler._compile = compile_if_changed
        super().build_extensions()


setup(
    ext_modules=[
        Extension(
            "sluicegate._core",
            SOURCES,
            depends=[*HEADERS, "setup.py"],
            include_dirs=["csrc", "csrc/core", "csrc/redis", "csrc/binding"],
            define_macros=MACROS,
            extra_compile_args=COMPILE,
            extra_link_args=LINK,
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
