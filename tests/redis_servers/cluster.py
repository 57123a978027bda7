"""A cluster, made by the command-line client that came with the server; its slots can be moved
and its masters lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from redis_servers.kinds import cli
from redis_servers.server import Server, Setting, named, started
from redis_servers.waiting import until

SLOTS = 16384
# How long a node may say nothing before the others miss it; less than this where a test loses one,
# for a machine under load keeps a node waiting for a second, too.
_TIMEOUT_MS = 4000
_SOON_MS = 1000
_TIMEOUT = "cluster-node-timeout"
_STAY_REPLICA = "cluster-replica-no-failover"
_COMMAND_SECONDS = 60
_BATCH = 100  # keys that one MIGRATE takes along


@dataclass(frozen=True)
class Node:
    """What one node says of another in CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    master: str | None  # the id of the one that it replicates
    connected: bool
    slots: frozenset[int]


def _slots(ranges: Iterable[str]) -> Iterator[int]:
    for text in ranges:
        if not text.startswith("["):  # one that is on its way
            first, _, last = text.partition("-")
            yield from range(int(first), int(last or first) + 1)


def _node(line: str) -> Node:
    name, address, flags, master, _, _, _, link, *slots = line.split()
    port = address.partition("@")[0].rpartition(":")[2]
    follows = None if master == "-" else master
    return Node(
        name, int(port), frozenset(flags.split(",")), follows, link == "connected",
        frozenset(_slots(slots)),
    )  # fmt: skip


def _nodes_of(server: Server) -> str:
    """CLUSTER NODES, as this one answers it."""
    with server.client() as client:
        answer: bytes = client.execute_command("CLUSTER", "NODES", NEVER_DECODE=True)
    return answer.decode()


class Cluster:
    """`servers` are all nodes, masters first as it was made."""

    def __init__(self, kind: str, servers: Sequence[Server]) -> None:
        self.kind = kind
        self.servers = list(servers)

    @property
    def url(self) -> str:
        """redis+cluster://host:port,..., with the password if there is one."""
        hosts = ",".join(one.address for one in self.servers)
        return f"redis+cluster://{self.servers[0].userinfo()}{hosts}"

    # ---- who is who

    def seen_by(self, server: Server) -> list[Node]:
        """All nodes, as this one sees them."""
        return [_node(line) for line in _nodes_of(server).splitlines()]

    def id_of(self, server: Server) -> str:
        """Its name in the cluster."""
        with server.client() as client:
            answer = client.execute_command("CLUSTER", "MYID")
        return answer if isinstance(answer, str) else answer.decode()

    @property
    def masters(self) -> list[Server]:
        """Those that run and own slots."""
        ports = {node.port for node in self._nodes() if node.slots and "master" in node.flags}
        return [one for one in self.servers if one.port in ports and one.running]

    def replicas_of(self, master: Server) -> list[Server]:
        """Those that run and replicate it."""
        nodes = self._nodes()
        wanted = next(node.id for node in nodes if node.port == master.port)
        ports = {node.port for node in nodes if node.master == wanted}
        return [one for one in self.servers if one.port in ports and one.running]

    def owner(self, slot: int) -> Server:
        """The master of a slot."""
        port = next(node.port for node in self._nodes() if slot in node.slots)
        return next(one for one in self.servers if one.port == port)

    def slots_of(self, master: Server) -> frozenset[int]:
        """What it owns."""
        return next(node.slots for node in self._nodes() if node.port == master.port)

    def slot_of(self, key: str | bytes) -> int:
        """The slot of a key, as a server says."""
        with self._any().client() as client:
            return int(client.execute_command("CLUSTER", "KEYSLOT", key))

    def _any(self) -> Server:
        return next(one for one in self.servers if one.running)

    def _nodes(self) -> list[Node]:
        return self.seen_by(self._any())

    # ---- moving slots

    def migration(self, slot: int, target: Server) -> Migration:
        """One slot on its way, to be driven step by step."""
        return Migration(self, slot, self.owner(slot), target)

    def move(self, slots: Iterable[int], target: Server) -> None:
        """Moves slots with their keys, one after the other, as a resharding does."""
        for slot in slots:
            step = self.migration(slot, target)
            step.open()
            while step.carry():
                pass
            step.close()

    def reshard(self, count: int, source: Server, target: Server) -> None:
        """Moves `count` slots by the command-line client, which takes some milliseconds each."""
        self.wait_ready()  # it moves nothing while nodes do not agree
        self._command(
            *("reshard", target.address, "--cluster-from", self.id_of(source)),
            *("--cluster-to", self.id_of(target), "--cluster-slots", str(count), "--cluster-yes"),
        )

    def _command(self, *words: str) -> None:
        command = [cli(self.kind), "--cluster", *words]
        password = self.servers[0].password
        # Not a word of the command, which all can read in a list of processes.
        secret = {} if password is None else {"REDISCLI_AUTH": password}
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env={**os.environ, **secret},
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"

    # ---- losing masters

    def wait_for_failover(self, lost: Server) -> Server:
        """Lets a replica of a master that is gone take over, and waits until it owns its slots for
        all; returns it."""
        self._expect_losses(True)
        before = {node.id: node for node in self._nodes()}
        old = next(node for node in before.values() if node.port == lost.port)

        def found() -> Server | None:
            for node in self._nodes():
                was = before[node.id]
                if node.port != lost.port and node.slots and (was.master == old.id):
                    return next(one for one in self.servers if one.port == node.port)
            return None

        new = until(found, "no replica took over")
        self.wait_ready()
        return new

    def heal(self) -> None:
        """Starts what was killed or stopped, ends migrations that are under way, and waits until
        every master has its replicas again and none has a key."""
        for one in self.servers:
            if one.running:
                one.cont()
            else:
                one.restart()
        for one in self.servers:
            with one.client() as client:
                for word in _nodes_of(one).split():
                    if word.startswith("["):
                        slot = word[1:].partition("-")[0]
                        client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        self.wait_ready()
        self._expect_losses(False)
        for one in self.masters:
            one.reset()

    def _expect_losses(self, expected: bool) -> None:
        for one in self.servers:
            if one.running:
                with one.client() as client:
                    client.config_set(
                        _STAY_REPLICA, "no" if expected else "yes",
                        _TIMEOUT, _SOON_MS if expected else _TIMEOUT_MS,
                    )  # fmt: skip

    def wait_ready(self) -> None:
        """Returns when all that run see all that run, agree on who owns what, every slot has an
        owner, and every replica follows its master."""
        quarrel: str | None = None

        def agreed() -> bool:
            nonlocal quarrel
            quarrel = self._quarrel()
            return quarrel is None

        until(agreed, lambda: f"{quarrel}\n{self._all_views()}")

    def _quarrel(self) -> str | None:
        """What the nodes that run do not agree on; None if nothing."""
        running = [one for one in self.servers if one.running]
        ports = {one.port for one in running}
        views = []
        for one in running:
            nodes = [node for node in self.seen_by(one) if node.port in ports]
            if any(node.flags & {"fail", "fail?", "handshake"} for node in nodes):
                return f"{one.port} misses a node"
            views.append({(node.id, node.master, node.slots) for node in nodes})
            with one.client() as client:
                if b"cluster_state:ok" not in client.execute_command(
                    "CLUSTER", "INFO", NEVER_DECODE=True
                ):
                    return f"{one.port} does not serve"
                info = client.info("replication")
            if info["role"] == "slave" and info["master_link_status"] != "up":
                return f"{one.port} does not follow its master"
        if any(view != views[0] for view in views) or len(views[0]) != len(running):
            return "the nodes do not agree"
        if sum(len(slots) for _, _, slots in views[0]) != SLOTS:
            return "a slot has no owner, or two"
        return None

    def _all_views(self) -> str:
        """CLUSTER NODES of all that run, and the end of what they logged."""
        told = []
        for one in self.servers:
            if one.running:
                log = "\n".join(one.log().splitlines()[-20:])
                told.append(f"-- as {one.port} sees it:\n{_nodes_of(one)}-- its log:\n{log}")
        return "\n".join(told)


