"""One limiter twice, in C and in tests/reference.py, on one clock; every answer is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import reference
from reference import Quota
from sluicegate import _core

Cost = int | Mapping[str, int]


def core_quota(quota: Quota | None) -> _core.Quota | None:
    """The C's quota of the same numbers. ValueError where it takes none such."""
    if quota is None:
        return None
    return _core.Quota(
        quota.limit,
        quota.seconds,
        burst=quota.burst if quota.algorithm == "gcra" else None,
        algorithm=quota.algorithm,
        name=quota.name,
        shadow=quota.shadow,
    )


class Reserved(NamedTuple):
    core: _core.Receipt
    model: reference.Receipt
    quotas: list[Quota | None]  # whose names a cost may use


class Pair:
    """Methods do the same to both and compare all that can be seen."""

    def __init__(
        self,
        quotas: Sequence[Quota | None],
        *,
        kinds: Sequence[str] | None = None,
        clock: _core.Clock | None = None,
        shadow: bool = False,
        enabled: bool = True,
        max_keys: int = 1_000_000,
    ) -> None:
        self.clock = clock or _core.Clock()
        names = list(kinds or [q.algorithm for q in quotas if q])
        self.table = self.make_table(names, max_keys)
        self.quotas = [core_quota(q) for q in quotas]
        self.core = _core.Limiter(self.table, self.quotas, shadow=shadow, enabled=enabled)
        self.model = reference.Limiter(
            list(quotas), kinds=names, start_ns=self.clock.ns, shadow=shadow, enabled=enabled
        )
        self.model.know(self.model.quotas)  # as a table does when it is given them

    def make_table(self, algorithms: Sequence[str], max_keys: int) -> _core.Table:
        return _core.Table(algorithms, clock=self.clock, max_keys=max_keys)

    def row(self, cost: Cost, quotas: Sequence[Quota | None] | None = None) -> int | list[int]:
        if isinstance(cost, int):
            return cost
        quotas = self.model.quotas if quotas is None else quotas
        return [cost.get(q.name, 1) if q and q.name else 1 for q in quotas]

    def same(
        self,
        seen: _core.Decision,
        wanted: reference.Decision,
        quotas: Sequence[_core.Quota | None] | None = None,
    ) -> reference.Decision:
        quotas = self.quotas if quotas is None else quotas
        found = (
            seen.allowed,
            seen.limit,
            seen.remaining,
            seen.retry_after,
            seen.reset_after,
            seen.quota,
            seen.shadow,
            seen.degraded,
        )
        quota = None if wanted.quota is None else quotas[wanted.quota]
        expected = (*wanted[:5], quota, wanted.shadow, False)
        assert found == expected, f"C {found}, reference {expected}"
        if quota is not None:
            assert seen.quota is quota
        assert bool(seen) is wanted.allowed
        return wanted

    # ---- operations

    def hit(self, key: Any, cost: Cost = 1) -> reference.Decision:
        return self.same(
            self.core.hit_nowait(key, cost), self.model.hit(key, self.row(cost), self.clock.ns)
        )

    def hit_by(self, key: Any, cost: Cost, quotas: Sequence[Quota | None]) -> reference.Decision:
        others = [core_quota(q) for q in quotas]
        seen = self.core.hit_nowait(key, cost, quotas=others)
        wanted = self.model.hit(key, self.row(cost), self.clock.ns, list(quotas))
        return self.same(seen, wanted, others)

    def peek(self, key: Any, cost: Cost = 1) -> reference.Decision:
        return self.same(
            self.core.peek_nowait(key, cost), self.model.peek(key, self.row(cost), self.clock.ns)
        )

    def hit_many(self, pairs: Sequence[tuple[Any, Cost]]) -> None:
        for seen, (key, cost) in zip(self.core.hit_many_nowait(pairs), pairs, strict=True):
            self.same(seen, self.model.hit(key, self.row(cost), self.clock.ns))

    def project(self, key: Any, costs: Sequence[Cost]) -> None:
        seen = self.core.project_nowait(key, costs)
        assert seen == self.model.project(key, [self.row(cost) for cost in costs], self.clock.ns)

    def penalize(self, key: Any, cost: Cost) -> None:
        self.core.penalize_nowait(key, cost)
        self.model.penalize(key, self.row(cost), self.clock.ns)

    def reward(self, key: Any, cost: Cost) -> None:
        self.core.reward_nowait(key, cost)
        self.model.reward(key, self.row(cost), self.clock.ns)

    def reset(self, key: Any) -> None:
        self.core.reset_nowait(key)
        self.model.reset(key)

    def ban(self, key: Any, seconds: float) -> None:
        self.core.ban_nowait(key, seconds)
        self.model.ban(key, seconds, self.clock.ns)

    def unban(self, key: Any) -> None:
        self.core.unban_nowait(key)
        self.model.unban(key, self.clock.ns)

    def reserve(self, key: Any, cost: Cost, ttl: float) -> Reserved | None:
        decision, receipt = self.core.reserve_nowait(key, cost, ttl)
        wanted, ours = self.model.reserve(key, self.row(cost), ttl, self.clock.ns)
        self.same(decision, wanted)
        assert (receipt is None) is (not wanted.allowed)
        if receipt is None:
            return None
        assert receipt.open is (ours is not None)
        if ours is None:
            return None
        assert receipt.reserved == tuple(cost or 0 for cost in ours.costs)
        return Reserved(receipt, ours, list(self.model.quotas))

    def settle(self, reserved: Reserved, cost: Cost) -> None:
        reserved.core.settle_nowait(cost)
        self.model.settle(reserved.model, self.row(cost, reserved.quotas), self.clock.ns)
        assert not reserved.core.open

    def update(self, quotas: Sequence[Quota | None]) -> None:
        self.quotas = [core_quota(q) for q in quotas]
        self.core._rebind(self.table, self.quotas)
        self.model.quotas = list(quotas)
        self.model.know(self.model.quotas)

    def settle_down(self, keys: Sequence[Any]) -> None:
        """Before a clock steps back: a key of which something has lapsed is dropped now by both,
        for the C is free to have forgotten that (also before a ban or a reservation came to the
        key), and the reference never forgets."""
        for key in keys:
            subject = self.model.subjects.get(key)
            if subject is not None and (subject.ban_until or subject.claims):
                self.hit(key, 0)
            if self.model.lapsed(key, self.clock.ns):
                self.reset(key)


def hit_all(triples: Sequence[tuple[Pair, Any, int]]) -> None:
    """sluicegate's hit_all and the reference's."""
    clock = triples[0][0].clock
    seen, index = _core.hit_all_nowait([(pair.core, key, cost) for pair, key, cost in triples])
    wanted, at = reference.hit_all(
        [(pair.model, key, cost) for pair, key, cost in triples], clock.ns
    )
    triples[at][0].same(seen, wanted)
    assert index == at
