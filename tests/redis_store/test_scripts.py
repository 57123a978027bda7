"""What the scripts do besides the rule: expiry, names, shapes, foreign values, slots, hit_all."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import pytest
import redis

from redis_store.codec import ERROR, HIT, OTHER, PEEK, SEEN, Codec, Plan, embed
from redis_store.engine import ALL, CHANGE, SLOTS, Limiter, Server
from redis_store.trio import Trio, kinds, row
from reference import ALGORITHMS, Quota
from reference import hit_all as reference_hit_all
from sluicegate import _core

SECOND_US = 10**6


def real(client: redis.Redis, words: list[bytes]) -> Any:
    """Runs the package's own script, by the server's own clock."""
    for name in embed().NAMES:
        text = embed().script(name)
        if hashlib.sha1(text).hexdigest().encode() == words[1]:
            return client.execute_command(b"EVAL", text, *words[2:])
    raise AssertionError("no such script")


def plan_of(codec: Codec, *quotas: Quota) -> Plan:
    return Plan(codec, quotas, [q.algorithm for q in quotas], [q.period for q in quotas])


# ---- expiry


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_write_sets_an_expiry_not_before_the_end_of_the_state(
    client: redis.Redis, codec: Codec, algorithm: str
) -> None:
    client.flushall()
    quota = Quota(300, 60.0, algorithm=algorithm)
    plan, name = plan_of(codec, quota), codec.name(b"sg", b"chat", b"user:42")
    for _ in range(300):
        *reply, now = real(client, codec.batch(plan, HIT, [(name, [1])]))
        decision = codec.answer(plan, HIT, [1], reply[0], now).decision
        assert decision.allowed
        lapses, ends = client.pexpiretime(name), now / 1000 + decision.reset_after * 1000
        assert ends - 1 <= lapses <= ends + 15_000 + 1100
    for key in client.scan_iter():
        assert client.pttl(key) > 0, key


def test_bans_and_reservations_extend_the_expiry(client: redis.Redis, codec: Codec) -> None:
    client.flushall()
    plan, name = plan_of(codec, Quota(10, 1.0)), codec.name(b"sg", b"chat", b"a")
    hour = (3600 * SECOND_US).to_bytes(7, "little")
    real(client, codec.call(CHANGE, [(plan, name)], [plan.bytes, b"ban", hour]))
    assert client.pttl(name) >= 3_599_000
    words = codec.batch(plan, HIT, [(name, [1])])
    *reply, now = real(client, words)
    assert not codec.answer(plan, HIT, [1], reply[0], now).decision.allowed
    other = codec.name(b"sg", b"chat", b"b")
    real(client, codec.batch(plan, 2, [(other, [1])], 600 * SECOND_US, 77))
    assert client.pttl(other) >= 599_000


# ---- what is not ours


@pytest.mark.parametrize("op", [PEEK, HIT])
@pytest.mark.parametrize("algorithm", ["gcra", "sliding-log"])
def test_a_key_of_another_type_fails_alone(
    client: redis.Redis, codec: Codec, algorithm: str, op: int
) -> None:
    client.flushall()
    plan = plan_of(codec, Quota(10, 60.0, algorithm=algorithm))
    names = [codec.name(b"sg", b"chat", subject) for subject in (b"a", b"b", b"c")]
    client.rpush(names[1], "x")
    *reply, now = real(client, codec.batch(plan, op, [(name, [1]) for name in names]))
    seen = [codec.answer(plan, op, [1], one, now).seen for one in reply]
    assert seen == ([SEEN, SEEN, SEEN] if op == PEEK else [SEEN, ERROR, SEEN])
    assert client.type(names[1]) == b"list"


def test_state_of_another_shape_is_told_and_replaced(client: redis.Redis, codec: Codec) -> None:
    name = codec.name(b"sg", b"chat", b"a")
    shapes = [
        plan_of(codec, Quota(10, 60.0)),
        plan_of(codec, Quota(10, 60.0), Quota(20, 60.0)),
        plan_of(codec, Quota(10, 60.0, algorithm="sliding-log")),
        plan_of(codec, Quota(10, 60.0, algorithm="fixed-window")),
    ]
    client.flushall()
    for before in shapes:
        for after in shapes:
            costs = [1] * len(after.quotas)
            real(client, codec.batch(before, HIT, [(name, [1] * len(before.quotas))]))
            *reply, now = real(client, codec.batch(after, HIT, [(name, costs)]))
            outcome = codec.answer(after, HIT, costs, reply[0], now)
            assert outcome.decision.allowed
            assert outcome.seen == (SEEN if before is after else OTHER)
            *reply, now = real(client, codec.batch(after, HIT, [(name, costs)]))
            assert codec.answer(after, HIT, costs, reply[0], now).seen == SEEN


def test_no_value_and_no_ring_fails_a_batch(client: redis.Redis, codec: Codec) -> None:
    """Every prefix and many a mutation of good values, and of good rings."""
    seed = int(os.environ.get("SLUICEGATE_SEED") or random.SystemRandom().getrandbits(48))
    print(f"SLUICEGATE_SEED={seed}")
    rng = random.Random(seed)
    for algorithms in (["gcra"], ["sliding-log"], ["sliding-log", "gcra", "sliding-window"]):
        plan = plan_of(codec, *(Quota(300, 60.0, algorithm=one) for one in algorithms))
        client.flushall()
        costs = [1] * len(algorithms)
        name, good = codec.name(b"sg", b"x", b"a"), codec.name(b"sg", b"x", b"b")
        for _ in range(40):
            real(client, codec.batch(plan, HIT, [(name, costs)] * 2))
        real(client, codec.batch(plan, 2, [(name, costs)], 60 * SECOND_US, 5))
        value, ring = client.get(name), client.get(name + b":log0")
        for i in range(300):
            for key, kept in ((name, value), (name + b":log0", ring)):
                if kept is None:
                    continue
                bytes_ = bytearray(kept)
                if i < len(kept):
                    del bytes_[i:]
                else:
                    for _ in range(rng.randrange(1, 4)):
                        bytes_[rng.randrange(len(bytes_))] = rng.randrange(256)
                client.set(key, bytes(bytes_))
            for op in (PEEK, HIT):
                *reply, now = real(client, codec.batch(plan, op, [(name, costs), (good, costs)]))
                codec.answer(plan, op, costs, reply[0], now)
                assert codec.answer(plan, op, costs, reply[1], now).seen == SEEN


def test_a_ring_that_was_evicted_costs_its_entries_only(server: Server) -> None:
    clock = 10**9
    limiter = Limiter(server, b"l", [Quota(100, 60.0, algorithm="sliding-log")])
    for i in range(80):
        assert limiter.hit("a", 1, clock + i * 1000).allowed
    server.client.delete(limiter.name("a") + b":log0")
    assert limiter.peek("a", 1, clock + 10**6).remaining == 20  # not looked for
    limiter.reward("a", 1, clock + 10**6)
    remaining = limiter.peek("a", 1, clock + 2 * 10**6).remaining
    assert 85 <= remaining < 100
    for left in range(remaining, 0, -1):
        assert limiter.hit("a", 1, clock + 3 * 10**6).remaining == left - 1
    assert not limiter.hit("a", 1, clock + 3 * 10**6).allowed


# ---- what a server refuses


def test_a_full_server_fails_the_command(client: redis.Redis, codec: Codec) -> None:
    client.flushall()
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        for algorithm in ALGORITHMS:
            plan = plan_of(codec, Quota(10, 60.0, algorithm=algorithm))
            with pytest.raises(redis.OutOfMemoryError):
                real(client, codec.batch(plan, HIT, [(b"sg:{l:a}", [1])]))
        plan = plan_of(codec, Quota(10, 60.0))
        with pytest.raises(redis.OutOfMemoryError):
            real(client, codec.call(CHANGE, [(plan, b"sg:{l:a}")], [plan.bytes, b"ban", b"\1" * 7]))
    finally:
        client.config_set("maxmemory", before)
    assert client.dbsize() == 0


# ---- several limiters


def test_hit_all_agrees_with_the_reference(server: Server) -> None:
    seed = int(os.environ.get("SLUICEGATE_SEED") or random.SystemRandom().getrandbits(48))
    print(f"SLUICEGATE_SEED={seed}")
    rng = random.Random(seed)
    for trace in range(12):
        clock = _core.Clock()
        trios = []
        for i in range(3):
            names = kinds(rng)
            trios.append(Trio(server, f"{trace}-{i}", row(rng, names), names, clock))
        for _ in range(40):
            chosen = rng.sample(trios, rng.randrange(1, 4))
            events = [(one, rng.choice("ab"), rng.choice((0, 1, 1, 2, 7))) for one in chosen]
            wanted, at = reference_hit_all(
                [(one.pair.model, key, cost) for one, key, cost in events], clock.ns
            )
            limiters = [one.server for one, _, _ in events]
            keys = [(one.server.plan, one.server.name(key)) for one, key, _ in events]
            arguments = []
            for limiter, (_, _, cost) in zip(limiters, events, strict=True):
                arguments += [limiter.plan.bytes, b"\0" + limiter.plan.row(limiter.row(cost))]
            *seen, charged, now = server.run(
                server.codec.call(ALL, keys, arguments), limiters[0].us(clock.ns)
            )
            assert bool(charged) == wanted.allowed
            limiter, (_, _, cost) = limiters[at], events[at]
            outcome = server.codec.answer(limiter.plan, HIT, limiter.row(cost), seen[at], now)
            assert outcome.decision._replace(shadow=wanted.shadow) == wanted
            for one in trios:  # the reference is ahead of the core in the trio: not compared
                for key in "ab":
                    peeked = one.server.peek(key, 1, clock.ns)
                    assert peeked == one.pair.model.peek(key, 1, clock.ns)
            clock.ns += rng.randrange(10**9) // 1000 * 1000


# ---- concurrency


def slots(
    server: Server, now_us: int, op: bytes, owner: bytes, ttl_us: int, numbers: dict[bytes, int]
) -> list[Any]:
    lib, command = server.codec.lib, server.codec.command
    lib.sg_command_begin(command, SLOTS, len(numbers))
    packed = b"".join(number.to_bytes(6, "little") for number in numbers.values())
    for word in (*numbers, op, owner.ljust(16, b"\0"), ttl_us.to_bytes(7, "little"), packed):
        lib.sg_command_argument(command, word, len(word))
    *reply, now = server.run(server.codec.words(), now_us)
    assert now == now_us
    return reply


def test_slots_are_taken_up_to_the_limit_and_given_back(server: Server) -> None:
    now, ttl = 10**12, 30 * SECOND_US

    def ask(op: bytes, owner: bytes, number: int = 0) -> Any:
        return slots(server, now, op, owner, ttl, {b"k": number})[0]

    assert [ask(b"acquire", owner, 3) for owner in (b"A", b"B", b"A")] == [1, 2, 3]
    assert ask(b"acquire", b"B", 3) == -4  # refused: three are held
    assert ask(b"acquire", b"B", 5) == 4
    assert ask(b"release", b"B", 1) == 3
    assert ask(b"release", b"C", 1) == 3  # it held none
    assert ask(b"release", b"A", 9) == 1  # not more than it held
    assert ask(b"count", b"C") == 1
    assert ask(b"leave", b"B") == 0
    assert server.client.exists("k") == 0


def test_slots_lapse_unless_they_are_renewed(server: Server) -> None:
    now, ttl = 10**12, 30 * SECOND_US
    for owner in (b"A", b"A", b"B"):
        slots(server, now, b"acquire", owner, ttl, {b"k": 9, b"l": 9})
    now += 20 * SECOND_US
    assert slots(server, now, b"renew", b"A", ttl, {b"k": 2, b"l": 2}) == [2, 2]
    now += 15 * SECOND_US
    assert slots(server, now, b"count", b"", ttl, {b"k": 0, b"l": 0}) == [2, 2]  # B's are gone
    assert slots(server, now, b"renew", b"B", ttl, {b"k": 1}) == [1]  # it was only cut off
    assert slots(server, now, b"count", b"", ttl, {b"k": 0}) == [3]
    now += 60 * SECOND_US
    assert slots(server, now, b"count", b"", ttl, {b"k": 0, b"l": 0}) == [0, 0]


def test_a_clock_that_steps_back_keeps_no_slot_for_longer_than_its_ttl(server: Server) -> None:
    ttl = 30 * SECOND_US
    slots(server, 10**12, b"acquire", b"A", ttl, {b"k": 9})
    now = 10**12 - 3600 * SECOND_US
    slots(server, now, b"acquire", b"B", 60 * SECOND_US, {b"k": 9})
    now += 45 * SECOND_US
    assert slots(server, now, b"count", b"", ttl, {b"k": 0}) == [1]


def test_slots_of_a_foreign_value_fail_alone(server: Server) -> None:
    server.client.set("k", "garbage")
    server.client.rpush("l", "x")
    reply = slots(server, 10**12, b"acquire", b"A", SECOND_US, {b"k": 1, b"l": 1, b"m": 1})
    assert reply == [b"!", b"!", 1]


# ---- names


def test_names_are_readable_and_keep_a_subject_together(codec: Codec) -> None:
    assert codec.name(b"sg", b"chat", b"user:42") == b"sg:{chat:user:42}"
    assert codec.name(b"sg", b"chat", "Zo\u00eb".encode()) == "sg:{chat:Zo\u00eb}".encode()
    assert codec.name(b"s:g", b"a:b{", b"x}%\n\xff") == b"s%3ag:{a%3ab%7b:x%7d%25%0a%ff}"
    assert codec.name(b"", b"chat", b"") == b":{chat:}"
    assert codec.name(b"sg", b"chat", b"#x") == b"sg:{chat:%23x}"
    long = codec.name(b"sg", b"chat", b"x" * 129)
    assert long.startswith(b"sg:{chat:#") and len(long) == len(b"sg:{chat:#}") + 32
    assert codec.name(b"sg", b"chat", b"x" * 128) == b"sg:{chat:" + b"x" * 128 + b"}"
    assert long[-33:] != codec.name(b"sh", b"chat", b"x" * 129)[-33:]


def test_no_two_share_a_name(codec: Codec) -> None:
    rng = random.Random(1)
    alphabet = [bytes([one]) for one in b":{}%#a3\0\xc3\xa9"] + [b"\xc3\xa9", b"\xed\xa0\x80"]
    names: dict[bytes, tuple[bytes, ...]] = {}
    for _ in range(20000):
        parts = tuple(b"".join(rng.choices(alphabet, k=rng.randrange(4))) for _ in range(3))
        name = codec.name(*parts)
        assert names.setdefault(name, parts) == parts
        name.decode()  # whatever they are, the name is text
        assert codec.slot(name) == codec.slot(name + b":log0")


def test_hash_slots_are_those_of_the_server(codec: Codec) -> None:
    for name, slot in ((b"123456789", 12739), (b"foo", 12182), (b"{foo}bar", 12182), (b"", 0)):
        assert codec.slot(name) == slot
    assert codec.slot(b"foo{}{bar}") == 8363 and codec.slot(b"foo{{bar}}zap") == 4015
    assert codec.slot(b"foo{bar}{zap}") == codec.slot(b"bar")