class Migration:
    """One slot on its way from `source` to `target`."""

    def __init__(self, cluster: Cluster, slot: int, source: Server, target: Server) -> None:
        assert source is not target, "it is there already"
        self.cluster, self.slot, self.source, self.target = cluster, slot, source, target

    def open(self) -> None:
        """From here on `source` answers ASK for a key of the slot that it does not have."""
        self._set(self.target, "IMPORTING", self.cluster.id_of(self.source))
        self._set(self.source, "MIGRATING", self.cluster.id_of(self.target))

    def carry(self, count: int = _BATCH) -> int:
        """Moves up to `count` keys; how many there were."""
        with self.source.client() as client:
            keys = client.execute_command(
                "CLUSTER", "GETKEYSINSLOT", self.slot, count, NEVER_DECODE=True
            )
            if keys:
                password = self.target.password
                auth = () if password is None else ("AUTH", password)
                client.execute_command(
                    *("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000),
                    *(*auth, "KEYS", *keys),
                )
        return len(keys)

    def close(self) -> None:
        """Gives the slot to `target`: from here on others answer MOVED. All keys must be there."""
        name = self.cluster.id_of(self.target)
        # The new owner first: were it the last and lost, nobody would own the slot.
        self._set(self.target, "NODE", name)
        self._set(self.source, "NODE", name)
        for master in self.cluster.masters:
            if master not in (self.source, self.target):
                self._set(master, "NODE", name)

    def abandon(self) -> None:
        """The slot stays where it was; keys that were carried must be carried back first."""
        for one in (self.source, self.target):
            self._set(one, "STABLE")

    def _set(self, server: Server, *words: str) -> None:
        with server.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", self.slot, *words)


@contextmanager
def cluster(
    kind: str,
    *,
    masters: int = 3,
    replicas: int = 1,
    password: str | None = None,
    **settings: Setting,
) -> Iterator[Cluster]:
    """A cluster of `masters`, each with `replicas`, that has agreed on its slots.

    `password` and `settings` are those of `server.server`, for all nodes.
    """
    given: dict[str, Setting] = {
        "cluster-enabled": "yes",
        _TIMEOUT: _SOON_MS,
        # However long a replica was cut off, it may take over.
        "cluster-replica-validity-factor": 0,
        # A replica stays with its master, and remains one while the machine keeps all of them
        # waiting: it takes over when a test says so.
        "cluster-allow-replica-migration": "no",
        _STAY_REPLICA: "yes",
    }
    given |= named(settings)
    with ExitStack() as stack:
        count = masters * (1 + replicas)
        servers = [
            stack.enter_context(started(kind, given, password=password)) for _ in range(count)
        ]
        made = Cluster(kind, servers)
        made._command(
            *("create", *(one.address for one in servers)),
            *("--cluster-replicas", str(replicas), "--cluster-yes"),
        )
        made.wait_ready()
        made._expect_losses(False)
        yield made
