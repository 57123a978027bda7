"""Builds the one extension, ``sluicegate._core``; everything else is in pyproject.toml.

Switches, all read from the environment:

``SLUICEGATE_WERROR=1``      warnings of our own code are errors (what CI builds with)
``SLUICEGATE_SANITIZE=LIST`` builds with ``-fsanitize=LIST``, such as ``address,undefined``
``SLUICEGATE_DEBUG=1``       no optimisation, assertions on
``SLUICEGATE_LTO=0``         no optimisation across files
"""

from __future__ import annotations

import hashlib
import os
import runpy
import subprocess
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

# What csrc/redis does without hiredis.
CODEC = ("command", "name", "project", "request", "slot", "state")
SOURCES = sorted(glob("csrc/core/*.c") + glob("csrc/binding/*.c"))
SOURCES += [f"csrc/redis/{name}.c" for name in CODEC]
HEADERS = sorted(glob("csrc/**/*.h", recursive=True))

# Pieces of the arena are given out again as other types: no optimisation may rest on types.
COMPILE = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing"]
LINK: list[str] = []
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


class BuildExt(build_ext):
    """Compiles only what changed: a source, any header, this file, or the flags."""

    def finalize_options(self) -> None:
        super().finalize_options()
        asked = [
            *COMPILE,
            *LINK,
            str(LTO),
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

    def build_extensions(self) -> None:
        for extension in self.extensions:
            extension.sources.append(self.embed_scripts())
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
