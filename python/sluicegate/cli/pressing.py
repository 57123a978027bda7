"""Pressing a limit with real WebSockets: the engine of `sluicegate flood`.

The rate is that of all connections together. Message k is due k/rate seconds after the
start, whatever came of the others; they take turns over the connections. A sender that
was held up sends what is due at once and falls back into step, and never sends early.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)

from .replies import Judge, Verdict

OPENING_AT_ONCE = 64
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.5
REASONS_KEPT = 20
NO_CLOSE_FRAME = 1006


@dataclass(frozen=True)
class Plan:
    """What to do."""

    url: str
    rate: float  # messages a second, all connections together
    connections: int
    seconds: float
    frame: Callable[[int], str]  # the k-th message
    judge: Judge
    grace: float = 2.0  # seconds to wait for the last replies
    sources: Sequence[str] = ()  # local addresses, dealt to connections in turn

    @property
    def messages(self) -> int:
        """How many messages are due in all."""
        return math.ceil(self.rate * self.seconds - 1e-9)

    @property
    def step(self) -> float:
        """Seconds of one point of the series."""
        return max(0.1, self.seconds / 100)


@dataclass
class Tally:
    """What came of it, kept up to date while it runs."""

    step: float
    sent: int = 0
    admitted: int = 0
    refused: int = 0
    errors: int = 0
    opened: int = 0
    open: int = 0
    elapsed: float = 0.0  # seconds of pressing
    interrupted: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    closed: Counter[int] = field(default_factory=Counter)  # by the server, by close code
    not_opened: Counter[str] = field(default_factory=Counter)  # by HTTP status or error
    sent_at: list[int] = field(default_factory=list)
    admitted_at: list[int] = field(default_factory=list)
    refused_at: list[int] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Messages that had a reply."""
        return self.admitted + self.refused + self.errors

    def count(self, row: list[int], seconds: float) -> None:
        """One event in a series, `seconds` after the start."""
        index = int(seconds / self.step)
        if index >= len(row):
            row.extend([0] * (index + 1 - len(row)))
        row[index] += 1


class NobodyThereError(Exception):
    """No connection could be opened; the text says why and what to do."""


class _Press:
    def __init__(self, plan: Plan, tally: Tally, stop: asyncio.Event) -> None:
        self.plan = plan
        self.tally = tally
        self.stop = stop
        self.start = 0.0
        self.all_answered = asyncio.Event()
        self.done_sending = False

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def open(self, index: int, gate: asyncio.Semaphore) -> ClientConnection | None:
        sources = self.plan.sources
        where: dict[str, Any] = {}
        if sources:
            where["local_addr"] = (sources[index % len(sources)], 0)
        async with gate:
            if self.stop.is_set():
                return None
            try:
                connection = await connect(
                    self.plan.url,
                    open_timeout=OPEN_SECONDS,
                    close_timeout=CLOSE_SECONDS,
                    compression=None,
                    max_size=2**24,
                    **where,
                )
            except InvalidStatus as error:
                self.tally.not_opened[f"HTTP {error.response.status_code}"] += 1
            except InvalidMessage:
                self.tally.not_opened["no answer in HTTP"] += 1
            except TimeoutError:
                self.tally.not_opened["no answer in time"] += 1
            except InvalidHandshake as error:
                self.tally.not_opened[type(error).__name__] += 1
            except OSError as error:
                self.tally.not_opened[_os_words(error)] += 1
            else:
                self.tally.opened += 1
                self.tally.open += 1
                return connection
        return None

    async def send(self, index: int, connection: ClientConnection) -> None:
        plan, tally = self.plan, self.tally
        for k in range(index, plan.messages, plan.connections):
            wait = self.start + k / plan.rate - self.now()
            if wait > 0:
                await asyncio.sleep(wait)
            if self.stop.is_set():
                return
            try:
                await connection.send(plan.frame(k))
            except ConnectionClosed:
                return
            tally.sent += 1
            tally.count(tally.sent_at, self.now() - self.start)

    async def receive(self, connection: ClientConnection) -> None:
        tally = self.tally
        try:
            while True:
                verdict, reason = self.plan.judge(await connection.recv())
                if verdict is Verdict.OTHER:
                    continue
                at = max(0.0, self.now() - self.start) if self.start else 0.0
                if verdict is Verdict.ADMITTED:
                    tally.admitted += 1
                    tally.count(tally.admitted_at, at)
                elif verdict is Verdict.REFUSED:
                    tally.refused += 1
                    tally.count(tally.refused_at, at)
                else:
                    tally.errors += 1
                if reason and (reason in tally.reasons or len(tally.reasons) < REASONS_KEPT):
                    tally.reasons[reason] += 1
                if self.done_sending and tally.answered >= tally.sent:
                    self.all_answered.set()
        except ConnectionClosed as error:
            # Only what the server did on its own counts, not the answer to our closing.
            if error.rcvd_then_sent is not False:
                tally.closed[error.rcvd.code if error.rcvd else NO_CLOSE_FRAME] += 1
        finally:
            tally.open -= 1


