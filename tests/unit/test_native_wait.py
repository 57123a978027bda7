"""wait: first come first served, refused at once, never a unit too many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate import Decision, Limiter, MemoryStore, Quota, sync, waiting
from sluicegate.testing import Clock, record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(autouse=True)
async def nobody_is_left() -> AsyncIterator[None]:
    yield
    await turn()
    assert not waiting._queues


async def turn() -> None:
    """Lets every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def start(limiter: Limiter, order: list[object], name: object, **options: object) -> asyncio.Task:
    async def one() -> Decision:
        decision = await limiter.wait("a", **options)
        order.append((name, bool(decision)))
        return decision

    return asyncio.create_task(one())


async def test_what_is_there_is_had_at_once(store: MemoryStore) -> None:
    limiter = Limiter("2/minute", store=store)
    assert (await limiter.wait("a")).remaining == 1
    assert (await limiter.wait("a", timeout=0)).remaining == 0
    refused = await limiter.wait("a", timeout=0)
    assert not refused
    assert refused.retry_after == pytest.approx(30)


async def test_first_come_first_served(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    tasks = []
    for number in range(5):
        tasks.append(start(limiter, order, number))
        await turn()
    for number in range(5):
        assert len(order) == number
        clock.advance(1)
        await turn()
    assert order == [(number, True) for number in range(5)]
    await asyncio.gather(*tasks)
    assert not await limiter.hit("a")


async def test_small_costs_do_not_overtake_a_large_one(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("10/second", store=store)
    await limiter.hit("a", 10)
    order: list[object] = []
    tasks = [start(limiter, order, "large", cost=10)]
    await turn()
    tasks.append(start(limiter, order, "small", cost=1))
    await turn()
    clock.advance(0.5)  # enough for the small one
    await turn()
    assert order == []
    clock.advance(0.5)
    await turn()
    assert order == [("large", True)]
    clock.advance(0.1)
    await turn()
    assert order == [("large", True), ("small", True)]
    await asyncio.gather(*tasks)


async def test_a_plain_hit_may_come_between_and_the_head_waits_on(
    store: MemoryStore, clock: Clock
) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    task = start(limiter, order, "waits")
    await turn()
    clock.advance(1)
    assert limiter.hit_nowait("a")  # before the head's task has run
    await turn()
    assert order == []
    clock.advance(0.999)
    await turn()
    assert order == []
    clock.advance(0.001)
    await turn()
    assert order == [("waits", True)]
    await task


async def test_refused_at_once_where_its_turn_cannot_come_in_time(
    store: MemoryStore, clock: Clock
) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    tasks = [start(limiter, order, number) for number in range(3)]
    await turn()
    refused = await asyncio.wait_for(limiter.wait("a", timeout=3.5), 1)
    assert not refused
    assert refused.retry_after == pytest.approx(4)
    assert (refused.limit, refused.remaining) == (1, 0)
    late = start(limiter, order, "in time", timeout=4)
    await turn()
    for _ in range(4):
        clock.advance(1)
        await turn()
    assert order == [(0, True), (1, True), (2, True), ("in time", True)]
    await asyncio.gather(*tasks, late)


async def test_refused_when_others_took_its_time(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    head = start(limiter, order, "head", timeout=1.5)
    await turn()
    second = start(limiter, order, "second", timeout=2.5)
    await turn()
    clock.advance(1)
    limiter.hit_nowait("a")
    await turn()  # one more second: past the head's time
    assert order == [("head", False)]
    clock.advance(1)
    limiter.hit_nowait("a")
    await turn()
    assert order == [("head", False), ("second", False)]
    assert [(await task).allowed for task in (head, second)] == [False, False]
    clock.advance(1)
    assert limiter.hit_nowait("a")  # nothing was charged by either


async def test_time_is_up_for_one_in_the_middle(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    tasks = [start(limiter, order, "head"), start(limiter, order, "middle", timeout=2)]
    await turn()
    tasks.append(start(limiter, order, "last"))
    await turn()
    for _ in range(2):
        clock.advance(1)
        limiter.hit_nowait("a")
        await turn()
    assert order == [("middle", False)]
    assert (await tasks[1]).retry_after >= 1
    for _ in range(2):
        clock.advance(1)
        await turn()
    assert order == [("middle", False), ("head", True), ("last", True)]
    await asyncio.gather(*tasks)


async def test_too_many_wait(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    assert not await limiter.wait("a", max_waiters=0)
    assert await limiter.wait("b", max_waiters=0)
    order: list[object] = []
    tasks = [start(limiter, order, number, max_waiters=2) for number in range(4)]
    await turn()
    assert order == [(2, False), (3, False)]
    assert (await tasks[2]).retry_after == pytest.approx(3)
    for _ in range(2):
        clock.advance(1)
        await turn()
    assert order[2:] == [(0, True), (1, True)]
    await asyncio.gather(*tasks)


async def test_never_is_refused_at_once_wherever_it_stands(
    store: MemoryStore, clock: Clock
) -> None:
    limiter = Limiter("5/second", store=store)
    assert not await limiter.wait("a", 6)
    await limiter.hit("a", 5)
    order: list[object] = []
    task = start(limiter, order, "waits")
    await turn()
    assert not await asyncio.wait_for(limiter.wait("a", 6), 1)
    clock.advance(1)
    await task


async def test_a_cancelled_waiter_gives_its_turn_back(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    tasks = [start(limiter, order, number) for number in range(4)]
    await turn()
    tasks[2].cancel()
    tasks[0].cancel()
    await turn()
    clock.advance(1)
    await turn()
    assert order == [(1, True)]
    clock.advance(1)
    tasks[3].cancel()  # just when its time has come
    await turn()
    assert tasks[3].cancelled()
    assert order == [(1, True)]
    assert limiter.hit_nowait("a")
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_cancelled_in_the_moment_it_is_woken_the_next_is_woken(
    store: MemoryStore, clock: Clock
) -> None:
    limiter = Limiter("1/second", store=store)
    await limiter.hit("a")
    order: list[object] = []
    tasks = [start(limiter, order, number) for number in range(3)]
    await turn()
    clock.advance(1)
    await turn()  # 0 is served, 1 is head
    tasks[1].cancel()
    clock.advance(1)
    await turn()
    assert order == [(0, True), (2, True)]
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("give", ["reset", "reward", "unban", "update", "clear", "settle"])
async def test_what_comes_back_early_wakes_the_head(
    store: MemoryStore, clock: Clock, give: str
) -> None:
    limiter = Limiter("1/hour", store=store)
    reservation = await limiter.reserve("a")
    order: list[object] = []
    if give == "unban":
        await reservation.cancel()
        await limiter.ban("a", 1000)
    tasks = [start(limiter, order, number) for number in range(2)]
    await turn()
    assert order == []
    match give:
        case "reset":
            await limiter.reset("a")
        case "reward":
            await limiter.reward("a")
        case "unban":
            await limiter.unban("a")
        case "update":
            limiter.update("2/hour burst 4")
        case "clear":
            await store.clear()
        case "settle":
            await reservation.cancel()
    await turn()
    assert order[0] == (0, True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiting_is_no_refusal(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    with record() as records:
        await limiter.hit("a")
        task = asyncio.create_task(limiter.wait("a"))
        await turn()
        clock.advance(1)
        await task
    assert [bool(entry.decision) for entry in records] == [True, True]
    assert limiter.table.counters()["refused"] == 0
    await limiter.wait("a", timeout=0.5)
    assert limiter.table.counters()["refused"] == 1


async def test_limiters_of_one_name_and_keys_alike_are_one_queue(
    store: MemoryStore, clock: Clock
) -> None:
    first = Limiter("1/second", store=store, name="chat")
    second = Limiter("1/second", store=store, name="chat")
    await first.hit("a")
    order: list[object] = []
    tasks = [start(first, order, 0), start(second, order, 1)]

    async def by_bytes() -> None:
        await first.wait(b"a")
        order.append(2)

    await turn()
    tasks.append(asyncio.create_task(by_bytes()))  # type: ignore[arg-type]
    await turn()
    assert len(waiting._queues) == 1
    for _ in range(3):
        clock.advance(1)
        await turn()
    assert order == [(0, True), (1, True), 2]
    await asyncio.gather(*tasks)


async def test_a_mapping_is_read_when_it_is_given(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("m: 1/second; bytes: 10/second", store=store)
    await limiter.hit("a", {"bytes": 10})
    cost = {"bytes": 1}
    task = asyncio.create_task(limiter.wait("a", cost))
    await turn()
    cost["bytes"] = 10
    clock.advance(1)
    await task
    assert (await limiter.peek("a", {"m": 0, "bytes": 9})).allowed


async def test_it_sleeps_and_does_not_spin() -> None:
    limiter = Limiter("20/second burst 1", store=MemoryStore())
    await limiter.hit("a")
    with record() as records:
        before = time.process_time()
        began = time.monotonic()
        for _ in range(4):
            assert await limiter.wait("a", timeout=5)
        took = time.monotonic() - began
    assert 0.19 <= took < 2
    assert len(records) == 4
    assert time.process_time() - before < took / 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"max_waiters": -1}, ValueError),
        ({"max_waiters": 1.5}, TypeError),
    ],
)
async def test_wrong_bounds(
    store: MemoryStore, options: dict[str, object], error: type[Exception]
) -> None:
    limiter = Limiter("1/second", store=store)
    with pytest.raises(error):
        await limiter.wait("a", **options)  # type: ignore[arg-type]
    with pytest.raises(error):
        sync.Limiter("1/second", store=store).wait("a", **options)  # type: ignore[arg-type]


def test_one_whose_loop_was_closed_gives_way(store: MemoryStore, clock: Clock) -> None:
    limiter = Limiter("1/second", store=store)
    limiter.hit_nowait("a")
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.wait("a"))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()  # under it

    async def other() -> Decision:
        mine = asyncio.create_task(limiter.wait("a", timeout=60))
        await turn()
        clock.advance(1)
        return await asyncio.wait_for(mine, 5)

    assert asyncio.run(other())
    task.get_coro().close()  # type: ignore[union-attr]


def test_loops_and_threads_stand_in_one_queue_and_nothing_is_minted() -> None:
    limiter = Limiter("200/second burst 1", store=MemoryStore(), name="a")
    blocking = sync.Limiter("200/second burst 1", store=limiter.store, name="a")
    admitted: list[float] = []
    began = time.monotonic()

    async def tasks() -> None:
        async def one() -> None:
            assert await limiter.wait("a", timeout=20)
            admitted.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(10)))

    def blocks() -> None:
        for _ in range(10):
            assert blocking.wait("a", timeout=20)
            admitted.append(time.monotonic())

    threads = [
        threading.Thread(target=target)
        for target in (
            lambda: asyncio.run(tasks()),
            lambda: asyncio.run(tasks()),
            blocks,
            blocks,
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(admitted) == 40
    assert time.monotonic() - began >= 39 / 200
    assert not waiting._queues


Step = tuple[str, int]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "hit", "cancel", "advance", "timed"]), st.integers(1, 6)
        ),
        max_size=40,
    )
)
def test_in_any_order_the_promise_holds_and_all_ahead_come_first(steps: list[Step]) -> None:
    async def run() -> None:
        clock = Clock()
        limiter = Limiter("2/second burst 6", store=MemoryStore(clock=clock))
        spent: list[tuple[float, int]] = []
        served: list[int] = []
        tasks: list[asyncio.Task[None]] = []

        async def one(number: int, cost: int, timeout: float | None) -> None:
            if await limiter.wait("a", cost, timeout=timeout):
                spent.append((clock.time(), cost))
                served.append(number)

        for action, size in steps:
            if action in ("wait", "timed"):
                timeout = float(size) if action == "timed" else None
                tasks.append(asyncio.create_task(one(len(tasks), size, timeout)))
            elif action == "hit":
                if limiter.hit_nowait("a", size):
                    spent.append((clock.time(), size))
            elif action == "cancel" and tasks:
                tasks[size * 7 % len(tasks)].cancel()
            elif action == "advance":
                clock.advance(size / 4)
            await turn()
        while not all(task.done() for task in tasks):
            before = len(spent) + sum(task.done() for task in tasks)
            clock.advance(3)
            await turn()
            assert len(spent) + sum(task.done() for task in tasks) > before  # none starves
        assert served == sorted(served)
        for first, (start_time, _) in enumerate(spent):
            total = 0
            for end_time, cost in spent[first:]:
                total += cost
                assert total <= 6 + 2 * (end_time - start_time) + 1e-6
        assert not waiting._queues

    asyncio.run(run())


