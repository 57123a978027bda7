"""The same rule: random traces through the C core, the scripts on a real server and
tests/reference.py agree on every field, at whole microseconds.

SLUICEGATE_SEED=n repeats a failed trace, whose number stands in the message.
"""

from __future__ import annotations

import os
import random
from typing import Any, ClassVar

import pytest

from redis_store.engine import Server
from redis_store.trio import Trio, kinds, row
from reference import ALGORITHMS, CLOCK_MAX, TICKS_PER_NS
from sluicegate import _core

KEYS = ("a", "user:42", "\u00e9{}%")
YEAR_US = 365 * 86400 * 10**6
SEED = int(os.environ.get("SLUICEGATE_SEED") or random.SystemRandom().getrandbits(48))
TRACES = int(os.environ.get("SLUICEGATE_TRACES") or 24)
STEPS = 60


class Trace:
    """One trace: its limiter, what is reserved of it, and the operations, each as likely as it
    is listed."""

    def __init__(self, server: Server, seed: int, algorithms: list[str] | None = None) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = _core.Clock()
        self.clock.ns = rng.choice((0, 10**15))
        self.algorithms = algorithms or kinds(rng)
        self.trio = Trio(server, f"l{seed}", row(rng, self.algorithms), self.algorithms, self.clock)
        self.open: list[Any] = []
        self.wait = 0.0

    def key(self) -> str:
        return self.rng.choice(KEYS)

    def cost(self) -> int:
        rng = self.rng
        quotas = [quota for quota in self.trio.pair.model.quotas if quota]
        if quotas and rng.random() < 0.2:
            quota = rng.choice(quotas)
            burst = quota.burst
            return min(rng.choice((quota.limit, burst, burst + 1, burst // 2)), 2**40)
        return rng.choice((0, 1, 1, 1, 1, 2, 3, 5, 20))

    def period_us(self) -> int:
        quotas = [quota for quota in self.trio.pair.model.quotas if quota]
        return self.rng.choice(quotas).period // TICKS_PER_NS // 1000 if quotas else 10**6

    def move(self, us: int) -> None:
        if us < 0:
            for both in self.open:
                if both[0].model.lapses <= self.trio.pair.model.ticks(self.clock.ns):
                    self.trio.settle(both, 0)
            self.trio.forget(KEYS)
        if 0 < self.trio.pair.model.ticks(self.clock.ns + us * 1000) < CLOCK_MAX:
            self.clock.ns += us * 1000
        if us < 0:
            self.trio.forget(KEYS)

    # ---- operations

    def hit(self) -> None:
        decision = self.trio.hit(self.key(), self.cost())
        if not decision.allowed and decision.retry_after < 1e9:
            self.wait = decision.retry_after

    def hit_by(self) -> None:
        self.trio.forget(KEYS)
        self.trio.hit_by(self.key(), self.cost(), row(self.rng, self.algorithms))

    def peek(self) -> None:
        self.trio.peek(self.key(), self.cost())

    def hit_many(self) -> None:
        count = self.rng.choice((1, 2, 5, 40))
        one = self.rng.random() < 0.5
        self.trio.hit_many([(self.key(), 1 if one else self.cost()) for _ in range(count)])

    def flood(self) -> None:
        """So many events that a log merges its entries; some of one time, some given back."""
        key, step = self.key(), self.period_us() * self.rng.randrange(40) // 3000
        for _ in range(self.rng.choice((20, 60, 300))):
            if self.rng.random() < 0.1:
                self.reserve_for(key, self.rng.randrange(1, 4), 1e6)
            else:
                self.trio.hit(key, self.rng.randrange(1, 3))
            if self.rng.random() < 0.8:
                self.move(step)
        for _ in range(len(self.open) // 2):
            self.settle()

    def project(self) -> None:
        self.trio.project(self.key(), [self.cost() for _ in range(self.rng.randrange(4))])

    def penalize(self) -> None:
        self.trio.penalize(self.key(), self.cost())

    def reward(self) -> None:
        self.trio.reward(self.key(), self.cost())

    def ban(self) -> None:
        self.trio.ban(self.key(), self.rng.choice((0.001, 0.5, 60.0, 1e6)))

    def unban(self) -> None:
        self.trio.unban(self.key())

    def reset(self) -> None:
        self.trio.reset(self.key())

    def update(self) -> None:
        self.trio.forget(KEYS)
        self.trio.update(row(self.rng, self.algorithms))

    def reserve(self) -> None:
        self.reserve_for(self.key(), self.cost(), self.rng.choice((0.001, 1.0, 60.0, 1e6)))

    def reserve_for(self, key: str, cost: int, ttl: float) -> None:
        made = self.trio.reserve(key, cost, ttl)
        if made is not None:
            self.open.append(made)

    def settle(self) -> None:
        if self.open:
            both = self.open.pop(self.rng.randrange(len(self.open)))
            self.trio.settle(both, self.rng.choice((0, 1, self.cost())))
            self.trio.settle(both, 0)

    def pass_time(self) -> None:
        self.move(self.period_us() * self.rng.randrange(200) // 64 + self.rng.randrange(3))

    def wait_as_told(self) -> None:
        us = -(-round(self.wait * 1e9) // 1000)
        self.move(max(us + self.rng.choice((-1, 0, 0, 1)), 0))
        self.wait = 0.0

    def pass_long(self) -> None:
        self.move(self.rng.choice((YEAR_US, 10**9, 10**12)))

    def step_back(self) -> None:
        self.move(-(self.period_us() * self.rng.randrange(1, 300) // 64))

    WEIGHTS: ClassVar = {
        "hit": 12, "hit_by": 2, "peek": 2, "hit_many": 4, "flood": 1, "project": 2, "penalize": 2,
        "reward": 2, "ban": 1, "unban": 1, "reset": 1, "update": 1, "reserve": 4, "settle": 5,
        "pass_time": 6, "wait_as_told": 3, "pass_long": 0.3, "step_back": 1,
    }  # fmt: skip

    def run(self, steps: int) -> None:
        names, weights = list(self.WEIGHTS), list(self.WEIGHTS.values())
        done = []
        try:
            for _ in range(steps):
                done.append(self.rng.choices(names, weights)[0])
                getattr(self, done[-1])()
                for key in KEYS:
                    self.trio.peek(key, 1)
        except Exception as error:
            quotas = self.trio.pair.model.quotas
            raise AssertionError(f"{done[-8:]} (step {len(done)}) of {quotas}") from error


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "mixed"])
def test_traces_agree(server: Server, algorithm: str) -> None:
    print(f"SLUICEGATE_SEED={SEED}")
    for number in range(TRACES if algorithm == "mixed" else TRACES // 3):
        seed = SEED + number
        try:
            Trace(server, seed, None if algorithm == "mixed" else [algorithm]).run(STEPS)
        except AssertionError as error:
            raise AssertionError(f"SLUICEGATE_SEED={seed} SLUICEGATE_TRACES=3 {error}") from error
        server.client.flushdb()
