"""Random quotas, costs, keys, operations and times: the C and the reference agree on every
field of every decision."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import reference
from model import strategies as draws
from model.pair import Pair, hit_all
from reference import ALGORITHMS
from sluicegate import _core

KEYS = ["a", "b", b"\xff\x00"]
YEAR_NS = 365 * 86400 * 10**9

keys = st.sampled_from(KEYS)
events = st.tuples(st.booleans(), keys, draws.small_costs)
tenths = st.integers(0, 10)
seconds = st.one_of(st.sampled_from([0.001, 1.0, 60.0, 1e6]), st.floats(1e-6, 1e5))


class Machine(RuleBasedStateMachine):
    pair_of = Pair  # where the C keeps its state

    @initialize(data=st.data(), start=st.sampled_from([0, 10**9, -(10**18), 2**62]))
    def start(self, data: Any, start: int) -> None:
        self.clock = _core.Clock()
        self.clock.ns = start
        kinds = data.draw(st.lists(st.sampled_from(ALGORITHMS), min_size=1, max_size=4))
        row = data.draw(draws.rows(kinds))
        shadow = data.draw(st.integers(0, 9)) == 0
        self.pair = self.pair_of(row, kinds=kinds, clock=self.clock, shadow=shadow)
        self.other = self.pair_of([data.draw(draws.quotas().filter(draws.fits))], clock=self.clock)
        self.receipts: list[Any] = []
        self.last = 0.0  # the last wait that was told

    def cost(self, data: Any) -> Any:
        return data.draw(draws.costs(self.pair.model.quotas))

    def seen(self, decision: reference.Decision) -> None:
        if not decision.allowed:
            self.last = decision.retry_after

    # ---- events

    @rule(data=st.data(), key=keys)
    def hit(self, data: Any, key: Any) -> None:
        self.seen(self.pair.hit(key, self.cost(data)))

    @rule(key=keys, cost=draws.small_costs)
    def hit_again(self, key: Any, cost: int) -> None:
        self.seen(self.pair.hit(key, cost))

    @rule(data=st.data(), key=keys)
    def hit_by_other_numbers(self, data: Any, key: Any) -> None:
        row = data.draw(draws.rows(self.pair.model.kinds))
        self.pair.hit_by(key, data.draw(draws.small_costs), row)

    @rule(data=st.data(), key=keys)
    def peek(self, data: Any, key: Any) -> None:
        self.pair.peek(key, self.cost(data))

    @rule(data=st.data(), many=st.lists(keys, max_size=8))
    def hit_many(self, data: Any, many: list[Any]) -> None:
        self.pair.hit_many([(key, self.cost(data)) for key in many])

    @rule(key=keys, count=st.integers(1, 300), step=st.integers(0, 40), cost=st.integers(1, 9))
    def flood(self, key: Any, count: int, step: int, cost: int) -> None:
        """So many events that a log has to merge its entries."""
        for _ in range(count):
            self.pair.hit(key, cost)
            self.move(self.period() * step // 3000)

    @rule(events=st.lists(events, min_size=1, max_size=4))
    def hit_all(self, events: list[tuple[bool, Any, int]]) -> None:
        hit_all([(self.pair if ours else self.other, key, cost) for ours, key, cost in events])

    @rule(key=keys, events=st.lists(draws.small_costs, max_size=5))
    def project(self, key: Any, events: list[int]) -> None:
        self.pair.project(key, events)

    # ---- other operations

    @rule(data=st.data(), key=keys)
    def penalize(self, data: Any, key: Any) -> None:
        self.pair.penalize(key, self.cost(data))

    @rule(data=st.data(), key=keys)
    def reward(self, data: Any, key: Any) -> None:
        self.pair.reward(key, self.cost(data))

    @rule(key=keys, length=seconds)
    def ban(self, key: Any, length: float) -> None:
        self.pair.ban(key, length)

    @rule(key=keys)
    def unban(self, key: Any) -> None:
        self.pair.unban(key)

    @rule(key=keys)
    def reset(self, key: Any) -> None:
        self.pair.reset(key)

    @rule(data=st.data())
    def update(self, data: Any) -> None:
        self.pair.update(data.draw(draws.rows(self.pair.model.kinds)))

    @rule(data=st.data(), key=keys, ttl=seconds)
    def reserve(self, data: Any, key: Any, ttl: float) -> None:
        made = self.pair.reserve(key, self.cost(data), ttl)
        if made is not None:
            self.receipts.append(made)

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), cancel=st.booleans())
    def settle(self, data: Any, cancel: bool) -> None:
        which = data.draw(st.integers(0, len(self.receipts) - 1))
        reserved = self.receipts.pop(which)
        self.pair.settle(reserved, 0 if cancel else data.draw(draws.costs(reserved.quotas)))
        self.pair.settle(reserved, 0)  # a second call is harmless

    @rule(key=keys, steps=st.lists(st.tuples(st.sampled_from("rrssshw"), tenths), min_size=3))
    def juggle(self, key: Any, steps: list[tuple[str, int]]) -> None:
        """Many reservations of one key open at once, in tenths of the first quota."""
        first = next((quota for quota in self.pair.model.quotas if quota), None)
        if first is None:
            return
        ours: list[Any] = []
        for what, share in steps:
            units = first.burst * share // 10
            if what == "r":
                ours.append(self.pair.reserve(key, units, 1e6))
            elif what == "s" and ours:
                reserved = ours.pop(share % len(ours))
                if reserved is not None:
                    self.pair.settle(reserved, units // 3 if share % 2 else 0)
            elif what == "h":
                self.pair.hit(key, units)
            elif what == "w":
                self.move(self.period() * share // 20)
            self.pair.peek(key)
        self.receipts += [reserved for reserved in ours if reserved is not None]

    # ---- time

    def period(self) -> int:
        quotas = [quota for quota in self.pair.model.quotas if quota]
        return quotas[0].period // reference.TICKS_PER_NS if quotas else 10**9

    def move(self, ns: int) -> None:
        if abs(self.clock.ns + ns) >= 2**63:
            return
        if ns >= 0:
            self.clock.ns += ns
            return
        for reserved in self.receipts:
            if reserved.model.lapses <= self.pair.model.ticks(self.clock.ns):
                self.pair.settle(reserved, 0)
        for pair in (self.pair, self.other):
            pair.settle_down(KEYS)
        self.clock.ns += ns
        for pair in (self.pair, self.other):
            pair.settle_down(KEYS)

    @rule(share=st.integers(0, 200), ns=st.integers(-3, 3))
    def pass_time(self, share: int, ns: int) -> None:
        self.move(self.period() * share // 64 + ns)

    @precondition(lambda self: 0 < self.last < 1e9)
    @rule(ns=st.integers(-1, 1))
    def wait_as_told(self, ns: int) -> None:
        self.move(round(self.last * 1e9) + ns)
        self.last = 0.0

    @rule(ns=st.one_of(st.integers(0, 12 * YEAR_NS), st.sampled_from([YEAR_NS, 8 * YEAR_NS])))
    def pass_long(self, ns: int) -> None:
        self.move(ns)

    @rule(share=st.integers(1, 300), long=st.booleans())
    def step_back(self, share: int, long: bool) -> None:
        self.move(-(self.period() * share // 64) * (1000 if long else 1))

    @invariant()
    def all_keys_agree(self) -> None:
        if hasattr(self, "pair"):
            for key in KEYS:
                self.pair.peek(key)
                self.other.peek(key)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