def test_threads_wait_by_the_test_clock_too(store: MemoryStore, clock: Clock) -> None:
    limiter = sync.Limiter("1/second", store=store)
    limiter.hit("a")
    order: list[int] = []

    def one(number: int) -> Callable[[], None]:
        def run() -> None:
            assert limiter.wait("a")
            order.append(number)

        return run

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=one(number)))
        threads[-1].start()
        until(lambda: queued() == len(threads))
    until(lambda: clock.waiting == 1)
    for number in range(3):
        clock.advance(1)
        until(lambda n=number: len(order) == n + 1)
        if number < 2:
            until(lambda: clock.waiting == 1)
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2]
    assert not limiter.wait("a", timeout=0)
    assert not limiter.wait("a", 2)


def queued() -> int:
    return sum(len(queue.waiters) for queue in waiting._queues.values())


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


# ---- numbers that change, clocks that step back


@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
async def test_faster_numbers_end_a_long_wait(
    algorithm: str, store: MemoryStore, clock: Clock
) -> None:
    """What was charged by the old numbers lies an hour ahead, which the new ones cannot reach."""
    limiter = Limiter(Quota(5, 3600, algorithm=algorithm), store=store)
    limiter.hit_nowait("k", 5)
    waiting_for = asyncio.ensure_future(limiter.wait("k"))
    await turn()
    limiter.update(Quota(5, 1, algorithm=algorithm))
    for _ in range(30):
        await turn()
        clock.advance(0.1)
    await turn()
    assert waiting_for.done()
    assert await waiting_for


@pytest.mark.parametrize("algorithm", ["gcra", "fixed-window", "sliding-window", "sliding-log"])
def test_the_wait_that_a_peek_tells_is_enough(algorithm: str) -> None:
    now = [10_000.0]
    limiter = Limiter(Quota(5, 60, algorithm=algorithm), store=MemoryStore(clock=lambda: now[0]))
    limiter.hit_nowait("k", 5)
    limiter.hit_nowait("banned")
    limiter.ban_nowait("banned", 60)
    now[0] -= 5_000
    for key in ("k", "banned"):
        seen = limiter.peek_nowait(key)
        assert not seen
        now[0] += seen.retry_after + 1e-6
        assert limiter.peek_nowait(key)
