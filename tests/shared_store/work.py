"""What the processes of a test do: functions of what a process has made, and of arguments."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shared_store import places
from sluicegate import (
    ConcurrencyLimiter,
    Limiter,
    SharedMemoryStore,
    WebSocketLimits,
    WebSocketRateLimiter,
    _core,
    sync,
)

THREADS = 8
TASKS = 32
SECONDS = 40.0


class Made:
    """The store of a process and its limiters, each made when it is first asked for."""

    def __init__(self, path: str) -> None:
        self.store = SharedMemoryStore(path, places.ROOMY)
        self.gate: Any = None  # where all processes meet
        self.held: Any = None  # slots held by all of them: now, and at most
        self.tell: Callable[[Any], None] = print
        self.hear: Callable[[], Any] = input
        self.complete = False  # all was made before the fork
        self.pid = os.getpid()
        self._made: dict[tuple[object, ...], Any] = {}
        self.kept: list[Any] = []

    def limiter(self, name: str, quotas: str, kind: str = "threads") -> Any:
        make: Any = sync.Limiter if kind == "threads" else Limiter
        return self._one((kind, name), lambda: make(quotas, store=self.store, name=name))

    def slots(self, name: str, limit: int, kind: str = "threads") -> Any:
        make: Any = sync.ConcurrencyLimiter if kind == "threads" else ConcurrencyLimiter
        return self._one((kind, name), lambda: make(limit, store=self.store, name=name))

    def _one(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            assert not self.complete or self.pid == os.getpid(), f"{key} was not made before"
            self._made[key] = make()
        return self._made[key]


def in_threads(made: Made, act: Callable[[int], Any]) -> list[Any]:
    """act(0), act(1), ... in threads of all processes that start together; what they return."""
    results: list[Any] = []
    errors: list[BaseException] = []
    start = threading.Event()

    def run(number: int) -> None:
        try:
            assert start.wait(SECONDS)
            results.append(act(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    made.gate.wait(SECONDS)
    start.set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


def in_tasks(made: Made, act: Callable[[int], Awaitable[Any]]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        made.gate.wait(SECONDS)
        return await asyncio.gather(*(act(number) for number in range(TASKS)))

    return asyncio.run(all_of_them())


def summed(found: Sequence[dict[str, int]]) -> dict[str, int]:
    return {key: sum(one[key] for one in found) for key in found[0]}


# ---- rates


def hits(
    made: Made, kind: str, name: str, quotas: str, keys: Sequence[str], costs: Sequence[int],
    unit: str | None = None, by_many: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Each thread or task hits each key, by the costs in turn, until it has refused one unit:
    units admitted by key."""
    limiter = made.limiter(name, quotas, kind)

    def cost_of(units: int) -> Any:
        return units if unit is None else {unit: units}

    def some(number: int) -> Any:
        """Yields what to ask for, is sent decisions, returns units by key."""
        units = dict.fromkeys(keys, 0)
        start = number * 7 % len(keys)
        turn = number
        for key in [*keys[start:], *keys[:start]]:
            large, over = True, False
            while not over:
                asked = [
                    costs[(turn + n) % len(costs)] if large else 1
                    for n in range(5 if by_many else 1)
                ]
                turn += len(asked)
                decisions = yield [(key, cost_of(one)) for one in asked]
                for one, decision in zip(asked, decisions, strict=True):
                    if decision:
                        units[key] += one
                        assert units[key] < 10**6, "nothing limits it"
                    elif one == 1:
                        over = True
                    else:
                        large = False
        return units

    def by_thread(number: int) -> dict[str, int]:
        plan = some(number)
        asked = next(plan)
        while True:
            found = limiter.hit_many(asked) if by_many else [limiter.hit(*asked[0])]
            try:
                asked = plan.send(found)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    async def by_task(number: int) -> dict[str, int]:
        plan = some(number)
        asked = next(plan)
        while True:
            found = (await limiter.hit_many(asked)) if by_many else [await limiter.hit(*asked[0])]
            await asyncio.sleep(0)
            try:
                asked = plan.send(found)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    return summed(in_threads(made, by_thread) if kind == "threads" else in_tasks(made, by_task))


def both(made: Made, names: Sequence[str], quotas: Sequence[str], tries: int) -> int:
    """hit_all over two limiters, so many times a thread: how many were admitted."""
    pair = [made.limiter(name, quota) for name, quota in zip(names, quotas, strict=True)]

    def act(number: int) -> int:
        one, other = pair if number % 2 else pair[::-1]
        return sum(bool(sync.hit_all((one, "k", 1), (other, "k", 1))) for _ in range(tries))

    return sum(in_threads(made, act))


