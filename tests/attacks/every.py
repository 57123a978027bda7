"""All attacks, as rows of a table: tests/bench/attacks.py makes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attacks import addresses, frames, handshakes, headers
from attacks.target import Found, Target, target

NEVER = "-"  # the middleware never hears of it

Counts = Callable[[Found], tuple[str, str]]


def many(how: str) -> Callable[[Target], Awaitable[Found]]:
    return lambda target: frames.many(target, how)


def spoofing(path: str, made: Callable[[], Iterator[str]]) -> Callable[[Target], Awaitable[Any]]:
    return lambda target: addresses.spoofing(target, path, made())


def of(limiter: str) -> Counts:
    """What a limiter counted."""
    return lambda found: (
        f"{found.took(limiter):,}",
        f"{found.took(limiter, 'refused'):,}",
    )


def delayed(found: Found) -> tuple[str, str]:
    return f"{found.took('messages'):,}", "the rest waits"


def by_size(found: Found) -> tuple[str, str]:
    refused = sum(code == 1009 for code in found.closed)
    return f"{found.counts.get('/ws/size', 0):,}", f"{refused:,} (1009)"


def places(found: Found) -> tuple[str, str]:
    admitted = found.counts["/ws/held open"]
    return f"{admitted:,}", f"{found.sent - admitted:,}"


def one(found: Found) -> tuple[str, str]:
    return f"{found.took('messages'):,}", "0"


def everything(found: Found) -> tuple[str, str]:
    return f"{found.counts['/ws/free']:,}", "0"


def nothing(found: Found) -> tuple[str, str]:
    return NEVER, NEVER


@dataclass(frozen=True)
class Attack:
    what: str
    sent: str
    run: Callable[[Target], Awaitable[Any]]
    counts: Counts = nothing
    options: tuple[str, ...] = ()  # of uvicorn
    ws: str = "websockets-sansio"


@dataclass(frozen=True)
class Row:
    what: str
    sent: str
    admitted: str
    refused: str
    pause: float  # seconds
    busy: float  # of them the processor's
    memory: int  # bytes


LARGE = 15 << 20
SMALL = ("--ws-max-size", "65536")
QUICK = ("--ws-ping-interval", "1", "--ws-ping-timeout", "1")
FRAMES = f"{frames.FRAMES:,} messages of one byte"
PIECES = f"one message in {frames.FRAMES:,} pieces"
PINGS = f"{frames.FRAMES:,} pings of 125 bytes"
REQUESTS = f"{addresses.REAL:,} requests, each"

EVERY = (
    Attack("none", "a well-behaved client alone", handshakes.calm),
    Attack("frames, `drop`", FRAMES, many("drop"), of("messages")),
    Attack("frames, `notify`", FRAMES, many("notify"), of("messages")),
    Attack("frames, `close`", FRAMES, many("close"), of("messages")),
    Attack("frames, `delay`", FRAMES, frames.held_back, delayed, QUICK),
    Attack("frames, no rule (to compare)", FRAMES, frames.unlimited, everything),
    Attack(
        "frames, `drop`, wsproto",
        FRAMES,
        many("drop"),
        of("messages"),
        ws="wsproto",
    ),
    Attack("fragments", f"{PIECES} of a byte", lambda target: frames.pieces(target, b"x"), by_size),
    Attack("empty fragments", f"{PIECES} of none", lambda target: frames.pieces(target, b""), one),
    Attack(
        "empty fragments, wsproto",
        f"{PIECES} of none",
        lambda target: frames.pieces(target, b""),
        one,
        ws="wsproto",
    ),
    Attack(
        "huge messages", "4 of 15 MB at once", lambda target: frames.huge(target, LARGE), by_size
    ),
    Attack(
        "huge messages, `--ws-max-size 65536`",
        "the same",
        lambda target: frames.huge(target, LARGE),
        by_size,
        SMALL,
    ),
    Attack(
        "compressed huge messages",
        "4 of 15 MB at once, in 15 KB each",
        lambda target: frames.bombs(target, LARGE),
        by_size,
    ),
    Attack(
        "compressed, `--ws-max-size 65536`",
        "the same",
        lambda target: frames.bombs(target, LARGE),
        by_size,
        SMALL,
    ),
    Attack(
        "compressed, `--ws-max-size 65536`, wsproto",
        "the same",
        lambda target: frames.bombs(target, LARGE),
        by_size,
        SMALL,
        "wsproto",
    ),
    Attack("pings", PINGS, frames.pings),
    Attack(
        "pings, no pong read",
        f"{frames.UNREAD:,} pings of 125 bytes",
        lambda target: frames.unread_pings(target, frames.UNREAD),
    ),
    Attack(
        "pings, no pong read, `--ws-ping-interval 1 --ws-ping-timeout 1`",
        "pings of 125 bytes without end",
        lambda target: frames.unread_pings(target, frames.ENDLESS),
        options=QUICK,
    ),
    Attack(
        "slowloris",
        f"{handshakes.SLOW:,} handshakes that never end, a line every 0.1 s",
        handshakes.slowloris,
    ),
    Attack(
        "half frames, `--ws-ping-interval 1 --ws-ping-timeout 1`",
        f"the head of a message on {handshakes.HALF} connections",
        handshakes.half_frames,
        options=QUICK,
    ),
    Attack(
        "handshakes, `connections=`",
        f"{handshakes.MANY:,} handshakes, 50 at a time",
        lambda target: handshakes.flood(target, "/ws/many"),
        of("connections"),
    ),
    Attack(
        "handshakes, `concurrent=3`",
        f"{handshakes.MANY:,} handshakes, 50 at a time",
        lambda target: handshakes.flood(target, "/ws/held"),
        places,
    ),
    Attack(
        "spoofed addresses, peer not trusted",
        f"{REQUESTS} with another `X-Forwarded-For`",
        spoofing("/direct", addresses.spoofed),
        of("direct"),
    ),
    Attack(
        "spoofed addresses, through a trusted proxy",
        f"{REQUESTS} of another address",
        spoofing("/", addresses.spoofed),
        of("requests"),
    ),
    Attack(
        "addresses of one IPv6 /64, through a trusted proxy",
        f"{REQUESTS} of another address",
        spoofing("/", addresses.of_one_subscriber),
        of("requests"),
    ),
    Attack(
        "long headers",
        f"{headers.REQUESTS:,} requests of 60 KB of `X-Forwarded-For` and `Forwarded`",
        headers.worst,
        of("requests"),
    ),
    Attack("endless headers", "one request whose headers do not end", headers.endless),
)

PROXY = ("127.0.0.0/8",)
MILLION = (
    ("a million spoofed addresses, peer not trusted", addresses.spoofed, ()),
    ("a million spoofed addresses, through a trusted proxy", addresses.spoofed, PROXY),
    ("a million of one IPv6 /64, through a trusted proxy", addresses.of_one_subscriber, PROXY),
)
CALLS = "calls of the middleware, without a server"


async def rows() -> Any:
    """Attacks each in turn, on a server of its own."""
    for attack in EVERY:
        async with target(*attack.options, ws=attack.ws) as server:
            found = await attack.run(server)
        found = found[0] if isinstance(found, tuple) else found
        measured = found.pause, found.busy, found.most
        yield Row(attack.what, attack.sent, *attack.counts(found), *measured)
    for what, made, proxies in MILLION:
        calls = await addresses.million(made(), proxies)
        counts = f"{calls.admitted:,}", f"{addresses.MILLION - calls.admitted:,}"
        measured = calls.slowest, calls.busiest, max(0, calls.grown)
        yield Row(what, CALLS, *counts, *measured)


def named() -> Iterator[str]:
    """What the rows are of."""
    yield from (attack.what for attack in EVERY)
    yield from (what for what, *_ in MILLION)
