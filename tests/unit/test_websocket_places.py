"""Connections and places: what is reserved comes back, however the task that reserved ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from sluicegate import MemoryStore, WebSocketLimits, WebSocketRateLimiter, _core
from sluicegate.testing import Clock, override
from sluicegate.websocket.places import Place


def make(
    places: int | None = 1, store: MemoryStore | None = None, **more: Any
) -> WebSocketRateLimiter:
    more.setdefault("connections_per_minute", None)
    return WebSocketRateLimiter(WebSocketLimits(max_concurrent_connections=places, **more), store)


async def in_task(coroutine: Any) -> Any:
    return await asyncio.create_task(coroutine)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_check_then_register() -> None:
    limiter = make(2)
    assert await limiter.check_connection("ada")
    assert (limiter.get_client_connections("ada"), await limiter.count("ada")) == (0, 1)
    assert await limiter.register_connection("c1", "ada")
    assert (limiter.get_client_connections("ada"), await limiter.count("ada")) == (1, 1)


async def test_exactly_the_limit_is_registered_by_many_tasks() -> None:
    limiter = make(7)

    async def connect(n: int) -> bool:
        if not await limiter.check_connection("ada"):
            return False
        await asyncio.sleep(0)
        assert await limiter.register_connection(n, "ada"), "a reserved place was not there"
        return True

    results = await asyncio.gather(*(connect(n) for n in range(64)))
    assert sum(results) == 7
    assert limiter.get_client_connections("ada") == await limiter.count("ada") == 7


async def test_two_that_are_being_set_up_never_share_the_last_place() -> None:
    limiter = make(1)
    gate = asyncio.Event()

    async def first() -> bool:
        assert await limiter.check_connection("ada")
        await gate.wait()
        return await limiter.register_connection("c1", "ada")

    task = asyncio.create_task(first())
    await turn()
    assert not await limiter.check_connection("ada")
    assert not await limiter.register_connection("c2", "ada")
    assert limiter.get_connection_info("c2") is None
    gate.set()
    assert await task


async def test_a_task_holds_one_reservation_a_client() -> None:
    limiter = make(2)
    for _ in range(5):
        assert await limiter.check_connection("ada")
    assert await limiter.count("ada") == 1
    assert await limiter.check_connection("eve")
    assert await limiter.count("eve") == 1


async def test_checking_again_charges_the_rate_again() -> None:
    limiter = make(5, connections_per_minute=3)
    assert [await limiter.check_connection("ada") for _ in range(5)] == [True] * 3 + [False] * 2
    assert await limiter.count("ada") == 1  # what was reserved stays until it lapses


async def test_a_refusal_by_the_rate_takes_no_place() -> None:
    limiter = make(5, connections_per_minute=1)
    assert await in_task(limiter.check_connection("ada"))
    for _ in range(20):
        assert not await in_task(limiter.check_connection("ada"))
        assert not await limiter.check_connection("ada")
        assert await limiter.count("ada") == 0  # though this task goes on


async def test_a_refusal_for_want_of_a_place_charges_no_rate() -> None:
    limiter = make(1, connections_per_minute=2)
    await limiter.register_connection("c", "ada")
    for _ in range(20):
        assert not await limiter.check_connection("ada")
    await limiter.unregister_connection("c")
    assert [await in_task(limiter.check_connection("ada")) for _ in range(3)] == [True, True, False]


def pair() -> tuple[WebSocketRateLimiter, WebSocketRateLimiter]:
    """Two over one store: the second knows nothing of the first one's tasks, and sees only
    what has been given back."""
    store = MemoryStore()
    return make(1, store), make(1, store)


async def test_it_is_given_back_when_the_task_returns() -> None:
    limiter, other = pair()
    assert await in_task(limiter.check_connection("ada"))
    await turn()
    assert await other.count("ada") == 0


async def test_it_is_free_as_soon_as_the_task_is_done() -> None:
    limiter = make()
    task = asyncio.create_task(limiter.check_connection("ada"))
    while not task.done():
        await asyncio.sleep(0)
    assert await limiter.check_connection("ada")


@pytest.mark.parametrize("end", ["raise", "cancel"])
async def test_it_is_given_back_when_the_task_fails(end: str) -> None:
    limiter, other = pair()

    async def fails() -> None:
        assert await limiter.check_connection("ada")
        if end == "raise":
            raise KeyError
        await asyncio.sleep(60)

    task = asyncio.create_task(fails())
    await turn()
    task.cancel()
    with pytest.raises((KeyError, asyncio.CancelledError)):
        await task
    await turn()
    assert await other.count("ada") == 0


async def test_it_is_given_back_when_the_task_is_collected_unfinished() -> None:
    limiter, other = pair()
    messages: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: messages.append(context))

    async def forgotten() -> None:
        assert await limiter.check_connection("ada")
        await asyncio.get_running_loop().create_future()  # nobody else has it

    task = asyncio.create_task(forgotten())
    gone = weakref.ref(task)
    await turn()
    del task
    gc.collect()
    assert gone() is None
    assert "destroyed" in messages[0]["message"]
    assert await other.count("ada") == 0


async def test_it_lapses_after_10_seconds(sluice_clock: Clock, sluice_store: MemoryStore) -> None:
    limiter, other = make(1, sluice_store), make(1, sluice_store)
    assert await limiter.check_connection("ada")
    sluice_clock.advance(9.9)
    assert not await in_task(other.check_connection("ada"))
    sluice_clock.advance(0.1)
    assert await other.register_connection("c1", "ada")
    # and the task that reserved it has nothing any more
    assert not await limiter.register_connection("c2", "ada")


async def test_checking_again_renews_it(sluice_clock: Clock, sluice_store: MemoryStore) -> None:
    limiter, other = make(1, sluice_store), make(1, sluice_store)
    for _ in range(5):
        assert await limiter.check_connection("ada")
        sluice_clock.advance(9)
        assert not await in_task(other.check_connection("ada"))
    sluice_clock.advance(1)
    assert await in_task(other.check_connection("ada"))


def test_it_is_given_back_when_the_loop_is_closed() -> None:
    limiter = make()
    loop = asyncio.new_event_loop()

    async def hangs() -> None:
        assert await limiter.check_connection("ada")
        await asyncio.sleep(3600)

    task = loop.create_task(hangs())
    loop.run_until_complete(asyncio.sleep(0.001))
    assert asyncio.run(limiter.check_connection("ada")) is False
    loop.close()
    assert asyncio.run(limiter.check_connection("ada")) is True
    task.get_coro().close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_it_is_made_without_a_loop_and_used_from_several() -> None:
    limiter = make(3, messages_per_minute=2)

    async def session(n: int) -> list[bool]:
        assert await limiter.check_connection("ada")
        assert await limiter.register_connection(n, "ada")
        return [(await limiter.check_message(n, 1))["allowed"] for _ in range(2)]

    results = [asyncio.run(session(n)) for n in range(3)]
    assert results == [[True, True], [False, False], [False, False]]
    assert limiter.get_client_connections("ada") == 3
    with pytest.raises(AssertionError):
        asyncio.run(session(4))


def test_without_any_loop() -> None:
    clock = Clock()
    limiter = make(1, MemoryStore(clock=clock))

    def drive(coroutine: Any) -> Any:
        with pytest.raises(StopIteration) as stop:
            coroutine.send(None)
        return stop.value.value

    assert drive(limiter.check_connection("ada"))
    assert drive(limiter.register_connection("c", "ada"))
    assert not drive(limiter.register_connection("d", "ada"))
    drive(limiter.unregister_connection("c"))
    assert drive(limiter.check_connection("ada"))
    clock.advance(10)
    assert drive(limiter.count("ada")) == 0


def test_another_loop_library_is_a_clear_error() -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    with pytest.raises(RuntimeError, match=r"asyncio.*trio"):
        trio.run(make().check_connection, "ada")


def test_from_threads_exactly_the_limit_is_registered() -> None:
    limiter = make(5, connections_per_minute=1000)
    registered: list[bool] = []
    ready = threading.Barrier(8)

    async def session(thread: int) -> None:
        for n in range(50):
            if await limiter.check_connection("ada"):
                registered.append(await limiter.register_connection((thread, n), "ada"))

    def run(thread: int) -> None:
        ready.wait(10)
        asyncio.run(session(thread))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert registered == [True] * 5
    assert limiter.get_client_connections("ada") == len(limiter.active_connections) == 5
    for connection_id in list(limiter.active_connections):
        asyncio.run(limiter.unregister_connection(connection_id))
    assert asyncio.run(limiter.count("ada")) == 0
    assert limiter.connections_by_client == {}


async def test_register_without_a_reservation_decides_anew() -> None:
    limiter = make(2, connections_per_minute=1)
    assert [await limiter.register_connection(n, "ada") for n in range(3)] == [True, True, False]


async def test_unregister_twice_is_harmless() -> None:
    limiter = make(2)
    await limiter.register_connection("c1", "ada")
    await limiter.register_connection("c2", "ada")
    for _ in range(3):
        await limiter.unregister_connection("c1")
    await limiter.unregister_connection("never")
    assert await limiter.count("ada") == limiter.get_client_connections("ada") == 1


async def test_registering_an_id_again_replaces_its_connection() -> None:
    limiter = make(1)
    assert await limiter.register_connection("c", "ada")
    assert await limiter.register_connection("c", "ada", {"again": True})
    assert await limiter.count("ada") == limiter.get_client_connections("ada") == 1
    assert await limiter.register_connection("c", "eve")
    assert (await limiter.count("ada"), await limiter.count("eve")) == (0, 1)
    assert dict(limiter.connections_by_client) == {"eve": {"c"}}


async def test_rebind_moves_place_and_rates() -> None:
    limiter = make(2, messages_per_minute=1)
    await limiter.register_connection("c1", "10.0.0.1")
    assert (await limiter.check_message("c1", 1))["allowed"]
    assert not (await limiter.check_message("c1", 1))["allowed"]
    assert await limiter.rebind("c1", "ada")
    assert (await limiter.count("10.0.0.1"), await limiter.count("ada")) == (0, 1)
    assert (await limiter.check_message("c1", 1))["allowed"]
    assert not (await limiter.check_message("c1", 1))["allowed"]
    info = limiter.get_connection_info("c1")
    assert info is not None
    assert (info.client_id, info.message_count) == ("ada", 2)
    assert dict(limiter.connections_by_client) == {"ada": {"c1"}}
    await limiter.unregister_connection("c1")
    assert await limiter.count("ada") == 0


async def test_rebind_is_false_where_there_is_no_place_or_no_connection() -> None:
    limiter = make(1)
    await limiter.register_connection("c1", "ada")
    await limiter.register_connection("c2", "eve")
    assert not await limiter.rebind("c2", "ada")
    assert not await limiter.rebind("nobody", "ada")
    info = limiter.get_connection_info("c2")
    assert info is not None
    assert info.client_id == "eve"
    assert await limiter.count("eve") == 1
    assert await limiter.rebind("c1", "ada")  # it is already


async def test_rebind_uses_what_the_task_has_reserved() -> None:
    limiter = make(1)
    await limiter.register_connection("c", "10.0.0.1")
    assert await limiter.check_connection("ada")
    assert await limiter.rebind("c", "ada")
    assert await limiter.count("ada") == 1


async def test_unlimited_places() -> None:
    limiter = make(None)
    for n in range(500):
        assert await limiter.register_connection(n, "ada")
    assert await limiter.count("ada") == limiter.get_client_connections("ada") == 500


async def test_str_and_bytes_of_one_client() -> None:
    limiter = make(1)
    assert await limiter.register_connection("c", b"ada")
    assert not await limiter.register_connection("d", "ada")
    assert limiter.get_client_connections("ada") == limiter.get_client_connections(b"ada") == 1


@pytest.mark.parametrize("client", [None, 1.5, True, ["ada"]])
async def test_a_client_id_is_a_key(client: Any) -> None:
    limiter = make()
    with pytest.raises(TypeError, match="client id"):
        await limiter.check_connection(client)
    with pytest.raises(TypeError, match="client id"):
        await limiter.register_connection("c", client)


@pytest.mark.parametrize("client", ["", "\ud800", "a\0b", b"\xff\xfe", "x" * 1_000_000])
async def test_any_key_will_do(client: Any) -> None:
    limiter = make(1)
    assert await limiter.check_connection(client)
    assert await limiter.register_connection("c", client)
    assert (await limiter.check_message("c", 1))["allowed"]
    assert await limiter.count(client) == 1


async def test_the_views_are_read_only() -> None:
    limiter = make(2)
    await limiter.register_connection("c", "ada")
    assert list(limiter.active_connections) == ["c"]
    with pytest.raises(TypeError):
        limiter.active_connections["d"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        limiter.connections_by_client["eve"] = {}  # type: ignore[index]
    with pytest.raises(AttributeError):
        limiter.connections_by_client["ada"].add("d")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        limiter.active_connections = {}  # type: ignore[misc]


async def test_a_limiter_that_is_dropped_gives_its_places_back() -> None:
    store = MemoryStore()
    limiter, other = make(3, store), make(3, store)
    cycle: list[Any] = [limiter]
    cycle.append(cycle)
    await limiter.register_connection("c1", "ada")
    assert await limiter.check_connection("ada")
    await limiter.register_connection("c2", "ada")
    assert await other.count("ada") == 2
    del limiter, cycle
    gc.collect()
    assert await other.count("ada") == 0


@pytest.mark.parametrize("slot_first", [True, False])
def test_a_place_in_a_cycle_is_given_back_without_a_warning(slot_first: bool) -> None:
    """What is collected together is finalised in any order: a warning would fail the test."""
    slots = _core.Slots(MemoryStore().slots(None), 9)
    slot, place = slots.acquire_nowait("ada"), Place()
    assert place.take(slot)
    pair: list[Any] = [slot, place] if slot_first else [place, slot]
    pair.append(pair)
    gc.collect()  # which leaves them in that order
    del slot, place, pair
    gc.collect()
    assert slots.count_nowait("ada") == 0


async def test_override_moves_it_and_back() -> None:
    limiter = make(2, messages_per_minute=1)
    await limiter.register_connection("c", "ada")
    assert (await limiter.check_message("c", 1))["allowed"]
    with override() as store:
        assert limiter.store is store
        assert (await limiter.check_message("c", 1))["allowed"]
        assert not (await limiter.check_message("c", 1))["allowed"]
    assert not (await limiter.check_message("c", 1))["allowed"]
    await limiter.unregister_connection("c")
    assert await limiter.count("ada") == 0
