"""One check at a time on a server: against a blocking C loop on hiredis of the same script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .harness import median, no_gc, worker
from .redis_setup import (
    BlockingLoop,
    Setup,
    Tally,
    alternating,
    closed,
    missing,
    new_loop,
    one_by_one,
    ours_over,
    setup,
    why_not,
    words_of,
)
from .rows import Row, Topic

TOPIC_NAME = "redis-one"
REFERENCE = "a blocking C loop on hiredis of the same script"
QUOTA = "1000000/second"  # of one key, that it admits all
COUNT = 5000


def ours(made: dict[str, str], kind: str, rounds: int, count: int) -> dict[str, Any]:
    """In a process of its own: `Limiter.hit`, one awaited after the other."""
    place = Setup(**made)
    loop = new_loop(kind)
    limiter = ours_over(place.url, QUOTA, "one")

    tally = Tally()
    subjects = ["user:42"] * count

    def hit() -> None:
        loop.run_until_complete(one_by_one(limiter.hit, ["user:42"], Tally()))

    hit()  # the server knows the script now
    with BlockingLoop(place, words_of(place, hit)) as reference:
        found = compared(
            lambda turn: loop.run_until_complete(one_by_one(limiter.hit, subjects, tally)),
            reference,
            tally,
            rounds,
            count,
        )
    closed(loop)
    if found["trouble"] is not None:
        raise AssertionError(found["trouble"])
    return found


def compared(
    subject: Any, reference: BlockingLoop, tally: Tally, rounds: int, count: int
) -> dict[str, Any]:
    """Both in alternation: the median of the ratios of time, and what to tell of it."""
    subject(-1), reference(count)
    reference.percentiles.clear()
    tally.clear()
    with no_gc():
        a, b = alternating(subject, lambda turn: reference(count), rounds)
    found = [x / y for x, y in zip(a, b, strict=True)]
    p50, p99 = tally.percentiles()
    return {
        "ratio": median(found),
        "trouble": tally.trouble(),
        "failed": tally.failed,
        "info": {
            "p50_us": round(p50, 1),
            "p99_us": round(p99, 1),
            "reference_p50_us": round(median(p for p, _ in reference.percentiles) / 1000, 1),
            "reference_p99_us": round(median(p for _, p in reference.percentiles) / 1000, 1),
            "spread": [round(min(found), 3), round(max(found), 3)],
            "rounds": rounds,
        },
    }


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    why = why_not()
    if why is not None:
        yield missing(TOPIC_NAME, "one check at a time", REFERENCE, why)
        return
    with setup() as made:
        for kind, target in (("asyncio", 1.3), ("uvloop", None)):
            what = f"one gcra check at a time, {kind}"
            try:
                found = worker("redis_one.ours", asdict(made), kind, rounds, COUNT)
            except RuntimeError as error:
                yield missing(TOPIC_NAME, what, REFERENCE, str(error))
                continue
            yield Row(TOPIC_NAME, what, found["ratio"], "x", REFERENCE, target, info=found["info"])


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    from .redis_peers import one_at_a_time

    if why_not() is None:
        yield from one_at_a_time(TOPIC_NAME, REFERENCE, rounds)


TOPIC = Topic(TOPIC_NAME, "Redis, one check at a time", measure, peers)
