"""A real `sluicegate demo`, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import serving
from demo.helpers import Start


@pytest.fixture
def start_demo() -> Iterator[Start]:
    """`server = start_demo("--messages", "5/second")`; it ends with the test."""
    with ExitStack() as stack:

        def start(*options: str) -> serving.Server:
            port = serving.free_port()
            command = [sys.executable, "-m", "sluicegate.cli", "demo", "--port", str(port)]
            # Our own code and what it uses, warnings as errors, in the server too.
            env = {"PYTHONWARNINGS": "error"}
            return stack.enter_context(serving.serving([*command, *options], port, env=env))

        yield start
