"""A limiter on a server by csrc/redis, with the methods of `reference.Limiter`.

The server's clock is a key of the test: the scripts are those of the package but for two lines of
the prelude, the one that reads TIME and the one that makes an expiry (which would go by the wall).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from redis_store.codec import ERROR, HIT, PEEK, RESERVE, Codec, Outcome, Plan, embed
from reference import ORIGIN, Decision, Quota

GCRA, DECIDE, CHANGE, FETCH, ALL, SLOTS = range(6)
CLOCK = "local time = call('TIME')"
LIFETIME = "floor((us - now) / 1000) + 1"


def variants(client: redis.Redis) -> dict[bytes, bytes]:
    """Loads the scripts as the tests run them: SHA-1 of the package's to that of the test's."""
    found = {}
    module = embed()
    for name in module.NAMES:
        text = module.script(name).decode()
        assert text.count(CLOCK) == text.count(LIFETIME) == 1
        test = text.replace(CLOCK, "do return tonumber(call('GET', 'now')) end local time")
        test = test.replace(LIFETIME, "3600000")
        sha1 = hashlib.sha1(text.encode()).hexdigest().encode()
        found[sha1] = client.script_load(test).encode()
    return found


class Server:
    """A client, and the clock that its scripts see."""

    def __init__(self, client: redis.Redis, codec: Codec) -> None:
        self.client, self.codec = client, codec
        self.scripts = variants(client)
        self.claims = 0

    def run(self, words: list[bytes], now_us: int) -> Any:
        words[1] = self.scripts[words[1]]
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.set("now", now_us)
            pipeline.execute_command(*words)
            return pipeline.execute()[1]


class Reserved(NamedTuple):
    key: bytes
    ticket: Any


class Limiter:
    def __init__(
        self,
        server: Server,
        name: bytes,
        quotas: Sequence[Quota | None],
        *,
        kinds: Sequence[str] | None = None,
        start_ns: int = 0,
    ) -> None:
        self.server, self.codec, self.limiter = server, server.codec, name
        self.kinds = list(kinds or [q.algorithm for q in quotas if q])
        self.keep = [0] * len(self.kinds)
        self.start_ns = start_ns
        self.quotas = list(quotas)
        self.plan = self.planned(quotas)

    def planned(self, quotas: Sequence[Quota | None]) -> Plan:
        self.keep = [max(k, q.period if q else 0) for k, q in zip(self.keep, quotas, strict=True)]
        return Plan(self.codec, quotas, self.kinds, self.keep)

    def update(self, quotas: Sequence[Quota | None]) -> None:
        self.quotas = list(quotas)
        self.plan = self.planned(quotas)

    def us(self, now_ns: int) -> int:
        ns = now_ns - self.start_ns
        assert ns % 1000 == 0
        return ORIGIN // 16000 + ns // 1000

    def name(self, key: object) -> bytes:
        return self.codec.name(b"sg", self.limiter, str(key).encode())

    def row(self, costs: int | Sequence[int]) -> list[int]:
        return [costs] * len(self.kinds) if isinstance(costs, int) else list(costs)

    def checks(
        self,
        op: int,
        checks: Sequence[tuple[object, int | list[int]]],
        now_ns: int,
        plan: Plan,
        ttl_us: int = 0,
        tickets: Sequence[Any] | None = None,
    ) -> list[Outcome]:
        rows = [(self.name(key), self.row(costs)) for key, costs in checks]
        claim = self.server.claims + 1
        self.server.claims += len(checks)
        words = self.codec.batch(plan, op, rows, ttl_us, claim)
        reply = self.server.run(words, self.us(now_ns))
        assert reply[-1] == self.us(now_ns) and len(reply) == len(checks) + 1
        outcomes = [
            self.codec.answer(
                plan, op, row, one, reply[-1], ttl_us, claim + j, tickets[j] if tickets else None
            )
            for j, (one, (_, row)) in enumerate(zip(reply, rows, strict=False))
        ]
        for one, outcome in zip(reply, outcomes, strict=False):
            assert outcome.seen != ERROR, f"not to be read: {one!r}"
        return outcomes

    def hit(
        self,
        key: object,
        costs: int | list[int],
        now_ns: int,
        quotas: Sequence[Quota | None] | None = None,
    ) -> Decision:
        plan = self.plan
        if quotas is not None:
            plan = self.planned(quotas)
            self.plan = self.planned(self.quotas)  # which now may have to keep for longer
        return self.hit_many([(key, costs)], now_ns, plan)[0]

    def hit_many(
        self,
        checks: Sequence[tuple[object, int | list[int]]],
        now_ns: int,
        plan: Plan | None = None,
    ) -> list[Decision]:
        outcomes = self.checks(HIT, checks, now_ns, plan or self.plan)
        return [outcome.decision for outcome in outcomes]

    def peek(self, key: object, costs: int | list[int], now_ns: int) -> Decision:
        return self.checks(PEEK, [(key, costs)], now_ns, self.plan)[0].decision

    def reserve(
        self, key: object, costs: int | list[int], ttl: float, now_ns: int
    ) -> tuple[Decision, Reserved | None]:
        ticket = self.codec.ticket()
        ttl_us = round(ttl * 1e6)
        outcome = self.checks(RESERVE, [(key, costs)], now_ns, self.plan, ttl_us, [ticket])[0]
        if not self.codec.lib.codec_ticket_open(ticket):
            return outcome.decision, None
        return outcome.decision, Reserved(self.name(key), ticket)

    def change(self, name: bytes, now_ns: int, op: bytes, *arguments: bytes) -> None:
        arguments = (self.plan.bytes, op, *arguments)
        words = self.codec.call(CHANGE, [(self.plan, name)], arguments)
        assert self.server.run(words, self.us(now_ns)) == self.us(now_ns)

    def settle(self, reserved: Reserved, costs: int | list[int], now_ns: int) -> None:
        if self.codec.lib.codec_ticket_open(reserved.ticket):
            argument = self.codec.settle(self.plan, reserved.ticket, self.row(costs))
            self.change(reserved.key, now_ns, b"settle", argument)

    def penalize(self, key: object, costs: int | list[int], now_ns: int) -> None:
        row = self.plan.row(self.row(costs), change=True)
        self.change(self.name(key), now_ns, b"penalize", row)

    def reward(self, key: object, costs: int | list[int], now_ns: int) -> None:
        row = self.plan.row(self.row(costs), change=True)
        self.change(self.name(key), now_ns, b"reward", row)

    def ban(self, key: object, seconds: float, now_ns: int) -> None:
        length = round(seconds * 1e6).to_bytes(7, "little")
        self.change(self.name(key), now_ns, b"ban", length)

    def unban(self, key: object, now_ns: int) -> None:
        self.change(self.name(key), now_ns, b"unban")

    def reset(self, key: object, now_ns: int = 0) -> None:
        self.change(self.name(key), now_ns or self.start_ns, b"reset")

    def project(self, key: object, events: list[int | list[int]], now_ns: int) -> float:
        words = self.codec.call(FETCH, [(self.plan, self.name(key))], [])
        *values, now = self.server.run(words, self.us(now_ns))
        return self.codec.project(self.plan, values, now, [self.row(costs) for costs in events])