def _os_words(error: OSError) -> str:
    # asyncio joins the errors of all addresses of a name into one without a number.
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return (error.strerror or str(error) or type(error).__name__)[:80]


async def press(plan: Plan, tally: Tally, stop: asyncio.Event) -> None:
    """Run the plan; `tally` fills as it goes, and setting `stop` ends it early.

    Raises NobodyThereError when no connection could be opened.
    """
    run = _Press(plan, tally, stop)
    gate = asyncio.Semaphore(OPENING_AT_ONCE)
    opening = [asyncio.ensure_future(run.open(i, gate)) for i in range(plan.connections)]
    receivers: list[asyncio.Task[None]] = []
    senders: list[asyncio.Task[None]] = []
    connections: list[ClientConnection] = []
    stopped = asyncio.ensure_future(stop.wait())
    try:
        opened = await asyncio.gather(*opening)
        connections = [one for one in opened if one is not None]
        if not connections:
            if stop.is_set():
                return
            raise NobodyThereError(_nobody(plan, tally))
        receivers = [asyncio.ensure_future(run.receive(one)) for one in connections]
        run.start = run.now()
        senders = [
            asyncio.ensure_future(run.send(i, one))
            for i, one in enumerate(opened)
            if one is not None
        ]
        everybody_left = asyncio.gather(*receivers, return_exceptions=True)
        sending = asyncio.gather(*senders, return_exceptions=True)
        waited: set[asyncio.Future[Any]] = {sending, everybody_left, stopped}
        # A peer that stops reading holds a sender; the deadline does not wait for it.
        await asyncio.wait(
            waited,
            timeout=plan.seconds + plan.grace,
            return_when=asyncio.FIRST_COMPLETED,
        )
        tally.elapsed = run.now() - run.start
        await _last_replies(run, everybody_left)
    finally:
        await _end([*opening, *senders, stopped])
        await _close(connections)
        await _end(receivers)


async def _last_replies(run: _Press, everybody_left: asyncio.Future[Any]) -> None:
    run.done_sending = True
    if run.tally.answered >= run.tally.sent:
        return
    answered = asyncio.ensure_future(run.all_answered.wait())
    waited: set[asyncio.Future[Any]] = {answered, everybody_left}
    await asyncio.wait(
        waited,
        timeout=run.plan.grace,
        return_when=asyncio.FIRST_COMPLETED,
    )
    await _end([answered])


async def _close(connections: Sequence[ClientConnection]) -> None:
    if not connections:
        return
    closing = [asyncio.ensure_future(one.close()) for one in connections]
    await asyncio.wait(closing, timeout=CLOSE_SECONDS + 0.5)
    # A close waits behind what the peer does not read, however long.
    for task, connection in zip(closing, connections, strict=True):
        if not task.done():
            connection.transport.abort()
    await asyncio.gather(*closing, return_exceptions=True)


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _nobody(plan: Plan, tally: Tally) -> str:
    why = ", ".join(sorted(tally.not_opened)) or "no reason given"
    if "connection refused" in tally.not_opened:
        advice = "nothing listens there: start the server first, for instance `sluicegate demo`"
    elif any(reason in ("HTTP 403", "HTTP 404") for reason in tally.not_opened):
        advice = "is the path right? The demo's chat is at /chat"
    elif "HTTP 429" in tally.not_opened:
        advice = "the server limits connections: wait, or ask for fewer with --connections"
    else:
        advice = "is this a WebSocket server, and the address right?"
    stop = "" if advice.endswith("?") else "."
    return f"no connection to {plan.url} could be opened ({why}); {advice}{stop}"
