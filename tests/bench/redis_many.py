"""Many checks at once on a server: against redis-benchmark of a plain gcra script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from .harness import median, no_gc, worker
from .redis_setup import (
    KEYS,
    QUOTA,
    WIDTH,
    Setup,
    Tally,
    all_at_once,
    alternating,
    closed,
    missing,
    names,
    new_loop,
    ours_over,
    plain_gcra,
    rates,
    setup,
    why_not,
)
from .rows import Row, Topic

TOPIC_NAME = "redis-many"
REFERENCE = "redis-benchmark -P 64 -c 1 of reference.lua"
COUNT = 100_000  # checks a round
LOG_QUOTA, LOG_FULL = "1000/minute using sliding-log", 950
# Filling takes a second or two: the first entry ends when the checks begin, and few do meanwhile.
# In a log that stays full one ends, on the average, for each that comes.
LOG_SECONDS = 58
STAGES = 64
FEW_KEYS = 6000  # of which 100,000 checks a second are about what their quotas admit

Run = Callable[[int], float]


class Ours:
    """`hit` by 512 tasks, or `hit_many` of as many by two, of keys drawn by chance."""

    def __init__(self, made: Setup, kind: str, quota: str, name: str, how: str = "hit") -> None:
        self.loop = new_loop(kind)
        self.limiter = ours_over(made.url, quota, name)
        self.how = how
        self.tally = Tally()
        self.cpu = 0.0  # seconds of this process

    async def _in_batches(self, subjects: list[str]) -> float:
        """Two calls are under way: one is put together and taken apart while the server has the
        other."""
        starts = range(0, len(subjects), WIDTH)
        batches = iter([[(name, 1) for name in subjects[i : i + WIDTH]] for i in starts])

        async def work() -> None:
            for batch in batches:
                decisions = await self.limiter.hit_many(batch)
                admitted = sum(map(bool, decisions))
                self.tally.admitted += admitted
                self.tally.refused += len(decisions) - admitted

        begin = time.perf_counter()
        await asyncio.gather(work(), work())
        return time.perf_counter() - begin

    def run(self, subjects: list[str]) -> float:
        """The seconds of all."""
        begin = time.process_time()
        try:
            if self.how == "hit_many":
                return self.loop.run_until_complete(self._in_batches(subjects))
            checks = all_at_once(self.limiter.hit, subjects, self.tally)
            return self.loop.run_until_complete(checks)
        finally:
            self.cpu += time.process_time() - begin

    def told(self) -> dict[str, Any]:
        return {"client_us": round(self.cpu / self.tally.all * 1e6, 2)}


def ours(made: dict[str, str], kind: str, how: str, rounds: int, count: int) -> dict[str, Any]:
    """In a process of its own: throughput of ours against that of redis-benchmark."""
    place = Setup(**made)
    subject, reference = Ours(place, kind, QUOTA, "many", how), plain_gcra(place)
    drawn = [names(count, turn) for turn in range(rounds)]
    # Every key is there, for both, before the time begins.
    subject.run([f"user:{number}" for number in range(KEYS)])
    reference(3 * KEYS)
    subject.cpu, subject.tally = 0.0, Tally()
    with no_gc():
        a, b = alternating(
            lambda turn: subject.run(drawn[turn]), lambda turn: reference(count), rounds
        )
    value, info = rates(a, count, b, count)
    closed(subject.loop)
    trouble = subject.tally.trouble()
    if trouble is not None:
        raise AssertionError(trouble)
    return {"ratio": value, "info": {**info, **subject.told()}}


# ---- full logs


def fill_logs(made: Setup, subject: Ours, keys: int) -> None:
    """Makes a full log of every key: one, by the limiter's own script under a clock of the
    benchmark's, over the last 58 s; the others are copies of it.

    Up to 950 units of 1000 in as many entries as a log keeps apart, 256 at the most: when it has
    these it joins some, and then goes on. So the copies are taken at its last 64 units, and the
    logs stand at all stages between two joinings, as logs of many users do.
    """
    import redis

    from redis_store.codec import embed

    with redis.Redis(unix_socket_path=made.socket) as client:
        words = _words_of_log(made, subject)
        clock = "local time = call('TIME')"
        text = embed().script("decide").decode()
        if text.count(clock) != 1:
            raise AssertionError("the script reads its clock in another way than this expects")
        script = client.script_load(
            text.replace(clock, "do return tonumber(call('GET', 'clock')) end local time")
        )
        copy = client.script_load(
            "for i = ARGV[1], ARGV[2], ARGV[3] do for k = 1, 2 do"
            " redis.call('COPY', KEYS[k], (KEYS[k]:gsub('user:full', 'user:' .. i)), 'REPLACE')"
            " end end"
        )
        state, ring = words[3], words[4]
        client.delete(state, ring)
        seconds, us = client.time()
        now = seconds * 1_000_000 + us
        with client.pipeline(transaction=False) as pipeline:
            for number in range(LOG_FULL):
                at = now - (LOG_FULL - number) * LOG_SECONDS * 1_000_000 // LOG_FULL
                pipeline.set("clock", at)
                pipeline.execute_command("EVALSHA", script, *words[2:])
                stage = number - (LOG_FULL - STAGES)
                if stage >= 0:
                    pipeline.evalsha(copy, 2, state, ring, stage, keys - 1, STAGES)
            pipeline.execute()


def _words_of_log(made: Setup, subject: Ours) -> list[bytes]:
    from .redis_setup import words_of

    def hit() -> None:
        subject.loop.run_until_complete(subject.limiter.hit("user:full"))

    hit()  # the server knows the script now
    return words_of(made, hit)


def seconds_for(count: int, keys: int) -> float:
    """In which full logs of so many keys admit so many checks."""
    return count / (keys * LOG_FULL / 60)


def logs(made: dict[str, str], kind: str, keys: int, rounds: int, count: int) -> dict[str, Any]:
    """In a process of its own: throughput with full logs against that of gcra, the same keys.

    Of so few keys that the checks are as many as the quota admits, the logs stay full, and so
    they are filled once, and the rounds begin no sooner than the quota lets them. Of more keys
    they are filled anew before each round.
    """
    place = Setup(**made)
    log, gcra = Ours(place, kind, LOG_QUOTA, "log"), Ours(place, kind, QUOTA, "many")
    drawn = [names(count, turn, keys) for turn in range(-2, rounds)]
    stays = keys == FEW_KEYS
    seconds = seconds_for(count, keys)
    fill_logs(place, log, keys)
    gcra.run([f"user:{number}" for number in range(keys)])
    begun, gcra.tally = time.perf_counter(), Tally()

    def run(turn: int) -> float:
        log.tally = Tally()
        if stays:
            time.sleep(max(0.0, begun + (turn + 2) * seconds - time.perf_counter()))
        else:
            fill_logs(place, log, keys)
        spent = log.run(drawn[turn])
        # A key that is drawn often may be refused once it has its 1000.
        if log.tally.failed or log.tally.admitted < 0.97 * count:
            raise AssertionError(f"{log.tally.trouble()}")
        return spent

    with no_gc():
        run(-2), run(-1)
        a, b = alternating(run, lambda turn: gcra.run(drawn[turn]), rounds)
    value, info = rates(a, count, b, count)
    plain = plain_gcra(place)
    of_plain = median([plain(count) for _ in range(rounds)]) / median(a)
    closed(log.loop), closed(gcra.loop)
    return {"ratio": value, "info": {**info, "of_plain": round(of_plain, 2)}}


# ---- rows

CASES: tuple[tuple[str, str, str, float], ...] = (
    ("512 gcra checks at once over 100,000 keys, asyncio", "asyncio", "hit", 1.5),
    ("512 gcra checks at once over 100,000 keys, uvloop", "uvloop", "hit", 2.0),
    ("hit_many over 100,000 keys, asyncio", "asyncio", "hit_many", 3.0),
    ("hit_many over 100,000 keys, uvloop", "uvloop", "hit_many", 3.0),
)
LOG_REFERENCE = "the gcra checks of the same loop"


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    why = why_not()
    if why is not None:
        yield missing(TOPIC_NAME, CASES[0][0], REFERENCE, why)
        return
    with setup() as made:
        place = asdict(made)
        for what, kind, how, target in CASES:
            try:
                found = worker("redis_many.ours", place, kind, how, rounds, COUNT)
            except RuntimeError as error:
                yield missing(TOPIC_NAME, what, REFERENCE, str(error))
                continue
            yield Row(
                TOPIC_NAME, what, found["ratio"], "x", REFERENCE, target, True, info=found["info"]
            )


def measure_logs(rounds: int, quick: bool) -> Iterator[Row]:
    why = why_not()
    if why is not None:
        yield missing("redis-log", "full logs", LOG_REFERENCE, why)
        return
    with setup() as made:
        for keys, how, kind in (
            (FEW_KEYS, "that stay full", "asyncio"),
            (FEW_KEYS, "that stay full", "uvloop"),
            (KEYS, "just filled", "asyncio"),
            (KEYS, "just filled", "uvloop"),
        ):
            what = f"512 checks at once of logs {how} (1000/minute), {keys:,} keys, {kind}"
            try:
                found = worker("redis_many.logs", asdict(made), kind, keys, rounds, COUNT)
            except RuntimeError as error:
                yield missing("redis-log", what, LOG_REFERENCE, str(error))
                continue
            yield Row(
                "redis-log", what, found["ratio"], "x", LOG_REFERENCE, 0.6, True, info=found["info"]
            )


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    from .redis_peers import many_at_once

    if why_not() is None:
        yield from many_at_once(TOPIC_NAME, REFERENCE, rounds)


TOPIC = Topic(TOPIC_NAME, "Redis, 512 checks at once", measure, peers)
LOGS = Topic("redis-log", "Redis, full logs", measure_logs)
