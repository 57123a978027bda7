"""What is done to all keys of a prefix or of a limiter: deleting, listing, counting slots."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ... import _core
from ..._support import DONE, Done
from ...errors import StoreError
from .registry import forget

if TYPE_CHECKING:
    from .connection import Connection
    from .store import RedisStore

__all__ = ["Seen", "clear", "count_slots", "subjects"]

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


@dataclass
class Seen:
    """What a scan came upon: subjects by limiter."""

    subjects: dict[str, set[bytes]] = field(default_factory=dict)
    digests: dict[str, int] = field(default_factory=dict)  # subjects too long to be readable
    looked: int = 0  # keys of the server that were looked at, whosever they are
    whole: bool = True  # all of them


async def subjects(store: RedisStore, most: int) -> Seen:
    """Who has state under the store's prefix, after a look at about `most` keys of each server."""
    seen, head = Seen(), _head(store, "", ":{")
    hidden: dict[str, set[bytes]] = {}
    async for connection, keys in _scan(store, head, most=most, seen=seen):
        del connection
        for key in keys:
            inside, brace, ending = key[len(head) :].rpartition(b"}")
            limiter, colon, subject = inside.partition(b":")
            if not brace or not colon or ending not in (b"", b":slots"):
                continue  # the ring of a log, or not ours
            name = unquote_to_bytes(limiter).decode("utf-8", "surrogatepass")
            if subject.startswith(b"#"):
                hidden.setdefault(name, set()).add(subject)
            else:
                seen.subjects.setdefault(name, set()).add(unquote_to_bytes(subject))
    seen.digests = {name: len(found) for name, found in hidden.items()}
    return seen


def _held(value: bytes, now_us: int) -> int:
    held = 0
    for start in range(0, len(value) - ENTRY + 1, ENTRY):
        count = int.from_bytes(value[start + 16 : start + 20], "little")
        lapses = int.from_bytes(value[start + 20 : start + 27], "little")
        held += count if lapses > now_us else 0
    return held


async def _scan(
    store: RedisStore,
    head: bytes,
    ending: bytes = b"",
    *,
    most: int | None = None,
    seen: Seen | None = None,
) -> AsyncIterator[tuple[Connection, list[bytes]]]:
    router = store.router()
    # What the pattern language takes for more than itself is escaped.
    pattern = re.sub(rb"([\[\]*?\\^-])", rb"\\\1", head) + b"*" + ending
    for connection in await router.masters():
        cursor, looked = b"0", 0
        while True:
            reply = await connection.command(
                ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH), store.timeout, True
            )
            try:
                cursor, keys = bytes(memoryview(reply[0])), [bytes(memoryview(k)) for k in reply[1]]
            except (LookupError, TypeError):
                raise StoreError(f"{connection.where} replied to SCAN what is none") from None
            looked += BATCH
            if seen is not None:
                seen.looked += BATCH
            if keys:
                yield connection, keys
            if cursor == b"0":
                break
            if most is not None and looked >= most:
                if seen is not None:
                    seen.whole = False
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
