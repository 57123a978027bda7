"""Real servers in processes of their own, for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 10.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server process and where it listens."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path

    @property
    def http(self) -> str:
        """The start of its HTTP URLs, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The start of its WebSocket URLs, without a slash at the end."""
        return f"ws://127.0.0.1:{self.port}"

    def log(self) -> str:
        """All that the server has printed so far."""
        return self.output.read_text(errors="replace")

    def stop(self) -> int:
        """Asks the server to end, waits, and returns its exit status (negative: a signal)."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(STOP_SECONDS)


def _wait_until_it_listens(server: Server) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if server.process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the server did not start to listen; it printed:\n{server.log()}")


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Iterator[Server]:
    """Runs `command`, waits until it listens on `port`, and stops it at the end.

    `env` is added to this process's environment.
    """
    with tempfile.NamedTemporaryFile(prefix="sluicegate-server-", suffix=".log") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
        )
        server = Server(process, port, Path(output.name))
        try:
            _wait_until_it_listens(server)
            yield server
        finally:
            server.stop()


@contextmanager
def uvicorn(
    app: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    app_dir: str | os.PathLike[str] = Path(__file__).parent,
) -> Iterator[Server]:
    """Serves `app` ("module:attribute", found from `app_dir`, by default tests/) with uvicorn.

    `options` are more of uvicorn's, such as "--factory".
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", app, "--app-dir", os.fspath(app_dir)),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", *options),
    ]
    with serving(command, port, env=env) as server:
        yield server


@contextmanager
def hypercorn(
    app: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    app_dir: str | os.PathLike[str] = Path(__file__).parent,
) -> Iterator[Server]:
    """Serves `app` ("module:attribute", found from `app_dir`, by default tests/) with hypercorn.

    `options` are more of hypercorn's. One process serves, unless they say `--workers`.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}"),
        *("--workers", "0", "--graceful-timeout", "1", *options),
    ]
    with serving(command, port, env=env, cwd=app_dir) as server:
        yield server


@contextmanager
def gunicorn(
    app: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    app_dir: str | os.PathLike[str] = Path(__file__).parent,
) -> Iterator[Server]:
    """Serves `app` ("module:attribute", found from `app_dir`, by default tests/) with gunicorn and
    the workers of uvicorn. `options` are more of gunicorn's.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}"),
        *("--chdir", os.fspath(app_dir), "--worker-class", "uvicorn_worker.UvicornWorker"),
        *("--log-level", "warning", "--graceful-timeout", "1", "--no-control-socket", *options),
    ]
    with serving(command, port, env=env, cwd=app_dir) as server:
        yield server
