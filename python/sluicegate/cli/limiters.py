"""The limiters that a server knows, and what the commands do to their keys."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sluicegate import _core, elsewhere
from sluicegate.errors import StoreError
from sluicegate.observe import escape_key, unescape_key
from sluicegate.stores import MemoryStore, open_store

from .explain import quota_text
from .words import duration

if TYPE_CHECKING:
    from sluicegate.stores.redis import RedisStore
    from sluicegate.stores.registered import Registered

__all__ = [
    "Found",
    "Looked",
    "key_command",
    "labels",
    "limiters_named",
    "nothing_known",
    "quotas_in_words",
    "rounded",
    "run",
    "shown",
    "standing",
    "store_option",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LOOK = 1  # of elsewhere.PEEK: what remains of each quota, too
PLACES_TTL = 30.0  # seconds; a count renews nothing, so that any will do


def as_key(ctx: click.Context, param: click.Parameter, value: str) -> bytes:
    """The callback of an argument that is a key as the commands show it: any bytes, escaped."""
    try:
        return unescape_key(os.fsencode(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def store_option(command: F) -> F:
    """`--store URL`, or $SLUICEGATE_STORE."""
    return click.option(
        "--store",
        "url",
        envvar="SLUICEGATE_STORE",
        metavar="URL",
        help="Where the limiters are, as redis://localhost?prefix=sg. A URL with a password is "
        "better kept out of the command line: the variable is $SLUICEGATE_STORE.",
    )(command)


def key_command(command: F) -> F:
    """The arguments of what is done to one key of a limiter."""
    for add in (
        store_option,
        click.argument("key", callback=as_key, metavar="KEY"),
        click.argument("limiter", metavar="LIMITER"),
    ):
        command = add(command)
    return command


@dataclass(frozen=True)
class Looked:
    """How a key stands with a limiter now."""

    decision: _core.Decision  # of an event that costs `cost`
    cost: int
    after: tuple[int | None, ...]  # what would remain of each quota; None: it does not limit

    @property
    def banned(self) -> bool:
        """Refused without a quota: for as long as `retry_after` says."""
        return not self.decision.allowed and self.decision.quota is None

    @property
    def remaining(self) -> tuple[int | None, ...]:
        """What each quota has left now."""
        charged = self.cost if self.decision.allowed else 0
        return tuple(None if after is None else after + charged for after in self.after)


class Found:
    """A limiter of the server. Its numbers are those that it was last told of."""

    def __init__(self, store: RedisStore, known: Registered) -> None:
        self.name = known.name
        self.known = known
        self._store = store
        self._limiter: _core.Limiter | None = None
        if known.quotas:
            # a place without a quota has its algorithm all the same
            shape = [
                quota or _core.Quota(1, 1, algorithm=algorithm)
                for quota, algorithm in zip(known.quotas, known.algorithms, strict=True)
            ]
            self._limiter = _core.Limiter(store.table(known.name, shape), known.quotas)
            self._limiter._serve(store.server(known.name), "raise", store.timeout)

    @property
    def has_quotas(self) -> bool:
        """Whether its keys can be reset and banned; slots are given back, and cannot."""
        return self._limiter is not None

    async def look(self, key: bytes, cost: int = 1) -> Looked | None:
        """What an event of that cost would come to; charges nothing. None: it counts slots."""
        if self._limiter is None:
            return None
        found = await elsewhere.answer(
            self._limiter._ask(elsewhere.PEEK, key, cost, None, 60.0, LOOK)
        )
        return Looked(found[0], cost, found[2])

    async def held(self, key: bytes) -> int | None:
        """How many slots of the key are held; None: it has no slots."""
        if self.known.slots is None:
            return None
        return await self._store.held(self.name, PLACES_TTL).count(key)

    async def change(self, operation: str, key: bytes, argument: Any = None) -> None:
        """reset, ban, unban. StoreError."""
        assert self._limiter is not None
        await elsewhere.change(self._limiter, operation, key, argument)


async def limiters_named(store: RedisStore, name: str) -> list[Found]:
    """That limiter, or all parts of it: those of a WebSocketRateLimiter "chat" are called
    "chat.messages" and so on, those of a backend "asgi" "asgi:minute"."""
    listed = await store.limiters()
    found = [one for one in listed if one.name == name] or [
        one for one in listed if one.name.startswith((f"{name}.", f"{name}:"))
    ]
    if found:
        return [Found(store, one) for one in found]
    names = [shown(one.name) for one in listed]
    asked = escape_key(os.fsencode(name))
    if not names:
        raise click.ClickException(f"{nothing_known(store)}, so there is no {asked!r}.")
    near = difflib.get_close_matches(asked, names, 1)
    raise click.ClickException(
        f"there is no limiter {asked!r} in {store.settings.where()} under the prefix "
        f"{store.prefix!r}{f'; did you mean {near[0]!r}?' if near else '.'} "
        f"There {'are' if len(names) > 1 else 'is'} {', '.join(names)}."
    )


def nothing_known(store: RedisStore) -> str:
    """Why a server may know no limiter."""
    return (
        f"no limiter is known in {store.settings.where()} under the prefix {store.prefix!r} "
        "(a process tells of its limiters a few seconds after their first check, and is "
        "forgotten a minute after its end; another prefix is given as ?prefix=)"
    )


def run(url: str | None, work: Callable[[RedisStore], Coroutine[Any, Any, T]]) -> T:
    """What `work` comes to with the store of a command; errors in words."""
    if not url:
        raise click.UsageError(
            "which store? Say --store redis://localhost:6379/0, or set SLUICEGATE_STORE."
        )
    try:
        store = open_store(url)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    if isinstance(store, MemoryStore):
        raise click.ClickException(
            "memory:// is the memory of the process that limits, which no other can look into; "
            "the commands are for redis:// and valkey://."
        )

    async def opened() -> T:
        async with store:
            return await work(store)

    try:
        return asyncio.run(opened())
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def quotas_in_words(known: Registered) -> str:
    """What a limiter holds its keys to."""
    words = [quota_text(quota) for quota in known.quotas if quota is not None]
    if known.slots is not None:
        words.append(f"{known.slots} at once" if known.slots else "places of connections")
    said = "; ".join(words) or "unlimited"
    return f"{said} (and other numbers under this name)" if known.various else said


def standing(looked: Looked) -> str:
    """How a key stands, in a few words."""
    decision = looked.decision
    after = decision.retry_after
    again = "never" if isinf(after) else f"in {rounded(after)}"
    if decision.allowed:
        return "admitted"
    return f"banned, ends {again}" if looked.banned else f"refused, again {again}"


def rounded(seconds: float) -> str:
    """A time of three digits at most, in words."""
    return duration(float(f"{seconds:.3g}"))


def shown(name: str) -> str:
    """The name of a limiter, escaped as keys are."""
    return escape_key(name.encode("utf-8", "surrogatepass"))


def labels(known: Registered) -> Sequence[str]:
    """What each quota is called in a list."""
    return ["" if quota is None else (quota.name or quota_text(quota)) for quota in known.quotas]
