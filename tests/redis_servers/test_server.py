"""A single server, and what a test can do to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from redis_servers.certificates import Certificates
from redis_servers.ports import BUS, free_port
from redis_servers.server import LIMITER, PASSWORD, WITHOUT_SCRIPTS, Server, server
from redis_servers.waiting import until

pytestmark = pytest.mark.server


@contextmanager
def at(url: str, **options: object) -> Iterator[redis.Redis]:
    """A client of that URL; every wait is bounded, and nothing is tried twice."""
    given: dict[str, object] = {"socket_timeout": 10, "retry": None} | options
    with redis.Redis.from_url(url, **given) as client:
        yield client


def refused(url: str, error: type[Exception], match: str | None = None, **options: object) -> None:
    """Asserts that a client of that URL gets that error."""
    with at(url, **options) as client, pytest.raises(error, match=match):
        client.ping()


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    ports = [free_port() for _ in range(50)]
    assert all(port > 1024 and port + BUS < 32768 for port in ports)
    assert len(set(ports)) > 40


def test_it_answers_on_its_port_and_on_its_socket(redis_server: Server) -> None:
    for url in (redis_server.url, redis_server.unix_url):
        with at(url) as client:
            assert client.incr("n") in (1, 2)
    with at(redis_server.url_as(database=5)) as client:
        assert client.get("n") is None
        client.set("n", 50)
    with redis_server.client(db=5) as client:
        assert client.get("n") == b"50"


def test_it_is_of_the_kind_that_was_asked_for(redis_server: Server, redis_kind: str) -> None:
    with redis_server.client() as client:
        info = client.info("server")
    assert ("valkey_version" in info) == (redis_kind == "valkey-server")


def test_settings_are_those_of_its_configuration(redis_kind: str) -> None:
    with server(redis_kind, maxmemory="3mb", databases=2) as running, running.client() as client:
        assert int(client.config_get("maxmemory")["maxmemory"]) == 3 * 2**20
        assert int(client.config_get("databases")["databases"]) == 2


def test_a_kill_loses_what_is_not_on_disk(redis_kind: str) -> None:
    for disk in (False, True):
        with server(redis_kind, disk=disk) as running:
            before = running.process
            with at(running.url) as client:
                client.set("k", "1")
                running.kill()
                with pytest.raises(redis.ConnectionError):
                    client.get("k")
            assert before is not None and before.returncode == -9 and not running.running
            running.restart()
            with at(running.url) as client:  # the port is the same
                assert client.get("k") == (b"1" if disk else None)


def test_a_restart_takes_what_the_server_wrote_and_options(redis_kind: str) -> None:
    with server(redis_kind) as running:
        with running.client() as client:
            client.config_set("maxmemory", "3mb")
            client.config_rewrite()
        running.restart("--databases", "2")
        with running.client() as client:
            assert int(client.config_get("maxmemory")["maxmemory"]) == 3 * 2**20
            assert int(client.config_get("databases")["databases"]) == 2


def test_a_stopped_server_accepts_and_does_not_answer(redis_server: Server) -> None:
    with at(redis_server.url, socket_timeout=0.2) as client:
        redis_server.stop()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        redis_server.cont()
        assert client.ping()


def test_a_reset_leaves_nothing_of_what_was_before(redis_server: Server) -> None:
    with redis_server.client() as client:
        client.set("k", "1")
        sha1 = client.script_load("return 1")
        before = redis_server.process
        redis_server.stop()
        redis_server.reset()
        assert redis_server.process is before
        assert client.dbsize() == 0
        assert client.script_exists(sha1) == [False]


def test_a_reset_brings_back_a_server_in_any_state(redis_server: Server) -> None:
    with redis_server.client() as client:
        client.client_pause(60_000)
    redis_server.reset()
    with redis_server.client() as client:
        assert client.ping()
    redis_server.kill()
    redis_server.reset()
    with redis_server.client() as client:
        assert client.ping()


def test_a_password_is_asked_for(guarded_server: Server) -> None:
    with at(guarded_server.url) as client, at(guarded_server.unix_url) as other:
        assert client.acl_whoami() == other.acl_whoami() == "default"
    for wrong in ("", ":wrong@"):
        refused(f"redis://{wrong}{guarded_server.address}", redis.AuthenticationError)
    assert PASSWORD not in guarded_server.url  # it is escaped there


def test_users_may_what_their_rules_say(guarded_server: Server) -> None:
    with at(guarded_server.url_as(LIMITER, database=1)) as client:
        assert client.acl_whoami() == LIMITER.name
        assert client.eval("return redis.call('INCR', KEYS[1])", 1, "sg:{a}") == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.incr("other")
        sha1 = client.script_load("return 1")
    with at(guarded_server.url_as(WITHOUT_SCRIPTS)) as client:
        assert client.incr("other") == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.evalsha(sha1, 0)


def test_tls_is_spoken_and_the_certificate_checked(tls_server: Server) -> None:
    certificates = tls_server.certificates
    assert certificates is not None and tls_server.url.startswith("rediss://")
    for host in ("127.0.0.1", "localhost"):
        url = tls_server.url.replace("127.0.0.1", host)
        with at(url, ssl_ca_certs=str(certificates.authority)) as client:
            assert client.ping()
    stranger = {"ssl_ca_certs": str(certificates.stranger)}
    refused(tls_server.url, redis.ConnectionError, "CERTIFICATE_VERIFY_FAILED", **stranger)
    refused(f"redis://{tls_server.address}", redis.ConnectionError)


def test_a_client_certificate_can_be_wanted(
    redis_kind: str, certificates_of_run: Certificates
) -> None:
    wanted = certificates_of_run
    with server(redis_kind, certificates=wanted, client_certificates=True) as running:
        authority = {"ssl_ca_certs": str(wanted.authority)}
        own = {"ssl_certfile": str(wanted.client), "ssl_keyfile": str(wanted.client_key)}
        with at(running.url, **authority, **own) as client:
            assert client.ping()
        refused(running.url, redis.ConnectionError, **authority)


def test_nothing_is_left_whatever_happened(redis_kind: str) -> None:
    seen: list[tuple[int, Path]] = []
    with pytest.raises(KeyError), server(redis_kind, disk=True) as running:
        assert running.process is not None
        seen.append((running.process.pid, running.directory))
        running.stop()
        raise KeyError
    pid, directory = seen[0]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not directory.exists()


def test_a_run_that_is_told_to_end_ends_its_servers(tmp_path: Path) -> None:
    """`timeout` and CI end a run by SIGTERM."""
    seen = tmp_path / "pid"
    (tmp_path / "test_it.py").write_text(
        "import pathlib, time\n"
        "def test_it(redis_server):\n"
        f"    pathlib.Path({str(seen)!r}).write_text(f'{{redis_server.process.pid}} ')\n"
        "    time.sleep(60)\n"
    )
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir", "/"]
    command += ["-c", str(tests.parent / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += ["-p", "conftest", str(tmp_path / "test_it.py"), "-k", "redis-server"]
    run = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(tests)}
    )
    try:
        until(lambda: seen.exists() and seen.read_text().endswith(" "), "the test did not begin")
    finally:
        run.terminate()
        said, _ = run.communicate(timeout=30)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, said.decode()
    with pytest.raises(ProcessLookupError):
        os.kill(int(seen.read_text()), 0)


def test_a_server_that_does_not_start_shows_its_log(redis_kind: str) -> None:
    broken = server(redis_kind, no_such_setting=1)
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*no-such-setting"), broken:
        pass