def reservations(made: Made, name: str, quotas: str, times: int) -> tuple[int, int]:
    """Reserves, then settles at less or as much, or cancels: units that stay, and refusals."""
    limiter = made.limiter(name, quotas)

    def act(number: int) -> tuple[int, int]:
        stay = refused = 0
        opened: list[tuple[Any, int]] = []
        for turn in range(times):
            cost = (number + turn) % 5 + 1
            reservation = limiter.reserve("k", cost, ttl=600)
            if not reservation:
                refused += 1
                continue
            opened.append((reservation, cost))
            if len(opened) > turn % 4:
                ended, units = opened.pop(turn % len(opened))
                actual = (0, units, units // 2, 1)[turn % 4]
                if actual:
                    ended.settle(actual)
                else:
                    ended.cancel()
                ended.settle(9)  # a second call is harmless
                stay += actual
        for ended, units in opened:
            ended.settle(units)
            stay += units
        return stay, refused

    found = in_threads(made, act)
    return sum(one for one, _ in found), sum(one for _, one in found)


# ---- slots


def slots(made: Made, kind: str, name: str, limit: int, times: int) -> int:
    """Takes a slot, holds it for a moment, gives it back, so many times a thread or task; how
    often it got one. `made.held` counts them over all processes."""
    limiter, held = made.slots(name, limit, kind), made.held

    def change(by: int) -> None:
        with held.get_lock():
            held[0] += by
            held[1] = max(held[0], held[1])

    def by_thread(number: int) -> int:
        got = 0
        for turn in range(times):
            slot = limiter.acquire("k", timeout=0.01 * (turn % 2))
            if slot is None:
                time.sleep(0)
                continue
            change(1)
            time.sleep(0.0005)
            change(-1)
            assert limiter.release(slot)
            got += 1
        return got

    async def by_task(number: int) -> int:
        got = 0
        for turn in range(times):
            slot = await limiter.acquire("k", timeout=0.01 * (turn % 2))
            if slot is None:
                await asyncio.sleep(0.001)
                continue
            change(1)
            await asyncio.sleep(0.0005)
            change(-1)
            assert await limiter.release(slot)
            got += 1
        return got

    return sum(in_threads(made, by_thread) if kind == "threads" else in_tasks(made, by_task))


# ---- processes that stay, die or stop


def hold(made: Made, name: str, limit: int, key: str, count: int) -> int:
    """Takes so many slots and keeps them; how many there were."""
    limiter = made.slots(name, limit)
    taken = [slot for slot in (limiter.acquire(key) for _ in range(count)) if slot is not None]
    made.kept += taken
    return len(taken)


def release(made: Made, name: str, limit: int) -> int:
    """Gives all back that it keeps; how many were held."""
    limiter = made.slots(name, limit)
    kept, made.kept = made.kept, []
    return sum(limiter.release(slot) for slot in kept)


def child_of_holder(made: Made, name: str, limit: int, key: str) -> list[int]:
    """Forks while it holds slots. The child gives back and forgets what its parent holds, takes a
    slot of its own and ends: how many count before, in the child, and after."""
    limiter = made.slots(name, limit)
    before = limiter.count(key)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for slot in made.kept:
                limiter.release(slot)
            made.kept.clear()
            own = limiter.acquire(key)
            os.write(write, bytes([limiter.count(key), own is not None]))
        finally:
            os._exit(0)  # without giving its own back
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    inside = os.read(read, 2)
    os.close(read)
    os.close(write)
    return [before, *inside, limiter.count(key)]


def hammer(made: Made, name: str, quotas: str, key: str) -> None:
    """Checks one key without end."""
    handle = made.limiter(name, quotas).bind(key)
    made.tell("hammering")
    while True:
        for _ in range(1000):
            handle.hit_nowait()


def hammer_door(made: Made, client: str) -> None:
    """Sends messages of one client without end, past a WebSocketRateLimiter."""

    async def send() -> None:
        door = door_of(made.store)
        assert await door.register_connection("theirs", client)
        made.tell("hammering")
        while True:
            for _ in range(1000):
                await door.check_message("theirs", 1)

    asyncio.run(send())


def door_of(store: SharedMemoryStore, **more: Any) -> WebSocketRateLimiter:
    limits = WebSocketLimits(connections_per_minute=None, messages="5/day", bytes="1MB/day")
    return WebSocketRateLimiter(limits, store, name="door", **more)


def hit(made: Made, name: str, quotas: str, key: str, times: int = 1) -> int:
    """How many are admitted."""
    limiter = made.limiter(name, quotas)
    return sum(bool(limiter.hit(key)) for _ in range(times))


def counters(made: Made, name: str, quotas: str) -> dict[str, int]:
    found: dict[str, int] = made.limiter(name, quotas).table.counters()
    return found


def top(made: Made, name: str, quotas: str, refused: bool = False) -> list[Any]:
    found: list[Any] = made.limiter(name, quotas).table.top(5, refused=refused)
    return found


def clear(made: Made) -> None:
    made.store.clear()


def warnings_of(made: Made, name: str, quotas: str) -> list[str]:
    """What the making of a limiter warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.limiter(name, quotas)
    return [f"{one.category.__name__}: {one.message}" for one in caught]


def left(made: Made, name: str, quotas: str, key: str) -> dict[str, int]:
    """What each quota has left, by its name."""
    limiter = made.limiter(name, quotas)
    found = {}
    for quota in limiter.quotas:
        row = [one if one is quota else None for one in limiter.quotas]
        alone = _core.Limiter(limiter.table, row)
        found[quota.name] = alone.peek_nowait(key, {quota.name: 0}).remaining
    return found
