"""csrc/redis from Python: compiled as a library of its own, as a connection will use it.

`Codec` builds the words of commands and reads their replies; servers are driven by others.
"""

from __future__ import annotations

import ctypes as c
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import reference
from reference import ALGORITHMS, Quota

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
ANY_SOURCES = ("name", "slot", "state", "request", "project", "command")
NEVER = 2**64 - 1
PEEK, HIT, RESERVE = 0, 1, 2
SEEN, OTHER, ERROR = 0, 1, 2


def embed() -> ModuleType:
    """csrc/redis/scripts/embed.py."""
    path = CSRC / "redis" / "scripts" / "embed.py"
    spec = importlib.util.spec_from_file_location("embed", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(directory: Path) -> Path:
    """The library, from the sources as they are."""
    scripts, library = directory / "scripts.c", directory / "codec.so"
    scripts.write_text(embed().source())
    compiler = os.environ.get("CC") or shutil.which("cc") or sysconfig.get_config_var("CC")
    sources = [*sorted((CSRC / "core").glob("*.c")), scripts, Path(__file__).with_name("codec.c")]
    sources += [CSRC / "redis" / f"{name}.c" for name in ANY_SOURCES]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-D_DARWIN_C_SOURCE", "-O1", "-g", "-fPIC", "-shared"]
    flags += ["-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
    include = [f"-I{CSRC / 'core'}", f"-I{CSRC / 'redis'}"]
    command = [*str(compiler).split(), *flags, *include, *map(str, sources)]
    subprocess.run([*command, "-o", str(library), "-lm"], check=True)
    return library


class Answer(c.Structure):
    _fields_ = [(name, c.c_uint32) for name in ("seen", "allowed", "shadow", "binding")] + [
        (name, c.c_uint64) for name in ("remaining", "retry", "reset", "level")
    ]


class Numbers(c.Structure):
    _fields_ = [(name, c.c_uint32) for name in ("algorithm", "shadow", "hole", "unused")] + [
        (name, c.c_uint64) for name in ("limit", "period_us", "burst", "keep_us")
    ]


class Outcome(NamedTuple):
    decision: reference.Decision
    seen: int
    level: int


class Plan:
    """What the checks of some quotas share; `keep` are the longest periods known, in ticks."""

    def __init__(
        self,
        codec: Codec,
        quotas: Sequence[Quota | None],
        kinds: Sequence[str],
        keep: Sequence[int],
    ) -> None:
        rows = (Numbers * len(kinds))()
        for row, quota, kind, longest in zip(rows, quotas, kinds, keep, strict=True):
            row.algorithm, row.keep_us = ALGORITHMS.index(kind), longest // 16000
            row.hole = quota is None
            if quota is not None:
                row.limit, row.period_us = quota.limit, quota.period // 16000
                row.burst = quota.burst if kind == "gcra" else 0
                row.shadow = quota.shadow
        self.codec = codec
        self.quotas = list(quotas)
        self.handle = codec.lib.codec_plan(len(kinds), rows)
        assert self.handle, f"not a quota: {quotas}"
        self.logs = codec.lib.codec_plan_logs(self.handle)
        length = codec.lib.codec_plan_length(self.handle)
        self.bytes = c.string_at(codec.lib.codec_plan_bytes(self.handle), length)

    def __del__(self) -> None:
        self.codec.lib.codec_release(self.handle)

    def row(self, costs: Sequence[int], *, change: bool = False) -> bytes:
        out = c.create_string_buffer(8 * 9)
        length = self.codec.lib.codec_row(self.handle, change, _numbers(costs), out)
        return out.raw[:length]


def _numbers(values: Sequence[int]) -> Any:
    return (c.c_uint64 * max(len(values), 1))(*values)


class Codec:
    def __init__(self, library: Path) -> None:
        self.lib = lib = c.CDLL(str(library))
        pointer, size, u64, number = c.c_void_p, c.c_size_t, c.c_uint64, c.c_uint
        text, two = (c.c_char_p, size), (pointer, pointer)
        for name, result, arguments in (
            ("codec_plan", pointer, [c.c_uint, pointer]),
            ("codec_release", None, [pointer]),
            ("codec_command", pointer, []),
            ("codec_command_free", None, [pointer]),
            ("codec_plan_logs", c.c_uint, [pointer]),
            ("codec_plan_bytes", pointer, [pointer]),
            ("codec_plan_length", size, [pointer]),
            (
                "codec_batch",
                c.c_bool,
                [pointer, number, number, c.c_char_p, *two, u64, u64, pointer],
            ),
            ("codec_ticket_size", size, []),
            ("codec_ticket_open", c.c_bool, [pointer]),
            ("codec_answer", None, [pointer, number, pointer, *text, u64, u64, u64, *two]),
            ("codec_key", None, [pointer, pointer, c.c_char_p, size]),
            ("codec_row", size, [pointer, c.c_uint, pointer, pointer]),
            ("codec_settle", size, [pointer, pointer, pointer, pointer]),
            ("codec_project", c.c_int, [pointer, pointer, pointer, u64, pointer, size, pointer]),
            ("codec_name", size, [*text, *text, *text, pointer]),
            ("sg_command_begin", None, [pointer, c.c_int, c.c_uint]),
            ("sg_command_argument", None, [pointer, c.c_char_p, size]),
            ("sg_command_words", c.c_bool, [pointer, pointer, pointer, pointer]),
            ("sg_slot_of", c.c_uint, [c.c_char_p, size]),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        self.command = lib.codec_command()

    def close(self) -> None:
        self.lib.codec_command_free(self.command)

    def name(self, prefix: bytes, limiter: bytes, subject: bytes) -> bytes:
        out = c.create_string_buffer(3 * (len(prefix) + len(limiter)) + 600)
        length = self.lib.codec_name(
            prefix, len(prefix), limiter, len(limiter), subject, len(subject), out
        )
        return out.raw[:length]

    def words(self) -> list[bytes]:
        count, argv, lengths = c.c_int(), c.c_void_p(), c.c_void_p()
        good = self.lib.sg_command_words(
            self.command, c.byref(count), c.byref(argv), c.byref(lengths)
        )
        assert good
        texts = c.cast(argv, c.POINTER(c.c_void_p))
        sizes = c.cast(lengths, c.POINTER(c.c_size_t))
        return [c.string_at(texts[i], sizes[i]) for i in range(count.value)]

    def batch(
        self,
        plan: Plan,
        op: int,
        checks: Sequence[tuple[bytes, Sequence[int]]],
        ttl_us: int = 0,
        claim: int = 0,
    ) -> list[bytes]:
        names = b"".join(name for name, _ in checks)
        lengths = (c.c_size_t * len(checks))(*(len(name) for name, _ in checks))
        costs = _numbers([cost for _, row in checks for cost in row])
        assert self.lib.codec_batch(
            plan.handle, op, len(checks), names, lengths, costs, ttl_us, claim, self.command
        )
        return self.words()

    def call(
        self, script: int, keys: Sequence[tuple[Plan, bytes]], arguments: Sequence[bytes]
    ) -> list[bytes]:
        count = sum(1 + plan.logs for plan, _ in keys)
        self.lib.sg_command_begin(self.command, script, count)
        for plan, name in keys:
            self.lib.codec_key(self.command, plan.handle, name, len(name))
        for argument in arguments:
            self.lib.sg_command_argument(self.command, argument, len(argument))
        return self.words()

    def answer(
        self,
        plan: Plan,
        op: int,
        costs: Sequence[int],
        reply: bytes | None,
        now_us: int,
        ttl_us: int = 0,
        claim: int = 0,
        ticket: Any = None,
    ) -> Outcome:
        found = Answer()
        self.lib.codec_answer(
            plan.handle, op, _numbers(costs), reply, len(reply or b""), now_us, ttl_us, claim,
            c.byref(found), ticket,
        )  # fmt: skip
        quota = None if found.binding >= 8 else plan.quotas[found.binding]
        nothing = found.binding == 0xFF
        decision = reference.Decision(
            bool(found.allowed),
            quota.limit if quota else reference.LIMIT_MAX if nothing else 0,
            found.remaining if quota else reference.COST_MAX if nothing else 0,
            reference.seconds_of(None if found.retry == NEVER else found.retry),
            reference.seconds_of(found.reset),
            found.binding if quota else None,
            bool(found.shadow),
        )
        return Outcome(decision, found.seen, found.level)

    def ticket(self) -> Any:
        return c.create_string_buffer(self.lib.codec_ticket_size())

    def settle(self, plan: Plan, ticket: Any, costs: Sequence[int]) -> bytes:
        out = c.create_string_buffer(14 + 8 * 14)
        length = self.lib.codec_settle(plan.handle, ticket, _numbers(costs), out)
        return out.raw[:length]

    def project(
        self,
        plan: Plan,
        values: Sequence[bytes | None],
        now_us: int,
        costs: Sequence[Sequence[int]],
    ) -> float:
        wait = c.c_uint64()
        texts = (c.c_char_p * len(values))(*values)
        lengths = (c.c_size_t * len(values))(*(len(value or b"") for value in values))
        rows = _numbers([cost for row in costs for cost in row])
        seen = self.lib.codec_project(
            plan.handle, texts, lengths, now_us, rows, len(costs), c.byref(wait)
        )
        assert seen == SEEN
        return reference.seconds_of(None if wait.value == NEVER else wait.value)

    def slot(self, name: bytes) -> int:
        return int(self.lib.sg_slot_of(name, len(name)))
