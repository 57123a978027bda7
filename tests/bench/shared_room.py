"""How many keys a file of shared memory holds: each limiter alone in it is flooded by new keys
until it forgets some.

    PYTHONPATH=tests python -m bench.shared_room [SIZE]      # 64MB unless given
"""

from __future__ import annotations

import os
import sys
import tempfile

from sluicegate import ConcurrencyLimiter, Limiter, SharedMemoryStore

MB = 1 << 20
BATCH = 2000

# what, its quotas, hits a key
CASES: tuple[tuple[str, str, int], ...] = (
    ("gcra", "1000/day burst 5", 1),
    ("fixed-window", "1000/day using fixed-window", 1),
    ("sliding-window", "1000/day using sliding-window", 1),
    ("two gcra quotas", "1000/day burst 5; 100/hour", 1),
    ("sliding-log, 1 entry a key", "1000/day using sliding-log", 1),
    ("sliding-log, 16 entries", "1000/day using sliding-log", 16),
    ("sliding-log, 256 entries (the most)", "1000/day using sliding-log", 256),
)


def flooded(directory: str, size: str, quotas: str, hits: int) -> tuple[int, int, int]:
    """Keys that are held, bytes of the limiter, bytes of the file."""
    store = SharedMemoryStore(os.path.join(directory, "room"), size)
    limiter = Limiter(quotas, store=store, name="room")
    made, together = 0, max(BATCH // hits, 1)  # each key has all its hits at once
    while limiter.table.counters()["evictions"] < together:
        for n in range(made, made + together):
            limiter.hit_many_nowait([(b"%d" % n, 1)] * hits)
        made += together
    counters = limiter.table.counters()
    os.unlink(store.path)
    return counters["keys"], counters["bytes"], store.size


def held(directory: str, size: str) -> tuple[int, int, int]:
    """The same of keys of which one slot is held, which are never forgotten."""
    store = SharedMemoryStore(os.path.join(directory, "room"), size)
    limiter = ConcurrencyLimiter(5, store=store, name="room")
    slots = []
    while slot := limiter.acquire_nowait(b"%d" % len(slots)):
        slots.append(slot)
    counters = limiter.table.counters()
    os.unlink(store.path)
    for one in slots:
        one.release_nowait()
    return counters["keys"], counters["bytes"], store.size


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "64MB"
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="sluicegate-", dir=place) as directory:
        print(f"{size:36} keys       keys a MB of the file   its share of the file")
        for what, quotas, hits in CASES:
            show(what, flooded(directory, size, quotas, hits))
        show("slots, one held a key", held(directory, size))


def show(what: str, found: tuple[int, int, int]) -> None:
    keys, taken, file = found
    print(f"{what:36} {keys:9,}  {keys / (file / MB):9,.0f}              {taken / file:6.0%}")


if __name__ == "__main__":
    main()
