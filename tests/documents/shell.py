"""A page's steps, done as a reader does them: files are written, commands typed into a shell.

What is printed under ```sh is run line by line, in one environment: `export` and an activated
virtual environment hold for what follows. A line that starts uvicorn is another terminal's: it
serves until the next one does. Ports, and where Redis is, are put in place of the page's.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import serving

__all__ = ["Block", "Shell", "blocks"]

SECONDS = 300.0  # for one line: the one that builds takes longest


class Block(NamedTuple):
    """What stands in a fence: its language, and its text."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, which its first line tells."""
        match = re.match(r"# ([\w.]+\.\w+)(?:, at its end)?\n", self.text)
        return match[1] if match else None


def blocks(page: str, heading: str) -> list[Block]:
    """The blocks of the section of that heading, in their order."""
    begun = page.index(f"\n## {heading}\n") + 1
    end = page.find("\n## ", begun)
    section = page[begun:] if end < 0 else page[begun:end]
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", section, re.M | re.S)]


class Shell:
    """A folder, and what a shell in it has in its environment."""

    def __init__(self, folder: Path, env: Mapping[str, str], replaced: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = dict(env)
        self._replaced = dict(replaced)
        self._served = ExitStack()
        self.server: serving.Server | None = None
        self._first: dict[str, str] = {}  # of files that later blocks are added to

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exception: object) -> None:
        self._served.close()  # not by `end`: what went wrong before is told

    def write(self, block: Block) -> None:
        """Writes the file that a block is; one that is its end takes the place of the last end."""
        assert block.file is not None
        text = block.text
        if ", at its end" in text.partition("\n")[0]:
            text = f"{self._first[block.file]}\n{text}"
        else:
            self._first[block.file] = text
        (self.folder / block.file).write_text(text, encoding="utf-8")

    def run(self, block: Block) -> Iterator[tuple[str, str]]:
        """Types the lines of a block: each with what it printed. It must end well."""
        for line in block.text.splitlines():
            if line.startswith("uvicorn "):
                self.server = self._serve(line)
            else:
                yield line, self._type(line)

    def _type(self, line: str) -> str:
        typed = line
        for old, new in self._replaced.items():
            typed = typed.replace(old, new)
        environment = self.folder / ".environment"
        done = subprocess.run(
            ["sh", "-c", f"{typed}\nended=$?; env -0 > {environment}; exit $ended"],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        pairs = environment.read_bytes().split(b"\0")
        environment.unlink()
        self.env = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
        return done.stdout

    def end(self) -> None:
        """Ends what serves. No handler of the page's may have failed meanwhile."""
        log = self.server.log() if self.server is not None else ""
        self._served.close()
        self.server = None
        assert "Traceback" not in log, log

    def _serve(self, line: str) -> serving.Server:
        self.end()
        port = serving.free_port()
        self._replaced["127.0.0.1:8000"] = f"127.0.0.1:{port}"
        command = ["sh", "-c", f"exec {line.partition('#')[0]} --port {port}"]
        return self._served.enter_context(
            serving.serving(command, port, env=self.env, cwd=self.folder)
        )
