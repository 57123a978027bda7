"""What is done to all keys of a prefix or of a limiter: deleting them, counting slots."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ... import _core
from ..._support import DONE, Done
from .registry import forget

if TYPE_CHECKING:
    from .connection import Connection
    from .store import RedisStore

__all__ = ["clear", "count_slots"]

BATCH = 512  # keys that one step of a scan looks at
ENTRY = 31  # bytes of an owner's entry: see csrc/redis/scripts/slots.lua


async def clear(store: RedisStore) -> Done:
    """Deletes every key of the store's prefix."""
    async for connection, keys in _scan(store, _head(store, "", ":{")):
        # one at a time, since those of a cluster's node are in many slots
        await _each(store, connection, "UNLINK", keys)
    await forget(store)
    return DONE


async def count_slots(store: RedisStore, name: str) -> tuple[int, int]:
    """Slots of a limiter that are held, and by how many keys."""
    slots, subjects = 0, set()
    async for connection, keys in _scan(store, _head(store, name, "}"), b":slots"):
        now = await connection.command(("TIME",), store.timeout, True)
        now_us = int(now[0]) * 1_000_000 + int(now[1])
        for key, value in zip(keys, await _each(store, connection, "GET", keys), strict=True):
            held = _held(value or b"", now_us)
            if held and key not in subjects:  # a scan may tell a key twice
                subjects.add(key)
                slots += held
    return slots, len(subjects)


def _held(value: bytes, now_us: int) -> int:
    held = 0
    for start in range(0, len(value) - ENTRY + 1, ENTRY):
        count = int.from_bytes(value[start + 16 : start + 20], "little")
        lapses = int.from_bytes(value[start + 20 : start + 27], "little")
        held += count if lapses > now_us else 0
    return held


async def _scan(
    store: RedisStore, head: bytes, ending: bytes = b""
) -> AsyncIterator[tuple[Connection, list[bytes]]]:
    router = store.router()
    # What the pattern language takes for more than itself is escaped.
    pattern = re.sub(rb"([\[\]*?\\^-])", rb"\\\1", head) + b"*" + ending
    for connection in await router.masters():
        cursor = b"0"
        while True:
            cursor, keys = await connection.command(
                ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH), store.timeout, True
            )
            if keys:
                yield connection, keys
            if cursor == b"0":
                break


async def _each(
    store: RedisStore, connection: Connection, word: str, keys: list[bytes]
) -> list[bytes | None]:
    replies: list[bytes | None] = await asyncio.gather(
        *(connection.command((word, key), store.timeout, True) for key in keys)
    )
    return replies


def _head(store: RedisStore, name: str, end: str) -> bytes:
    """How keys of the prefix (or of one limiter there) begin, as C escapes it."""
    key = _core.Server(None, store.prefix, name, _core.Table(["gcra"], max_keys=1)).key("")
    return key[: key.rindex(b":}")] + b":" if end == "}" else key[: key.index(b":{")] + b":{"
