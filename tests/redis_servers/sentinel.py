"""A master with replicas, and the sentinels that name a new one when it is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import redis

from redis_servers.server import Server, Setting, named, quoted, started
from redis_servers.waiting import until

NAME = "mymaster"
DOWN_AFTER_MS = 500
_FAILOVER_TIMEOUT_MS = 1000
# By themselves sentinels ask each other, and the servers, far less often: these make them know each
# other, and a master that comes back, within a second. While the master is down they ask a replica
# once a second, and take none for a new one of which they have heard nothing for five pings.
_PERIODS = ("INFO-PERIOD", "200", "PUBLISH-PERIOD", "200", "PING-PERIOD", "300")


def _watching(master: Server) -> Sequence[str]:
    lines = [
        f"monitor {NAME} 127.0.0.1 {master.port} 2",
        f"down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
        f"failover-timeout {NAME} {_FAILOVER_TIMEOUT_MS}",
    ]
    if master.password is not None:
        lines.append(f"auth-pass {NAME} {quoted(master.password)}")
    return [f"sentinel {line}" for line in lines]


class Sentinel:
    """`servers` are the master and its replicas, in any roles later; `sentinels` watch them."""

    def __init__(self, servers: Sequence[Server], sentinels: Sequence[Server]) -> None:
        self.servers = list(servers)
        self.sentinels = list(sentinels)

    @property
    def url(self) -> str:
        """redis+sentinel://host:port,.../mymaster, with the password of the master if it has one;
        the sentinels themselves ask for none."""
        hosts = ",".join(one.address for one in self.sentinels)
        return f"redis+sentinel://{self.servers[0].userinfo()}{hosts}/{NAME}"

    @property
    def master(self) -> Server:
        """The one that most sentinels name now."""
        named = [port for port in map(self._named, self.sentinels) if port]
        assert named, "no sentinel names a master"
        port = max(named, key=named.count)
        return next(one for one in self.servers if one.port == port)

    @property
    def replicas(self) -> list[Server]:
        """Those that run and are not the master."""
        master = self.master
        return [one for one in self.servers if one is not master and one.running]

    def kill_master(self) -> Server:
        """Kills it and returns it; `wait_for_new_master` is the next step."""
        master = self.master
        master.kill()
        return master

    def wait_for_new_master(self, lost: Server) -> Server:
        """Waits until all sentinels name the same other one and it takes writes; returns it."""

        def found() -> Server | None:
            running = [one for one in self.sentinels if one.running]
            ports = {self._named(one) for one in running}
            for one in self.servers:
                if one is not lost and ports == {one.port} and _role(one) == "master":
                    return one
            return None

        return until(found, "no new master was elected")

    def heal(self) -> None:
        """Starts what was killed or stopped, and waits until all watch one master to which the
        others are replicas, and none has a key."""
        for one in (*self.sentinels, *self.servers):
            if one.running:
                one.cont()
            else:
                one.restart()
        self.wait_ready()
        self.master.reset()

    def wait_ready(self) -> None:
        """Returns when every sentinel knows all others, one master and its replicas, and these
        follow it."""
        for one in self.sentinels:
            with one.client() as client:
                client.execute_command("SENTINEL", "DEBUG", *_PERIODS)
        until(self._settled, "the sentinels do not agree")

    def _settled(self) -> bool:
        ports = {self._named(one) for one in self.sentinels}
        masters = [one for one in self.servers if one.port in ports]
        if len(ports) != 1 or len(masters) != 1:
            return False
        with masters[0].client() as client:
            info = client.info("replication")
        states = [info.get(f"slave{i}", {}).get("state") for i in range(len(self.servers) - 1)]
        if info["role"] != "master" or set(states) != {"online"}:
            return False
        for one in self.sentinels:
            with one.client() as client:
                answer = client.execute_command("SENTINEL", "MASTER", NAME, NEVER_DECODE=True)
                seen = _pairs(answer)
                replicas = client.execute_command("SENTINEL", "REPLICAS", NAME, NEVER_DECODE=True)
            if seen[b"flags"] != b"master":
                return False
            if int(seen[b"num-other-sentinels"]) != len(self.sentinels) - 1:
                return False
            if [_pairs(each)[b"flags"] for each in replicas] != [b"slave"] * len(states):
                return False
        return True

    def _named(self, sentinel: Server) -> int | None:
        """The port of the master that this sentinel names; None where it is not there."""
        if not sentinel.running:
            return None
        with sentinel.client(socket_timeout=2) as client:
            try:
                answer = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            except (redis.ConnectionError, redis.TimeoutError):
                return None
        return int(answer[1]) if answer else None


def _pairs(answer: object) -> dict[bytes, bytes]:
    if isinstance(answer, dict):
        return answer
    assert isinstance(answer, list)
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _role(server: Server) -> str:
    if not server.running:
        return "gone"
    with server.client() as client:
        role: str = client.info("replication")["role"]
        return role


@contextmanager
def sentinel(
    kind: str, *, replicas: int = 2, password: str | None = None, **settings: Setting
) -> Iterator[Sentinel]:
    """A master, its replicas and three sentinels that agree on it; `password` and `settings` are
    those of `server.server`, for the master and the replicas."""
    given = named(settings)
    with ExitStack() as stack:
        servers: list[Server] = []
        for _ in range(1 + replicas):
            if servers:
                given["replicaof"] = f"127.0.0.1 {servers[0].port}"
            servers.append(stack.enter_context(started(kind, given, password=password)))
        watching = _watching(servers[0])
        sentinels = [stack.enter_context(started(kind, {}, sentinel=watching)) for _ in range(3)]
        found = Sentinel(servers, sentinels)
        found.wait_ready()
        yield found
