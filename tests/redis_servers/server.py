"""One server in a process of its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import redis

from directories import quick_directory
from redis_servers.ports import free_port
from redis_servers.waiting import PATIENCE

if TYPE_CHECKING:  # it needs trustme, which only the tests have
    from redis_servers.certificates import Certificates

Setting = str | int

_QUIET: dict[str, Setting] = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "save": '""',
    "appendonly": "no",
    # A replica is fed at once, not when more may have come.
    "repl-diskless-sync-delay": 0,
}
_SENTINEL: dict[str, Setting] = {"bind": "127.0.0.1", "daemonize": "no"}


class User(NamedTuple):
    """An ACL user; `rules` as in ACL SETUSER, besides its password."""

    name: str
    password: str
    rules: str


# What may stand in a URL only when escaped is in the passwords on purpose.
PASSWORD = "s3cret:/@?#% \u00fc"
LIMITER = User("limiter", "l1mit:/@?#% \u00fc", "~sg:* &* +@all")
WITHOUT_SCRIPTS = User("watcher", "w@tch", "~* &* +@all -evalsha")


def quoted(text: str) -> str:
    """As a configuration file takes any bytes."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'


def named(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Keyword arguments by the names that a configuration file has for them."""
    return {name.replace("_", "-"): value for name, value in settings.items()}


class Server:
    """A server and what a test may do to it. `server()` starts one.

    It has a Unix socket for the test's own commands, whatever is done to its port, which speaks
    TLS where it has certificates.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        settings: Mapping[str, Setting],
        *,
        password: str | None = None,
        users: Sequence[User] = (),
        certificates: Certificates | None = None,
        sentinel: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.directory = directory
        self.password = password
        self.users = users
        self.certificates = certificates
        self.settings = dict(settings)
        self.sentinel = sentinel
        self.port = 0
        self.socket = directory / "socket"
        self.process: subprocess.Popen[bytes] | None = None
        self._config = directory / "server.conf"
        self._log = directory / "log"

    # ---- starting and ending

    def start(self) -> None:
        """Starts it on a free port and waits until it answers."""
        for _ in range(5):
            self.port = free_port()
            self._config.write_text(self._configuration())
            self._launch()
            try:
                self.wait_ready()
            except RuntimeError:
                # Somebody else was quicker; a log tells it in the words of the system.
                if self.running or os.strerror(errno.EADDRINUSE) not in self.log():
                    raise
                continue
            return
        raise RuntimeError(f"{self.kind} found no port:\n{self.log()}")

    def _configuration(self) -> str:
        settings = dict(_SENTINEL if self.sentinel else _QUIET)
        settings |= {"dir": str(self.directory), "unixsocket": str(self.socket)}
        if self.certificates is None:
            settings["port"] = self.port
        else:
            settings |= {
                "port": 0,
                "tls-port": self.port,
                "tls-ca-cert-file": str(self.certificates.authority),
                "tls-cert-file": str(self.certificates.server),
                "tls-key-file": str(self.certificates.server_key),
                "tls-auth-clients": "no",
            }
        if self.password is not None:
            settings["requirepass"] = settings["masterauth"] = quoted(self.password)
        lines = [f"{name} {value}" for name, value in (settings | self.settings).items()]
        lines += [f"user {u.name} on {quoted('>' + u.password)} {u.rules}" for u in self.users]
        return "\n".join([*lines, *self.sentinel, ""])

    def _launch(self, *options: str) -> None:
        mode = ["--sentinel"] if self.sentinel else []
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.kind, str(self._config), *options, *mode],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Returns when it answers and has loaded what it had kept; RuntimeError with its log."""
        deadline = time.monotonic() + seconds
        with self.client(socket_timeout=1) as client:
            while True:
                with suppress(redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                    client.ping()
                    return
                if not self.running:
                    raise RuntimeError(f"{self.kind} did not start:\n{self.log()}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.kind} does not answer:\n{self.log()}")
                time.sleep(0.005)

    @property
    def running(self) -> bool:
        """Whether its process is there; also true while it is stopped."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and waits for the end: what it had not written is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
        # The next one may not be taken for it.
        self.socket.unlink(missing_ok=True)

    def restart(self, *options: str, ready: bool = True) -> None:
        """Starts it again where it was: the same port, the same data, the configuration as it
        last wrote it; `options` ("--name", "value") are for this time. Kills it if need be.

        With `ready=False` it may not listen yet, or still be loading.
        """
        self.kill()
        self._launch(*options)
        if ready:
            self.wait_ready()

    def stop(self) -> None:
        """SIGSTOP: connections stay and are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def log(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def reset(self) -> None:
        """As after its start, but for its connections and what was set with CONFIG SET: runs if
        it was stopped or killed, answers, has no script, no statistics and, like its replicas, no
        key."""
        if not self.running:
            self.restart()
        self.cont()
        try:
            self._empty(seconds=1)
        except (redis.TimeoutError, redis.ResponseError):
            # A pause of all clients, of UNPAUSE too, or a script that has written something and
            # cannot be ended: only the process can.
            self.restart()
            self._empty(seconds=30)

        with self.client() as client:
            replicas = client.info("replication")["connected_slaves"]
            # It waits for what this client wrote.
            if replicas and client.flushall():
                client.wait(replicas, round(PATIENCE * 1000))

    def _empty(self, seconds: float) -> None:
        with self.client(socket_timeout=seconds) as client:
            client.client_unpause()
            client.flushall()
            client.script_flush()
            client.config_resetstat()

    # ---- speaking to it

    def client(self, **options: object) -> redis.Redis:
        """A client on the Unix socket, as the default user, which tries nothing twice. `options`
        are those of redis-py."""
        given: dict[str, object] = {"password": self.password, "socket_timeout": 30, "retry": None}
        given |= options
        return redis.Redis(unix_socket_path=str(self.socket), **given)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of its port, as the default user: redis:// or rediss://."""
        return self.url_as()

    @property
    def unix_url(self) -> str:
        """unix://, as the default user."""
        return f"unix://{self.userinfo()}{self.socket}"

    def url_as(
        self, user: User | None = None, *, database: int | None = None, port: int | None = None
    ) -> str:
        """The URL for an ACL user, a database, or the port of a proxy before it."""
        scheme = "redis" if self.certificates is None else "rediss"
        path = "" if database is None else f"/{database}"
        return f"{scheme}://{self.userinfo(user)}127.0.0.1:{port or self.port}{path}"

    def userinfo(self, user: User | None = None) -> str:
        """What stands before the host in a URL: nothing, or name and password and an @."""
        if user is not None:
            return f"{quote(user.name, safe='')}:{quote(user.password, safe='')}@"
        return "" if self.password is None else f":{quote(self.password, safe='')}@"


