"""One request or handshake: what it holds while it is open, and what may be given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from .. import _core
from ..errors import StoreError
from ..limiter import hit_together
from ..reservation import Reservation
from .counting import FREE, Charge, Counting

__all__ = ["Applied", "Entry", "Refused", "refusal_of"]

RESERVED = 600.0  # seconds after which what a request has reserved is charged for good

log = logging.getLogger("sluicegate")

_settling: set[asyncio.Task[None]] = set()  # held: a loop holds its tasks weakly


class Applied(NamedTuple):
    """A rule that applies to a scope, to whom, and how many units it takes."""

    counting: Counting
    who: str
    path: str
    cost: int


class Refused(NamedTuple):
    """A refusal: by which rule, and the whole seconds to tell."""

    decision: _core.Decision
    by: Applied
    seconds: int


class _Open(NamedTuple):
    """A reservation, and whose it is."""

    reservation: Reservation
    cost: int
    count_when: Any


class Entry:
    """What is decided when it begins, and settled when it is answered or over.

    Whatever is raised, wherever: `close`, which its user calls at last, gives all back.
    """

    __slots__ = ("_handshake", "_open", "_slots", "decision", "rules")

    def __init__(self, handshake: bool) -> None:
        self._handshake = handshake
        self._slots: list[_core.Slot] = []
        self._open: list[_Open] = []
        self.rules: list[Applied] = []  # that it is held to, and those that watch
        self.decision: _core.Decision | None = None  # the one that binds

    @property
    def holds(self) -> bool:
        """Whether anything is to be given back or settled."""
        return bool(self._slots or self._open)

    # ---- when it begins

    async def watch(self, rules: Sequence[Applied]) -> None:
        """Charges shadow rules, each apart."""
        for one in rules:
            self.rules.append(one)
            with suppress(StoreError):
                await self._watch(one)

    async def _watch(self, one: Applied) -> None:
        counting = one.counting
        if counting.places is not None:
            slot = await counting.places.take(counting.where.key(one.who, one.path))
            if slot is not None and slot is not FREE:
                self._slots.append(slot)
        for charge in self._charges(one):
            if counting.rule.count_when is None:
                await charge[0].hit(charge[1], charge[2])
            else:
                await self._reserve(charge, counting.rule.count_when)

    async def admit(self, rules: Sequence[Applied], *, for_now: bool = False) -> Refused | None:
        """Decides the rules as one: all of them admit it, or nothing is charged.

        `for_now`: more is decided later, which may refuse; `confirm` ends that.
        """
        self.rules.extend(rules)
        refused = await self._admit(rules, for_now)
        if refused is not None:
            self._free()
            await self._settle_all(0)
        return refused

    async def admit_one(self, one: Applied) -> Refused | None:
        """The same for the usual case: one rule, that only counts."""
        self.rules.append(one)
        charges = self._charges(one)
        block = one.counting.block(one.who)
        if block is not None:
            charges.append(block)
        if not charges:
            return None
        decision = await hit_together(charges)
        if not decision.allowed:
            return await refusal_of(decision, (one,))
        self.decision = decision
        return None

    async def confirm(self) -> None:
        """What was charged for now stays charged."""
        certain = [one for one in self._open if one.count_when is None]
        self._open = [one for one in self._open if one.count_when is not None]
        for one in certain:
            await _settled(one.reservation._settle(one.cost))

    def keep(self) -> None:
        """The same where nothing can be waited for."""
        for one in self._open:
            if one.count_when is None:
                _later(one.reservation._settle(one.cost))
        self._open = [one for one in self._open if one.count_when is not None]

    async def _admit(self, rules: Sequence[Applied], for_now: bool) -> Refused | None:
        for one in rules:
            counting = one.counting
            if counting.places is None:
                continue
            slot = await counting.places.take(counting.where.key(one.who, one.path))
            if slot is None:
                # how long others hold theirs nobody knows
                full = _core.Decision(False, limit=counting.places.limit, retry_after=inf)
                return Refused(full, one, 1)
            if slot is not FREE:
                self._slots.append(slot)

        at_once: list[Charge] = []
        asked = set()
        for one in rules:
            rule = one.counting.rule
            charges = self._charges(one)
            block = one.counting.block(one.who)
            if block is not None and block[1] not in asked:
                asked.add(block[1])
                at_once.append(block)
            if not for_now and rule.count_when is None:
                at_once.extend(charges)
                continue
            for charge in charges:
                decision = await self._reserve(charge, rule.count_when)
                if not decision.allowed:
                    return await refusal_of(decision, rules)
        if at_once:
            decision = await hit_together(at_once)
            if not decision.allowed:
                return await refusal_of(decision, rules)
            self._bind(decision)
        return None

    def _charges(self, one: Applied) -> list[Charge]:
        return one.counting.charges(one.who, one.path, one.cost, self._handshake)

    async def _reserve(self, charge: Charge, count_when: Any) -> _core.Decision:
        limiter, key, cost = charge
        reservation = await limiter.reserve(key, cost, ttl=RESERVED)
        if reservation:
            self._open.append(_Open(reservation, cost, count_when))
            if not limiter.shadow:
                self._bind(reservation.decision)
        return reservation.decision

    def _bind(self, decision: _core.Decision) -> None:
        if self.decision is None or _left(decision) < _left(self.decision):
            self.decision = decision

    # ---- when it is answered, and when it is over

    async def respond(self, status: int) -> None:
        """It is answered: what is counted by status is settled."""
        opened, self._open = self._open, []
        while opened:
            one = opened.pop()
            try:
                counts = one.count_when is None or one.count_when(status)
            except BaseException:
                _later(one.reservation._settle(one.cost))
                self._open = opened
                raise
            self._open = opened
            await _settled(one.reservation._settle(one.cost if counts else 0))

    def close(self) -> None:
        """It is over, however that came: places are free, and what was not answered is given
        back. Twice is harmless."""
        self._free()
        opened, self._open = self._open, []
        for one in opened:
            _later(one.reservation._settle(0))

    def _free(self) -> None:
        while self._slots:
            self._slots.pop().release_nowait()

    async def _settle_all(self, actual: int) -> None:
        while self._open:
            await _settled(self._open.pop().reservation._settle(actual))


async def refusal_of(decision: _core.Decision, rules: Sequence[Applied]) -> Refused:
    """What a decision of these rules comes to, who is refused blocked where a rule says so."""
    by = next((one for one in rules if one.counting.refuses(decision.quota)), rules[0])
    return Refused(decision, by, await by.counting.block_refused(by.who, decision))


def _left(decision: _core.Decision) -> float:
    return inf if decision.quota is None else decision.remaining / decision.quota.burst


async def _settled(pending: Coroutine[Any, Any, None] | None) -> None:
    """Until a server has heard of it. Where it has not, what was reserved stays charged."""
    if pending is None:
        return
    try:
        await pending
    except StoreError as error:
        log.warning("a reservation was not settled: %s", error)


def _later(pending: Coroutine[Any, Any, None] | None) -> None:
    """The same, where nothing can be waited for any more."""
    if pending is None:
        return
    try:
        task = asyncio.get_running_loop().create_task(_settled(pending))
    except RuntimeError:  # no loop runs: the connection was collected
        pending.close()
        return
    _settling.add(task)
    task.add_done_callback(_settling.discard)
