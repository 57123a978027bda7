"""One limiter three times: in C, in tests/reference.py, on a server; all answers are compared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import deepcopy
from math import inf
from typing import Any

from model.pair import Pair, core_quota
from redis_store import engine
from reference import ALGORITHMS, CLOCK_MAX, SECOND, Decision, Quota

PERIODS = (0.001, 0.25, 1.0, 7.0, 60.0, 3600.0, 86400.0, 1e7, 3660 * 86400.0)
LIMITS = (1, 2, 3, 5, 10, 30, 100, 1000, 10**6, 2**40)


def quota(rng: random.Random, kind: str, *, shadow: float = 0.1) -> Quota:
    """One that the core takes."""
    while True:
        drawn = Quota(
            rng.choice(LIMITS[:8] if rng.random() < 0.9 else LIMITS),
            rng.choice(PERIODS[2:6] if rng.random() < 0.7 else PERIODS),
            burst=rng.choice((0, 1, 7, 20, 500)) if kind == "gcra" else 0,
            algorithm=kind,
            shadow=rng.random() < shadow,
        )
        try:
            core_quota(drawn)
        except ValueError:
            continue
        return drawn


def kinds(rng: random.Random) -> list[str]:
    return [rng.choice(ALGORITHMS) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, 8)))]


def row(rng: random.Random, algorithms: Sequence[str]) -> list[Quota | None]:
    return [None if rng.random() < 0.05 else quota(rng, kind) for kind in algorithms]


class Trio:
    def __init__(
        self,
        server: engine.Server,
        name: str,
        quotas: Sequence[Quota | None],
        names: Sequence[str],
        clock: Any,
    ) -> None:
        self.pair = Pair(quotas, kinds=names, clock=clock)
        self.clock = clock
        self.server = engine.Limiter(server, name.encode(), quotas, kinds=names, start_ns=clock.ns)

    @property
    def ns(self) -> int:
        return int(self.clock.ns)

    def same(self, seen: Decision, wanted: Decision) -> Decision:
        assert seen == wanted, f"server {seen}, reference {wanted}"
        return wanted

    def hit(self, key: str, cost: int) -> Decision:
        return self.same(self.server.hit(key, cost, self.ns), self.pair.hit(key, cost))

    def hit_by(self, key: str, cost: int, quotas: Sequence[Quota | None]) -> Decision:
        seen = self.server.hit(key, cost, self.ns, quotas)
        return self.same(seen, self.pair.hit_by(key, cost, quotas))

    def hit_many(self, pairs: Sequence[tuple[str, int]]) -> None:
        found = self.server.hit_many(list(pairs), self.ns)
        for seen, (key, cost) in zip(found, pairs, strict=True):
            self.same(seen, self.pair.hit(key, cost))

    def peek(self, key: str, cost: int) -> Decision:
        return self.same(self.server.peek(key, cost, self.ns), self.pair.peek(key, cost))

    def project(self, key: str, costs: list[int]) -> None:
        wanted = self.pair.model.project(key, list(costs), self.ns)
        assert self.pair.core.project_nowait(key, costs) == wanted
        seen = self.server.project(key, list(costs), self.ns)
        # What comes after the end of a clock never comes, and theirs end at other times.
        left = (CLOCK_MAX - self.pair.model.ticks(self.ns)) / SECOND
        late = (wanted == inf and seen > left - 1) or (seen == inf and wanted > 5.8e7)
        assert seen == wanted or late, f"server {seen}, reference {wanted}"

    def penalize(self, key: str, cost: int) -> None:
        self.pair.penalize(key, cost)
        self.server.penalize(key, cost, self.ns)

    def reward(self, key: str, cost: int) -> None:
        self.pair.reward(key, cost)
        self.server.reward(key, cost, self.ns)

    def ban(self, key: str, seconds: float) -> None:
        self.pair.ban(key, seconds)
        self.server.ban(key, seconds, self.ns)

    def unban(self, key: str) -> None:
        self.pair.unban(key)
        self.server.unban(key, self.ns)

    def reset(self, key: str) -> None:
        self.pair.reset(key)
        self.server.reset(key, self.ns)

    def update(self, quotas: Sequence[Quota | None]) -> None:
        self.pair.update(quotas)
        self.server.update(quotas)

    def reserve(self, key: str, cost: int, ttl: float) -> tuple[Any, Any] | None:
        wanted = deepcopy(self.pair.model).hit(key, cost, self.ns)
        pair = self.pair.reserve(key, cost, ttl)
        decision, reserved = self.server.reserve(key, cost, ttl, self.ns)
        self.same(decision, wanted)
        assert (pair is None) == (reserved is None)
        return None if pair is None else (pair, reserved)

    def settle(self, both: tuple[Any, Any], cost: int) -> None:
        self.pair.settle(both[0], cost)
        self.server.settle(both[1], cost, self.ns)

    def forget(self, keys: Sequence[str]) -> None:
        """Drops keys of which something has lapsed: all three are free to have forgotten that,
        and a clock that steps back, or a longer period, would bring back what one still has."""
        for key in keys:
            subject = self.pair.model.subjects.get(key)
            if subject is None:
                continue
            now = self.pair.model.ticks(self.ns)
            quotas = self.pair.model.quotas
            lapsed = [
                state.expired(quota, now)
                for quota, state in zip(quotas, subject.states, strict=True)
                if quota is not None
            ]
            marked = subject.ban_until or subject.claims
            if any(lapsed) or None in quotas or (marked and not subject.counts(now)):
                self.reset(key)