@contextmanager
def started(
    kind: str,
    settings: Mapping[str, Setting],
    *,
    password: str | None = None,
    users: Sequence[User] = (),
    certificates: Certificates | None = None,
    sentinel: Sequence[str] = (),
) -> Iterator[Server]:
    """A running server with settings as its configuration file has them."""
    # A node of a cluster and a sentinel answer nobody until what they learned is written.
    with tempfile.TemporaryDirectory(prefix="sluicegate-", dir=quick_directory()) as directory:
        server = Server(
            kind,
            Path(directory),
            settings,
            password=password,
            users=users,
            certificates=certificates,
            sentinel=sentinel,
        )
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def server(
    kind: str,
    *,
    disk: bool = False,
    password: str | None = None,
    users: Sequence[User] = (),
    certificates: Certificates | None = None,
    client_certificates: bool = False,
    **settings: Setting,
) -> Iterator[Server]:
    """An empty server that ends with the block.

    `kind` is one of `kinds.KINDS`. With `disk` every write is on disk before it is answered, and
    is there again after `kill()` and `restart()`. `password` is the default user's, `users` are
    more of them. With `certificates` its port speaks TLS, and with `client_certificates` wants
    one of the client. `settings` are of its configuration, with _ for -.
    """
    given: dict[str, Setting] = {}
    if disk:
        given |= {"appendonly": "yes", "appendfsync": "always"}
    if client_certificates:
        given["tls-auth-clients"] = "yes"
    given |= named(settings)
    with started(kind, given, password=password, users=users, certificates=certificates) as running:
        yield running
